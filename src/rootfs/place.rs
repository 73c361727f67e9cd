//! Places in the root to mount on: opened in-root, checked before and after.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;

use super::inroot::{self, Leaf};
use crate::error::{Cause, Context, Error, Result};

/// Files below /proc that lxcfs emulates: the only ones that may be mounted on.
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// The container's root as init sees it while the host's is still `/`.
#[derive(Debug)]
pub(super) struct Inside {
    /// The root of the tree, attached.
    pub(super) root: OwnedFd,
    /// Where it is attached.
    at: PathBuf,
    /// The host's /proc/self/fd, for the names of descriptors.
    names: OwnedFd,
}

/// An opened place.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory or file (O_PATH).
    pub(super) fd: OwnedFd,
    /// Whether it had to be made.
    pub(super) made: bool,
    /// Where it is in the root, all links followed.
    pub(super) path: PathBuf,
}

impl Inside {
    /// Takes the attached tree of the root.
    pub(super) fn new(root: OwnedFd) -> Result<Inside> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let names = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).context(|| "cannot open /proc/self/fd")?;
        Inside::with_names(root, names)
    }

    /// The same with a descriptor of /proc/self/fd, of this process.
    pub(super) fn with_names(root: OwnedFd, names: OwnedFd) -> Result<Inside> {
        let at = host_name(&names, &root)?;
        Ok(Inside { root, at, names })
    }

    /// The host's /proc/self/fd.
    pub(super) fn names(&self) -> &OwnedFd {
        &self.names
    }

    /// The root, for lookups.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the place of a mount, making it where it is missing; `leaf` tells what, where that is to be known.
    pub(super) fn open(&self, destination: &Path, leaf: impl FnOnce() -> Result<Leaf>, follow: bool) -> Result<Place> {
        let (fd, made) = match inroot::resolve(self.fd(), destination, OFlags::empty(), ResolveFlags::NO_SYMLINKS) {
            // It lies where its text says, so its name need not be asked for.
            Ok(fd) => return Ok(Place { fd, made: false, path: clean(destination) }),
            Err(Errno::LOOP) => inroot::ensure(self.fd(), destination, leaf()?, follow)?,
            Err(Errno::NOENT) => (inroot::make(self.fd(), destination, leaf()?, follow)?, true),
            Err(e) => return Err(e.into()),
        };
        let path = self.name(&fd)?;
        Ok(Place { fd, made, path })
    }

    /// Opens a place that must be there.
    pub(super) fn open_existing(&self, destination: &Path) -> Result<Place> {
        let fd = inroot::resolve(self.fd(), destination, OFlags::empty(), ResolveFlags::empty())?;
        let path = self.name(&fd)?;
        Ok(Place { fd, made: false, path })
    }

    /// Where in the root a descriptor is.
    pub(super) fn name(&self, fd: impl AsFd) -> Result<PathBuf> {
        let name = host_name(&self.names, fd)?;
        match name.strip_prefix(&self.at) {
            Ok(path) if !name.starts_with("(unreachable)") => Ok(Path::new("/").join(path)),
            _ => Err(Error::new(format!("it is at {}, outside of the root filesystem", name.display()))),
        }
    }

    /// A path of the host's /proc that means a descriptor, for calls that know no descriptors.
    pub(super) fn proc_path(fd: impl AsFd) -> String {
        format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
    }

    /// Attaches a tree, and makes sure that it lies where it was to lie: whoever shares a directory with the container may
    /// have moved it out of the root meanwhile.
    pub(super) fn attach(&self, tree: &OwnedFd, place: &Place) -> Result<()> {
        attach(tree, &place.fd)?;
        // The mount is where its place is; and places mostly have the same number, the next free one, for which the kernel
        // has all that it needs in /proc.
        self.check(&place.fd, place)
    }

    /// The check of [`Inside::attach`].
    pub(super) fn check(&self, fd: &OwnedFd, place: &Place) -> Result<()> {
        let path = self.name(fd)?;
        if path == place.path {
            return Ok(());
        }
        let (got, want) = (path.display(), place.path.display());
        Err(Error::new(format!("the mount is at {got} instead of {want}: the place was moved meanwhile")))
    }
}

/// The kernel's name for what a descriptor stands for.
pub(super) fn host_name(names: &OwnedFd, fd: impl AsFd) -> Result<PathBuf> {
    let number = fd.as_fd().as_raw_fd().to_string();
    let name = rustix::fs::readlinkat(names, number, Vec::new()).context(|| "cannot read /proc/self/fd")?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes())))
}

/// Attaches a detached tree on what a descriptor stands for.
pub(super) fn attach(tree: impl AsFd, at: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree.as_fd(), "", at.as_fd(), "", flags)?)
}

/// Attaches a tree on `/`, or moves it there.
pub(super) fn attach_on_root(tree: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree.as_fd(), "", CWD, "/", flags)?)
}

/// A destination without `.`, `..` and double slashes, by its text alone; a relative one begins at the root.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Whether anything but a procfs may be mounted at a place: not on /proc, and below it only on what lxcfs emulates, as
/// false files there would mislead programs that trust them.
pub(super) fn check_proc(path: &Path) -> Result<()> {
    if path == Path::new("/proc") {
        return Err(Error::of(Cause::Config, format!("{path:?} cannot be mounted because it is not of type proc")));
    }
    if path.starts_with("/proc") && !PROC_FILES.iter().any(|file| path == Path::new(file)) {
        return Err(Error::of(Cause::Config, format!("{path:?} cannot be mounted because it is inside /proc")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned() {
        for (path, want) in [("dev", "/dev"), ("/dev/", "/dev"), ("//a/./b/../c", "/a/c"), ("/..", "/"), ("", "/")] {
            assert_eq!(clean(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn only_files_of_lxcfs_may_be_mounted_below_proc() {
        for (path, fine) in [
            ("/proc", false),
            ("/proc/self/attr/exec", false),
            ("/proc/sys", false),
            ("/proc/cpuinfo", true),
            ("/proc/sys/kernel/ns_last_pid", true),
            ("/process", true),
        ] {
            assert_eq!(check_proc(Path::new(path)).is_ok(), fine, "{path}");
        }
    }
}
