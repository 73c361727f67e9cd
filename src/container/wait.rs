//! Waiting for processes, by descriptor.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::cgroups::Cgroup;
use crate::error::{Context, Error, Result};

/// A descriptor of a process.
pub(super) fn open(pid: i32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::new("0 is no pid"))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).context(|| format!("cannot open process {pid}"))
}

/// Waits for the end of a child of ours and reaps it.
pub(super) fn reap(pidfd: &OwnedFd) -> Result<Option<WaitIdStatus>> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            status => return status.context(|| "cannot wait for a child"),
        }
    }
}

/// Reaps all children of ours that have ended.
pub(super) fn reap_all() {
    while let Ok(Some(_)) = rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
}

/// Waits until the process has ended, at most so many seconds; whether it has.
pub(super) fn ended_within(pidfd: &OwnedFd, seconds: i64) -> Result<bool> {
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready.context(|| "cannot wait for a process")? > 0),
        }
    }
}

/// Why init ended without a word.
pub(super) fn died(pidfd: &OwnedFd, cgroup: &Cgroup) -> Error {
    if cgroup.oom_killed() {
        let _ = reap(pidfd);
        return Error::new("container init was OOM-killed (is linux.resources.memory.limit too low?)");
    }
    let how = match reap(pidfd) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => format!("it was killed by signal {signal}"),
            (Some(code), _) => format!("it exited with code {code}"),
            _ => "it ended".to_string(),
        },
        _ => "it ended".to_string(),
    };
    Error::new(format!("the container's init ended before it was set up: {how}"))
}
