//! Processes by descriptor, so that a recycled pid is never hit.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};

/// Copies descriptor `number` of the process behind `pidfd` into this one, close-on-exec.
pub fn get_fd(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed; the result is a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(Error::from(std::io::Error::last_os_error()));
    }
    let fd = i32::try_from(fd).map_err(|_| Error::new("pidfd_getfd gave no descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal, a real-time one too, to the process behind `pidfd`.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is what the call takes for kill(2)'s; no other memory is passed.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if done < 0 { Err(Error::from(std::io::Error::last_os_error())) } else { Ok(()) }
}
