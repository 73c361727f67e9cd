//! AppArmor profiles (config.md, `process.apparmorProfile`).

use crate::error::{Error, Result};
use crate::sys::proc::Proc;

/// Makes the next execve(2) of this thread enter `profile`. AppArmor being off is an error.
pub fn set_exec_profile(_proc: &Proc, _profile: &str) -> Result<()> {
    Err(Error::new("AppArmor is not built yet"))
}
