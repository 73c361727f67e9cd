//! What a command is, and what it is given.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Command;

use super::lex::{Flag, Given, command, options, switch, value};
use crate::container::{self, Host};
use crate::error::{Context, Error, Result};

/// How long a line of a description may be.
const WIDTH: usize = 96;

/// One command: how it is called and what it does.
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// What more is to know, as one paragraph.
    pub(super) details: &'static str,
    /// The positional arguments, as the help shows them.
    pub(super) args: &'static str,
    pub(super) count: Count,
    /// Whether flags end at the first positional argument, as what follows may belong to another program.
    pub(super) flags_first: bool,
    pub(super) flags: fn() -> Vec<Flag>,
    /// Does it; returns the exit code.
    pub(super) run: fn(&Call) -> Result<i32>,
}

/// How many positional arguments a command takes.
#[derive(Clone, Copy)]
pub(super) enum Count {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

impl Count {
    /// What is wrong with `n` arguments, in runc's words.
    pub(super) fn fault(self, n: usize) -> Option<String> {
        match self {
            Count::Exactly(want) if n != want => Some(format!("requires exactly {want} argument(s)")),
            Count::AtLeast(min) | Count::Between(min, _) if n < min => {
                Some(format!("requires a minimum of {min} argument(s)"))
            }
            Count::Between(_, max) if n > max => Some(format!("requires a maximum of {max} argument(s)")),
            _ => None,
        }
    }
}

impl Verb {
    /// The help in runc's layout, of which tests and people know the first lines.
    pub(super) fn help(&self, program: &str) -> String {
        let Verb { name, about, details, args, .. } = self;
        let options = options(&(self.flags)());
        let (hint, options) = match options.trim_end() {
            "" => ("", String::new()),
            text => (" [command options]", format!("\nOPTIONS:\n{text}\n")),
        };
        let usage = format!("{program} {name}{hint} {args}");
        let details = wrap(details);
        format!(
            "NAME:\n   {program} {name} - {about}\n\nUSAGE:\n   {}\n\nDESCRIPTION:\n{details}{options}",
            usage.trim_end()
        )
    }

    /// The same for programs that write manual pages and completions.
    pub(super) fn documented(&self) -> Command {
        let usage = format!("vessel {} [command options] {}", self.name, self.args);
        let command = command(self.name, &(self.flags)()).about(self.about).long_about(format!(
            "{}.\n\n{}",
            capital(self.about),
            self.details
        ));
        command.override_usage(usage.trim_end().to_string())
    }
}

/// A paragraph of the help.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => {
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines.iter().map(|line| format!("   {line}\n")).collect()
}

/// The sentence that begins with these words.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// One call of a command.
pub(super) struct Call {
    pub(super) host: Host,
    pub(super) given: Given,
    /// The positional arguments.
    pub(super) args: Vec<OsString>,
}

impl Call {
    /// The container's name, the first argument. Names are ASCII, so one that is not UTF-8 is refused further down.
    pub(super) fn id(&self) -> String {
        self.args.first().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The containers that the first argument means: the one of that name, or with `--regex` those that match it.
    /// Each is worked on, also where one fails; the failures are told in one line.
    pub(super) fn for_each(&self, work: impl Fn(&str) -> Result<()>) -> Result<i32> {
        if !self.switch("regex") {
            return work(&self.id()).map(|()| 0);
        }
        let ids = container::matching(&self.host, &self.id())?;
        let failures: Vec<String> = ids.iter().filter_map(|id| work(id).err().map(|e| format!("{id}: {e}"))).collect();
        if failures.is_empty() { Ok(0) } else { Err(Error::new(failures.join("; "))) }
    }

    pub(super) fn switch(&self, name: &str) -> bool {
        self.given.switch(name)
    }

    /// A path; an empty one counts as not given.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.given.value(name).filter(|p| !p.is_empty()).map(PathBuf::from)
    }

    /// A path, absolute, as the command may change its directory before it is used.
    pub(super) fn absolute(&self, name: &str) -> Result<Option<PathBuf>> {
        self.path(name).map(|p| std::path::absolute(p).context(|| format!("--{name}"))).transpose()
    }

    /// A text; an empty one counts as not given.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        self.given.value(name).filter(|t| !t.is_empty()).map(|t| utf8(t.to_owned(), name)).transpose()
    }

    /// The values of a flag that may be repeated.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>> {
        self.given.all(name).map(|t| utf8(t.to_owned(), name)).collect()
    }

    /// A count; 0 where it was not given.
    pub(super) fn number(&self, name: &str) -> Result<u32> {
        self.text(name)?.map_or(Ok(0), |text| {
            text.parse().map_err(|_| Error::new(format!("--{name} {text}: a number, 0 or more, is wanted")))
        })
    }
}

/// A text that goes where only UTF-8 can go (config.json is JSON).
pub(super) fn utf8(text: OsString, place: &str) -> Result<String> {
    text.into_string().map_err(|t| Error::new(format!("{place}: {t:?} is not UTF-8")))
}

/// Prints a line, or what is already several. Who reads the output may be gone, which is its own business.
pub(super) fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The flag for commands that may work on several containers.
pub(super) fn regex() -> Flag {
    switch("regex", 'r', "the argument is a regular expression: do it to each container whose id matches")
}

/// The flag for commands that read a bundle.
pub(super) fn bundle() -> Flag {
    value("bundle", 'b', "DIR", "the bundle, a directory with a config.json (default: the current directory)")
}

/// The flag for a file that gets the pid.
pub(super) fn pid_file() -> Flag {
    value("pid-file", ' ', "FILE", "write the pid of the process, as seen from here, to FILE")
}

/// The flags for what the new process gets from the caller.
pub(super) fn handover() -> [Flag; 3] {
    [
        value("console-socket", ' ', "SOCKET", "a UNIX socket that receives the master of the terminal"),
        value("pidfd-socket", ' ', "SOCKET", "a UNIX socket that receives a pidfd of the process"),
        value("preserve-fds", ' ', "N", "hand over N descriptors more than the standard streams and $LISTEN_FDS"),
    ]
}

/// The flag for commands that print a table or JSON.
pub(super) fn format() -> Flag {
    value("format", 'f', "FORMAT", "table or json").default("table")
}
