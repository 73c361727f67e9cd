//! CPU affinity (config.md, `process.execCPUAffinity`).

use crate::error::{Error, Result};

/// Runs the process only on these CPUs, a list as in `0-3,7`.
pub fn apply(_cpus: &str) -> Result<()> {
    Err(Error::new("affinity is not built yet"))
}
