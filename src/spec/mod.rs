//! config.json: loading, defaults, and checking it against the specification, with the place of every fault.

pub mod example;
pub mod features;
mod load;
pub mod options;
mod validate;

use oci_spec::runtime::Spec;

pub use load::{load, parse, parse_process};
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
