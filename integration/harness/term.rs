//! Terminals, and the sockets by which runtimes hand them over.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// A listening socket as `--console-socket` and `--pidfd-socket` want it.
pub struct ConsoleSocket {
    pub path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    pub fn new(path: &Path) -> ConsoleSocket {
        ConsoleSocket { path: path.to_owned(), listener: UnixListener::bind(path).unwrap() }
    }

    /// Accepts one connection, and takes the descriptor and the text that come through it.
    #[track_caller]
    pub fn receive(&self) -> (OwnedFd, String) {
        self.listener.set_nonblocking(true).unwrap();
        let (stream, _) = super::eventually("a connection to the socket", || self.listener.accept().ok());
        receive_fd(&stream)
    }
}

/// Takes one message with exactly one descriptor.
#[track_caller]
pub fn receive_fd(stream: &UnixStream) -> (OwnedFd, String) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bytes = [0; 4096];
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!([i32; 8]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), flags).unwrap();
    let mut fds = Vec::new();
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for us.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    assert_eq!(fds.len(), 1, "exactly one descriptor must come");
    (fds.remove(0), String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// A terminal of the test.
pub struct Pty {
    pub master: std::fs::File,
    pub slave: Option<OwnedFd>,
}

impl Pty {
    pub fn new() -> Pty {
        let pair = nix::pty::openpty(None, None).unwrap();
        Pty { master: pair.master.into(), slave: Some(pair.slave) }
    }

    /// Hands the slave over: the master sees the end when all others have closed it.
    pub fn take_slave(&mut self) -> OwnedFd {
        self.slave.take().unwrap()
    }

    /// Reads until the text has come, or the slave is closed; what came.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) -> String {
        read_until(&self.master, text)
    }
}

/// Reads a terminal's master until the text has come.
#[track_caller]
pub fn read_until(master: &std::fs::File, text: &str) -> String {
    use nix::poll::{PollFd, PollFlags, poll};
    use std::io::Read;
    use std::os::fd::AsFd;
    let mut all = String::new();
    let mut bytes = [0; 4096];
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while !all.contains(text) {
        assert!(std::time::Instant::now() < end, "waited 30 s in vain for {text:?}; came: {all:?}");
        let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, 200u16).unwrap() == 0 {
            continue;
        }
        let mut reader = master;
        match reader.read(&mut bytes) {
            Ok(0) => panic!("the terminal ended before {text:?} came; came: {all:?}"),
            Ok(n) => all.push_str(&String::from_utf8_lossy(&bytes[..n])),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                panic!("the terminal was closed before {text:?} came; came: {all:?}")
            }
            Err(e) => panic!("{e}"),
        }
    }
    all
}
