//! Network devices that move into the container's network namespace (config-linux.md, "Network Devices").

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::LinuxNetDevice;
use rustix::fs::{Mode, OFlags};

use super::netlink::Socket;
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
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::IfName(new.to_string()), LinkAttribute::NetNsFd(namespace.as_raw_fd())];
    here.change(RouteNetlinkMessage::NewLink(link), 0)?;

    let after = links(there)?;
    let moved = after.get(new).or_else(|| after.iter().find(|(n, _)| !before.contains_key(*n)).map(|(_, i)| i));
    let index = *moved.ok_or_else(|| Error::new("it is not there after the move"))?;
    for mut address in addresses {
        address.header.index = index;
        let request = RouteNetlinkMessage::NewAddress(address);
        there.change(request, NLM_F_CREATE | NLM_F_EXCL).context(|| "cannot give it one of its addresses again")?;
    }
    let mut up = LinkMessage::default();
    up.header.index = index;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    there.change(RouteNetlinkMessage::NewLink(up), 0).context(|| "cannot bring it up")
}

/// The devices of a namespace by their names, with their indices.
fn links(socket: &Socket) -> Result<BTreeMap<String, u32>> {
    let found = socket.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let link = |message| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let name = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        Some((name?, link.header.index))
    };
    Ok(found.context(|| "cannot list the network devices")?.into_iter().filter_map(link).collect())
}

/// The addresses that a device keeps when it moves: permanent ones of global scope. Others mean something only where the
/// device was, or come back by themselves.
fn addresses(socket: &Socket, index: u32) -> Result<Vec<AddressMessage>> {
    let found = socket.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
    let address = |message| {
        let RouteNetlinkMessage::NewAddress(mut address) = message else { return None };
        let header = &address.header;
        let kept = header.index == index
            && header.scope == AddressScope::Universe
            && header.flags.contains(AddressHeaderFlags::Permanent);
        address.attributes.retain(|a| {
            use AddressAttribute::{Address, Broadcast, Local};
            matches!(a, Address(_) | Local(_) | Broadcast(_))
        });
        address.header.flags = AddressHeaderFlags::empty();
        kept.then_some(address)
    };
    Ok(found.context(|| "cannot list the addresses of the device")?.into_iter().filter_map(address).collect())
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("cannot open {}", path.display()))
}
