//! Flags of network devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Error, Result};

/// Sets the flags `add` (IFF_*) of the device `name`, in the network namespace of `socket`, which may be of any family.
pub fn add_flags(socket: BorrowedFd<'_>, name: &str, add: i32) -> Result<()> {
    // SAFETY: ifreq is plain data; all zero is its empty value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Error::new(format!("the name of the network device {name} is too long")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    ioctl(socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | i16::try_from(add).unwrap_or(0);
    ioctl(socket, libc::SIOCSIFFLAGS, &mut request)
}

fn ioctl(socket: BorrowedFd<'_>, number: libc::c_ulong, request: &mut libc::ifreq) -> Result<()> {
    // SAFETY: both requests read and write one ifreq, which lives for the whole call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), number as _, &raw mut *request) };
    if done < 0 { Err(Error::from(std::io::Error::last_os_error())) } else { Ok(()) }
}
