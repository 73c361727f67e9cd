//! `vessel resume`.

use super::verb::{Call, Count, Verb};
use crate::container;
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "resume",
    about: "let the processes of a paused container go on",
    details: "Thaws what `pause` has frozen.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags: Vec::new,
    run,
};

fn run(call: &Call) -> Result<i32> {
    container::resume(&call.host, &call.id())?;
    Ok(0)
}
