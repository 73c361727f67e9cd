//! The few system calls on cgroup directories: short files that are read and written whole, by directory descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::error::{Context, Error, Result};

/// The magic numbers of statfs(2).
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// Which kind of cgroup file system a path lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V1,
    V2,
    Other,
}

/// The kind of file system at `path`; none where there is no such path.
pub(super) fn kind(path: &Path) -> Option<Kind> {
    let stat = rustix::fs::statfs(path).ok()?;
    // The type of f_type differs between targets, the value never exceeds 32 bits.
    Some(match stat.f_type as u64 & 0xffff_ffff {
        CGROUP_SUPER_MAGIC => Kind::V1,
        CGROUP2_SUPER_MAGIC => Kind::V2,
        _ => Kind::Other,
    })
}

/// Opens a directory, to open files below it and to list it.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file of a cgroup.
pub(super) fn open_file(dir: impl AsFd, name: impl Arg, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a short file (one page at most, which the kernel hands out in one read).
pub(super) fn read(dir: impl AsFd, name: &str) -> Result<String, Errno> {
    read_fd(open_file(dir, name, OFlags::RDONLY)?.as_fd())
}

/// Reads a short file from its start, by its own descriptor.
pub(super) fn read_fd(file: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut buffer = [0_u8; 4096];
    let length = rustix::io::pread(file, &mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Reads a file of any length.
pub(super) fn read_all(file: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        match rustix::io::read(file, &mut buffer) {
            Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes a value in one write, as the files of cgroups ask for.
pub(super) fn write(dir: impl AsFd, name: &str, value: &str) -> Result<(), Errno> {
    let file = open_file(dir, name, OFlags::WRONLY)?;
    rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes())).map(drop)
}

/// The names of the cgroups right below. A container chooses them, and they may be no UTF-8.
pub(super) fn children(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    // A cgroup's directory has a link of its own, one from its parent, and one from each child.
    if rustix::fs::fstat(dir)?.st_nlink <= 2 {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The file's value for a key, in files of lines `KEY VALUE`.
pub(super) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// The error of a read of `dir/name`.
pub(super) fn cannot_read(errno: Errno, dir: &Path, name: &str) -> Error {
    Error::from_errno(errno.raw_os_error(), format!("cannot read {}", dir.join(name).display()))
}

/// The error of a write to `dir/name`.
pub(super) fn cannot_write(errno: Errno, dir: &Path, name: &str, value: &str) -> Error {
    Error::from_errno(
        errno.raw_os_error(),
        format!("cannot write {:?} to {}", value.trim_end(), dir.join(name).display()),
    )
}

/// Reads a file of the host.
pub(super) fn read_path(path: &str) -> Result<String> {
    let open = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, open, Mode::empty()).context(|| format!("cannot open {path}"))?;
    read_all(file.as_fd()).context(|| format!("cannot read {path}"))
}

/// `base` with the absolute path `path` below it.
pub(super) fn below(base: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => base.to_path_buf(),
        Ok(rest) => base.join(rest),
        Err(_) => base.join(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_key() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(value(text, "frozen"), Some("0"));
        assert_eq!(value(text, "populated"), Some("1"));
        assert_eq!(value(text, "froze"), None);
    }

    #[test]
    fn paths_stay_below_their_base() {
        for (base, path, want) in [("/m", "/", "/m"), ("/m", "/a/b", "/m/a/b"), ("/m/", "/a", "/m/a")] {
            assert_eq!(below(Path::new(base), Path::new(path)), Path::new(want));
        }
    }
}
