//! Execution domain (config-linux.md, "Personality").

use nix::sys::personality::Persona;
use oci_spec::runtime::{LinuxPersonality, LinuxPersonalityDomain};

use crate::error::{Context, Error, Result};

/// From linux/personality.h.
const PER_LINUX: i32 = 0;
const PER_LINUX32: i32 = 8;

/// Sets the domain. The specification knows no flags, so flags are an error.
pub fn apply(personality: &LinuxPersonality) -> Result<()> {
    check(personality)?;
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => PER_LINUX,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    };
    nix::sys::personality::set(Persona::from_bits_retain(domain))
        .context(|| format!("cannot set personality {}", personality.domain()))?;
    Ok(())
}

/// An error where flags are asked for.
pub fn check(personality: &LinuxPersonality) -> Result<()> {
    match personality.flags() {
        Some(flags) if !flags.is_empty() => {
            Err(Error::new(format!("linux.personality.flags: unknown flag {:?} (none is supported)", flags[0])))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_refused() {
        let one = |json| check(&serde_json::from_str(json).unwrap());
        assert!(one(r#"{"domain":"LINUX32"}"#).is_ok());
        assert!(one(r#"{"domain":"LINUX","flags":[]}"#).is_ok());
        assert!(one(r#"{"domain":"LINUX","flags":["ADDR_NO_RANDOMIZE"]}"#).is_err());
    }
}
