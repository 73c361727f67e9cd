//! Keyrings: keyctl(2).

use std::ffi::CStr;

use crate::error::{Error, Result};

/// Joins the session keyring of the given name, which is made where it is not there or may not be searched; gives its
/// serial number.
pub fn join_session(name: &CStr) -> Result<i32> {
    // SAFETY: the kernel reads the string up to its end.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    done(serial)
}

/// The description of a key: `type;uid;gid;permissions;name`.
pub fn describe(serial: i32) -> Result<String> {
    let mut buffer = vec![0u8; 4096];
    // SAFETY: the kernel writes at most as many bytes as are passed as the length.
    let length =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_DESCRIBE, serial, buffer.as_mut_ptr(), buffer.len()) };
    let length = usize::try_from(done(length)?).unwrap_or(0);
    // The length counts the final zero byte, and may be more than there was room for.
    buffer.truncate(length.saturating_sub(1));
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Sets the permissions of a key, as linux/keyctl.h has them.
pub fn set_permissions(serial: i32, permissions: u32) -> Result<()> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, permissions) }).map(drop)
}

fn done(result: libc::c_long) -> Result<i32> {
    if result < 0 {
        return Err(Error::from(std::io::Error::last_os_error()));
    }
    i32::try_from(result).map_err(|_| Error::new("keyctl gave no serial number"))
}
