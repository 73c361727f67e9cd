//! OOM score (config.md, `process.oomScoreAdj`).

use crate::sys::proc::Proc;

use crate::error::{Error, Result};

/// Sets oom_score_adj of the process, -1000 to 1000. Before a user namespace is entered: to lower the score takes
/// CAP_SYS_RESOURCE in the initial one.
pub fn apply(proc: &Proc, score: i32) -> Result<()> {
    write(proc, "self/oom_score_adj", score)
}

/// The same for process `pid`.
pub fn apply_to(proc: &Proc, pid: i32, score: i32) -> Result<()> {
    write(proc, &format!("{pid}/oom_score_adj"), score)
}

fn write(proc: &Proc, file: &str, score: i32) -> Result<()> {
    if !(-1000..=1000).contains(&score) {
        return Err(Error::new(format!("process.oomScoreAdj: {score} is not between -1000 and 1000")));
    }
    let Err(e) = proc.write(file, score.to_string().as_bytes()) else { return Ok(()) };
    if !matches!(e.errno(), libc::EACCES | libc::EPERM) {
        return Err(e.context("process.oomScoreAdj"));
    }
    let have = proc.read(file).unwrap_or_default();
    if have.trim() == score.to_string() {
        return Ok(());
    }
    Err(e.context(format!("process.oomScoreAdj: a score below {} needs CAP_SYS_RESOURCE", have.trim())))
}
