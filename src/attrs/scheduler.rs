//! Scheduling policy (config.md, `process.scheduler`).

use oci_spec::runtime::Scheduler;

use crate::error::{Error, Result};

/// Sets policy, nice value, priority, flags and deadlines.
pub fn apply(_scheduler: &Scheduler) -> Result<()> {
    Err(Error::new("scheduler is not built yet"))
}
