//! The start gate: a created container waits here until `start` calls.
//!
//! The gate is a listening SOCK_SEQPACKET socket in the container's state directory, which init has inherited as a
//! descriptor. The connection tells `start` what became of the program, which a fifo could not.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};

use super::channel::{Channel, InitEnd, Order, RuntimeEnd};
use super::{Orders, unexpected};
use crate::error::{Context, Result};
use crate::sys;

/// The name of the socket in the state directory.
pub const NAME: &str = "start";

/// Makes the gate's socket in the directory behind `dir`.
pub fn make(dir: &OwnedFd) -> Result<OwnedFd> {
    let cannot = || "cannot make the start gate's socket";
    let gate = unix_socket().context(cannot)?;
    // Only who may start the container may call, whatever the caller's umask.
    rustix::fs::fchmod(&gate, rustix::fs::Mode::RWXU).context(cannot)?;
    bind(gate.as_raw_fd(), &address(dir).context(cannot)?).context(cannot)?;
    listen(&gate, Backlog::new(1).context(cannot)?).context(cannot)?;
    Ok(gate)
}

/// Calls at the gate of a container.
pub fn call(dir: &OwnedFd) -> Result<RuntimeEnd> {
    let cannot = || "cannot reach the container's init at the start gate";
    let socket = unix_socket().context(cannot)?;
    connect(socket.as_raw_fd(), &address(dir).context(cannot)?).context(cannot)?;
    Ok(Channel::new(socket))
}

/// A path through the directory's descriptor: the address of a socket has room for 107 bytes only, and the path of a
/// state root may be longer.
fn address(dir: &OwnedFd) -> nix::Result<UnixAddr> {
    UnixAddr::new(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(NAME))
}

fn unix_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

/// Tells the runtime that init is ready, and waits until the program may be executed. Returns the connection over which
/// `start` is told the rest; none where the runtime itself opens the gate (`run`).
pub(super) fn wait(orders: &mut Orders, gate: Option<OwnedFd>, preserve_fds: u32) -> Result<Option<InitEnd>> {
    // A created container can be ended by a signal; a caller may wait for it for long.
    sys::process::end_on_signals()?;
    // With a profile, its filter comes before the last word of the runtime.
    match (orders.ready()?, gate) {
        (Order::Start, _) => Ok(None),
        (Order::Created, Some(mut gate)) => {
            // Nothing of the runtime or its caller may stay open here: who waits for the end of a pipe would wait for us.
            sys::process::keep_only(&mut [&mut gate], super::first_own(preserve_fds)?)?;
            loop {
                let Ok(connection) = rustix::net::accept_with(&gate, rustix::net::SocketFlags::CLOEXEC) else {
                    continue;
                };
                let starter: InitEnd = Channel::new(connection);
                if let Ok(Some((Order::Start, _))) = starter.receive() {
                    return Ok(Some(starter));
                }
            }
        }
        (other, _) => Err(unexpected(&other)),
    }
}
