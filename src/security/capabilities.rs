//! Capability sets (config.md, `process.capabilities`).

use oci_spec::runtime::LinuxCapabilities;

use crate::error::{Error, Result};

/// The five sets of a process as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What execve(2) can give at most.
    pub bounding: u64,
    /// What counts in permission checks.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives execve(2) with the file's inheritable set.
    pub inheritable: u64,
    /// What survives execve(2) of a plain file.
    pub ambient: u64,
}

/// The sets of a configuration; absent sets are empty. A capability that the kernel does not have is left out with a
/// warning (the second value).
pub fn plan(_config: Option<&LinuxCapabilities>) -> Result<(Sets, Vec<String>)> {
    Err(Error::new("capabilities are not built yet"))
}

/// Drops everything outside `sets.bounding` from the bounding set. Before the change of user.
pub fn limit_bounding(_sets: &Sets) -> Result<()> {
    Err(Error::new("capabilities are not built yet"))
}

/// Sets effective, permitted, inheritable and ambient. After the change of user, under PR_SET_KEEPCAPS. `keep` are bits
/// that stay effective and permitted until execve(2) (CAP_SYS_ADMIN, for seccomp).
pub fn apply(_sets: &Sets, _keep: u64) -> Result<()> {
    Err(Error::new("capabilities are not built yet"))
}
