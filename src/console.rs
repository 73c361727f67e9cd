//! Terminals: making one inside the container, and handing its master to whoever asked.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Error, Result};

/// Connects to a console socket (`--console-socket`), in the runtime, before the fork.
pub fn connect(_path: &Path) -> Result<OwnedFd> {
    Err(Error::new("terminals are not built yet"))
}

/// A new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// The engine's or the runtime's end.
    pub master: OwnedFd,
    /// The program's end.
    pub slave: OwnedFd,
}

/// Makes a terminal from the devpts on /dev/pts of the root that the process is in, after pivot_root. The slave comes by
/// TIOCGPTPEER; both are checked. `size` is rows and columns.
pub fn open(_size: Option<(u16, u16)>) -> Result<Terminal> {
    Err(Error::new("terminals are not built yet"))
}

/// Binds the slave on /dev/console of the root that the process is in; by descriptors, never through a link.
pub fn bind_console(_terminal: &Terminal) -> Result<()> {
    Err(Error::new("terminals are not built yet"))
}

/// Sends the master over a console socket, as engines expect it: one message, the name as payload, one descriptor.
pub fn send_master(_socket: BorrowedFd<'_>, _master: &OwnedFd) -> Result<()> {
    Err(Error::new("terminals are not built yet"))
}

/// Makes the slave the controlling terminal and the standard streams of this process, a session leader.
pub fn adopt(_slave: OwnedFd) -> Result<()> {
    Err(Error::new("terminals are not built yet"))
}

/// Gives the standard streams to the process's user, as far as they are this container's own.
pub fn own_streams(_uid: u32, _gid: u32) -> Result<()> {
    Err(Error::new("terminals are not built yet"))
}

/// Sends a descriptor of a process to a socket (`--pidfd-socket`).
pub fn send_pidfd(_path: &Path, _pidfd: &OwnedFd) -> Result<()> {
    Err(Error::new("--pidfd-socket is not built yet"))
}
