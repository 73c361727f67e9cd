//! What a new tmpfs takes over from the image: the mode of the directory it lies on, and with tmpcopyup its content.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use super::place::Place;
use crate::error::{Context, Error, Result};
use crate::spec::options::Options;

/// A tmpfs on a directory that was there has its mode, unless the options say another.
pub(super) fn inherit_mode(place: &Place, options: &mut Options) -> Result<()> {
    if !place.made && !options.data.split(',').any(|o| o.starts_with("mode=")) {
        let mode = rustix::fs::fstat(&place.fd)?.st_mode & 0o7777;
        super::mounts::add_option(&mut options.data, &format!("mode={mode:o}"));
    }
    Ok(())
}

/// Copies a directory's content into a new, detached file system; by descriptors, following no links.
pub(super) fn copy_up(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let source = rustix::fs::openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| "cannot copy up")?;
    let target = rustix::fs::openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| "cannot copy up")?;
    copy_directory(source, &target)
}

fn copy_directory(source: OwnedFd, target: &OwnedFd) -> Result<()> {
    let entries = rustix::fs::Dir::read_from(&source).context(|| "cannot copy up")?;
    for entry in entries {
        let entry = entry.context(|| "cannot copy up")?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(&source, target, name).context(|| format!("cannot copy up {}", name.to_string_lossy()))?;
    }
    Ok(())
}

fn copy_entry(source: &OwnedFd, target: &OwnedFd, name: &std::ffi::CStr) -> Result<()> {
    // What the container may put in its place meanwhile is not read.
    let found = rustix::fs::openat(source, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&found)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let from = rustix::fs::openat(&found, ".", read | OFlags::DIRECTORY, Mode::empty())?;
            // An image may be as deep as there are descriptors for.
            drop(found);
            rustix::fs::mkdirat(target, name, mode)?;
            let to = rustix::fs::openat(target, name, read | OFlags::DIRECTORY, Mode::empty())?;
            copy_directory(from, &to)?;
        }
        FileType::RegularFile => {
            let mut from = std::fs::File::from(rustix::fs::openat(source, name, read, Mode::empty())?);
            let opened = rustix::fs::fstat(&from)?;
            if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
                return Err(Error::new("another file was put in its place meanwhile"));
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut to = std::fs::File::from(rustix::fs::openat(target, name, flags, mode)?);
            std::io::copy(&mut from, &mut to)?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(&link, target, name)?;
        }
        FileType::Socket | FileType::Unknown => return Ok(()),
        other => rustix::fs::mknodat(target, name, other, mode, stat.st_rdev)?,
    }
    take_over(target, name, &stat)
}

/// Owner, mode (which a change of owner may reduce) and times of the original.
fn take_over(target: &OwnedFd, name: &std::ffi::CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // The file system is not attached yet: nobody else can put a link in its place.
        rustix::fs::chmodat(target.as_fd(), name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    };
    Ok(rustix::fs::utimensat(target, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
