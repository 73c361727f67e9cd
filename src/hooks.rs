//! Hooks (config.md, "POSIX-platform Hooks").

use oci_spec::runtime::Hook;

use crate::error::{Error, Result};

/// The six kinds, in the order of a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deprecated; before createRuntime, at the same point.
    Prestart,
    /// In the runtime's namespaces, after the namespaces are made, before pivot_root.
    CreateRuntime,
    /// In the container's namespaces, before pivot_root.
    CreateContainer,
    /// In the container's namespaces, before the program is executed.
    StartContainer,
    /// In the runtime's namespaces, after the program was executed.
    Poststart,
    /// In the runtime's namespaces, after the container is deleted.
    Poststop,
}

/// Runs the hooks of one kind in order, each with `state` (JSON) on its standard input; stops at the first failure, which
/// names kind, number, path, exit status and what the hook printed.
pub fn run(_kind: Kind, _hooks: &[Hook], _state: &str) -> Result<()> {
    Err(Error::new("hooks are not built yet"))
}
