//! `vessel check`: all that is wrong with a bundle, without making a container.

use super::verb::{Call, Count, Verb, bundle, print};
use crate::error::{Cause, Context, Error, Result};
use crate::log;
use crate::security::seccomp;
use crate::spec;

pub(super) const VERB: Verb = Verb {
    name: "check",
    about: "report every fault of a bundle",
    details: "Reads config.json as create does, and prints each fault that it finds on a line of its own, with its \
              place in the file, in place of ending at the first. Nothing is made. The exit code is 0 where there \
              is no fault.",
    args: "",
    count: Count::Exactly(0),
    flags_first: false,
    flags: || vec![bundle()],
    run,
};

fn run(call: &Call) -> Result<i32> {
    let bundle = match call.absolute("bundle")? {
        Some(bundle) => bundle,
        None => std::env::current_dir().context(|| "cannot tell the current directory")?,
    };
    let path = bundle.join("config.json");
    let config = spec::load(&path)?;
    config.warnings.iter().for_each(|w| log::warn(w));
    let mut faults = spec::faults(&config);
    if let Some(root) = config.spec.root().as_ref().map(|r| bundle.join(r.path()))
        && !root.is_dir()
    {
        faults.push(format!("root.path: {} is not a directory", root.display()));
    }
    if let Some(Err(e)) = config.spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()).map(seccomp::compile) {
        faults.push(e.to_string());
    }
    // A fault may quote the configuration, which must not add lines of its own.
    print(&faults.iter().map(|fault| format!("{}\n", Error::new(fault))).collect::<String>());
    match faults.len() {
        0 => Ok(0),
        1 => Err(Error::of(Cause::Config, format!("{} has a fault", path.display()))),
        n => Err(Error::of(Cause::Config, format!("{} has {n} faults", path.display()))),
    }
}
