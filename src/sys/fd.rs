//! Descriptors: marking them close-on-exec and closing what is left.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::error::{Error, Result};

/// Marks every descriptor from `first` on close-on-exec.
pub fn cloexec_from(first: RawFd) -> Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC).map_err(|e| e.context("cannot mark descriptors close-on-exec"))
}

fn close_range(first: RawFd, flags: libc::c_uint) -> Result<()> {
    // SAFETY: the call only changes a flag of descriptors; no memory is passed.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if done < 0 { Err(Error::from(std::io::Error::last_os_error())) } else { Ok(()) }
}

/// Takes ownership of a descriptor that a message has just brought.
pub fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has made this descriptor for the receiver of the message, who calls this once for it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
