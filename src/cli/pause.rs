//! `vessel pause`.

use super::verb::{Call, Count, Verb};
use crate::container;
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "pause",
    about: "suspend all processes of a container",
    details: "The processes are frozen by the cgroup's freezer, and do not notice.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags: Vec::new,
    run,
};

fn run(call: &Call) -> Result<i32> {
    container::pause(&call.host, &call.id())?;
    Ok(0)
}
