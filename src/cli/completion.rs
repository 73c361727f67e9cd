//! `vessel completion`.

use super::verb::{Call, Count, Verb, print};
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "completion",
    about: "print the completion of the command line for a shell",
    details: "The shell is bash, zsh or fish. `source <(vessel completion bash)` makes it known to the shell that runs; \
              `make install` puts it where shells look for it.",
    args: "<shell>",
    count: Count::Exactly(1),
    flags_first: false,
    flags: Vec::new,
    run,
};

fn run(call: &Call) -> Result<i32> {
    let shell = call.id();
    print(match shell.as_str() {
        "bash" => include_str!("../../docs/completion/vessel.bash"),
        "zsh" => include_str!("../../docs/completion/_vessel"),
        "fish" => include_str!("../../docs/completion/vessel.fish"),
        _ => return Err(Error::new(format!("no completion for {shell:?} (bash, zsh and fish are known)"))),
    });
    Ok(0)
}
