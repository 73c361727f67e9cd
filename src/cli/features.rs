//! `vessel features`.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::verb::{Call, Count, Verb, print};
use crate::error::{Error, Result};
use crate::spec::features;

pub(super) const VERB: Verb = Verb {
    name: "features",
    about: "show what vessel can do, as JSON",
    details: "The document has the form that the runtime-spec describes in features.md.",
    args: "",
    count: Count::Exactly(0),
    flags_first: false,
    flags: Vec::new,
    run,
};

/// Engines read standard error together with the output, so nothing else is said.
fn run(_call: &Call) -> Result<i32> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    features::document().serialize(&mut serializer).map_err(|e| Error::new(e.to_string()))?;
    print(&format!("{}\n", String::from_utf8_lossy(&text)));
    Ok(0)
}
