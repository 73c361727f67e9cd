//! `vessel events`.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::lex::{switch, value};
use super::verb::{Call, Count, Verb};
use crate::cgroups::Stats;
use crate::container::{self, Event};
use crate::error::{Error, Result};
use crate::log;

pub(super) const VERB: Verb = Verb {
    name: "events",
    about: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
    details: "Prints JSON objects, one on a line: statistics in intervals, and `oom` each time that the container \
              runs out of memory. It ends with the container.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags: || {
        let interval = value("interval", ' ', "DURATION", "the time between statistics, as 100ms or 1m30s");
        vec![interval.default("5s"), switch("stats", ' ', "display the statistics of now, and end")]
    },
    run,
};

/// A line of the output.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

fn run(call: &Call) -> Result<i32> {
    let id = call.id();
    let text = call.text("interval")?.unwrap_or_default();
    let interval = duration(&text)
        .ok_or_else(|| Error::new(format!("invalid value {text:?} for flag -interval: it is not a duration as 5s")))?;
    if interval.is_zero() {
        return Err(Error::new("duration interval must be greater than 0"));
    }
    if call.switch("stats") {
        let stats = container::stats(&call.host, &id)?;
        print(&Line { kind: "stats", id: &id, data: Some(&stats) })?;
        if stats == Stats::default() {
            log::warn("the statistics are empty: the container has no cgroup that counts");
        }
        return Ok(0);
    }
    container::events(&call.host, &id, interval, &mut |event| match event {
        Event::Stats(stats) => print(&Line { kind: "stats", id: &id, data: Some(&stats) }),
        Event::Oom => print(&Line { kind: "oom", id: &id, data: None }),
    })?;
    Ok(0)
}

/// Prints a line at once. Whether anybody reads on.
fn print(line: &Line) -> Result<bool> {
    let mut text = serde_json::to_vec(line).map_err(|e| Error::new(e.to_string()))?;
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(&text).and_then(|()| out.flush()).is_ok())
}

/// A duration as Go writes it: `100ms`, `1m30s`, `1.5h`; 0 where it is negative.
fn duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() || total.is_zero() {
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..at].parse().ok()?;
        rest = &rest[at..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[end..];
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        if rest.is_empty() {
            break;
        }
    }
    // Go's are 64 bits of nanoseconds.
    i64::try_from(total.as_nanos()).ok()?;
    Some(if negative { Duration::ZERO } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("+2s", Some(2000)),
            (".5s", Some(500)),
            ("1500us", Some(1)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("-5s", Some(0)),
            ("5", None),
            ("", None),
            ("s", None),
            ("5x", None),
            ("1s5", None),
            ("1.2.3s", None),
            ("99999999h", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), milliseconds, "{text}");
        }
    }
}
