//! Namespaces: what kind a descriptor is of.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Error, Result};

const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The CLONE_NEW* flag of the namespace behind `fd`; an error where it is none.
pub fn kind(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: the request takes no argument.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(Error::from(std::io::Error::last_os_error())) } else { Ok(kind) }
}
