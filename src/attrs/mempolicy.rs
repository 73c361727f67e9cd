//! NUMA memory policy (config-linux.md, "Memory policy").

use oci_spec::runtime::LinuxMemoryPolicy;

use crate::error::{Error, Result};

/// Sets mode, flags and nodes.
pub fn apply(_policy: &LinuxMemoryPolicy) -> Result<()> {
    Err(Error::new("mempolicy is not built yet"))
}
