//! Flags as Go programs take them: engines were written against runc, and send what its parser accepts. clap has the
//! help of the flags, and is asked for nothing else: to have it read a command line costs more than some commands do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

/// A flag that a command knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    long: &'static str,
    /// A blank where there is none.
    short: char,
    /// What the help calls the value; none for a switch.
    value: Option<&'static str>,
    /// Whether each time that it is given adds a value.
    many: bool,
    /// Empty for one that the help keeps quiet about.
    help: &'static str,
    default: Option<&'static str>,
}

/// A switch. Its short name is none where `short` is a blank.
pub(super) const fn switch(long: &'static str, short: char, help: &'static str) -> Flag {
    Flag { long, short, value: None, many: false, help, default: None }
}

/// A flag with a value; of several, the last one holds.
pub(super) const fn value(long: &'static str, short: char, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short, value: Some(value), many: false, help, default: None }
}

/// A flag that may be repeated, each time with one more value.
pub(super) const fn values(long: &'static str, short: char, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short, value: Some(value), many: true, help, default: None }
}

impl Flag {
    /// The value where the flag is not given.
    pub(super) const fn default(self, value: &'static str) -> Flag {
        Flag { default: Some(value), ..self }
    }

    fn arg(self) -> Arg {
        let arg = Arg::new(self.long).long(self.long).help(self.help).hide(self.help.is_empty());
        let arg = if self.short == ' ' { arg } else { arg.short(self.short) };
        let arg = match self.value {
            Some(name) if self.many => arg.action(ArgAction::Append).value_name(name),
            Some(name) => arg.action(ArgAction::Set).value_name(name),
            None => arg.action(ArgAction::SetTrue),
        };
        match self.default {
            Some(value) => arg.default_value(value),
            None => arg,
        }
    }
}

/// The lines of the help for these flags.
pub(super) fn options(flags: &[Flag]) -> String {
    command("vessel", flags).help_template("{options}").render_help().to_string()
}

/// The flags of a command, for the help and for programs that write manual pages and completions.
pub(super) fn command(name: &'static str, flags: &[Flag]) -> Command {
    Command::new(name).disable_help_flag(true).args(flags.iter().map(|flag| flag.arg()))
}

/// The flags that were given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// By their long names, in their order; a switch has no value.
    flags: Vec<(&'static str, OsString)>,
    defaults: Vec<(&'static str, &'static str)>,
}

impl Given {
    /// Whether a switch is on.
    pub(super) fn switch(&self, name: &str) -> bool {
        self.flags.iter().any(|(flag, _)| *flag == name)
    }

    /// The value of a flag, the last one where there are several; none where it was not given and has no default.
    pub(super) fn value(&self, name: &str) -> Option<&OsStr> {
        self.all(name).last().or_else(|| {
            let default = self.defaults.iter().find(|(flag, _)| *flag == name);
            default.map(|(_, value)| OsStr::new(*value))
        })
    }

    /// All values of a flag.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a OsStr> {
        self.flags.iter().filter(move |(flag, _)| *flag == name).map(|(_, value)| value.as_os_str())
    }
}

/// A command line, or a part of it, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lexed {
    pub(super) given: Given,
    /// What is not a flag, byte for byte.
    pub(super) positionals: Vec<OsString>,
    /// Whether `-h` or `--help` was among the flags.
    pub(super) help: bool,
}

/// Takes arguments apart: long flags with one dash or two, values behind `=` or as the next argument whatever it looks
/// like, switches with `=true` or `=false`. With `flags_first` everything from the first positional on is positional.
/// The error is the text that runc has for it, as podman matches it.
pub(super) fn lex(
    known: &[Flag],
    flags_first: bool,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Lexed, String> {
    let mut lexed = Lexed::default();
    lexed.given.defaults.extend(known.iter().filter_map(|flag| Some((flag.long, flag.default?))));
    let given = &mut lexed.given.flags;
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
        if flag.value.is_none() {
            // Of several the last one holds.
            given.retain(|(long, _)| *long != flag.long);
            let text = value.map_or("true".into(), |v| String::from_utf8_lossy(&v).into_owned());
            if go_bool(&text).ok_or_else(|| format!("invalid boolean value {text:?} for -{name}"))? {
                given.push((flag.long, OsString::new()));
            }
            continue;
        }
        let value = match value {
            Some(value) => OsString::from_vec(value),
            None => args.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        given.push((flag.long, value));
    }
    lexed.positionals.extend(args);
    Ok(lexed)
}

/// What is behind the dashes of a flag: empty for `--`, none where it is no flag (`-` names standard input).
fn flag_body(arg: &[u8]) -> Option<&[u8]> {
    let body = arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-"))?;
    (!body.is_empty() || arg == b"--").then_some(body)
}

fn find<'a>(known: &'a [Flag], name: &str) -> Option<&'a Flag> {
    known.iter().find(|flag| {
        let short = flag.short != ' ' && name.len() == 1 && name.starts_with(flag.short);
        short || flag.long == name
    })
}

/// The truth values of Go's strconv.ParseBool.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] =
        &[switch("detach", 'd', ""), value("user", 'u', "UID", ""), values("env", 'e', "K=V", "").default("A=0")];

    fn lexed(flags_first: bool, line: &str) -> Result<(String, String), String> {
        let l = lex(KNOWN, flags_first, line.split(' ').map(OsString::from))?;
        let flags = l.given.flags.iter().map(|(name, value)| match value.to_string_lossy() {
            value if value.is_empty() => format!("--{name}"),
            value => format!("--{name}={value}"),
        });
        let positionals = l.positionals.iter().map(|s| s.to_string_lossy()).collect::<Vec<_>>();
        Ok((flags.collect::<Vec<_>>().join(" "), positionals.join(" ")))
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
        let l = lex(KNOWN, true, [OsString::from("a"), odd.clone()]).unwrap();
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
        let given = lex(KNOWN, false, "-u 1 -d -u 2 -d=false".split(' ').map(OsString::from)).unwrap().given;
        assert_eq!(given.value("user").unwrap(), "2");
        assert_eq!(given.all("user").collect::<Vec<_>>(), ["1", "2"]);
        assert!(!given.switch("detach"));
        assert_eq!(given.value("env").unwrap(), "A=0");
        assert_eq!(given.all("env").count(), 0);
    }
}
