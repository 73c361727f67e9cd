//! Bind mounts: trees of mounts cloned from the host, finished while they are still detached.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME,
};
use libc::{
    MS_BIND, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT,
    MS_STRICTATIME,
};
use rustix::fs::{CWD, FileType, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::idmap::Mappings;
use super::inroot;
use super::place::Inside;
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
    /// The source in the root, where it lies there: what earlier mounts have put on it comes along.
    pub(super) inside: Option<PathBuf>,
    /// Whether mounts below the source come along.
    pub(super) recursive: bool,
    /// The options of the mount.
    pub(super) options: Options,
    /// What the clone becomes towards the host: MS_SLAVE or MS_PRIVATE; 0: it stays a peer.
    pub(super) propagation: u64,
    /// Whether the mount is for another user namespace, where the flags of the source are locked.
    pub(super) locked: bool,
    /// The mappings of the mount's ids.
    pub(super) idmap: Option<Mappings>,
    /// The clone, once it is there.
    pub(super) tree: Option<OwnedFd>,
}

impl Bind {
    /// Clones the source in the runtime, where it has the right to; if not, init will, having it in its own namespaces.
    pub(super) fn open_early(&mut self) -> Result<()> {
        if self.inside.is_some() {
            return Ok(());
        }
        match clone_path(&self.source, self.recursive) {
            // The kernel asks for the right before it looks at the path.
            Err(Errno::PERM) => Ok(()),
            result => self.cloned(result, may_not_map),
        }
    }

    /// Clones the source in init, if the runtime could not. The host's root must still be `/`.
    pub(super) fn open_late(&mut self) -> Result<()> {
        if self.tree.is_some() || self.inside.is_some() {
            return Ok(());
        }
        self.cloned(clone_path(&self.source, self.recursive), may_not_map)
    }

    /// Clones a source that lies in the root, when it is its turn. `map` maps the ids where this process may not.
    pub(super) fn open_inside(&mut self, inside: &Inside, map: impl FnMut(&OwnedFd) -> Result<()>) -> Result<()> {
        let Some(path) = &self.inside else { return Ok(()) };
        let tree = inroot::resolve(inside.fd(), path, OFlags::empty(), ResolveFlags::empty())
            .and_then(|place| clone_fd(place, self.recursive));
        self.cloned(tree, map)
    }

    fn cloned(&mut self, result: rustix::io::Result<OwnedFd>, map: impl FnMut(&OwnedFd) -> Result<()>) -> Result<()> {
        let tree = result.map_err(|errno| {
            let error = Error::from_errno(errno.raw_os_error(), format!("cannot open {}", self.source.display()));
            if errno == Errno::INVAL && !self.recursive {
                return error.hint("what mounts below it hide must stay hidden: use rbind");
            }
            error
        })?;
        self.finish(&tree, map)?;
        self.tree = Some(tree);
        Ok(())
    }

    /// The clone.
    pub(super) fn take(&mut self) -> Result<OwnedFd> {
        self.tree.take().ok_or_else(|| Error::new("the source was not opened"))
    }

    fn finish(&self, tree: &OwnedFd, mut map: impl FnMut(&OwnedFd) -> Result<()>) -> Result<()> {
        if self.propagation != 0 {
            set_attributes(tree, true, &Change { propagation: self.propagation, ..Change::default() })
                .context(|| "cannot take the mount out of the host's peer group")?;
        }
        match self.set_options(tree, self.locked) {
            // Where the runtime itself is in a user namespace, flags are locked that no namespace of the container shows.
            Err(e) if !self.locked && e.errno() == libc::EPERM => self.set_options(tree, true)?,
            result => result?,
        }
        if let Some(mappings) = &self.idmap {
            match mappings.apply(tree) {
                Err(e) if e.errno() == libc::EPERM && self.inside.is_some() => map(tree),
                result => result,
            }
            .context(|| format!("cannot map the ids of {}", self.source.display()))
            .map_err(|e| e.hint("its file system may not support that"))?;
        }
        finish_recursively(tree, &self.options)
    }

    fn set_options(&self, tree: &OwnedFd, locked: bool) -> Result<()> {
        let source = locked.then(|| mount_flags(tree)).transpose()?;
        let Some((set, clear)) = bind_attributes(&self.options, source)? else { return Ok(()) };
        let done = set_attributes(tree, false, &Change { set, clear, ..Change::default() });
        if locked && clear & MOUNT_ATTR__ATIME != 0 && done.as_ref().is_err_and(|e| e.errno() == libc::EPERM) {
            return done.context(|| "cannot change locked atime flags");
        }
        done.context(|| "cannot set the options of the mount")
    }
}

