//! Execution domain (config-linux.md, "Personality").

use oci_spec::runtime::LinuxPersonality;

use crate::error::{Error, Result};

/// Sets the domain.
pub fn apply(_personality: &LinuxPersonality) -> Result<()> {
    Err(Error::new("personality is not built yet"))
}
