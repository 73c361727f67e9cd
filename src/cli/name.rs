//! The name that the program was called by, and what follows from it. Installed as `runc`, it is found by what looks for
//! that name in the help or the version, and words its failures as programs expect them that were written against runc.

use std::io::IsTerminal;
use std::path::Path;

use crate::error::{Error, Step};
use crate::log;

/// The program's own name.
pub(super) const NAME: &str = "vessel";

/// The name that the program was called by.
pub(super) fn called() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().and_then(|name| name.to_str());
    name.filter(|name| !name.contains(char::is_control)).unwrap_or(NAME).to_string()
}

fn as_runc() -> bool {
    called() == "runc"
}

/// The failure of a command; called as `runc`, with the words that runc has around it.
pub(super) fn framed(verb: &str, error: Error) -> Error {
    if as_runc() { in_runcs_words(verb, error) } else { error }
}

fn in_runcs_words(verb: &str, error: Error) -> Error {
    const INSIDE: &str = "unable to start container process: error during container init";
    let error = match (verb, error.step()) {
        // That of the program stands alone.
        ("run" | "create", Step::Program) => return error,
        // Some of what a mount needs is done outside.
        ("run" | "create", _) if error.errno() != 0 && error.begins_with("mounts[") => {
            error.context(format_args!("{INSIDE}: error mounting"))
        }
        ("run" | "create", Step::Inside) => error.context(INSIDE),
        ("run" | "create", Step::Outside) => error,
        _ => return error,
    };
    error.context(format_args!("runc {verb} failed"))
}

/// Whether a failure is one that runc leaves to init to tell, in a line of its own that programs compare whole.
pub(super) fn is_bare(verb: &str, error: &Error) -> bool {
    verb == "run" && error.step() == Step::Program && as_runc()
}

/// Tells such a failure; a reader at a terminal gets the reason behind it too. False where it belongs into a log.
pub(super) fn tell_bare(error: &Error) -> bool {
    let person = std::io::stderr().is_terminal();
    log::bare_failure(&if person { error.clone() } else { error.clone().without_hint() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_framed_as_runc_frames_them() {
        let mount = || Error::from_errno(libc::EPERM, "mounts[1].source: cannot clear flags");
        let inside = "unable to start container process: error during container init";
        for (verb, error, want) in [
            ("run", Error::new("mounts[1].type: wrong"), "runc run failed: mounts[1]".to_string()),
            ("create", mount().at(Step::Inside), format!("runc create failed: {inside}: error mounting: mounts[1]")),
            ("run", mount(), format!("runc run failed: {inside}: error mounting: mounts[1]")),
            ("run", Error::new("no").at(Step::Inside), format!("runc run failed: {inside}: no")),
            ("run", Error::new("exec /a: no").at(Step::Program), "exec /a: no".to_string()),
            ("kill", mount(), "mounts[1]".to_string()),
        ] {
            let told = in_runcs_words(verb, error).to_string();
            assert!(told.starts_with(&want), "{told}");
        }
    }
}
