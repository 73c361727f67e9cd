//! `vessel run`.

use super::create;
use super::globals::prepare_root;
use super::lex::{Flag, switch};
use super::verb::{Call, Count, Verb};
use crate::container::{self, RunRequest};
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "run",
    about: "create and run a container",
    details: "Does what create and start do. In the foreground, it passes signals and the terminal's size on, \
              waits for the program, deletes the container and exits with the program's exit code, or 128 and the \
              number of the signal that ended it.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags,
    run,
};

fn flags() -> Vec<Flag> {
    let mut flags = create::flags();
    flags.extend([
        switch("detach", 'd', "return as soon as the program runs"),
        switch("keep", ' ', "do not delete the container when its program ends"),
        switch("no-subreaper", ' ', "do not adopt orphans of the container"),
    ]);
    flags
}

fn run(call: &Call) -> Result<i32> {
    prepare_root(&call.host)?;
    container::run(
        &call.host,
        &RunRequest {
            create: create::request(call)?,
            detach: call.switch("detach"),
            keep: call.switch("keep"),
            no_subreaper: call.switch("no-subreaper"),
        },
    )
}
