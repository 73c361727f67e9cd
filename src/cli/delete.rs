//! `vessel delete`.

use super::lex::switch;
use super::verb::{Call, Count, Verb, regex};
use crate::container;
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "delete",
    about: "delete a container that is stopped, and what it held",
    details: "Removes the cgroup and the state of a container and runs the poststop hooks. A container that was \
              created and never started is ended first (with VESSEL_STRICT=1 in the environment that is an error, as \
              the specification says); one that runs only with --force.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags: || {
        vec![switch("force", 'f', "end the container if it still runs; one that is not there is no error"), regex()]
    },
    run,
};

fn run(call: &Call) -> Result<i32> {
    call.for_each(|id| container::delete(&call.host, id, call.switch("force")))
}
