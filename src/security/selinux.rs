//! SELinux labels (config.md, `process.selinuxLabel`).

use crate::error::{Error, Result};
use crate::sys::proc::Proc;

/// Makes the next execve(2) of this thread enter `label`. SELinux being off is an error.
pub fn set_exec_label(_proc: &Proc, _label: &str) -> Result<()> {
    Err(Error::new("SELinux is not built yet"))
}

/// Labels the session keyring that is made next.
pub fn set_key_label(_proc: &Proc, _label: &str) -> Result<()> {
    Err(Error::new("SELinux is not built yet"))
}
