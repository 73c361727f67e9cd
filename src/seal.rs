//! Keeps the runtime's own binary out of reach: a process of a container that gets hold of /proc/PID/exe of the runtime
//! must not be able to write the host's file (CVE-2019-5736).
//!
//! The program runs again from an overlay that has lower layers only: the kernel forces such a file system read-only and
//! never lets it be remounted otherwise, and it costs no copy. Where it cannot be made, from a sealed copy in memory.
//! `sys::early` does the same before the C library starts, where it can be done without a word; here is all of it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, MemfdFlags, SealFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::{self, early};

const EXE: &str = "/proc/self/exe";
const ATTRIBUTES: MountAttrFlags = MountAttrFlags::from_bits_retain(early::ATTRIBUTES);

/// Runs this program again from a view of its binary that nobody can write, unless it already does. Called first thing by
/// create, run and exec, while the process has one thread and nothing is open that matters.
pub fn ensure() -> Result<()> {
    let view = rustix::fs::statfs(EXE).context(|| format!("cannot examine {EXE} (is /proc mounted?)"))?;
    if early::is_our_overlay(view.f_type, view.f_flags) {
        log::debug(|| "runs from a read-only overlay of its binary");
        return Ok(());
    }
    // What hinders the overlay (rights, a kernel without it, a replaced binary) does not hinder the copy.
    if let Ok((mount, name)) = overlay() {
        let _ = sys::seal::exec_again(mount.as_fd(), &name);
    }
    let exe = File::open(EXE).context(|| format!("cannot open {EXE}"))?;
    if is_sealed(exe.as_fd()) {
        // The kernel names a program that is executed by descriptor after the descriptor's number.
        let _ = rustix::thread::set_name(c"vessel");
        log::debug(|| "runs from a sealed copy of its binary");
        return Ok(());
    }
    let copy = copy(&exe).context(|| "cannot make a sealed copy of the runtime (does vm.memfd_noexec forbid it?)")?;
    sys::seal::exec_again(copy.as_fd(), c"").context(|| "cannot run again from a sealed copy of the runtime")?;
    Ok(())
}

/// A detached overlay of the directory of the binary, and the binary's name there.
fn overlay() -> Result<(OwnedFd, CString)> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let path = std::fs::read_link(EXE)?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new("the binary has no path"));
    };
    rustix::mount::fsconfig_set_string(&context, "lowerdir", layers(dir))?;
    // Else the kernel logs at each mount that the layers' inode numbers do not fit together.
    rustix::mount::fsconfig_set_string(&context, "xino", "off")?;
    rustix::mount::fsconfig_create(&context)?;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, ATTRIBUTES)?;
    let name = CString::new(name.as_bytes()).map_err(|_| Error::new("the binary has no path"))?;
    verify(mount.as_fd(), &name)?;
    Ok((mount, name))
}

/// The layers of the overlay, the directory of the binary on top. The kernel asks for two where none can be written, and
/// neither may lie in the other.
fn layers(dir: &Path) -> PathBuf {
    let second = if dir.starts_with("/sys") { b":/dev" } else { early::ELSEWHERE.to_bytes() };
    let mut text = Vec::new();
    for &byte in dir.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':') {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.extend(second);
    PathBuf::from(std::ffi::OsString::from_vec(text))
}

/// The overlay must show the very binary that runs, and be known to the process that runs from it.
fn verify(mount: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let there = rustix::fs::statat(mount, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let here = rustix::fs::stat(EXE)?;
    let same = (there.st_ino, there.st_size, there.st_mtime, there.st_mtime_nsec)
        == (here.st_ino, here.st_size, here.st_mtime, here.st_mtime_nsec);
    let view = rustix::fs::fstatfs(mount)?;
    if !same || !early::is_our_overlay(view.f_type, view.f_flags) {
        return Err(Error::new("the overlay does not show the binary that runs"));
    }
    Ok(())
}

const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

fn is_sealed(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

/// A copy of the binary in memory that can neither be written nor lose that quality.
fn copy(exe: &File) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create("vessel", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memfd may be executed, and none says so.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("vessel", flags),
        other => other,
    }?;
    let size = exe.metadata()?.len();
    let mut offset = 0;
    while offset < size {
        let rest = usize::try_from(size - offset).unwrap_or(usize::MAX);
        if rustix::fs::sendfile(&memory, exe, Some(&mut offset), rest)? == 0 {
            return Err(Error::new("the binary became shorter"));
        }
    }
    rustix::fs::fcntl_add_seals(&memory, SEALS)?;
    if !is_sealed(memory.as_fd()) {
        return Err(Error::new("the kernel did not seal the copy"));
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn layers_are_escaped_and_never_overlap() {
        for (dir, want) in [
            ("/usr/bin", "/usr/bin:/sys/class"),
            ("/odd:dir\\x", "/odd\\:dir\\\\x:/sys/class"),
            ("/sys/fs", "/sys/fs:/dev"),
        ] {
            assert_eq!(layers(Path::new(dir)).as_os_str(), OsStr::new(want));
        }
    }

    #[test]
    fn a_copy_is_whole_and_cannot_be_written() {
        let exe = File::open(EXE).unwrap();
        let memory = File::from(copy(&exe).unwrap());
        assert_eq!(memory.metadata().unwrap().len(), exe.metadata().unwrap().len());
        assert!(rustix::io::write(&memory, b"x").is_err());
        assert!(is_sealed(memory.as_fd()) && !is_sealed(exe.as_fd()));
    }
}