fn may_not_map(_: &OwnedFd) -> Result<()> {
    Err(Error::from(Errno::PERM))
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
/// exactly the options asked for, as `mount --bind -o` means it; only how access times are kept stays where no option sets
/// it. Where the source's flags are `locked` (for another user namespace) and one of them would be lost, all of them stay,
/// and an option that asks otherwise is an error.
fn bind_attributes(options: &Options, locked: Option<u64>) -> Result<Option<(u64, u64)>> {
    if options.flags & !(MS_BIND | MS_REC | MS_REMOUNT) == 0 && options.cleared == 0 {
        return Ok(None);
    }
    let mode = options.flags & (ATIME_FLAGS | MS_NODIRATIME);
    let mut keep = false;
    if let Some(source) = locked {
        let source = source | if source & ATIME_FLAGS == 0 { MS_STRICTATIME } else { 0 };
        // Without a mode asked for, nodiratime stays as the mode does.
        let lost = |flag| is_lockable(flag) && flag != MS_NODIRATIME && source & flag != 0 && options.flags & flag == 0;
        keep = SIMPLE.iter().any(|(flag, ..)| lost(*flag)) || mode != 0 && effective(mode) != effective(source);
        if keep {
            check_locked(options, source)?;
        }
    }
    let (mut set, mut clear) = (0, 0);
    for (flag, attr, _) in SIMPLE.into_iter().filter(|(flag, ..)| *flag != MS_NODIRATIME) {
        if options.flags & flag != 0 {
            set |= attr;
        } else if !keep || !is_lockable(flag) {
            clear |= attr;
        }
    }
    if mode != 0 && !keep {
        set |= attributes(mode);
        clear |= MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
    }
    Ok(Some((set, clear & !(set & !MOUNT_ATTR__ATIME))))
}

/// Whether an option asks for other flags than locked ones.
fn check_locked(options: &Options, source: u64) -> Result<()> {
    let refused: Vec<&str> = SIMPLE
        .iter()
        .map(|(flag, _, name)| (*flag, *name))
        .chain([(MS_NOATIME, "noatime"), (MS_RELATIME, "relatime"), (MS_STRICTATIME, "strictatime")])
        .filter(|(flag, _)| is_lockable(*flag) && source & options.cleared & flag != 0)
        .map(|(_, name)| name)
        .collect();
    if !refused.is_empty() {
        return Err(Error::from_errno(libc::EPERM, format!("cannot clear locked flags {}", refused.join(","))));
    }
    let mode = options.flags & (ATIME_FLAGS | MS_NODIRATIME);
    if mode != 0 && mode != source & (ATIME_FLAGS | MS_NODIRATIME) {
        return Err(Error::from_errno(libc::EPERM, "cannot change locked atime flags"));
    }
    Ok(())
}

/// The kernel locks every flag but this one.
fn is_lockable(flag: u64) -> bool {
    flag != MS_NOSYMFOLLOW
}

/// What flags of access times come to: the mode of the file, and whether directories have any.
fn effective(flags: u64) -> (u64, bool) {
    (atime(flags), flags & MS_NODIRATIME != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(options: &[&str], source: u64, locked: bool) -> Result<Option<(u64, u64)>> {
        bind_attributes(&Options::parse(options), locked.then_some(source))
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
        let asked = bind(&["bind", "nodiratime"], MS_NOATIME, false).unwrap();
        assert_eq!(asked, Some((MOUNT_ATTR_NODIRATIME, ALL | MOUNT_ATTR__ATIME)));
    }

    #[test]
    fn only_an_option_that_sets_a_mode_of_access_times_changes_it() {
        for option in ["atime", "norelatime", "nostrictatime", "diratime"] {
            for locked in [false, true] {
                let asked = bind(&["bind", option], MS_NOATIME | MS_NODIRATIME, locked).unwrap();
                assert_eq!(asked, Some((0, ALL)), "{option}");
            }
        }
    }

    #[test]
    fn locked_flags_stay_and_cannot_be_cleared() {
        let asked = bind(&["bind", "ro"], MS_NODEV, true).unwrap();
        assert_eq!(asked, Some((MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSYMFOLLOW)));
        let error = bind(&["bind", "rw", "dev"], MS_NODEV | MS_RDONLY, true).unwrap_err();
        assert!(error.to_string().contains("cannot clear locked flags ro,nodev"), "{error}");
        let error = bind(&["bind", "atime", "ro"], MS_NOATIME | MS_NODEV, true).unwrap_err();
        assert!(error.to_string().contains("cannot clear locked flags noatime"), "{error}");
        // This one is not lockable.
        let asked = bind(&["bind", "dev"], MS_RDONLY | MS_NOSYMFOLLOW, true).unwrap();
        assert_eq!(asked, Some((0, MOUNT_ATTR_NOSYMFOLLOW)));
        // Nothing is lost, so the options hold as they are.
        let asked = bind(&["bind", "ro"], MS_RDONLY | MS_RELATIME, true).unwrap();
        assert_eq!(asked, Some((MOUNT_ATTR_RDONLY, ALL & !MOUNT_ATTR_RDONLY)));
    }

    #[test]
    fn locked_modes_of_access_times_stay() {
        let modes = [("strictatime", 0), ("relatime", MS_RELATIME), ("noatime", MS_NOATIME)];
        for (source, flags) in modes {
            for (option, _) in modes {
                let asked = bind(&["bind", option], flags, true);
                assert_eq!(asked.is_ok(), source == option, "{source}, {option}: {asked:?}");
            }
            assert!(bind(&["bind", "nodiratime"], flags, true).is_err(), "{source}");
        }
        assert!(bind(&["bind", "nodiratime"], MS_RELATIME | MS_NODIRATIME, true).is_ok());
    }
}
