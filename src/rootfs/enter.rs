//! Leaving the host's root for the container's.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::place::attach_on_root;
use crate::error::{Context, Result};

/// pivot_root(2) with the new root as the place of the old one too, so that nothing has to be made for that.
pub(super) fn pivot(root: &OwnedFd) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty()).context(|| "cannot open /")?;
    rustix::process::fchdir(root).context(|| "cannot enter the root filesystem")?;
    rustix::process::pivot_root(".", ".").map_err(|errno| {
        let error = crate::error::Error::from(errno);
        if errno == Errno::INVAL {
            return error.context("cannot pivot_root").hint("on a ramdisk root, --no-pivot may help");
        }
        error.context("cannot pivot_root")
    })?;
    // The old root is no peer of the host's (see Plan::mount), so this unmounts it here alone.
    rustix::process::fchdir(&old).context(|| "cannot leave the host's root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context(|| "cannot unmount the host's root")?;
    rustix::process::chdir("/").context(|| "cannot change to the root filesystem")
}

/// Without pivot_root: the root's tree is moved on `/`, and this process's root follows. The host's mounts stay in the
/// namespace below it.
pub(super) fn chroot(root: &OwnedFd) -> Result<()> {
    hide_host_proc(root)?;
    match attach_on_root(root) {
        // It lies there already.
        Err(e) if e.errno() == libc::ELOOP => {}
        result => result.context(|| "cannot move the root filesystem on /")?,
    }
    rustix::process::fchdir(root).context(|| "cannot enter the root filesystem")?;
    rustix::process::chroot(".").context(|| "cannot chroot")?;
    rustix::process::chdir("/").context(|| "cannot change to the root filesystem")
}

/// The kernel lets a process mount a procfs or sysfs where it sees a whole one already. The host's, still in the
/// namespace, would be that, so they go, or are covered.
fn hide_host_proc(root: &OwnedFd) -> Result<()> {
    let id = rustix::fs::statx(root, "", AtFlags::EMPTY_PATH, StatxFlags::from_bits_retain(libc::STATX_MNT_ID))
        .context(|| "cannot examine the root filesystem")?
        .stx_mnt_id;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context(|| "cannot read /proc/self/mountinfo")?;
    for path in whole_pseudo_mounts(&mounts, id) {
        hide(&path).context(|| format!("cannot hide the host's {}", path.display()))?;
    }
    Ok(())
}

fn hide(path: &Path) -> rustix::io::Result<()> {
    match rustix::mount::mount_change(path, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC) {
        // It was below another one that is gone by now.
        Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
        result => result?,
    }
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        // A locked mount of a user namespace.
        Err(Errno::INVAL | Errno::PERM) => rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), None),
        result => result,
    }
}

/// The mount points of whole procfs and sysfs in a mountinfo that do not belong to the tree of mount `root`.
fn whole_pseudo_mounts(mountinfo: &str, root: u64) -> Vec<PathBuf> {
    let mut inside = vec![root];
    let mut found = Vec::new();
    // A mount is listed after its parent.
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = fields.iter().position(|f| *f == "-").and_then(|i| fields.get(i + 1));
        let (Some(id), Some(parent), Some(top), Some(path), Some(kind)) =
            (fields.first(), fields.get(1), fields.get(3), fields.get(4), kind)
        else {
            continue;
        };
        let (Ok(id), Ok(parent)) = (id.parse::<u64>(), parent.parse::<u64>()) else { continue };
        if inside.contains(&parent) || id == root {
            inside.push(id);
        } else if *top == "/" && matches!(*kind, "proc" | "sysfs") {
            found.push(unescape(path));
        }
    }
    found
}

/// mountinfo writes white space and backslashes as three octal digits.
fn unescape(path: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let digits = bytes.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match digits.filter(|_| bytes[i] == b'\\').and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_own_procfs_is_not_the_hosts() {
        let mountinfo = "20 1 8:1 / / rw - ext4 /dev/vda rw\n\
            21 20 0:5 / /proc rw,relatime shared:5 - proc proc rw\n\
            22 20 0:6 / /a\\040b rw - sysfs sysfs rw\n\
            23 20 0:5 /sys /x rw - proc proc rw\n\
            30 20 8:1 /c / rw - ext4 /dev/vda rw\n\
            31 30 0:9 / /proc rw - proc proc rw\n";
        assert_eq!(whole_pseudo_mounts(mountinfo, 30), [PathBuf::from("/proc"), PathBuf::from("/a b")]);
    }
}
