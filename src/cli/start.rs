//! `vessel start`.

use super::verb::{Call, Count, Verb};
use crate::container;
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "start",
    about: "execute the program of a created container",
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
