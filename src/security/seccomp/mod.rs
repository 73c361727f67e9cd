//! Seccomp filters (config-linux.md, "Seccomp").
//!
//! A profile is read ([`profile`]), compiled for one architecture at a time by a generator of our own ([`search`]) or,
//! where that cannot, by libseccomp ([`arch`]), and linked behind a prologue that chooses the architecture's part and
//! answers ENOSYS to system calls newer than the profile ([`link`]).

mod agent;
mod arch;
mod bpf;
mod link;
#[cfg(test)]
mod machine;
mod profile;
mod search;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Error, Result};
use crate::sys;

pub use agent::send_listener;
pub use profile::check;

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

impl Filter {
    /// The size of an instruction, in bytes.
    pub const INSTRUCTION: usize = 8;

    /// What seccomp(2) is told: with the flag that asks for a listener.
    pub fn all_flags(&self) -> u32 {
        if self.notify { self.flags | sys::seccomp::NEW_LISTENER } else { self.flags }
    }
}

/// Compiles a profile, with the stub before it that answers ENOSYS to system calls newer than the profile.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    let profile = profile::read(profile)?;
    let parts = arch::compile(&profile)?;
    let program = link::link(&parts);
    if program.len() > bpf::LONGEST {
        return Err(Error::new(format!(
            "linux.seccomp: the filter has {} instructions, and the kernel takes {} (fewer architectures make it shorter)",
            program.len(),
            bpf::LONGEST
        )));
    }
    Ok(Filter { program: bpf::to_bytes(&program), flags: profile.flags, notify: profile.notify })
}

/// Installs the filter on this thread. Needs no_new_privs or CAP_SYS_ADMIN. Makes no other system call afterwards.
pub fn install(filter: &Filter) -> Result<Option<OwnedFd>> {
    sys::seccomp::set_filter(&filter.program, filter.flags, filter.notify).map_err(|e| {
        let e = e.context("error loading seccomp filter into kernel");
        match e.errno() {
            libc::EACCES => e.context("this needs process.noNewPrivileges or CAP_SYS_ADMIN"),
            libc::EBUSY => e.context("the process has a filter with a listener already"),
            libc::EINVAL => e.context("the kernel knows no seccomp filters, or not these flags"),
            _ => e,
        }
    })
}
