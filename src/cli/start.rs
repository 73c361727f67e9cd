//! `vessel start`.

use super::verb::{Call, Count, Verb};
use crate::container;
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "start",
    about: "execute the program of a created container",
    details: "Runs the startContainer hooks, the program and then the poststart hooks. Where the program cannot be \
              executed, the error says why, and the container is deleted.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags: Vec::new,
    run,
};

fn run(call: &Call) -> Result<i32> {
    container::start(&call.host, &call.id())?;
    Ok(0)
}
