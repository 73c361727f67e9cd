//! Seccomp filters (config-linux.md, "Seccomp").

use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Error, Result};

/// A compiled filter, ready for the kernel. It crosses the sync channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The BPF program: `struct sock_filter`s in the machine's byte order.
    pub program: Vec<u8>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
    /// Whether the kernel gives a listener for it (SCMP_ACT_NOTIFY).
    pub notify: bool,
}

/// Compiles a profile, with the stub before it that answers ENOSYS to system calls newer than the profile.
pub fn compile(_profile: &LinuxSeccomp) -> Result<Filter> {
    Err(Error::new("seccomp is not built yet"))
}

/// Installs the filter on this thread. Needs no_new_privs or CAP_SYS_ADMIN. Makes no other system call afterwards.
pub fn install(_filter: &Filter) -> Result<Option<OwnedFd>> {
    Err(Error::new("seccomp is not built yet"))
}

/// Sends a listener with the container process state to the agent behind `listener_path` (config-linux.md, "The Container
/// Process State").
pub fn send_listener(_listener_path: &str, _listener: OwnedFd, _state: &str) -> Result<()> {
    Err(Error::new("seccomp is not built yet"))
}
