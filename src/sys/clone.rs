//! New processes by clone3(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};

/// What [`clone3`] returns: which of the two processes this is.
#[derive(Debug)]
pub enum Clone {
    /// The caller: the pid of the new process as the caller sees it, and a descriptor for it.
    Parent(i32, OwnedFd),
    /// The new process.
    Child,
}

/// Forks with the namespaces of `flags` (CLONE_NEW*, CLONE_PARENT) and, where given, right into the cgroup v2 directory
/// `cgroup`. The process must have a single thread.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain data; all zero is its empty value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets a copy of the memory and goes on as after fork(2); the process has one
    // thread, so no lock is held by another one. `args` and `pidfd` live for the whole call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Clone::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel has just stored a new descriptor here, and nobody else knows of it.
            Ok(Clone::Parent(i32::try_from(pid).unwrap_or(-1), unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
        _ => Err(Error::from(std::io::Error::last_os_error())),
    }
}

/// CLONE_INTO_CGROUP, which libc has as a signed constant on some targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
