//! Flags as Go programs take them: engines were written against runc, and send what its parser accepts.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, ArgMatches, Command};

/// A command line, or a part of it, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lexed {
    /// Every flag as `--name=value`, every switch that is on as `--name`: what clap reads without guessing.
    pub(super) flags: Vec<OsString>,
    /// What is not a flag, byte for byte.
    pub(super) positionals: Vec<OsString>,
    /// Whether `-h` or `--help` was among the flags.
    pub(super) help: bool,
}

/// Takes arguments apart: long flags with one dash or two, values behind `=` or as the next argument whatever it looks
/// like, switches with `=true` or `=false`. With `flags_first` everything from the first positional on is positional.
/// The error is the text that runc has for it, as podman matches it.
pub(super) fn lex(
    known: &Command,
    flags_first: bool,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Lexed, String> {
    let mut lexed = Lexed::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(body) = flag_body(arg.as_bytes()) else {
            lexed.positionals.push(arg);
            if flags_first {
                break;
            }
            continue;
        };
        if body.is_empty() {
            break;
        }
        let (name, value) = match body.iter().position(|b| *b == b'=') {
            Some(at) => (&body[..at], Some(body[at + 1..].to_vec())),
            None => (body, None),
        };
        let name = String::from_utf8_lossy(name);
        if name == "h" || name == "help" {
            lexed.help = true;
            continue;
        }
        let flag = find(known, &name).ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let long = OsString::from(format!("--{}", flag.get_id()));
        if is_switch(flag) {
            // Of several the last one holds; clap knows switches that are on, and no others.
            lexed.flags.retain(|f| *f != long);
            let text = value.map_or("true".into(), |v| String::from_utf8_lossy(&v).into_owned());
            if go_bool(&text).ok_or_else(|| format!("invalid boolean value {text:?} for -{name}"))? {
                lexed.flags.push(long);
            }
            continue;
        }
        let value = match value {
            Some(value) => OsString::from_vec(value),
            None => args.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        let mut flag = long;
        flag.push("=");
        flag.push(value);
        lexed.flags.push(flag);
    }
    lexed.positionals.extend(args);
    Ok(lexed)
}

/// What is behind the dashes of a flag: empty for `--`, none where it is no flag (`-` names standard input).
fn flag_body(arg: &[u8]) -> Option<&[u8]> {
    let body = arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-"))?;
    (!body.is_empty() || arg == b"--").then_some(body)
}

fn find<'a>(known: &'a Command, name: &str) -> Option<&'a Arg> {
    known.get_arguments().find(|a| {
        let short = a.get_short().is_some_and(|c| name.len() == 1 && name.starts_with(c));
        short || a.get_long() == Some(name)
    })
}

fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue)
}

/// A switch. Its short name is none where `short` is a blank.
pub(super) fn switch(long: &'static str, short: char, help: &'static str) -> Arg {
    named(long, short, help).action(ArgAction::SetTrue)
}

/// A flag with a value; of several, the last one holds.
pub(super) fn value(long: &'static str, short: char, value: &'static str, help: &'static str) -> Arg {
    let parser = clap::builder::ValueParser::os_string();
    named(long, short, help).action(ArgAction::Set).value_parser(parser).value_name(value)
}

/// A flag that may be repeated, each time with one more value.
pub(super) fn values(long: &'static str, short: char, name: &'static str, help: &'static str) -> Arg {
    value(long, short, name, help).action(ArgAction::Append)
}

fn named(long: &'static str, short: char, help: &'static str) -> Arg {
    let arg = Arg::new(long).long(long).help(help);
    if short == ' ' { arg } else { arg.short(short) }
}

/// The truth values of Go's strconv.ParseBool.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Lets clap read flags that were taken apart by [`lex`].
pub(super) fn matches(known: Command, flags: Vec<OsString>) -> Result<ArgMatches, String> {
    known.no_binary_name(true).try_get_matches_from(flags).map_err(|e| {
        // clap's text has several paragraphs; the first line says what is wrong.
        e.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()
    })
}

/// The value of a flag, none where it was not given.
pub(super) fn get<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a OsStr> {
    matches.get_one::<OsString>(name).map(OsString::as_os_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Command {
        Command::new("test").args_override_self(true).args([
            switch("detach", 'd', ""),
            value("user", 'u', "UID", ""),
            values("env", 'e', "K=V", ""),
        ])
    }

    fn lexed(flags_first: bool, line: &str) -> Result<(String, String), String> {
        let l = lex(&known(), flags_first, line.split(' ').map(OsString::from))?;
        let join = |v: &[OsString]| v.iter().map(|s| s.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Ok((join(&l.flags), join(&l.positionals)))
    }

    #[test]
    fn flags_are_taken_as_go_takes_them() {
        for (line, flags, positionals) in [
            ("-user 1 a", "--user=1", "a"),
            ("--user=1 a", "--user=1", "a"),
            ("-u=1 a", "--user=1", "a"),
            ("-u -1 a", "--user=-1", "a"),
            ("-d a -d=false", "", "a"),
            ("-e A=1,2 -e B=x=y a", "--env=A=1,2 --env=B=x=y", "a"),
            ("a - -d", "--detach", "a -"),
            ("a -- -d --", "", "a -d --"),
        ] {
            assert_eq!(lexed(false, line).unwrap(), (flags.to_string(), positionals.to_string()), "{line}");
        }
    }

    #[test]
    fn the_arguments_of_a_program_are_its_own() {
        for (line, flags, positionals) in [
            ("-d a ls -la -d -user", "--detach", "a ls -la -d -user"),
            ("-d -- a ls -d", "--detach", "a ls -d"),
            ("a -- ls", "", "a -- ls"),
        ] {
            assert_eq!(lexed(true, line).unwrap(), (flags.to_string(), positionals.to_string()), "{line}");
        }
        let odd = OsString::from_vec(vec![b'-', 0xff]);
        let l = lex(&known(), true, [OsString::from("a"), odd.clone()]).unwrap();
        assert_eq!(l.positionals[1], odd);
    }

    #[test]
    fn faults_have_the_words_that_engines_match() {
        assert_eq!(lexed(false, "a --user").unwrap_err(), "flag needs an argument: -user");
        assert_eq!(lexed(false, "-x").unwrap_err(), "flag provided but not defined: -x");
        assert_eq!(lexed(false, "-d=maybe").unwrap_err(), "invalid boolean value \"maybe\" for -d");
    }

    #[test]
    fn the_last_of_repeated_flags_holds() {
        let flags = lex(&known(), false, "-u 1 -d -u 2 -d=false".split(' ').map(OsString::from)).unwrap().flags;
        let matches = matches(known(), flags).unwrap();
        assert_eq!(get(&matches, "user").unwrap(), "2");
        assert_eq!(matches.get_one::<bool>("detach"), Some(&false));
    }
}
