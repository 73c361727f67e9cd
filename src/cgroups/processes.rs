//! The processes of a cgroup: counting, ending, and the removal of the directories when they are gone.
//!
//! A container may nest cgroups as deep as it likes, so the walks hold two descriptors at most and no long paths.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::{Cgroup, files};
use crate::error::{Error, Result};
use crate::sys;

/// How long processes may take to end after SIGKILL: one in the middle of a large exit or of slow I/O needs a while.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the kernel may take to forget processes that end by themselves.
const ENDING: Duration = Duration::from_secs(2);

/// Calls `visit` with the directory at `top` and with all below it. What vanishes meanwhile is passed over.
fn walk(top: OwnedFd, mut visit: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>) -> Result<(), Errno> {
    visit(top.as_fd())?;
    let mut todo = vec![files::children(top.as_fd())?];
    let mut here = top;
    while let Some(names) = todo.last_mut() {
        let Some(name) = names.pop() else {
            todo.pop();
            if !todo.is_empty() {
                here = open_below(&here, c"..")?;
            }
            continue;
        };
        let child = open_below(&here, &name);
        let seen =
            child.and_then(|child| visit(child.as_fd()).and_then(|()| Ok((files::children(child.as_fd())?, child))));
        match seen {
            Ok((names, child)) => {
                todo.push(names);
                here = child;
            }
            Err(Errno::NOENT | Errno::NODEV) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn open_below(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    files::open_file(dir, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// The pids in the cgroup at `path` and below. A directory that is gone has none.
pub(super) fn pids_at(path: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    let result = files::open_dir(path).and_then(|top| {
        walk(top, |dir| {
            let table = files::open_file(dir, "cgroup.procs", OFlags::RDONLY)?;
            let text = match files::read_all(table.as_fd()) {
                // Threads that are spread over cgroups are only listed one by one.
                Err(Errno::OPNOTSUPP) => {
                    files::read_all(files::open_file(dir, "cgroup.threads", OFlags::RDONLY)?.as_fd())?
                }
                other => other?,
            };
            // 0 stands for a process of a pid namespace that the caller does not see.
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0));
            Ok(())
        })
    });
    match result {
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(pids),
        Err(e) => Err(files::cannot_read(e, path, "cgroup.procs")),
    }
}

/// See [`Cgroup::pids`].
pub(super) fn pids(cgroup: &Cgroup) -> Result<Vec<i32>> {
    // Every process is in every hierarchy; the freezer's is the one that a container has the least use for.
    let dir = cgroup.dirs.iter().find(|dir| dir.has("freezer")).or(cgroup.dirs.first());
    dir.map_or(Ok(Vec::new()), |dir| pids_at(&dir.directory()))
}

/// See [`Cgroup::populated`].
pub(super) fn populated(cgroup: &Cgroup) -> Result<bool> {
    let Some(dir) = cgroup.v2().filter(|_| cgroup.unified) else {
        return Ok(!pids(cgroup)?.is_empty());
    };
    let path = dir.directory();
    match files::open_dir(&path).and_then(|fd| files::read(fd, "cgroup.events")) {
        Ok(text) => Ok(files::value(&text, "populated") == Some("1")),
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(e) => Err(files::cannot_read(e, &path, "cgroup.events")),
    }
}

/// See [`Cgroup::kill`].
pub(super) fn kill(cgroup: &Cgroup, signal: i32) -> Result<()> {
    if signal == libc::SIGKILL
        && let Some(dir) = cgroup.v2()
    {
        match files::open_dir(&dir.directory()).and_then(|fd| files::write(fd, "cgroup.kill", "1")) {
            Ok(()) if cgroup.unified => return Ok(()),
            // A process that the freezer of v1 holds dies only when it is let go; one that has left the v2 hierarchy is
            // in the others still.
            Ok(()) => {
                cgroup.thaw()?;
                return signal_all(cgroup, signal, true);
            }
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => {}
            Err(e) => return Err(files::cannot_write(e, &dir.directory(), "cgroup.kill", "1")),
        }
    }
    // Standing processes have no children that the signal would miss.
    let was_frozen = cgroup.frozen().unwrap_or(false);
    let frozen = was_frozen || cgroup.freeze().is_ok();
    let sent = signal_all(cgroup, signal, !frozen);
    if frozen && (!was_frozen || signal == libc::SIGKILL) {
        cgroup.thaw()?;
    }
    sent
}

/// Sends a signal to each process; with `again` also to those that appeared meanwhile. Where one may not be signalled,
/// the others are all the same, and that is the error.
fn signal_all(cgroup: &Cgroup, signal: i32, again: bool) -> Result<()> {
    let mut done = BTreeSet::new();
    let mut first = None;
    loop {
        let new: Vec<i32> = pids(cgroup)?.into_iter().filter(|pid| done.insert(*pid)).collect();
        for &pid in &new {
            if let Err(e) = send(pid, signal) {
                first.get_or_insert(e);
            }
        }
        if new.is_empty() || !again {
            return first.map_or(Ok(()), Err);
        }
    }
}

/// Sends a signal, also one of the real-time kind; a process that has ended is no fault.
fn send(pid: i32, signal: i32) -> Result<()> {
    let Some(pidfd) = open_process(pid) else { return Ok(()) };
    match sys::pidfd::send_signal(pidfd.as_fd(), signal) {
        Err(e) if e.errno() != libc::ESRCH => Err(e.context(format!("cannot send signal {signal} to process {pid}"))),
        _ => Ok(()),
    }
}

fn open_process(pid: i32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// See [`Cgroup::remove`].
pub(super) fn remove(cgroup: &Cgroup, kill: bool) -> Result<()> {
    let deadline = Instant::now() + if kill { PATIENCE } else { ENDING };
    let mut killed = kill.then(BTreeSet::new);
    let mut first = None;
    for dir in cgroup.dirs.iter().rev() {
        if let Err(e) = remove_dir(cgroup, &dir.directory(), killed.as_mut(), deadline) {
            first.get_or_insert(e);
        }
    }
    first.map_or(Ok(()), Err)
}

/// Removes one directory, in the common case by one system call. `killed` has those that were killed already; without it
/// nothing is killed.
fn remove_dir(cgroup: &Cgroup, path: &Path, mut killed: Option<&mut BTreeSet<i32>>, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    let mut emptied = false;
    loop {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            // A read-only mount says so even where there is nothing to remove.
            Err(Errno::ROFS) if !path.exists() => return Ok(()),
            Err(e) => return Err(cannot_remove(e, path)),
        }
        // Where nothing is killed, what is below goes only once no process is left that it could be of.
        let spared = killed.is_none() && !pids_at(path)?.is_empty();
        let below = if spared { Err(Errno::BUSY) } else { files::open_dir(path).and_then(remove_below) };
        // Where cgroups appear again and again, somebody makes them.
        if below == Ok(true) && !emptied {
            emptied = true;
            continue;
        }
        let left = pids_at(path)?;
        if Instant::now() >= deadline {
            let e = cannot_remove(below.err().unwrap_or(Errno::BUSY), path);
            let list: Vec<_> = left.iter().take(10).map(i32::to_string).collect();
            let whose =
                if killed.is_some() { "processes left" } else { "it has processes that are not of this container" };
            return Err(if list.is_empty() { e } else { e.hint(format!("{whose}: {}", list.join(", "))) });
        }
        // `exec` may bring more in meanwhile.
        if let Some(killed) = killed.as_deref_mut()
            && left.iter().any(|pid| !killed.contains(pid))
        {
            killed.extend(&left);
            kill(cgroup, libc::SIGKILL)?;
        }
        match left.first() {
            Some(&pid) => wait_end(pid, deadline.min(Instant::now() + pause)),
            None => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn cannot_remove(errno: Errno, path: &Path) -> Error {
    Error::from_errno(errno.raw_os_error(), format!("cannot remove cgroup {}", path.display()))
}

/// Removes the cgroups below a directory. Whether there were any; EBUSY where one has processes, or is filled anew.
fn remove_below(top: OwnedFd) -> Result<bool, Errno> {
    let mut here = top;
    // With each name, whether what is below it has been removed.
    let children = |dir: &OwnedFd| Ok(files::children(dir.as_fd())?.into_iter().map(|name| (name, false)).collect());
    let mut todo: Vec<Vec<_>> = vec![children(&here)?];
    if todo[0].is_empty() {
        return Ok(false);
    }
    while let Some(names) = todo.last_mut() {
        let Some((name, emptied)) = names.pop() else {
            todo.pop();
            if !todo.is_empty() {
                here = open_below(&here, c"..")?;
            }
            continue;
        };
        match rustix::fs::unlinkat(&here, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::BUSY | Errno::NOTEMPTY) if !emptied => {
                let child = match open_below(&here, &name) {
                    Err(Errno::NOENT) => continue,
                    other => other?,
                };
                let below = children(&child)?;
                if below.is_empty() {
                    return Err(Errno::BUSY);
                }
                // Its turn comes again when it is empty.
                names.push((name, true));
                todo.push(below);
                here = child;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Waits until a process ends, or until the time is over.
fn wait_end(pid: i32, until: Instant) {
    let Some(pidfd) = open_process(pid) else { return };
    let left = until.saturating_duration_since(Instant::now());
    let _ = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Timespec::try_from(left).ok().as_ref());
}
