//! New file systems: made by the mount API that tells why it refuses (fsopen(2)), or by mount(2) for what only that can.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::{MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_RDONLY, MS_SILENT, MS_SYNCHRONOUS};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};

use super::bind::attributes;
use crate::error::{Error, Result};
use crate::spec::options::parameters;

/// Flags of the whole file system that fsconfig(2) takes, by its names.
const SUPERBLOCK: [(u64, &str); 5] = [
    (MS_RDONLY, "ro"),
    (MS_SYNCHRONOUS, "sync"),
    (MS_DIRSYNC, "dirsync"),
    (MS_LAZYTIME, "lazytime"),
    (MS_MANDLOCK, "mand"),
];

/// The longest value that fsconfig(2) takes.
const VALUE_MAX: usize = 255;

/// A file system to mount.
#[derive(Clone, Debug)]
pub(super) struct FileSystem<'a> {
    /// Its type.
    pub(super) kind: &'a str,
    /// Its source.
    pub(super) source: &'a OsStr,
    /// Flags of mount(2).
    pub(super) flags: u64,
    /// Its own options, joined by commas.
    pub(super) data: &'a str,
}

impl FileSystem<'_> {
    /// Whether only mount(2) can make it.
    pub(super) fn needs_mount2(&self) -> bool {
        self.flags & (MS_I_VERSION | MS_SILENT) != 0
            || self.source.len() > VALUE_MAX
            || parameters(self.data).any(|(key, value)| key.len().max(value.unwrap_or_default().len()) > VALUE_MAX)
    }

    /// Makes it, detached.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        let context = rustix::mount::fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
            let error = Error::from(errno);
            if errno == Errno::NODEV { error.context("the kernel does not know this file system") } else { error }
        })?;
        self.configure(&context).map_err(|(what, errno)| explain(&context, what, errno))?;
        let attributes = u32::try_from(attributes(self.flags)).unwrap_or_default();
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes))
            .map_err(|errno| explain(&context, String::new(), errno))
    }

    fn configure(&self, context: &OwnedFd) -> Result<(), (String, Errno)> {
        if !self.source.is_empty() {
            rustix::mount::fsconfig_set_string(context, "source", self.source)
                .map_err(|e| (format!("source {}", self.source.display()), e))?;
        }
        for (flag, name) in SUPERBLOCK {
            if self.flags & flag != 0 {
                rustix::mount::fsconfig_set_flag(context, name).map_err(|e| (format!("option {name}"), e))?;
            }
        }
        for (key, value) in parameters(self.data) {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(context, key, value),
                None => rustix::mount::fsconfig_set_flag(context, key),
            }
            .map_err(|e| (format!("option {key}"), e))?;
        }
        rustix::mount::fsconfig_create(context).map_err(|e| (String::new(), e))
    }

    /// Mounts it by mount(2) on the directory `at`; changes the current directory to that.
    pub(super) fn mount_at(&self, at: BorrowedFd<'_>, more: u64) -> Result<()> {
        rustix::process::fchdir(at)?;
        let flags = MountFlags::from_bits_retain(u32::try_from(self.flags | more).unwrap_or_default());
        let data = std::ffi::CString::new(self.data).map_err(|_| Error::new("an option has a NUL in it"))?;
        Ok(rustix::mount::mount(self.source, ".", self.kind, flags, data.as_c_str())?)
    }
}

/// Adds what the kernel wrote into the log of the context.
fn explain(context: &OwnedFd, what: String, errno: Errno) -> Error {
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    // Each read gives one message, "e " before an error; the end is ENODATA.
    while let Ok(length @ 1..) = rustix::io::read(context.as_fd(), &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        let line = line.trim_end();
        text.push(line.strip_prefix("e ").or(line.strip_prefix("w ")).unwrap_or(line).to_string());
    }
    let mut error = Error::from(errno);
    if !text.is_empty() {
        error = error.context(text.join("; "));
    } else if !what.is_empty() {
        error = error.context(what);
    }
    error
}
