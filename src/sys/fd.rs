//! Descriptors: marking them close-on-exec and closing what is left.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Gives descriptors the numbers from `first` on, and lets the program that is executed next inherit these and the
/// standard streams, and no others. To be followed by execve(2) or the end of the process: whoever owned these numbers
/// does not own them afterwards.
pub fn hand_over(fds: &[BorrowedFd<'_>], first: RawFd) -> Result<()> {
    let cannot = |e: Error| e.context("cannot hand descriptors over");
    cloexec_from(3)?;
    let end = fds.iter().fold(first, |end, _| end + 1);
    // Out of the way of each other, then to their places.
    let copy = |fd: &BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, end).map_err(|e| cannot(e.into()));
    let copies = fds.iter().map(copy).collect::<Result<Vec<_>>>()?;
    for (number, copy) in (first..).zip(&copies) {
        // SAFETY: no memory is passed; who owns `number` does not use it any more, as the caller promises.
        if unsafe { libc::dup2(copy.as_raw_fd(), number) } < 0 {
            return Err(cannot(std::io::Error::last_os_error().into()));
        }
    }
    Ok(())
}

/// Whether descriptor `number` was passed on to this process: what is open since then (a log that got the number, say) is
/// close-on-exec. To be asked before anything passed on is marked so.
pub fn is_inherited(number: RawFd) -> bool {
    // SAFETY: the call only reads a flag of a descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Whether descriptor `number` was passed on to this process, open for writing.
pub fn is_writable(number: RawFd) -> bool {
    // SAFETY: the call only reads flags of a descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    is_inherited(number) && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// Writes to descriptor `number`, which the caller has passed on to this process, and closes it: whoever waits at the other
/// end sees that nothing more comes. EBADF where there is no such descriptor, or it has been closed.
pub fn write_once(number: RawFd, bytes: &[u8]) -> Result<()> {
    if !is_inherited(number) {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF).into());
    }
    // SAFETY: whatever this process owns is close-on-exec, and this is not; once closed, it is refused above.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::write(&fd, bytes)?;
    Ok(())
}
