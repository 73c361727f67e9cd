//! Resource limits (config.md, `process.rlimits`).

use oci_spec::runtime::PosixRlimit;

use crate::error::{Error, Result};

/// Sets all limits.
pub fn apply(_rlimits: &[PosixRlimit]) -> Result<()> {
    Err(Error::new("rlimits is not built yet"))
}
