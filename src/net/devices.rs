//! Network devices that move into the container's network namespace (config-linux.md, "Network Devices").

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::LinuxNetDevice;
use rustix::fs::{Mode, OFlags};

use super::netlink::{Message, Socket, flag};
use crate::error::{Cause, Context, Error, Result};

/// The devices to move: their names in the runtime's namespace and in the container's.
#[derive(Debug, Default)]
pub struct Devices(BTreeMap<String, String>);

impl Devices {
    /// Takes `linux.netDevices`.
    pub fn new(devices: &HashMap<String, LinuxNetDevice>) -> Devices {
        let new = |device: &LinuxNetDevice| device.name().clone().filter(|name| !name.is_empty());
        Devices(devices.iter().map(|(name, device)| (name.clone(), new(device).unwrap_or(name.clone()))).collect())
    }

    /// Moves them from the network namespace of this process, which has one thread, to that of process `pid`: each with
    /// its permanent addresses of global scope, and up.
    pub fn move_to(&self, pid: i32) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let here = Socket::open()?;
        let namespace = open(Path::new(&format!("/proc/{pid}/ns/net")))?;
        let own = open(Path::new("/proc/self/ns/net"))?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .context(|| "cannot enter the container's network namespace")?;
        let there = Socket::open();
        setns(own.as_fd(), CloneFlags::CLONE_NEWNET).context(|| "cannot go back to the network namespace")?;
        let there = there?;
        for (name, new) in &self.0 {
            move_one(&here, &there, &namespace, name, new).context(|| {
                let renamed = if name == new { String::new() } else { format!(" as {new}") };
                format!("linux.netDevices: cannot move {name} to the container{renamed}")
            })?;
        }
        Ok(())
    }
}

fn move_one(here: &Socket, there: &Socket, namespace: &OwnedFd, name: &str, new: &str) -> Result<()> {
    let index = *links(here)?
        .get(name)
        .ok_or_else(|| Error::of(Cause::Config, "there is no such device in the network namespace of the runtime"))?;
    let before = links(there)?;
    // The kernel would move it first and then find that it cannot rename it.
    if before.contains_key(new) {
        return Err(Error::from_errno(libc::EEXIST, format!("the container has a device {new} already")));
    }
    let addresses = addresses(here, index)?;
    let mut link = link(index, 0);
    link.attributes.push((libc::IFLA_IFNAME, [new.as_bytes(), b"\0"].concat()));
    link.attributes.push((libc::IFLA_NET_NS_FD, namespace.as_raw_fd().to_ne_bytes().to_vec()));
    here.change(&link, 0)?;

    let after = links(there)?;
    let moved = after.get(new).or_else(|| after.iter().find(|(n, _)| !before.contains_key(*n)).map(|(_, i)| i));
    let index = *moved.ok_or_else(|| Error::new("it is not there after the move"))?;
    for mut address in addresses {
        address.fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let new = flag(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        there.change(&address, new).context(|| "cannot give it one of its addresses again")?;
    }
    there.change(&self::link(index, libc::IFF_UP as u32), 0).context(|| "cannot bring it up")
}

/// A request to change the device `index`, with these flags set (`struct ifinfomsg`).
fn link(index: u32, flags: u32) -> Message {
    let mut fixed = vec![0; 4];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(flags.to_ne_bytes());
    fixed.extend(flags.to_ne_bytes());
    Message { kind: libc::RTM_NEWLINK, fixed, attributes: Vec::new() }
}

/// The devices of a namespace by their names, with their indices.
fn links(socket: &Socket) -> Result<BTreeMap<String, u32>> {
    let link = |message: Message| {
        let name = message.attribute(libc::IFLA_IFNAME).filter(|_| message.kind == libc::RTM_NEWLINK)?;
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        Some((String::from_utf8_lossy(name).into_owned(), index(&message)?))
    };
    let found = socket.dump(libc::RTM_GETLINK).context(|| "cannot list the network devices")?;
    Ok(found.into_iter().filter_map(link).collect())
}

/// The device that a message is about: at the same place in `struct ifinfomsg` and `struct ifaddrmsg`.
fn index(message: &Message) -> Option<u32> {
    message.fixed.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The addresses that a device keeps when it moves: permanent ones of global scope. Others mean something only where the
/// device was, or come back by themselves.
fn addresses(socket: &Socket, device: u32) -> Result<Vec<Message>> {
    const PERMANENT: u8 = libc::IFA_F_PERMANENT as u8;
    let address = |mut message: Message| {
        let &[_, _, flags, scope, ..] = message.fixed.as_slice() else { return None };
        let kept = message.kind == libc::RTM_NEWADDR
            && index(&message) == Some(device)
            && scope == libc::RT_SCOPE_UNIVERSE
            && flags & PERMANENT != 0;
        message.attributes.retain(|(kind, _)| [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST].contains(kind));
        message.fixed[2] = 0;
        kept.then_some(message)
    };
    let found = socket.dump(libc::RTM_GETADDR).context(|| "cannot list the addresses of the device")?;
    Ok(found.into_iter().filter_map(address).collect())
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("cannot open {}", path.display()))
}
