//! Stopping and continuing all processes of a cgroup.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Cgroup, Dir, files};
use crate::error::{Error, Result};

/// How long the processes may take to stand.
const PATIENCE: Duration = Duration::from_secs(10);

/// The directory whose freezer is used: that of v1 where it is mounted.
pub(super) fn freezer(cgroup: &Cgroup) -> Option<&Dir> {
    cgroup.dirs.iter().find(|dir| dir.has("freezer")).or(cgroup.v2())
}

fn needed(cgroup: &Cgroup) -> Result<&Dir> {
    freezer(cgroup).ok_or_else(|| Error::new("cannot toggle freezer: cgroups not configured for container"))
}

/// See [`Cgroup::freeze`]. What cannot be frozen in time is let go again: half of a container standing is worse.
pub(super) fn freeze(cgroup: &Cgroup) -> Result<()> {
    let dir = needed(cgroup)?;
    let result = if dir.is_v2() { freeze_v2(dir) } else { freeze_v1(dir) };
    if result.is_err() {
        let _ = thaw(cgroup);
    }
    result
}

/// See [`Cgroup::thaw`].
pub(super) fn thaw(cgroup: &Cgroup) -> Result<()> {
    let dir = needed(cgroup)?;
    let (file, value) = if dir.is_v2() { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
    let path = dir.directory();
    match files::open_dir(&path).and_then(|fd| files::write(fd, file, value)) {
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(e) => Err(files::cannot_write(e, &path, file, value)),
    }
}

/// See [`Cgroup::frozen`].
pub(super) fn frozen(cgroup: &Cgroup) -> Result<bool> {
    let Some(dir) = freezer(cgroup) else { return Ok(false) };
    let path = dir.directory();
    let file = if dir.is_v2() { "cgroup.freeze" } else { "freezer.state" };
    match files::open_dir(&path).and_then(|fd| files::read(fd, file)) {
        // FREEZING counts: the processes will stand, and only a resume lets them go.
        Ok(state) => Ok(!matches!(state.trim_end(), "0" | "THAWED")),
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(e) => Err(files::cannot_read(e, &path, file)),
    }
}

/// Freezes and waits for the kernel's word that all processes stand.
fn freeze_v2(dir: &Dir) -> Result<()> {
    let path = dir.directory();
    let fd = files::open_dir(&path).map_err(|e| files::cannot_write(e, &path, "cgroup.freeze", "1"))?;
    let events = files::open_file(&fd, "cgroup.events", OFlags::RDONLY)
        .map_err(|e| files::cannot_read(e, &path, "cgroup.events"))?;
    files::write(&fd, "cgroup.freeze", "1").map_err(|e| files::cannot_write(e, &path, "cgroup.freeze", "1"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = files::read_fd(events.as_fd()).map_err(|e| files::cannot_read(e, &path, "cgroup.events"))?;
        if files::value(&text, "frozen") == Some("1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(stuck(dir));
        }
        // The kernel reports each change of the file, also one between the read and this call.
        let wait = Timespec::try_from(left).ok();
        let _ = rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], wait.as_ref());
    }
}

/// Freezes by asking until all stand: the freezer of v1 misses processes that are made meanwhile, and has no events.
fn freeze_v1(dir: &Dir) -> Result<()> {
    let path = dir.directory();
    let write = |value| {
        files::open_dir(&path)
            .and_then(|fd| files::write(fd, "freezer.state", value))
            .map_err(|e| files::cannot_write(e, &path, "freezer.state", value))
    };
    let deadline = Instant::now() + PATIENCE;
    for round in 1.. {
        write("FROZEN")?;
        let state = files::open_dir(&path)
            .and_then(|fd| files::read(fd, "freezer.state"))
            .map_err(|e| files::cannot_read(e, &path, "freezer.state"))?;
        if state.trim_end() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            break;
        }
        // The processes need the processor to come to stand; those that fork meanwhile are caught by a fresh start.
        if round % 50 == 0 {
            write("THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        } else if round > 2 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    Err(stuck(dir))
}

fn stuck(dir: &Dir) -> Error {
    let path = dir.directory();
    Error::new(format!("unable to freeze {}: its processes did not stop in {PATIENCE:?}", path.display()))
}
