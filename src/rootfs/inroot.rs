//! Paths inside a root that is not trusted: looked up by the kernel with the root as the end of the world, made one
//! component at a time by descriptors.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// How often a lookup that a concurrent rename disturbed is tried again.
const TRIES: usize = 128;
/// As many symbolic links as the kernel follows.
const LINKS: usize = 40;

/// What to make where a path ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    Directory,
    File,
}

/// Opens what is at `path` (O_PATH); links are followed inside the root. `extra` may forbid more.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags, extra: ResolveFlags) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens what is at `path`; if it is missing, makes it and the directories above it. Tells whether it was made.
/// Without `follow`, a symbolic link where the path ends is what is opened; those on the way are followed all the same.
pub(super) fn ensure(root: BorrowedFd<'_>, path: &Path, leaf: Leaf, follow: bool) -> Result<(OwnedFd, bool)> {
    let flags = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    match resolve(root, path, flags, ResolveFlags::empty()) {
        Err(Errno::NOENT) => Ok((make(root, path, leaf, follow)?, true)),
        other => Ok((other?, false)),
    }
}

/// The slow way of [`ensure`], for what is missing: every component is opened without following links, and links are
/// followed here, so that a dangling one leads to the place in the root that it names.
pub(super) fn make(root: BorrowedFd<'_>, path: &Path, leaf: Leaf, follow: bool) -> Result<OwnedFd> {
    let mut todo = names(path);
    let mut here: Vec<OsString> = Vec::new();
    let mut dir: Option<OwnedFd> = None;
    let (mut links, mut tries) = (0, 0);
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            here.pop();
            dir = Some(open_directory(root, &here)?);
            continue;
        }
        let at = dir.as_ref().map_or(root, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(at, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) if tries < TRIES => {
                tries += 1;
                make_one(at, &name, leaf == Leaf::File && todo.is_empty())?;
                todo.push_front(name);
                continue;
            }
            other => other?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if !follow && todo.is_empty() {
                    return Ok(fd);
                }
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                let target = OsString::from_vec(rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes());
                if Path::new(&target).is_absolute() {
                    here.clear();
                    dir = None;
                }
                for name in names(Path::new(&target)).into_iter().rev() {
                    todo.push_front(name);
                }
            }
            FileType::Directory => {
                here.push(name);
                dir = Some(fd);
            }
            _ if todo.is_empty() => return Ok(fd),
            _ => return Err(Errno::NOTDIR),
        }
    }
    dir.map_or_else(|| open_directory(root, &here), Ok)
}

fn make_one(at: BorrowedFd<'_>, name: &OsStr, file: bool) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    let made = if file {
        rustix::fs::mknodat(at, name, FileType::RegularFile, mode, 0)
    } else {
        rustix::fs::mkdirat(at, name, mode)
    };
    match made {
        // Somebody else made it; what it is shows when it is opened.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn open_directory(root: BorrowedFd<'_>, here: &[OsString]) -> Result<OwnedFd> {
    let path: std::path::PathBuf = here.iter().collect();
    resolve(root, &path, OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let dir = std::env::temp_dir().join(format!("vessel-inroot-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let fd = rustix::fs::open(&dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn what_is_missing_is_made_inside_whatever_the_links_say() {
        let (dir, root) = tree("make");
        std::fs::create_dir(dir.join("run")).unwrap();
        symlink("/run/deep", dir.join("dangling")).unwrap();
        symlink("../../../up", dir.join("run/out")).unwrap();
        for (path, leaf, made) in [
            ("/a/b/c", Leaf::Directory, "a/b/c"),
            ("/a/f", Leaf::File, "a/f"),
            ("/dangling/x", Leaf::Directory, "run/deep/x"),
            ("/run/out/y", Leaf::File, "up/y"),
            ("/a/../../../b", Leaf::Directory, "b"),
        ] {
            let (_, new) = ensure(root.as_fd(), Path::new(path), leaf, true).unwrap();
            assert!(new, "{path}");
            let meta = std::fs::symlink_metadata(dir.join(made)).unwrap();
            assert_eq!(meta.is_dir(), leaf == Leaf::Directory, "{path}");
            let (_, new) = ensure(root.as_fd(), Path::new(path), leaf, true).unwrap();
            assert!(!new, "{path}");
        }
        let leads = |path: &str| {
            let (fd, _) = ensure(root.as_fd(), Path::new(path), Leaf::Directory, false).unwrap();
            FileType::from_raw_mode(rustix::fs::fstat(&fd).unwrap().st_mode)
        };
        assert_eq!(leads("/dangling"), FileType::Symlink);
        assert_eq!(leads("/dangling/z"), FileType::Directory);
        assert!(dir.join("run/deep/z").is_dir());
        assert_eq!(ensure(root.as_fd(), Path::new("/a/f/g"), Leaf::File, true).unwrap_err(), Errno::NOTDIR);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn links_in_a_circle_end() {
        let (dir, root) = tree("circle");
        symlink("two", dir.join("one")).unwrap();
        symlink("one", dir.join("two")).unwrap();
        assert_eq!(make(root.as_fd(), Path::new("/one/x"), Leaf::File, true).unwrap_err(), Errno::LOOP);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
