//! `vessel state`.

use super::verb::{Call, Count, Verb, print};
use crate::container;
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "state",
    about: "output the state of a container as JSON",
    details: "The object has the form that the runtime-spec describes in runtime.md, \"State\".",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags: Vec::new,
    run,
};

fn run(call: &Call) -> Result<i32> {
    let view = container::state(&call.host, &call.id())?;
    print(&serde_json::to_string_pretty(&view).map_err(|e| Error::new(e.to_string()))?);
    Ok(0)
}
