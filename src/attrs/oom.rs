//! OOM score (config.md, `process.oomScoreAdj`).

use crate::sys::proc::Proc;

use crate::error::{Error, Result};

/// Sets oom_score_adj of the process.
pub fn apply(_proc: &Proc, _score: i32) -> Result<()> {
    Err(Error::new("oom is not built yet"))
}
