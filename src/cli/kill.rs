//! `vessel kill`.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use super::lex::switch;
use super::verb::{Call, Count, Verb, regex};
use crate::container;
use crate::error::{Error, Result};
use crate::spec;

pub(super) const VERB: Verb = Verb {
    name: "kill",
    about: "send a signal (default: SIGTERM) to the container's init process",
    details: "The signal is a name (KILL, SIGKILL, RTMIN+3) or a number; without one it is that of the annotation \
              org.opencontainers.image.stopSignal, or SIGTERM. A container that shares a pid namespace \
              is killed whole by SIGKILL.",
    args: "<container-id> [signal]",
    count: Count::Between(1, 2),
    flags_first: true,
    flags: || vec![switch("all", 'a', "send it to every process of the container"), regex()],
    run,
};

fn run(call: &Call) -> Result<i32> {
    let named = match call.args.get(1) {
        Some(name) if !name.is_empty() => Some(parse(&name.to_string_lossy())?),
        _ => None,
    };
    call.for_each(|id| {
        let signal = match named {
            Some(signal) => signal,
            None => usual(&container::state(&call.host, id)?.annotations)?,
        };
        container::kill(&call.host, id, signal, call.switch("all"))
    })
}

/// The signal where none is named: the image's, or SIGTERM.
fn usual(annotations: &BTreeMap<String, String>) -> Result<i32> {
    match annotations.get(spec::STOP_SIGNAL) {
        Some(name) if !name.is_empty() => {
            parse(name).map_err(|e| e.context(format!("annotation {}", spec::STOP_SIGNAL)))
        }
        _ => Ok(libc::SIGTERM),
    }
}

/// A signal by number or by name, in any case, with SIG or without; real-time signals as RTMIN+n and RTMAX-n.
fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::new(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse() {
        return if (0..=libc::SIGRTMAX()).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (min, max) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let offset = |n: &str| n.parse::<u8>().ok().filter(|_| n.starts_with(|c: char| c.is_ascii_digit())).map(i32::from);
    let number = match name {
        "RTMIN" => Some(min),
        "RTMAX" => Some(max),
        "CLD" => Some(libc::SIGCHLD),
        "POLL" => Some(libc::SIGIO),
        "IOT" => Some(libc::SIGABRT),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(n), _) => offset(n).map(|n| min + n),
            (_, Some(n)) => offset(n).map(|n| max - n),
            _ => return format!("SIG{name}").parse::<Signal>().map(|s| s as i32).map_err(|_| unknown()),
        }
        .filter(|n| (min..=max).contains(n)),
    };
    number.ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        let (min, max) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        for (text, want) in [
            ("9", Some(9)),
            ("0", Some(0)),
            ("64", Some(64)),
            ("KILL", Some(libc::SIGKILL)),
            ("SIGKILL", Some(libc::SIGKILL)),
            ("sigwinch", Some(libc::SIGWINCH)),
            ("Hup", Some(libc::SIGHUP)),
            ("CLD", Some(libc::SIGCHLD)),
            ("RTMIN", Some(min)),
            ("SIGRTMIN+3", Some(min + 3)),
            ("rtmax-2", Some(max - 2)),
            ("RTMIN+99", None),
            ("RTMIN++1", None),
            ("65", None),
            ("-9", None),
            ("SIG", None),
            ("FOO", None),
        ] {
            assert_eq!(parse(text).ok(), want, "{text}");
        }
        assert_eq!(parse("FOO").unwrap_err().to_string(), "unknown signal \"FOO\"");
    }
}
