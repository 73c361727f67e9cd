//! `vessel mounts`.

use std::io::Read;

use super::verb::{Call, Count, Verb};
use crate::container::{self, MountsChange};
use crate::error::{Context, Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "mounts",
    about: "add mounts to a running container, or remove them",
    details: "FILE (- for standard input) has an array of mounts as they are in config.json. `remove` unmounts what is \
              mounted at their destinations. Where one mount cannot be made, none of them stays. The mounts end with the \
              container.",
    args: "add|remove <container-id> <file>",
    count: Count::Exactly(3),
    flags_first: false,
    flags: Vec::new,
    run,
};

fn run(call: &Call) -> Result<i32> {
    let change = match call.args[0].to_str() {
        Some("add") => MountsChange::Add,
        Some("remove") => MountsChange::Remove,
        _ => return Err(Error::new(format!("mounts {:?}: add and remove are known", call.args[0]))),
    };
    let (id, file) = (call.args[1].to_string_lossy(), &call.args[2]);
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.context(|| format!("cannot read {}", file.display()))?;
    container::mounts(&call.host, &id, change, &text).map_err(|e| e.context(file.display()))?;
    Ok(0)
}
