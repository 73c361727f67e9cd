//! The command line: one file per command. It parses as runc does, asks the layers below, and prints.

mod check;
mod checkpoint;
mod completion;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod globals;
mod kill;
mod lex;
mod list;
mod mounts;
mod name;
mod pause;
mod ps;
mod restore;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;
mod verb;

use std::ffi::OsString;

use crate::error::{Cause, Error, Result};
use crate::{log, timings};
use lex::Given;
use verb::{Call, Verb, print};

/// Every command, in the order of the help.
const VERBS: &[Verb] = &[
    check::VERB,
    checkpoint::VERB,
    completion::VERB,
    create::VERB,
    delete::VERB,
    events::VERB,
    exec::VERB,
    features::VERB,
    kill::VERB,
    list::VERB,
    mounts::VERB,
    pause::VERB,
    ps::VERB,
    restore::VERB,
    resume::VERB,
    run::VERB,
    spec::VERB,
    start::VERB,
    state::VERB,
    update::VERB,
];

/// Runs the command that the arguments of this process ask for. Returns the exit code.
pub fn main() -> u8 {
    let args = std::env::args_os().skip(1);
    let code = match answer(args) {
        Ok(code) => code,
        Err(Failure { code, error, bare }) => {
            if !bare || !name::tell_bare(&error) {
                log::failure(&error);
            }
            code
        }
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The whole command line, for programs that write manual pages and completions.
pub fn documented() -> clap::Command {
    globals::documented().subcommands(VERBS.iter().map(Verb::documented))
}

/// What went wrong, and the exit code that says so.
struct Failure {
    code: i32,
    error: Error,
    /// Whether it is told without the shape of a log, if it can be.
    bare: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { code: 1, error, bare: false }
    }
}

fn answer(args: impl Iterator<Item = OsString>) -> Result<i32, Failure> {
    let (globals, mut rest) = globals::read(args)?;
    if globals.version {
        print(&globals::version(&name::called()));
        return Ok(0);
    }
    // Only a log that opens can take what follows.
    log::open(globals.log.as_deref(), globals.log_format, globals.debug)?;
    if globals.help || rest.is_empty() {
        print(&globals::help(&name::called()));
        return Ok(0);
    }
    let mut name = rest.remove(0).to_string_lossy().into_owned();
    if name == "help" || name == "h" {
        if rest.is_empty() {
            print(&globals::help(&name::called()));
            return Ok(0);
        }
        name = rest.remove(0).to_string_lossy().into_owned();
        rest = vec!["--help".into()];
    }
    let Some(verb) = VERBS.iter().find(|v| v.name == name) else {
        return Err(Error::of(Cause::Usage, format!("No help topic for '{name}'")).into());
    };
    if let Some(path) = &globals.timings {
        timings::open(path, &name)?;
    }
    let (given, args) = match understand(verb, rest) {
        Ok(Some(understood)) => understood,
        Ok(None) => {
            print(&verb.help(&name::called()));
            return Ok(0);
        }
        Err(usage) => {
            print(&format!("Incorrect Usage{}\n\n{}", usage.headline, verb.help(&name::called())));
            return Err(Error::of(Cause::Usage, usage.fault).into());
        }
    };
    timings::phase("arguments");
    let call = Call { host: globals.host()?, given, args };
    log::debug(|| format!("vessel {name} with the state under {}", call.host.root.display()));
    let done = (verb.run)(&call).map_err(|error| failure(verb, error));
    timings::phase("the rest");
    done
}

/// A failure of exec must not be taken for an exit code of the program.
fn failure(verb: &Verb, error: Error) -> Failure {
    let code = if verb.name == exec::VERB.name { 255 } else { 1 };
    Failure { code, bare: name::is_bare(verb.name, &error), error: name::framed(verb.name, error) }
}

/// How a command was called wrongly: what its help is headed with, and what is reported.
#[derive(Debug)]
struct Usage {
    headline: String,
    fault: String,
}

impl From<String> for Usage {
    fn from(fault: String) -> Self {
        Usage { headline: format!(": {fault}"), fault }
    }
}

/// The flags and arguments of a command; none where its help is wanted.
fn understand(verb: &Verb, args: Vec<OsString>) -> Result<Option<(Given, Vec<OsString>)>, Usage> {
    let lexed = lex::lex(&(verb.flags)(), verb.flags_first, args)?;
    if lexed.help {
        return Ok(None);
    }
    if let Some(fault) = verb.count.fault(lexed.positionals.len()) {
        let fault = format!("{}: \"{}\" {fault}", name::called(), verb.name);
        return Err(Usage { headline: ".".to_string(), fault });
    }
    Ok(Some((lexed.given, lexed.positionals)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        for verb in VERBS {
            let help = verb.help("vessel");
            assert!(help.starts_with(&format!("NAME:\n   vessel {} - ", verb.name)), "{help}");
        }
    }

    #[test]
    fn faults_of_use_have_runcs_words() {
        for (line, fault) in [
            ("start", "vessel: \"start\" requires exactly 1 argument(s)"),
            ("start a b", "vessel: \"start\" requires exactly 1 argument(s)"),
            ("kill", "vessel: \"kill\" requires a minimum of 1 argument(s)"),
            ("kill a b c", "vessel: \"kill\" requires a maximum of 2 argument(s)"),
            ("exec", "vessel: \"exec\" requires a minimum of 1 argument(s)"),
            ("start --no-such a", "flag provided but not defined: -no-such"),
            ("create --bundle", "flag needs an argument: -bundle"),
        ] {
            let mut args = line.split(' ').map(OsString::from);
            let name = args.next().unwrap();
            let verb = VERBS.iter().find(|v| name == v.name).unwrap();
            let fault = fault.replace("vessel", &name::called());
            assert_eq!(understand(verb, args.collect()).unwrap_err().fault, fault, "{line}");
        }
    }
}
