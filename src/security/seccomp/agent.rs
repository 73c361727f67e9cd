//! Hands a listener to the agent that answers its notifications.

use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Result};

/// The longest path that fits into a socket's address.
const LONGEST_PATH: usize = 107;

/// Sends a listener with the container process state to the agent behind `listener_path` (config-linux.md, "The Container
/// Process State").
pub fn send_listener(listener_path: &str, listener: OwnedFd, state: &str) -> Result<()> {
    let mut agent = connect(listener_path).map_err(|e| {
        e.context(format!("failed to connect with seccomp agent specified in the seccomp profile ({listener_path})"))
    })?;
    send(&mut agent, &listener, state).map_err(|e| e.context(format!("cannot send seccomp fd to {listener_path}")))
}

fn connect(path: &str) -> Result<UnixStream> {
    if path.len() <= LONGEST_PATH {
        return Ok(UnixStream::connect(path)?);
    }
    let socket = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd()))?)
}

fn send(agent: &mut UnixStream, listener: &OwnedFd, state: &str) -> Result<()> {
    let fds = [listener.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(state.as_bytes())];
    let sent =
        sendmsg::<UnixAddr>(agent.as_raw_fd(), &data, &control, MsgFlags::MSG_NOSIGNAL, None).map_err(Error::from)?;
    let rest = state.as_bytes().get(sent..).unwrap_or_default();
    agent.write_all(rest).context(|| "the state was cut short")
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read};
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    fn serve(name: &str) {
        let dir = std::env::temp_dir().join(format!("vessel-agent-{}-{}", std::process::id(), name.len()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join(name);
        // The path is bound by a short name and moved, as an address cannot hold a long one.
        let server = UnixListener::bind(dir.join("s")).unwrap();
        std::fs::rename(dir.join("s"), &path).unwrap();
        let (_, write_end) = std::io::pipe().unwrap();
        send_listener(path.to_str().unwrap(), write_end.into(), "{\"fds\":[\"seccompFd\"]}").unwrap();

        let (mut agent, _) = server.accept().unwrap();
        let mut buffer = [0u8; 8];
        let mut space = nix::cmsg_space!([i32; 4]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message =
            recvmsg::<UnixAddr>(agent.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
        let control: Vec<_> = message.cmsgs().unwrap().collect();
        assert!(matches!(&control[..], [ControlMessageOwned::ScmRights(fds)] if fds.len() == 1), "{control:?}");
        let mut rest = String::new();
        agent.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "\"seccompFd\"]}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_agent_gets_descriptor_and_state() {
        serve("agent");
        serve(&"long".repeat(30));
    }

    #[test]
    fn an_agent_that_is_not_there_is_told() {
        let (_, write_end) = std::io::pipe().unwrap();
        let e = send_listener("/nowhere/agent", write_end.into(), "{}").unwrap_err().to_string();
        assert!(e.starts_with("failed to connect with seccomp agent"), "{e}");
    }
}
