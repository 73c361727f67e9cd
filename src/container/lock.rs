//! The lock of a container: one command at a time changes it. Who holds it for long hangs, in a hook most likely.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::wait;
use crate::error::{Context, Error, Result};
use crate::sys;

/// How long a killed process may take to let go, in seconds.
const PATIENCE: i64 = 10;

/// Takes the lock on a directory; false where another has it for as long as `patience`.
pub(super) fn try_for(dir: &OwnedFd, patience: Duration) -> Result<bool> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            done => return done.map(|()| true).context(|| "cannot lock it"),
        }
        if begin.elapsed() >= patience {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The process that has the lock, as far as this pid namespace shows it.
pub(super) fn holder(dir: &OwnedFd) -> Option<i32> {
    let stat = rustix::fs::fstat(dir).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    find(&std::fs::read_to_string("/proc/locks").ok()?, &format!("{major:02x}:{minor:02x}:{}", stat.st_ino))
}

/// The owner of the flock(2) lock on `file`, a device and inode in the form of /proc/locks.
fn find(locks: &str, file: &str) -> Option<i32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        // One that waits has an arrow here.
        (fields.next()? == "FLOCK").then_some(())?;
        let pid = fields.nth(2)?.parse().ok()?;
        (fields.next()? == file && pid > 0).then_some(pid)
    })
}

/// Whether a process has the directory open.
fn has_open(pid: i32, dir: &OwnedFd) -> bool {
    let Ok(wanted) = rustix::fs::fstat(dir) else { return false };
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten()
        .any(|fd| rustix::fs::stat(fd.path()).is_ok_and(|s| (s.st_dev, s.st_ino) == (wanted.st_dev, wanted.st_ino)))
}

/// Kills the process that has the lock, if that is still `pid`.
pub(super) fn end_holder(dir: &OwnedFd, pid: i32) -> Result<()> {
    let process = match wait::open(pid) {
        Err(e) if e.errno() == libc::ESRCH => return Ok(()),
        process => process?,
    };
    // Looked at after opening. /proc/locks keeps the pid of who took the lock, which may be another process by now.
    if holder(dir) != Some(pid) || !has_open(pid, dir) {
        return Ok(());
    }
    match sys::pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
        Err(e) if e.errno() == libc::ESRCH => return Ok(()),
        done => done.context(|| format!("cannot kill process {pid}"))?,
    }
    if wait::ended_within(&process, PATIENCE)? {
        return Ok(());
    }
    Err(Error::new(format!("process {pid} does not end after SIGKILL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1a:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:1a:76 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 00:1a:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 00:1a:77 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 00:1a:78 0 EOF\n";
        assert_eq!(find(locks, "00:1a:77"), Some(13));
        assert_eq!(find(locks, "00:1a:78"), None, "of another pid namespace");
        assert_eq!(find(locks, "00:1a:79"), None);
        assert_eq!(find("garbage\n", "00:1a:79"), None);
    }
}
