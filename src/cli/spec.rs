//! `vessel spec`: writes a config.json to begin with.

use std::fs::OpenOptions;
use std::io::Write;

use rustix::process::{getegid, geteuid};

use super::lex::switch;
use super::verb::{Call, Count, Verb, bundle};
use crate::error::{Context, Error, Result};
use crate::spec::example;

pub(super) const VERB: Verb = Verb {
    name: "spec",
    about: "write a config.json to begin with",
    details: "The file describes a container that runs a shell in the directory rootfs.",
    args: "",
    count: Count::Exactly(0),
    flags_first: false,
    flags: || {
        vec![bundle(), switch("rootless", ' ', "for a container of an ordinary user: your own ids become root's")]
    },
    run,
};

fn run(call: &Call) -> Result<i32> {
    let path = call.path("bundle").unwrap_or_default().join("config.json");
    let text = if call.switch("rootless") {
        example::rootless(geteuid().as_raw(), getegid().as_raw())?
    } else if unified() {
        example::ROOT.to_string()
    } else {
        example::without_cgroup_namespace()
    };
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new("File config.json exists. Remove it first"));
        }
        Err(e) => return Err(Error::from(e).context(format!("cannot create {}", path.display()))),
    };
    file.write_all(text.as_bytes()).context(|| format!("cannot write {}", path.display()))?;
    Ok(0)
}

/// Whether this host has cgroup v2 alone.
fn unified() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == libc::CGROUP2_SUPER_MAGIC)
}
