//! Network: the loopback device of a new network namespace, and devices that move into one.

mod devices;
mod netlink;

pub use devices::Devices;

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use crate::error::{Context, Result};
use crate::sys;

/// Brings `lo` up in the network namespace of this process.
pub fn loopback_up() -> Result<()> {
    // A Unix socket does for the flags of a device, and also where the kernel is built without IP.
    let socket = UnixDatagram::unbound().context(|| "cannot make a socket to bring up lo")?;
    sys::net::add_flags(socket.as_fd(), "lo", libc::IFF_UP).context(|| "cannot bring up the network device lo")
}
