//! Session keyrings: a container must not see its caller's keys.

use std::ffi::CString;

use crate::error::{Error, Result};
use crate::sys::keyctl;

/// KEY_USR_SEARCH: the owner may find the keyring by its name, so that `exec` can join it.
const OWNER_MAY_SEARCH: u32 = 0x0008_0000;

/// Joins the session keyring of the given name, a new one where there is none, and gives its owner the right to search
/// it. As root of the container's user namespace. A kernel without keyrings has nothing to hide: that is no error.
pub fn join_session(name: &str) -> Result<()> {
    let text = CString::new(name).map_err(|_| Error::new(format!("the keyring name {name:?} has a zero byte")))?;
    let serial = match keyctl::join_session(&text) {
        Err(e) if e.errno() == libc::ENOSYS => return Ok(()),
        Err(e) => return Err(explain(e).context(format!("unable to join session keyring {name:?}"))),
        Ok(serial) => serial,
    };
    allow_search(serial).map_err(|e| e.context(format!("unable to mod keyring permissions of {name:?}")))
}

fn allow_search(serial: i32) -> Result<()> {
    let description = keyctl::describe(serial)?;
    let have = permissions(&description)?;
    if have & OWNER_MAY_SEARCH != 0 { Ok(()) } else { keyctl::set_permissions(serial, have | OWNER_MAY_SEARCH) }
}

fn explain(e: Error) -> Error {
    match e.errno() {
        libc::EDQUOT => e.context(
            "the user has as many keys as it may (sysctl kernel.keys.maxkeys or maxbytes; see /proc/key-users)",
        ),
        libc::EPERM => {
            e.context("keyctl(2) is not allowed here, perhaps by a seccomp filter (--no-new-keyring goes without)")
        }
        _ => e,
    }
}

/// The permissions in a key's description, `type;uid;gid;permissions;name`.
fn permissions(description: &str) -> Result<u32> {
    let field = description.split(';').nth(3).unwrap_or_default();
    u32::from_str_radix(field, 16).map_err(|_| Error::new(format!("unexpected description of a key: {description:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_the_fourth_field() {
        assert_eq!(permissions("keyring;0;0;3f130000;_ses.a").unwrap(), 0x3f13_0000);
        assert!(permissions("keyring;0;0").is_err());
        assert!(permissions("").is_err());
    }
}
