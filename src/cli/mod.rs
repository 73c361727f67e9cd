//! The command line: one file per command. It parses as runc does, asks the layers below, and prints.

mod spec;

use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use crate::error::{Context, Error, Result};
use crate::log::{Format, Log};

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let command = command();
    let matches = match command.clone().try_get_matches_from(with_two_dashes(&command, args)) {
        Ok(matches) => matches,
        Err(e) if !e.use_stderr() => {
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            // clap's text has several paragraphs; the first line says what is wrong.
            let text = e.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            eprintln!("{}", Error::new(format!("vessel: {line} (see vessel --help)")));
            return ExitCode::FAILURE;
        }
    };
    let log = match open_log(&matches) {
        Ok(log) => log,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log.failure(&e);
            ExitCode::FAILURE
        }
    }
}

fn open_log(matches: &clap::ArgMatches) -> Result<Log> {
    let format: Format = matches.get_one::<String>("log-format").map_or("text", String::as_str).parse()?;
    Log::open(matches.get_one::<String>("log").map(String::as_str), format)
}

fn run(matches: &clap::ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some((spec::NAME, matches)) => spec::run(matches).context(|| "spec"),
        Some((name, _)) => Err(Error::new(format!("No help topic for '{name}'"))),
        None => command().print_help().context(|| "cannot print the help"),
    }
}

fn command() -> Command {
    Command::new("vessel")
        .about("Runs containers as the Open Container Initiative describes them")
        .version(VERSION)
        // Engines put global flags before the command, and some repeat them: the last one holds.
        .args_override_self(true)
        .allow_external_subcommands(true)
        .disable_help_subcommand(true)
        .arg(Arg::new("log").long("log").value_name("FILE").help("append messages to FILE"))
        .arg(Arg::new("log-format").long("log-format").value_name("FORMAT").help("text (default) or json"))
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("print the version of vessel and of the specification"),
        )
        .disable_version_flag(true)
        .subcommand(spec::command())
}

/// The lines of `--version`. Engines look for the word "version" and for a line that begins with "commit:".
const VERSION: &str =
    concat!("version ", env!("CARGO_PKG_VERSION"), "\ncommit: ", env!("VESSEL_COMMIT"), "\nspec: 1.3.0");

/// Gives long flags with one dash their second one, as runc accepts both and engines send both. Arguments of a program
/// (behind `--`) stay as they are.
fn with_two_dashes(command: &Command, args: Vec<String>) -> Vec<String> {
    let known = |name: &str| {
        let own = |c: &Command| c.get_arguments().any(|a| a.get_long() == Some(name));
        name == "help" || own(command) || command.get_subcommands().any(own)
    };
    let mut behind = false;
    args.into_iter()
        .map(|arg| {
            behind |= arg == "--";
            let name = arg.strip_prefix('-').unwrap_or_default().split('=').next().unwrap_or_default();
            if !behind && name.len() > 1 && known(name) { format!("-{arg}") } else { arg }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashes(args: &[&str]) -> Vec<String> {
        with_two_dashes(&command(), args.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn long_flags_may_have_one_dash() {
        assert_eq!(dashes(&["vessel", "-log-format=json", "-v"]), ["vessel", "--log-format=json", "-v"]);
        assert_eq!(dashes(&["vessel", "--", "-log"]), ["vessel", "--", "-log"]);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}
