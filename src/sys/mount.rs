//! mount_setattr(2), which neither nix nor rustix has.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::error::{Error, Result};

/// A change of the attributes of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear; with any atime mode in `set`, the whole field MOUNT_ATTR__ATIME.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; 0 leaves the propagation as it is.
    pub propagation: u64,
    /// The user namespace whose mappings the mount gets.
    pub idmap: Option<BorrowedFd<'a>>,
}

/// The kernel's struct mount_attr, first version.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount whose root `mount` is, and where `recursive`, every mount below it too.
pub fn set_attributes(mount: impl AsFd, recursive: bool, change: &Change<'_>) -> Result<()> {
    let mut attr =
        MountAttr { attr_set: change.set, attr_clr: change.clear, propagation: change.propagation, userns_fd: 0 };
    if let Some(namespace) = change.idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: the path is a constant string, and `attr` outlives the call; its size is passed with it.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attr, size_of::<MountAttr>())
    };
    if done < 0 { Err(Error::from(std::io::Error::last_os_error())) } else { Ok(()) }
}
