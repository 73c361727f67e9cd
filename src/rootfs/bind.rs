//! Bind mounts: trees of mounts cloned from the host, finished while they are still detached.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
};
use libc::{
    MS_BIND, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT,
    MS_STRICTATIME,
};
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::error::{Context, Error, Result};
use crate::spec::options::{MS_NOSYMFOLLOW, Options};
use crate::sys::mount::{Change, set_attributes};

/// Attributes that are a bit each, with their flags of mount(2) and their names.
const SIMPLE: [(u64, u64, &str); 6] = [
    (MS_RDONLY, MOUNT_ATTR_RDONLY, "ro"),
    (MS_NOSUID, MOUNT_ATTR_NOSUID, "nosuid"),
    (MS_NODEV, MOUNT_ATTR_NODEV, "nodev"),
    (MS_NOEXEC, MOUNT_ATTR_NOEXEC, "noexec"),
    (MS_NODIRATIME, MOUNT_ATTR_NODIRATIME, "nodiratime"),
    (MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
];
const ATIME_FLAGS: u64 = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;

/// A bind mount to make.
#[derive(Debug, Default)]
pub(super) struct Bind {
    /// The source on the host, absolute.
    pub(super) source: PathBuf,
    /// Whether mounts below the source come along.
    pub(super) recursive: bool,
    /// The options of the mount.
    pub(super) options: Options,
    /// What the clone becomes towards the host: MS_SLAVE or MS_PRIVATE; 0: it stays a peer.
    pub(super) propagation: u64,
    /// Whether the mount is for another user namespace, where the flags of the source are locked.
    pub(super) locked: bool,
    /// The user namespace with the mount's mappings, and whether mounts below get them too.
    pub(super) idmap: Option<(Rc<OwnedFd>, bool)>,
    /// The clone, once it is there.
    pub(super) tree: Option<OwnedFd>,
}

impl Bind {
    /// Clones the source in the runtime, where it has the right to; if not, init will, having it in its own namespaces.
    pub(super) fn open_early(&mut self) -> Result<()> {
        match clone_path(&self.source, self.recursive) {
            // The kernel asks for the right before it looks at the path.
            Err(Errno::PERM) => Ok(()),
            result => self.cloned(result),
        }
    }

    /// Clones the source in init, if the runtime could not. The host's root must still be `/`.
    pub(super) fn open_late(&mut self) -> Result<()> {
        if self.tree.is_some() {
            return Ok(());
        }
        self.cloned(clone_path(&self.source, self.recursive))
    }

    fn cloned(&mut self, result: rustix::io::Result<OwnedFd>) -> Result<()> {
        let tree = result.map_err(|errno| {
            let error = Error::from_errno(errno.raw_os_error(), format!("cannot open {}", self.source.display()));
            if errno == Errno::INVAL && !self.recursive {
                return error.hint("what mounts below it hide must stay hidden: use rbind");
            }
            error
        })?;
        self.finish(&tree)?;
        self.tree = Some(tree);
        Ok(())
    }

    /// The clone, and whether it is a directory.
    pub(super) fn take(&mut self) -> Result<(OwnedFd, bool)> {
        let tree = self.tree.take().ok_or_else(|| Error::new("the source was not opened"))?;
        let directory = kind(&tree)? == FileType::Directory;
        Ok((tree, directory))
    }

    fn finish(&self, tree: &OwnedFd) -> Result<()> {
        if self.propagation != 0 {
            set_attributes(tree, true, &Change { propagation: self.propagation, ..Change::default() })
                .context(|| "cannot take the mount out of the host's peer group")?;
        }
        match self.set_options(tree, self.locked) {
            // Where the runtime itself is in a user namespace, flags are locked that no namespace of the container shows.
            Err(e) if !self.locked && e.errno() == libc::EPERM => self.set_options(tree, true)?,
            result => result?,
        }
        if let Some((namespace, recursive)) = &self.idmap {
            let change = Change { idmap: Some(namespace.as_fd()), ..Change::default() };
            set_attributes(tree, *recursive, &change)
                .context(|| format!("cannot map the ids of {}", self.source.display()))
                .map_err(|e| e.hint("its file system may not support that"))?;
        }
        finish_recursively(tree, &self.options)
    }

    fn set_options(&self, tree: &OwnedFd, locked: bool) -> Result<()> {
        let Some((set, clear)) = bind_attributes(&self.options, mount_flags(tree)?, locked)? else { return Ok(()) };
        let done = set_attributes(tree, false, &Change { set, clear, ..Change::default() });
        if locked && clear & MOUNT_ATTR__ATIME != 0 && done.as_ref().is_err_and(|e| e.errno() == libc::EPERM) {
            return done.context(|| "cannot change locked atime flags");
        }
        done.context(|| "cannot set the options of the mount")
    }
}

/// Sets the recursive attributes and then the propagation that the options of any mount ask for.
pub(super) fn finish_recursively(tree: impl AsFd, options: &Options) -> Result<()> {
    let (set, clear) = (options.set_recursive, options.clear_recursive);
    if set | clear != 0 {
        set_attributes(&tree, true, &Change { set, clear, ..Change::default() })
            .context(|| "cannot set the recursive options of the mount")?;
    }
    for flags in &options.propagation {
        propagate(&tree, *flags)?;
    }
    Ok(())
}

/// Changes the propagation: one of MS_SHARED, MS_SLAVE, MS_PRIVATE and MS_UNBINDABLE, with MS_REC for everything below.
pub(super) fn propagate(tree: impl AsFd, flags: u64) -> Result<()> {
    let change = Change { propagation: flags & !MS_REC, ..Change::default() };
    set_attributes(tree, flags & MS_REC != 0, &change).context(|| "cannot change the propagation of the mount")
}

/// Clones a path of the caller's namespace.
pub(super) fn clone_path(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    rustix::mount::open_tree(CWD, path, clone_flags(recursive))
}

/// Clones the mount, or the part of one, that a descriptor stands for.
pub(super) fn clone_fd(fd: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    rustix::mount::open_tree(fd.as_fd(), "", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// The type of the file that a descriptor stands for.
pub(super) fn kind(fd: impl AsFd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// The flags of mount(2) that a mount has.
fn mount_flags(tree: &OwnedFd) -> Result<u64> {
    let flags = rustix::fs::fstatvfs(tree)?.f_flag.bits();
    // The lower bits and the first two of atime are the same as mount(2)'s.
    let mut sum = flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME);
    if flags & 0x1000 != 0 {
        sum |= MS_RELATIME;
    }
    if flags & 0x2000 != 0 {
        sum |= MS_NOSYMFOLLOW;
    }
    Ok(sum)
}

/// The attributes of a new mount with these flags of mount(2).
pub(super) fn attributes(flags: u64) -> u64 {
    let simple = SIMPLE.iter().filter(|(flag, ..)| flags & flag != 0).fold(0, |sum, (_, attr, _)| sum | attr);
    simple | atime(flags)
}

fn atime(flags: u64) -> u64 {
    if flags & MS_STRICTATIME != 0 {
        MOUNT_ATTR_STRICTATIME
    } else if flags & MS_NOATIME != 0 {
        MOUNT_ATTR_NOATIME
    } else {
        0 // relatime
    }
}

/// The attributes to set and to clear where an existing mount is changed: only what the options name.
pub(super) fn remount_attributes(options: &Options) -> (u64, u64) {
    let clear = attributes(options.cleared) & !MOUNT_ATTR__ATIME;
    let mode = (options.flags & ATIME_FLAGS) | (options.cleared & (MS_NOATIME | MS_STRICTATIME));
    (attributes(options.flags), if mode != 0 { clear | MOUNT_ATTR__ATIME } else { clear })
}

/// The attributes to set and to clear on a bind mount. Without any option the source's stay. With one, the mount has
/// exactly the options asked for, as `mount --bind -o` means it; but where the source's flags are locked, those stay that no
/// option asked to clear, and to clear one is an error.
fn bind_attributes(options: &Options, source: u64, locked: bool) -> Result<Option<(u64, u64)>> {
    if options.flags & !(MS_BIND | MS_REC | MS_REMOUNT) == 0 && options.cleared == 0 {
        return Ok(None);
    }
    let (mut set, mut clear) = (0, 0);
    let mut refused = Vec::new();
    for (flag, attr, name) in SIMPLE {
        // The kernel keeps nodiratime with the atime mode, where neither is asked for.
        let kept = flag == MS_NODIRATIME && (options.flags & ATIME_FLAGS | options.cleared & MS_NODIRATIME) == 0;
        if options.flags & flag != 0 {
            set |= attr;
        } else if locked && source & flag != 0 && options.cleared & flag != 0 {
            refused.push(name);
        } else if !locked && !kept {
            clear |= attr;
        }
    }
    if !refused.is_empty() {
        return Err(Error::from_errno(libc::EPERM, format!("cannot clear locked flags {}", refused.join(","))));
    }
    let mode = if options.flags & ATIME_FLAGS != 0 {
        Some(options.flags)
    } else if options.cleared & source & MS_NOATIME != 0 || options.cleared & MS_STRICTATIME != 0 {
        Some(MS_RELATIME)
    } else {
        None
    };
    if let Some(mode) = mode {
        let unchanged = locked && atime(mode) == atime_of(source);
        if !unchanged {
            set |= atime(mode);
            clear |= MOUNT_ATTR__ATIME;
        }
    }
    Ok(Some((set, clear)))
}

/// The atime mode that a mount has: one that is neither noatime nor relatime is strictatime.
fn atime_of(flags: u64) -> u64 {
    match flags & (MS_NOATIME | MS_RELATIME) {
        0 => MOUNT_ATTR_STRICTATIME,
        flags => atime(flags),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(options: &[&str], source: u64, locked: bool) -> Result<Option<(u64, u64)>> {
        bind_attributes(&Options::parse(options), source, locked)
    }

    const ALL: u64 =
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;

    #[test]
    fn without_options_the_source_decides() {
        assert_eq!(bind(&["rbind"], MS_NODEV, false).unwrap(), None);
        assert_eq!(bind(&["bind"], MS_RDONLY, true).unwrap(), None);
    }

    #[test]
    fn with_options_a_mount_has_just_these() {
        assert_eq!(
            bind(&["bind", "ro"], MS_NODEV, false).unwrap(),
            Some((MOUNT_ATTR_RDONLY, ALL & !MOUNT_ATTR_RDONLY))
        );
        assert_eq!(bind(&["bind", "rw"], MS_NODEV | MS_RDONLY, false).unwrap(), Some((0, ALL)));
        let asked = bind(&["bind", "noatime"], MS_RELATIME, false).unwrap();
        assert_eq!(asked, Some((MOUNT_ATTR_NOATIME, ALL | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR__ATIME)));
        assert_eq!(bind(&["bind", "atime"], MS_NOATIME, false).unwrap(), Some((0, ALL | MOUNT_ATTR__ATIME)));
    }

    #[test]
    fn locked_flags_stay_and_cannot_be_cleared() {
        assert_eq!(bind(&["bind", "ro"], MS_NODEV, true).unwrap(), Some((MOUNT_ATTR_RDONLY, 0)));
        let error = bind(&["bind", "rw", "dev"], MS_NODEV | MS_RDONLY, true).unwrap_err();
        assert!(error.to_string().contains("cannot clear locked flags ro,nodev"), "{error}");
        assert_eq!(bind(&["bind", "relatime"], MS_RELATIME, true).unwrap(), Some((0, 0)));
    }
}
