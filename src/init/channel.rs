//! The sync channel between the runtime and init: one SOCK_SEQPACKET pair, typed at both ends.
//!
//! ```text
//!      runtime                                         init (or the intermediate before it)
//!   1            <- Pid(pid)        ------------------ intermediate: init is made, this is its pid
//!   2            <- MapIds          ------------------ in a new user namespace: needs id mappings
//!                -- Mapped          ----------------->
//!   3            -- Filter(program) -----------------> the compiled seccomp filter, whenever it is ready
//!                <- MapMount(i) + fd ----------------- in a user namespace: a mount's ids are to be mapped
//!                -- MountMapped(e)  ----------------->
//!                <- Attach          ------------------ under systemd: needs to be in its cgroup, limited
//!                -- Attached(path)  ----------------->
//!   4            <- Hooks           ------------------ namespaces and mounts are there
//!                -- HooksDone       -----------------> prestart and createRuntime hooks have run
//!   5            <- Terminal + fd   ------------------ the terminal's master, where no console socket takes it
//!   6            <- Limits          ------------------ in a user namespace: limits need outer rights
//!                -- Limited(done)   ----------------->
//!   7            <- Ready           ------------------ set up, at the gate
//!                -- Created | Start -----------------> Start from 3 on, where nothing has to be done in between
//!   8            <- Listener(fd)    ------------------ a seccomp listener is there to be fetched
//!                -- Listened        ----------------->
//!   9            <- Failed(error)   ------------------ at any time: the error, whole; the sender ends
//!                   end of file     ------------------ after Start: the program was executed
//! ```
//!
//! `start` speaks from 7 on over a connection to the gate's socket.

use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg,
    socketpair,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Context, Error, Result};

/// What init tells the runtime.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The process was not made in its cgroup, and has to be moved there by now.
    Attach,
    /// The intermediate has made init.
    Pid(i32),
    /// The user namespace needs its mappings.
    MapIds,
    /// The mounts are there: network devices and hooks of the runtime are due.
    Hooks,
    /// The mount of this number, the tree of which comes with the message, needs its ids mapped by outer rights.
    MapMount(usize),
    /// The terminal's master comes with this message.
    Terminal,
    /// Resource limits and the OOM score are due.
    Limits,
    /// What could not be done and is no failure.
    Warning(String),
    /// Everything is set up.
    Ready,
    /// The listener's number in init.
    Listener(i32),
    /// What went wrong.
    Failed(Error),
}

/// What the runtime tells init.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// The process is in its cgroup, which has this path where that was not known before.
    Attached(Option<PathBuf>),
    /// The mappings are written.
    Mapped,
    /// The BPF program of the seccomp filter, its flags, and whether it has a listener.
    Filter(Vec<u64>, u32, bool),
    /// The mount's ids are mapped, or why not.
    MountMapped(Option<Error>),
    /// The hooks have run.
    HooksDone,
    /// Whether the runtime could set the limits; where not, init tries.
    Limited(bool),
    /// The container is created: wait for `start`.
    Created,
    /// Execute the program.
    Start,
    /// The listener was fetched.
    Listened,
}

/// One end: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    socket: OwnedFd,
    types: PhantomData<(S, R)>,
}

/// The runtime's end.
pub type RuntimeEnd = Channel<Order, Report>;
/// Init's end.
pub type InitEnd = Channel<Report, Order>;

/// Makes the two ends.
pub fn pair() -> Result<(RuntimeEnd, InitEnd)> {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .context(|| "cannot make the sync channel")?;
    Ok((Channel::new(a), Channel::new(b)))
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    /// Speaks over a connected SOCK_SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> Self {
        Channel { socket, types: PhantomData }
    }

    /// The socket.
    pub(super) fn socket(&mut self) -> &mut OwnedFd {
        &mut self.socket
    }

    /// Sends a message.
    ///
    /// By write(2) and nothing else: under a seccomp profile that is the one system call that may not wait for a listener.
    pub fn send(&self, message: &S) -> Result<()> {
        let text = encode(message)?;
        rustix::io::write(&self.socket, &text).context(|| "cannot write to the sync channel")?;
        Ok(())
    }

    /// Sends a message with a descriptor.
    pub fn send_with(&self, message: &S, fd: &OwnedFd) -> Result<()> {
        let text = encode(message)?;
        let fds = [fd.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        let iov = [IoSlice::new(&text)];
        sendmsg::<()>(self.socket.as_raw_fd(), &iov, &control, MsgFlags::MSG_NOSIGNAL, None)
            .context(|| "cannot write to the sync channel")?;
        Ok(())
    }

    /// Whether [`Channel::receive`] returns at once.
    pub fn ready(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Receives a message; none at the end of the file.
    pub fn receive(&self) -> Result<Option<(R, Option<OwnedFd>)>> {
        let fd = self.socket.as_raw_fd();
        let cannot = || "cannot read from the sync channel";
        let size = retry(|| recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC));
        let size = match size {
            Ok(0) => return Ok(None),
            size => size.context(cannot)?,
        };
        let mut buffer = vec![0; size];
        let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let mut passed = None;
        let message = retry(|| {
            recvmsg::<()>(fd, &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC).map(|m| {
                for c in m.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::ScmRights(fds) = c {
                        passed = fds.first().copied();
                    }
                }
                m.bytes
            })
        });
        message.context(cannot)?;
        let passed = passed.map(crate::sys::fd::received);
        let message = serde_json::from_slice(&buffer).map_err(|e| Error::new(format!("sync channel: {e}")))?;
        Ok(Some((message, passed)))
    }

    /// Receives a short message without a descriptor, by read(2) and nothing else: for init under its seccomp filter.
    pub fn receive_short(&self) -> Result<Option<R>> {
        let mut buffer = [0; 256];
        let size = rustix::io::read(&self.socket, &mut buffer).context(|| "cannot read from the sync channel")?;
        if size == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&buffer[..size]).map(Some).map_err(|e| Error::new(format!("sync channel: {e}")))
    }
}

fn encode<S: Serialize>(message: &S) -> Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(|e| Error::new(format!("sync channel: {e}")))
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            // The other end has gone without reading all; it is told once, and what it has sent is still there.
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_whole() {
        let (runtime, init) = pair().unwrap();
        let error = Error::from_errno(libc::ENOENT, "mount /x");
        assert!(!runtime.ready());
        init.send(&Report::Failed(error.clone())).unwrap();
        assert!(runtime.ready());
        drop(init);
        match runtime.receive().unwrap() {
            Some((Report::Failed(e), None)) => assert_eq!(e, error),
            other => panic!("{other:?}"),
        }
        assert!(runtime.ready() && runtime.receive().unwrap().is_none());
    }

    #[test]
    fn the_last_words_of_who_did_not_listen_are_heard() {
        let (runtime, init) = pair().unwrap();
        runtime.send(&Order::Limited(true)).unwrap();
        init.send(&Report::Failed(Error::new("reason"))).unwrap();
        drop(init);
        assert!(matches!(runtime.receive().unwrap(), Some((Report::Failed(e), None)) if e.to_string() == "reason"));
        assert!(runtime.receive().unwrap().is_none());
    }

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let (runtime, init) = pair().unwrap();
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        init.send_with(&Report::Terminal, &null).unwrap();
        let (message, fd) = runtime.receive().unwrap().unwrap();
        assert!(matches!(message, Report::Terminal) && fd.is_some());
    }
}
