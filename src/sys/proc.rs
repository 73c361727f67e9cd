//! A trusted handle of /proc: what is written to it (labels, sysctls, id maps) cannot be led elsewhere by mounts or links
//! that a container has made.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Context, Error, Result};

/// The root directory of a procfs, known to be one.
#[derive(Debug)]
pub struct Proc(OwnedFd);

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

impl Proc {
    /// The procfs on /proc as the caller sees it. To be opened before the process enters a root that is not trusted.
    pub fn open() -> Result<Proc> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/proc", flags, Mode::empty()).context(|| "cannot open /proc")?;
        Proc::from_fd(fd)
    }

    /// Takes a descriptor of a procfs's root, and checks that it is one.
    pub fn from_fd(fd: OwnedFd) -> Result<Proc> {
        let magic = rustix::fs::fstatfs(&fd).context(|| "cannot examine /proc")?.f_type;
        let inode = rustix::fs::fstat(&fd).context(|| "cannot examine /proc")?.st_ino;
        if magic as i64 != PROC_SUPER_MAGIC || inode != 1 {
            return Err(Error::new("/proc is not a procfs: mount one there"));
        }
        Ok(Proc(fd))
    }

    /// Opens a file below, crossing neither mounts nor magic links.
    pub fn open_file(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
            .context(|| format!("cannot open /proc/{path}"))
    }

    /// Writes a file below in one write.
    pub fn write(&self, path: &str, text: &[u8]) -> Result<()> {
        let mut file = File::from(self.open_file(path, OFlags::WRONLY)?);
        file.write_all(text).context(|| format!("cannot write {:?} to /proc/{path}", String::from_utf8_lossy(text)))
    }

    /// Reads a file below.
    pub fn read(&self, path: &str) -> Result<String> {
        let mut text = String::new();
        let mut file = File::from(self.open_file(path, OFlags::RDONLY)?);
        file.read_to_string(&mut text).context(|| format!("cannot read /proc/{path}"))?;
        Ok(text)
    }
}

/// Whether this process is in a user namespace other than the initial one, as under a rootless engine: there even root
/// makes no device nodes.
pub fn in_user_namespace() -> bool {
    // The kernel gives the initial one this inode number (PROC_USER_INIT_INO).
    const INITIAL: u64 = 0xEFFF_FFFD;
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|s| s.st_ino != INITIAL)
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
