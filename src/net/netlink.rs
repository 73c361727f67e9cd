//! Requests to the kernel over a route netlink socket, one after the other.

use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::error::{Context, Error, Result};

/// A socket in the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Makes one in the network namespace of this process.
    pub(super) fn open() -> Result<Socket> {
        let made = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        made.map(Socket).context(|| "cannot make a netlink socket")
    }

    /// Has something done.
    pub(super) fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// Gets everything of a kind.
    pub(super) fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.ask(message, NLM_F_DUMP)
    }

    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        send(self.0.as_raw_fd(), &bytes, MsgFlags::empty()).context(|| "cannot write to the netlink socket")?;
        let mut found = Vec::new();
        while !self.answers(&mut found)? {}
        Ok(found)
    }

    /// Receives some answers. True at their end.
    fn answers(&self, found: &mut Vec<RouteNetlinkMessage>) -> Result<bool> {
        let cannot = || "cannot read from the netlink socket";
        let fd = self.0.as_raw_fd();
        let size = recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC).context(cannot)?;
        let mut bytes = vec![0; size];
        let size = recv(fd, &mut bytes, MsgFlags::empty()).context(cannot)?;
        let mut rest = &bytes[..size];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| Error::new(format!("the kernel's netlink answer is not understood: {e}")))?;
            match answer.payload {
                NetlinkPayload::Error(e) => match e.code {
                    None => return Ok(true),
                    Some(code) => return Err(std::io::Error::from_raw_os_error(-code.get()).into()),
                },
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(message) => found.push(message),
                _ => {}
            }
            // Messages begin at multiples of four.
            let next = usize::try_from(answer.header.length).unwrap_or(0).next_multiple_of(4);
            rest = rest.get(next..).filter(|_| next > 0).unwrap_or_default();
        }
        Ok(false)
    }
}
