//! Terminals: making one inside the container, and handing its master to whoever asked.

use std::ffi::CString;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::error::{Context, Error, Result};

const DEVPTS_MAGIC: i64 = 0x1cd1;
/// The majors of slaves of Unix 98 terminals (Documentation/admin-guide/devices.txt).
const SLAVE_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Connects to a console socket (`--console-socket`), in the runtime, before the fork.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    stream(path).map(OwnedFd::from).context(|| format!("cannot connect to the console socket {}", path.display()))
}

/// Sends a descriptor of the container's process over a pidfd socket (`--pidfd-socket`).
pub fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let what = || format!("cannot send the pidfd to the pidfd socket {}", path.display());
    let stream = stream(path).context(what)?;
    send(stream.as_fd(), b"pidfd", pidfd.as_fd()).context(what)
}

/// Sends the master over a console socket, as engines expect it: one message, the name as payload, one descriptor.
pub fn send_master(socket: BorrowedFd<'_>, master: &OwnedFd) -> Result<()> {
    let what = || "cannot send the terminal over the console socket";
    let name = name(master.as_fd()).context(what)?;
    send(socket, name.as_bytes(), master.as_fd()).context(what)
}

/// Connects to a socket by a path of any length: engines' directories are deep, and an address takes 107 bytes.
fn stream(path: &Path) -> std::io::Result<UnixStream> {
    let long = path.as_os_str().len() > 107;
    let (Some(dir), Some(name), true) = (path.parent(), path.file_name(), long) else {
        return UnixStream::connect(path);
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}

/// One message with one descriptor.
fn send(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let fds = [fd.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(payload)], &control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

fn name(master: BorrowedFd<'_>) -> Result<CString> {
    Ok(rustix::pty::ptsname(master, Vec::new())?)
}

/// A new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// The engine's or the runtime's end.
    pub master: OwnedFd,
    /// The program's end.
    pub slave: OwnedFd,
}

/// Makes a terminal from the devpts on /dev/pts of the root that the process is in: after pivot_root, the container's. The slave comes by
/// TIOCGPTPEER; both are checked. `size` is rows and columns.
pub fn open(size: Option<(u16, u16)>) -> Result<Terminal> {
    const WHAT: &str = "process.terminal: cannot open a terminal";
    let pts = in_root("/dev/pts").context(|| WHAT)?;
    if !is_devpts(pts.as_fd()).context(|| WHAT)? {
        return Err(Error::new(format!("{WHAT}: /dev/pts is not a devpts")).hint("mount one there in config.json"));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat2(&pts, "ptmx", flags, Mode::empty(), resolve)
        .context(|| format!("{WHAT}: open /dev/pts/ptmx"))?;
    rustix::pty::unlockpt(&master).context(|| format!("{WHAT}: unlock it"))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).context(|| format!("{WHAT}: get its slave"))?;
    let stat = rustix::fs::fstat(&slave).context(|| WHAT)?;
    if !is_devpts(slave.as_fd()).context(|| WHAT)? || !is_slave(&stat) {
        return Err(Error::new(format!("{WHAT}: what /dev/pts/ptmx gives is no terminal")));
    }
    if let Some((ws_row, ws_col)) = size {
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).context(|| "process.consoleSize: cannot set it")?;
    }
    Ok(Terminal { master, slave })
}

/// Binds the slave on /dev/console of the root that the process is in; by descriptors, never through a link.
pub fn bind_console(terminal: &Terminal) -> Result<()> {
    const WHAT: &str = "cannot bind the terminal on /dev/console";
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&terminal.slave, "", flags).context(|| format!("{WHAT}: clone its mount"))?;
    let dev = in_root("/dev").context(|| WHAT)?;
    let target = console_file(&dev).context(|| WHAT)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", &target, "", flags).context(|| WHAT)?;
    // What is on the path in the end must be the terminal, whoever else is at work in a shared directory.
    let mounted = rustix::fs::statat(&dev, "console", AtFlags::SYMLINK_NOFOLLOW).context(|| WHAT)?;
    let slave = rustix::fs::fstat(&terminal.slave).context(|| WHAT)?;
    if (mounted.st_dev, mounted.st_ino, mounted.st_rdev) != (slave.st_dev, slave.st_ino, slave.st_rdev) {
        return Err(Error::new(format!("{WHAT}: another file has taken its place")));
    }
    Ok(())
}

/// The file that the terminal is bound on, made where it is missing.
fn console_file(dev: &OwnedFd) -> Result<OwnedFd> {
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dev, "console", path, Mode::empty()) {
        Err(Errno::NOENT) => {
            let create = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dev, "console", create, Mode::from_raw_mode(0o600))?
        }
        other => other?,
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile | FileType::CharacterDevice => Ok(file),
        FileType::Symlink => Err(Error::new("it is a symbolic link")),
        _ => Err(Error::new("it is neither a file nor a device")),
    }
}

/// Makes the slave the controlling terminal and the standard streams of this process, a session leader.
pub fn adopt(slave: OwnedFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(&slave).context(|| "cannot make the terminal the controlling one")?;
    (|| -> rustix::io::Result<()> {
        rustix::stdio::dup2_stdin(&slave)?;
        rustix::stdio::dup2_stdout(&slave)?;
        rustix::stdio::dup2_stderr(&slave)
    })()
    .context(|| "cannot make the terminal the standard streams")?;
    if slave.as_raw_fd() <= 2 {
        // It is one of the streams itself, and stays open.
        std::mem::forget(slave);
    }
    Ok(())
}

/// Gives the files behind the standard streams to the process's user, so that it can open /proc/self/fd/1 and the like;
/// their groups stay. /dev/null is everybody's, a terminal is the caller's unless it was made for the container
/// (`terminal`), and what cannot be given away is left: a read-only file, or one of an owner who is not mapped.
pub fn own_streams(uid: u32, terminal: bool) -> Result<()> {
    let null = rustix::fs::makedev(1, 3);
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if stat.st_uid == uid || device && (stat.st_rdev == null || !terminal && rustix::termios::isatty(stream)) {
            continue;
        }
        match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS | Errno::BADF) => {}
            Err(e) => {
                return Err(e).context(|| format!("cannot give standard stream {} to uid {uid}", stream.as_raw_fd()));
            }
        }
    }
    Ok(())
}

/// A directory of the root that the process is in, through no link of a procfs.
fn in_root(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::open("/", flags, Mode::empty()).context(|| "open /")?;
    rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve).context(|| format!("open {path}"))
}

fn is_devpts(file: BorrowedFd<'_>) -> Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == DEVPTS_MAGIC)
}

fn is_slave(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && SLAVE_MAJORS.contains(&rustix::fs::major(stat.st_rdev))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_console_socket_may_lie_deep() {
        let dir = std::env::temp_dir().join(format!("vessel-console-{}", std::process::id())).join("d".repeat(120));
        std::fs::create_dir_all(&dir).unwrap();
        let here = rustix::fs::open(&dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let _listener = UnixListener::bind(format!("/proc/self/fd/{}/s", here.as_raw_fd())).unwrap();
        assert!(connect(&dir.join("s")).is_ok());
        let e = connect(&dir.join("missing")).unwrap_err();
        assert!(e.to_string().contains("console socket") && e.errno() == libc::ENOENT, "{e}");
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }
}
