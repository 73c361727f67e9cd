//! `vessel update`.

use std::ffi::OsStr;

use serde_json::{Value, json};

use super::lex::{Flag, value};
use super::verb::{Call, Count, Verb};
use crate::container::{self, UpdateRequest};
use crate::error::{Context, Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "update",
    about: "update container resource constraints",
    details: "What no flag names stays as it is. Where one limit cannot be set, all are put back.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags,
    run,
};

/// How the text of a flag becomes a number.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    Signed,
    Text,
    /// Bytes, as 512M; -1 for no limit.
    Size,
}

/// The flags, with their places in the resources.
const FLAGS: [(&str, &str, &str, Kind, &str); 15] = [
    ("blkio-weight", "blockIO", "weight", Kind::Number, "weight of its input and output, 10 to 1000"),
    ("cpu-period", "cpu", "period", Kind::Number, "the period of the CPU quota, in microseconds; 0: as it is"),
    ("cpu-quota", "cpu", "quota", Kind::Signed, "CPU time in a period, in microseconds; -1: no limit"),
    ("cpu-burst", "cpu", "burst", Kind::Number, "unused CPU time that adds to the quota, in microseconds"),
    ("cpu-share", "cpu", "shares", Kind::Number, "CPU time in relation to other containers, 2 to 262144"),
    ("cpu-rt-period", "cpu", "realtimePeriod", Kind::Number, "period of real-time processes, in microseconds (v1)"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Signed, "CPU time of real-time processes in a period (v1)"),
    ("cpuset-cpus", "cpu", "cpus", Kind::Text, "processors, as 0-3,7"),
    ("cpuset-mems", "cpu", "mems", Kind::Text, "memory nodes, as 0,1"),
    ("cpu-idle", "cpu", "idle", Kind::Signed, "1: only run when nothing else wants to; 0: not so"),
    ("memory", "memory", "limit", Kind::Size, "memory in bytes, or as 512M; -1: no limit"),
    ("memory-reservation", "memory", "reservation", Kind::Size, "memory that is spared while others can give"),
    ("memory-swap", "memory", "swap", Kind::Size, "memory and swap together; -1: no limit of swap"),
    ("kernel-memory", "memory", "kernel", Kind::Size, ""),
    ("kernel-memory-tcp", "memory", "kernelTCP", Kind::Size, ""),
];

/// The flags for resctrl, and what runc calls them.
const SCHEMATA: [(&str, &str); 2] =
    [("l3-cache-schema", "CAT: l3 cache schema"), ("mem-bw-schema", "MBA: memory bandwidth schema")];

fn flags() -> Vec<Flag> {
    let file = "a JSON file with linux.resources, or - for standard input; the other flags are ignored then";
    let mut flags = vec![value("resources", 'r', "FILE", file)];
    flags.extend(FLAGS.iter().map(|&(name, _, _, kind, help)| {
        let word = match kind {
            Kind::Number | Kind::Signed => "N",
            Kind::Text => "LIST",
            Kind::Size => "SIZE",
        };
        value(name, ' ', word, help)
    }));
    flags.push(value("pids-limit", ' ', "N", "how many processes and threads it may have; -1: no limit"));
    flags.push(value("l3-cache-schema", ' ', "SCHEMA", "a line of schemata (resctrl) for the cache, as L3:0=7f"));
    flags.push(value("mem-bw-schema", ' ', "SCHEMA", "a line of schemata for memory bandwidth, as MB:0=20"));
    flags
}

fn run(call: &Call) -> Result<i32> {
    let resources = match call.path("resources") {
        Some(path) => read(path.as_os_str())?,
        None => from_flags(call)?,
    };
    let schemata: Vec<String> =
        SCHEMATA.iter().filter_map(|(name, _)| call.text(name).transpose()).collect::<Result<_>>()?;
    let given = SCHEMATA.iter().find(|(name, _)| call.path(name).is_some());
    if let Some((_, what)) = given {
        container::can_limit_caches().context(|| format!("Intel RDT/{what} is not enabled"))?;
    }
    container::update(&call.host, &UpdateRequest { id: call.id(), resources, schemata })?;
    Ok(0)
}

/// Reads the resources from a file, or from standard input. What follows the first value is left alone.
fn read(path: &OsStr) -> Result<Value> {
    let place = path.to_string_lossy();
    let text = match &*place {
        "-" => std::io::read_to_string(std::io::stdin()).context(|| "cannot read standard input")?,
        _ => std::fs::read_to_string(path).context(|| format!("open {place}"))?,
    };
    match serde_json::Deserializer::from_str(&text).into_iter().next() {
        Some(Ok(value)) => Ok(value),
        Some(Err(e)) => Err(Error::new(format!("{place}: {e}"))),
        None => Err(Error::new(format!("{place}: it is empty, where JSON is expected"))),
    }
}

fn from_flags(call: &Call) -> Result<Value> {
    let mut resources = json!({});
    for (name, part, field, kind, _) in FLAGS {
        let Some(text) = call.text(name)? else { continue };
        let value = parse(kind, &text).map_err(|e| e.context(format!("invalid value for {name}")))?;
        resources[part][field] = value;
    }
    if let Some(text) = call.text("pids-limit")? {
        let value = parse(Kind::Signed, &text).map_err(|e| e.context("invalid value for pids-limit"))?;
        resources["pids"]["limit"] = value;
    }
    Ok(resources)
}

fn parse(kind: Kind, text: &str) -> Result<Value> {
    let wrong = |what: &str| Error::new(format!("{text:?} is not a {what}"));
    Ok(match kind {
        Kind::Number => text.parse::<u64>().map_err(|_| wrong("number, 0 or more"))?.into(),
        Kind::Signed => text.parse::<i64>().map_err(|_| wrong("number"))?.into(),
        Kind::Text => text.into(),
        Kind::Size if text == "-1" => (-1).into(),
        Kind::Size => size(text)?.into(),
    })
}

/// A size as people write it: a number, also with a fraction, and a unit of 1024 (`512M`, `1.5 GiB`, `64kb`).
fn size(text: &str) -> Result<i64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| Error::new(format!("invalid size: '{text}'")))?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(Error::new(format!("invalid suffix: '{unit}'"))),
    };
    // Beyond 2^63 it ends at the largest number.
    Ok((number * 1024_f64.powi(power)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_people_write() {
        for (text, want) in [
            ("33554432", Ok(33_554_432)),
            ("50M", Ok(50 << 20)),
            ("64kb", Ok(64 << 10)),
            ("1.5 GiB", Ok(3 << 29)),
            ("2t", Ok(2 << 40)),
            ("3B", Ok(3)),
            ("0", Ok(0)),
            ("", Err("invalid size: ''")),
            ("-5", Err("invalid size: '-5'")),
            ("M", Err("invalid size: 'M'")),
            ("1.2.3", Err("invalid size: '1.2.3'")),
            ("5x", Err("invalid suffix: 'x'")),
            ("5ib", Err("invalid suffix: 'ib'")),
            ("5  M", Err("invalid suffix: ' m'")),
        ] {
            assert_eq!(size(text).map_err(|e| e.to_string()), want.map_err(String::from), "{text}");
        }
    }
}
