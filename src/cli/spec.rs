//! `vessel spec`: writes a config.json to begin with.

use std::fs::OpenOptions;
use std::io::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::error::{Context, Error, Result};
use crate::spec::example;

pub(super) const NAME: &str = "spec";

pub(super) fn command() -> Command {
    Command::new(NAME)
        .about("Write a config.json to begin with")
        .arg(Arg::new("bundle").short('b').long("bundle").value_name("DIR").help("the bundle (default: here)"))
        .arg(
            Arg::new("rootless")
                .long("rootless")
                .action(ArgAction::SetTrue)
                .help("for a container of an ordinary user: your own ids become root's"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    let bundle = std::path::Path::new(matches.get_one::<String>("bundle").map_or(".", String::as_str));
    let path = bundle.join("config.json");
    let ids = matches.get_flag("rootless").then(|| {
        // The owner of our own entry in /proc is our effective id.
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").map(|m| (m.uid(), m.gid()))
    });
    let text = match ids {
        None => example::ROOT.to_string(),
        Some(ids) => {
            let (uid, gid) = ids.context(|| "cannot read /proc/self")?;
            example::rootless(uid, gid)?
        }
    };
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new("File config.json exists. Remove it first"));
        }
        Err(e) => return Err(Error::from(e).context(format!("cannot create {}", path.display()))),
    };
    file.write_all(text.as_bytes()).context(|| format!("cannot write {}", path.display()))
}
