//! seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use crate::error::{Error, Result};

const SIZE: usize = size_of::<libc::sock_filter>();

/// Asks for a listener.
pub const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

/// Installs a filter, `struct sock_filter`s in the machine's byte order, on the calling thread; with `listener`, gives the
/// descriptor that notifications are read from.
pub fn set_filter(program: &[u8], flags: u32, listener: bool) -> Result<Option<OwnedFd>> {
    let (whole, rest) = program.as_chunks::<SIZE>();
    if !rest.is_empty() {
        return Err(Error::new("the seccomp filter ends within an instruction"));
    }
    let mut filter: Vec<_> = whole
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| Error::new("the seccomp filter is too long"))?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let flags = libc::c_ulong::from(if listener { flags | NEW_LISTENER } else { flags });
    // SAFETY: the kernel reads `program` and the `len` instructions that it points to; both live for the whole call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER), flags, &raw const program)
    };
    // Freeing memory may be a system call that the filter now forbids.
    std::mem::forget(filter);
    if result < 0 {
        return Err(Error::from(std::io::Error::last_os_error()));
    }
    if !listener {
        return Ok(None);
    }
    let fd = i32::try_from(result).map_err(|_| Error::new("seccomp gave no listener"))?;
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec), and nobody else knows of it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
