//! config.json: loading, defaults, and checking it against the specification, with the place of every fault.

pub mod example;
pub mod features;
mod load;
pub mod options;
mod place;
mod required;
mod validate;

use std::sync::LazyLock;

use oci_spec::runtime::{Linux, Spec};

pub use load::{load, parse, parse_process, parse_resources};
pub use validate::{faults, validate, validate_process};

/// A configuration as it was read.
#[derive(Clone, Debug)]
pub struct Config {
    /// The configuration, in the types of oci-spec. A text that is empty is absent, as it is to runtimes in Go.
    pub spec: Spec,
    /// `linux.resources.pids.limit`, where it is set: oci-spec cannot tell an absent one from 0, which is a limit.
    pub pids_limit: Option<i64>,
    /// What was left out of the configuration and why (unknown capabilities: config.md says to warn).
    pub warnings: Vec<String>,
    /// The text as it was read; the store keeps it, so that later edits of the bundle change nothing.
    pub text: String,
}

/// The annotation by which engines ask that the process keeps the caller's supplementary groups (`podman run --group-add
/// keep-groups`): an ordinary user has rights through groups that cannot be mapped into her user namespace.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// The annotation that names a configuration of CRIU's for the container; empty for none.
pub const CRIU_CONFIG: &str = "org.criu.config";

/// The annotation by which an image tells the signal that ends its program (config.md, "Annotations").
pub const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// A configuration may go without `linux`: that is no other than an empty one. The default of oci-spec has namespaces.
static NO_LINUX: LazyLock<Linux> = LazyLock::new(|| serde_json::from_str("{}").unwrap_or_default());

impl Config {
    /// `linux`, where nothing is set if it is not there.
    pub fn linux(&self) -> &Linux {
        self.spec.linux().as_ref().unwrap_or_else(|| &NO_LINUX)
    }

    /// Whether [`KEEP_GROUPS`] is there; `additionalGids` then has no effect.
    pub fn keeps_groups(&self) -> bool {
        self.spec.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(KEEP_GROUPS))
    }
}
