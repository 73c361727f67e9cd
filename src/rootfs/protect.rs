//! What the container must not read or write (config-linux.md, "Masked Paths", "Readonly Paths").

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MOUNT_ATTR_RDONLY, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY};
use rustix::fs::{FileType, makedev};

use super::bind::{clone_fd, clone_path, kind};
use super::filesystem::FileSystem;
use super::mounts::open_if_there;
use super::place::attach;
use crate::error::{Context, Error, Result};
use crate::sys::mount::{Change, set_attributes};

/// Makes a path of the root and everything below it read-only; a missing one is passed over.
pub(super) fn read_only(root: &OwnedFd, path: &str) -> Result<()> {
    let Some(target) = open_if_there(root, Path::new(path))? else { return Ok(()) };
    let tree = clone_fd(&target, true)?;
    let change = Change { set: MOUNT_ATTR_RDONLY, ..Change::default() };
    set_attributes(&tree, true, &change)?;
    attach(&tree, &target)
}

/// Makes one mount read-only, its other flags staying.
pub(super) fn remount_read_only(mount: &OwnedFd) -> Result<()> {
    set_attributes(mount, false, &Change { set: MOUNT_ATTR_RDONLY, ..Change::default() })
}

/// What lies on masked paths: the null device on files, an empty file system on directories; one of each, cloned.
#[derive(Debug)]
pub(super) struct Masks {
    null: Mask,
    empty: Option<Mask>,
    label: Option<String>,
    /// What is masked already.
    done: Vec<PathBuf>,
}

/// A mount to mask with. One that is attached is cloned for the next path: older kernels clone no detached ones.
#[derive(Debug)]
struct Mask {
    mount: OwnedFd,
    attached: bool,
}

impl Mask {
    fn put(&mut self, target: &OwnedFd) -> Result<()> {
        if self.attached {
            attach(clone_fd(&self.mount, false)?, target)
        } else {
            self.attached = true;
            attach(&self.mount, target)
        }
    }
}

impl Masks {
    /// Takes the null device of the host, which the container cannot replace. In init, with the host's root still being `/`.
    pub(super) fn new(label: Option<String>) -> Result<Masks> {
        let null = clone_path(Path::new("/dev/null"), false).context(|| "cannot open the host's /dev/null")?;
        let stat = rustix::fs::fstat(&null).context(|| "cannot examine the host's /dev/null")?;
        if kind(&null)? != FileType::CharacterDevice || stat.st_rdev != makedev(1, 3) {
            return Err(Error::new("the host's /dev/null is not the null device"));
        }
        set_attributes(&null, false, &Change { propagation: libc::MS_PRIVATE, ..Change::default() })
            .context(|| "cannot take /dev/null out of the host's peer group")?;
        Ok(Masks { null: Mask { mount: null, attached: false }, empty: None, label, done: Vec::new() })
    }

    /// Masks a path of the root; a missing one is passed over, as nothing is there to be seen. One that is listed again
    /// has its mask.
    pub(super) fn mask(&mut self, root: &OwnedFd, path: &str) -> Result<()> {
        // By components: `//` and `/./` make no other path, but what `..` leads to only the kernel knows.
        if self.done.iter().any(|done| done == Path::new(path)) {
            return Ok(());
        }
        self.done.push(path.into());
        let Some(target) = open_if_there(root, Path::new(path))? else { return Ok(()) };
        if kind(target.as_fd())? != FileType::Directory {
            return self.null.put(&target);
        }
        let empty = match &mut self.empty {
            Some(empty) => empty,
            none => none.insert(Mask { mount: empty_directory(self.label.as_deref())?, attached: false }),
        };
        empty.put(&target)
    }
}

fn empty_directory(label: Option<&str>) -> Result<OwnedFd> {
    let mut data = "nr_blocks=1,nr_inodes=1".to_string();
    if let Some(label) = label {
        super::mounts::add_option(&mut data, &format!("context=\"{label}\""));
    }
    let flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    FileSystem { kind: "tmpfs", source: OsStr::new("tmpfs"), flags, data: &data }.open()
}
