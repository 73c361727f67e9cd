//! Descriptors that the caller passes on to the program.

use crate::error::{Error, Result};
use crate::sys;

/// The variables for sockets that a service manager passes on (sd_listen_fds); only where they are meant for us.
pub(super) fn listen_env() -> Vec<String> {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(fds)) if pid == std::process::id() && fds > 0 => {
            vec![format!("LISTEN_FDS={fds}"), "LISTEN_PID=1".to_string()]
        }
        _ => Vec::new(),
    }
}

/// How many descriptors beyond the standard streams the program inherits; each has to have been passed on to us.
pub(super) fn preserved(preserve_fds: u32, listen_env: &[String]) -> Result<u32> {
    let listen = listen_env.iter().find_map(|v| v.strip_prefix("LISTEN_FDS=")?.parse().ok()).unwrap_or(0);
    let total = preserve_fds
        .checked_add(listen)
        .filter(|n| *n < 1 << 20)
        .ok_or_else(|| Error::new("--preserve-fds: too many descriptors"))?;
    for number in 3..3 + total.cast_signed() {
        if !sys::fd::is_inherited(number) {
            return Err(Error::new(format!("unable to stat preserved-fd {} (of {total}): it is not open", number - 3)));
        }
    }
    Ok(total)
}
