//! I/O priority (config.md, `process.ioPriority`).

use oci_spec::runtime::LinuxIOPriority;

use crate::error::{Error, Result};

/// Sets class and priority.
pub fn apply(_priority: &LinuxIOPriority) -> Result<()> {
    Err(Error::new("ioprio is not built yet"))
}
