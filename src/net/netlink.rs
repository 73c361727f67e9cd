//! Requests to the kernel over a route netlink socket, one after the other (netlink(7), rtnetlink(7)).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::error::{Context, Error, Result};

/// Sizes of `struct nlmsghdr` and `struct nlattr`.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// The bits of an attribute's type that name it; the others say what is in it.
const TYPE: u16 = 0x3fff;

/// A route message. The crates for netlink know every attribute of every device; the few that are wanted here are
/// simpler than that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// RTM_*.
    pub(super) kind: u16,
    /// The fixed part: `struct ifinfomsg` or `struct ifaddrmsg`.
    pub(super) fixed: Vec<u8>,
    /// IFLA_* or IFA_*, with the bytes of each.
    pub(super) attributes: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// The bytes of an attribute.
    pub(super) fn attribute(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(k, _)| *k == kind).map(|(_, value)| value.as_slice())
    }

    fn to_bytes(&self, flags: u16) -> Result<Vec<u8>> {
        let too_long = |_| Error::new("the netlink request is too long");
        let mut bytes = vec![0; HEADER];
        bytes.extend(&self.fixed);
        for (kind, value) in &self.attributes {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let length = u16::try_from(ATTRIBUTE + value.len()).map_err(too_long)?;
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        }
        let length = u32::try_from(bytes.len()).map_err(too_long)?;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | flag(libc::NLM_F_REQUEST)).to_ne_bytes());
        Ok(bytes)
    }

    /// Takes the bytes behind the header.
    fn from_bytes(kind: u16, body: &[u8]) -> Option<Message> {
        let (fixed, mut rest) = body.split_at_checked(fixed_size(kind)?)?;
        let mut attributes = Vec::new();
        while rest.len() >= ATTRIBUTE {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            let kind = u16::from_ne_bytes([rest[2], rest[3]]) & TYPE;
            attributes.push((kind, rest.get(ATTRIBUTE..length)?.to_vec()));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(Message { kind, fixed: fixed.to_vec(), attributes })
    }
}

/// The size of the fixed part of the kinds that are used here.
fn fixed_size(kind: u16) -> Option<usize> {
    match kind {
        libc::RTM_NEWLINK | libc::RTM_GETLINK => Some(16),
        libc::RTM_NEWADDR | libc::RTM_GETADDR => Some(8),
        _ => None,
    }
}

/// A flag of a message's header, of which libc has the number as an int.
pub(super) const fn flag(flag: libc::c_int) -> u16 {
    flag as u16
}

/// How often a dump is asked for that changes meanwhile.
const ATTEMPTS: usize = 10;

/// What has come of an answer.
#[derive(Debug, Default)]
struct Answer {
    found: Vec<Message>,
    /// Whether something changed while it was put together: it may lack things, or have them twice.
    interrupted: bool,
}

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
    pub(super) fn change(&self, message: &Message, flags: u16) -> Result<()> {
        self.ask(message, flag(libc::NLM_F_ACK) | flags).map(drop)
    }

    /// Gets everything of a kind (RTM_GET*).
    pub(super) fn dump(&self, kind: u16) -> Result<Vec<Message>> {
        let fixed = vec![0; fixed_size(kind).unwrap_or_default()];
        self.ask(&Message { kind, fixed, attributes: Vec::new() }, flag(libc::NLM_F_DUMP))
    }

    fn ask(&self, message: &Message, flags: u16) -> Result<Vec<Message>> {
        let bytes = message.to_bytes(flags)?;
        for _ in 0..ATTEMPTS {
            send(self.0.as_raw_fd(), &bytes, MsgFlags::empty()).context(|| "cannot write to the netlink socket")?;
            let mut answer = Answer::default();
            while !self.answers(&mut answer)? {}
            if !answer.interrupted {
                return Ok(answer.found);
            }
        }
        Err(Error::from_errno(libc::EAGAIN, "the network changes all the time while it is read"))
    }

    /// Receives some answers. True at their end.
    fn answers(&self, answer: &mut Answer) -> Result<bool> {
        let cannot = || "cannot read from the netlink socket";
        let fd = self.0.as_raw_fd();
        let size = recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC).context(cannot)?;
        let mut bytes = vec![0; size];
        let size = recv(fd, &mut bytes, MsgFlags::empty()).context(cannot)?;
        read(&bytes[..size], answer)
    }
}

/// Takes a packet apart. True where it has the end of the answer.
fn read(mut rest: &[u8], answer: &mut Answer) -> Result<bool> {
    let odd = || Error::new("the kernel's netlink answer is not understood");
    while !rest.is_empty() {
        let header = rest.first_chunk::<HEADER>().ok_or_else(odd)?;
        let length = usize::try_from(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])).unwrap_or(0);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = rest.get(HEADER..length).ok_or_else(odd)?;
        answer.interrupted |= u16::from_ne_bytes([header[6], header[7]]) & flag(libc::NLM_F_DUMP_INTR) != 0;
        match i32::from(kind) {
            libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                // The errno, negative; 0 is the end of a dump, or a success that was asked for.
                let code = i32::from_ne_bytes(*body.first_chunk().ok_or_else(odd)?);
                return if code == 0 { Ok(true) } else { Err(std::io::Error::from_raw_os_error(-code).into()) };
            }
            libc::NLMSG_NOOP | libc::NLMSG_OVERRUN => {}
            _ => answer.found.push(Message::from_bytes(kind, body).ok_or_else(odd)?),
        }
        // Messages begin at multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let sent = Message {
            kind: libc::RTM_NEWLINK,
            fixed: (0..16).collect(),
            attributes: vec![(libc::IFLA_IFNAME, b"eth0\0".to_vec()), (libc::IFLA_NET_NS_FD, vec![7, 0, 0, 0])],
        };
        let bytes = sent.to_bytes(flag(libc::NLM_F_ACK)).unwrap();
        assert_eq!(bytes.len(), HEADER + 16 + 12 + 8);
        assert_eq!(bytes[6..8], 5_u16.to_ne_bytes());
        let mut answer = Answer::default();
        assert!(!read(&bytes, &mut answer).unwrap());
        assert!(!answer.interrupted);
        assert_eq!(answer.found, std::slice::from_ref(&sent));
        read(&sent.to_bytes(flag(libc::NLM_F_DUMP_INTR)).unwrap(), &mut answer).unwrap();
        assert!(answer.interrupted);
    }

    #[test]
    fn an_answer_ends_with_done_or_an_errno() {
        let packet = |kind: i32, code: i32| {
            let mut bytes = vec![20, 0, 0, 0];
            bytes.extend((kind as u16).to_le_bytes());
            bytes.extend([0; 10]);
            bytes.extend(code.to_ne_bytes());
            bytes
        };
        for kind in [libc::NLMSG_DONE, libc::NLMSG_ERROR] {
            assert!(read(&packet(kind, 0), &mut Answer::default()).unwrap());
            let error = read(&packet(kind, -libc::EEXIST), &mut Answer::default()).unwrap_err();
            assert_eq!(error.errno(), libc::EEXIST);
        }
        for odd in [&b"abc"[..], &[255, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(read(odd, &mut Answer::default()).is_err());
        }
    }
}
