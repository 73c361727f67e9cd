//! Session keyrings: a container must not see its caller's keys.

use crate::error::{Error, Result};

/// Joins a new session keyring of the given name and gives its owner the right to search it.
pub fn join_session(_name: &str) -> Result<()> {
    Err(Error::new("keyrings are not built yet"))
}
