//! The properties of a scope: what every container has, its limits in systemd's terms, and annotations.
//!
//! systemd writes a cgroup's files again when it reloads its units, so it has to know all limits that it can. It is told
//! nothing of devices: with none in its unit it leaves alone what is attached to the cgroup, also what others add later.

use std::collections::HashMap;

use super::super::limits::{Missing, Write};
use super::value::{self, Value};
use crate::error::{Cause, Error, Result};

/// The prefix of annotations that are properties.
const ANNOTATION: &str = "org.systemd.property.";

/// More processors or memory nodes than that the kernel has not.
const MOST_BITS: usize = 65536;

/// A property as calls carry it.
pub(super) fn property(name: &str, value: Value) -> Value {
    Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
}

/// What the scope of every container has.
pub(super) fn scope(id: &str, slice: &str) -> Vec<Value> {
    let on = |name| property(name, Value::Bool(true));
    vec![
        property("Description", Value::Text(format!("vessel container {id}"))),
        property("Slice", Value::text(slice)),
        on("Delegate"),
        // A controller that is enabled later does not count what was there before.
        on("MemoryAccounting"),
        on("CPUAccounting"),
        on("IOAccounting"),
        on("TasksAccounting"),
        property("DefaultDependencies", Value::Bool(false)),
    ]
}

/// The process that a scope begins with.
pub(super) fn pid(pid: i32) -> Value {
    property("PIDs", Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]))
}

/// Whether a text of systemd's is about that property.
pub(super) fn names(text: &str, property: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == property)
}

/// The limits that systemd has, in the order in which they are set: of several for the same, the last one holds. What it
/// has no word for, or what is no number to it, is left to the cgroup's files, which are written anyway. `bfq` tells
/// whether the kernel has weights of that scheduler.
///
/// | Property | systemd |
/// |---|---|
/// | TasksMax | 227 |
/// | IOWeight, IODeviceWeight, IOReadBandwidthMax, IOWriteBandwidthMax, IOReadIOPSMax, IOWriteIOPSMax | 230 |
/// | MemoryMax, MemoryHigh, MemoryLow, CPUQuotaPerSecUSec | 231 |
/// | MemorySwapMax, CPUWeight | 232 |
/// | MemoryMin, IODeviceLatencyTargetUSec | 240 |
/// | CPUQuotaPeriodUSec | 242 |
/// | AllowedCPUs, AllowedMemoryNodes | 244 |
/// | CPUWeight of 0, for idle | 252 |
/// | OOMPolicy of scopes, MemoryZSwapMax | 253 |
/// | MemoryZSwapWriteback | 256 |
pub(super) fn limits(writes: &[Write], bfq: bool) -> Vec<(&'static str, Value)> {
    writes.iter().flat_map(|write| limit(write, bfq)).collect()
}

fn limit(write: &Write, bfq: bool) -> Vec<(&'static str, Value)> {
    let value = write.value.trim();
    let number = |name| number(value).map(|number| (name, Value::U64(number))).into_iter().collect();
    let set = |name| mask(value).map(|mask| (name, mask)).into_iter().collect();
    match &*write.file {
        "memory.max" => number("MemoryMax"),
        "memory.high" => number("MemoryHigh"),
        "memory.low" => number("MemoryLow"),
        "memory.min" => number("MemoryMin"),
        "memory.swap.max" => number("MemorySwapMax"),
        "memory.zswap.max" => number("MemoryZSwapMax"),
        "memory.zswap.writeback" => vec![("MemoryZSwapWriteback", Value::Bool(value != "0"))],
        // It knows no 0, which forbids the same where there is a process.
        "pids.max" if value == "0" => vec![("TasksMax", Value::U64(1))],
        "pids.max" => number("TasksMax"),
        "cpu.weight" => number("CPUWeight"),
        // An idle cgroup has no other weight.
        "cpu.idle" if value == "1" => vec![("CPUWeight", Value::U64(0))],
        "cpu.max" => quota(value),
        "cpuset.cpus" => set("AllowedCPUs"),
        "cpuset.mems" => set("AllowedMemoryNodes"),
        "io.max" => throttles(value),
        "io.latency" => latency(value),
        "io.weight" => weight(value, |weight| weight),
        "io.bfq.weight" => match &write.missing {
            Missing::Or(_, general) if !bfq => weight(general.trim(), |weight| weight),
            // systemd writes both kinds of weights, that of the scheduler made out of the other.
            _ => weight(value, |weight| if weight <= 100 { weight } else { 100 + (weight - 100) * 11 }),
        },
        _ => Vec::new(),
    }
}

/// What a scope does when the kernel has ended a process of it for want of memory, which can be said at its start alone.
pub(super) fn oom_policy(writes: &[Write]) -> Option<(&'static str, Value)> {
    let write = writes.iter().rfind(|write| write.file == "memory.oom.group")?;
    match write.value.trim() {
        "0" => Some(("OOMPolicy", Value::text("continue"))),
        "1" => Some(("OOMPolicy", Value::text("kill"))),
        _ => None,
    }
}

/// A property that has a number for each device: `MAJOR:MINOR` is one by this path for systemd.
fn of_device(name: &'static str, device: &str, number: u64) -> Option<(&'static str, Value)> {
    let (major, minor) = device.split_once(':')?;
    let whole = |text: &str| text.parse::<u32>().ok();
    let path = format!("/dev/block/{}:{}", whole(major)?, whole(minor)?);
    let entry = Value::Struct(vec![Value::Text(path), Value::U64(number)]);
    Some((name, Value::Array(entry.signature(), vec![entry])))
}

/// `io.max`: a device and a limit for each kind of load.
fn throttles(value: &str) -> Vec<(&'static str, Value)> {
    let Some((device, limits)) = value.split_once(' ') else { return Vec::new() };
    let throttle = |limit: &str| {
        let (key, value) = limit.split_once('=')?;
        let name = match key {
            "rbps" => "IOReadBandwidthMax",
            "wbps" => "IOWriteBandwidthMax",
            "riops" => "IOReadIOPSMax",
            "wiops" => "IOWriteIOPSMax",
            _ => return None,
        };
        of_device(name, device, number(value)?)
    };
    limits.split_whitespace().filter_map(throttle).collect()
}

/// `io.latency`: a device and its target in microseconds.
fn latency(value: &str) -> Vec<(&'static str, Value)> {
    let parts = value.split_once(" target=");
    let target =
        parts.and_then(|(device, target)| of_device("IODeviceLatencyTargetUSec", device, target.trim().parse().ok()?));
    target.into_iter().collect()
}

/// A weight for all devices, or for one.
fn weight(value: &str, convert: impl FnOnce(u64) -> u64) -> Vec<(&'static str, Value)> {
    let (device, weight) = value.split_once(' ').unwrap_or(("default", value));
    let Ok(weight) = weight.trim().parse().map(convert) else { return Vec::new() };
    match device {
        "default" => vec![("IOWeight", Value::U64(weight))],
        device => of_device("IODeviceWeight", device, weight).into_iter().collect(),
    }
}

/// A number, where the largest is no limit.
fn number(value: &str) -> Option<u64> {
    if value == "max" { Some(u64::MAX) } else { value.parse().ok() }
}

/// Gives quotas the values that systemd can keep, so that its cgroup has the same before and after a reload.
pub(in crate::cgroups) fn round(writes: &mut [Write]) {
    for write in writes.iter_mut().filter(|write| write.file == "cpu.max") {
        if let Some((per_second, period)) = rate(&write.value).filter(|&(per_second, _)| per_second != u64::MAX) {
            let quota = u128::from(per_second) * u128::from(period) / 1_000_000;
            write.value = format!("{quota} {period}");
        }
    }
}

/// `cpu.max` as microseconds in a second, and the period. systemd keeps whole hundredths of a processor: the next higher
/// one.
fn rate(value: &str) -> Option<(u64, u64)> {
    let mut words = value.split_whitespace();
    let quota = words.next().and_then(number)?;
    let period = words.next().map_or(Some(100_000), |word| word.parse().ok()).filter(|&period| period != 0)?;
    let per_second = match quota {
        u64::MAX => u64::MAX,
        quota => quota.saturating_mul(1_000_000).div_ceil(period).div_ceil(10_000).saturating_mul(10_000),
    };
    Some((per_second, period))
}

fn quota(value: &str) -> Vec<(&'static str, Value)> {
    let Some((per_second, period)) = rate(value) else { return Vec::new() };
    vec![("CPUQuotaPeriodUSec", Value::U64(period)), ("CPUQuotaPerSecUSec", Value::U64(per_second))]
}

/// A list as `0-3,6` as a mask of bits, the lowest first. An empty one is no choice.
fn mask(list: &str) -> Option<Value> {
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST_BITS {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
    }
    Some(Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect()))
}

/// The properties that annotations name (`org.systemd.property.NAME`), by name.
pub(super) fn annotated(annotations: Option<&HashMap<String, String>>) -> Result<Vec<Value>> {
    let named = annotations.into_iter().flatten();
    let mut named: Vec<_> =
        named.filter_map(|(key, text)| Some((key.strip_prefix(ANNOTATION)?, text.as_str()))).collect();
    named.sort_unstable();
    let fault =
        |name: &str, why: Error| Err(Error::of(Cause::Config, format!("annotations[{ANNOTATION}{name}]: {why}")));
    let mut properties = Vec::new();
    for (name, text) in named {
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return fault(name, Error::new("name incorrect: three letters or more, and nothing else"));
        }
        let value = match value::parse(text) {
            Ok(value) => value,
            Err(e) => return fault(name, e.context(format!("value parse error in {text:?}"))),
        };
        match seconds(name, value) {
            Ok((name, value)) => properties.push(property(&name, value)),
            Err(e) => return fault(name, e),
        }
    }
    Ok(properties)
}

/// A property in seconds is one of unit files; D-Bus has it in microseconds, under another name.
fn seconds(name: &str, value: Value) -> Result<(String, Value)> {
    let stem = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase()));
    let Some(stem) = stem else { return Ok((name.to_string(), value)) };
    let whole = |number: i128| u64::try_from(number.saturating_mul(1_000_000)).ok();
    let micros = match value {
        Value::Byte(number) => whole(number.into()),
        Value::I16(number) => whole(number.into()),
        Value::U16(number) => whole(number.into()),
        Value::I32(number) => whole(number.into()),
        Value::U32(number) => whole(number.into()),
        Value::I64(number) => whole(number.into()),
        Value::U64(number) => whole(number.into()),
        // Rounds towards zero; what does not fit becomes the nearest that does.
        Value::Double(number) if number >= 0.0 => Some((number * 1_000_000.0) as u64),
        _ => None,
    };
    let micros = micros.ok_or_else(|| Error::new("it is no number of seconds"))?;
    Ok((format!("{stem}USec"), Value::U64(micros)))
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::plan;
    use super::*;

    fn of(name: &str, value: u64) -> Value {
        property(name, Value::U64(value))
    }

    fn list(json: &str, bfq: bool) -> Vec<(&'static str, Value)> {
        limits(&plan(Some(&serde_json::from_str(json).unwrap()), None, true).unwrap(), bfq)
    }

    #[test]
    fn limits_have_properties() {
        let of = |name, value| (name, Value::U64(value));
        let json = r#"{"memory":{"limit":100,"swap":150,"reservation":50},
            "cpu":{"shares":1024,"quota":5001,"period":10000,"cpus":"0,9-10"},
            "unified":{"memory.high":"90","memory.min":"8","memory.zswap.max":"7","memory.zswap.writeback":"0"}}"#;
        let writes = plan(Some(&serde_json::from_str(json).unwrap()), Some(0), true).unwrap();
        let cpus = [1, 0b110].map(Value::Byte).to_vec();
        let want = [
            of("TasksMax", 1),
            of("MemorySwapMax", 50),
            of("MemoryMax", 100),
            of("MemoryLow", 50),
            of("CPUWeight", 100),
            of("CPUQuotaPeriodUSec", 10_000),
            of("CPUQuotaPerSecUSec", 510_000),
            ("AllowedCPUs", Value::Array("y".into(), cpus)),
            of("MemoryHigh", 90),
            of("MemoryMin", 8),
            of("MemoryZSwapMax", 7),
            ("MemoryZSwapWriteback", Value::Bool(false)),
        ];
        assert_eq!(limits(&writes, false), want);
        let mut rounded = writes;
        round(&mut rounded);
        let max: Vec<_> = rounded.iter().filter(|write| write.file == "cpu.max").map(|write| &*write.value).collect();
        assert_eq!(max, ["5100 10000"]);
        assert_eq!(quota("max 20000"), [of("CPUQuotaPeriodUSec", 20_000), of("CPUQuotaPerSecUSec", u64::MAX)]);
        for wrong in ["", "x", "1 0", "-1"] {
            assert_eq!(quota(wrong), [], "{wrong}");
        }
        assert_eq!(mask(""), Some(Value::Array("y".into(), Vec::new())));
        for wrong in ["x", "3-1", "0-99999999999", "4294967295"] {
            assert_eq!(mask(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_idle_cgroup_has_no_other_weight() {
        let weight = |value| vec![("CPUWeight", Value::U64(value))];
        for (json, want) in [
            (r#"{"cpu":{"idle":1,"shares":1024}}"#, weight(0)),
            (r#"{"cpu":{"idle":0,"shares":1024}}"#, weight(100)),
            (r#"{"unified":{"cpu.idle":"1","cpu.weight":"50"}}"#, weight(0)),
            (r#"{"cpu":{"idle":0}}"#, Vec::new()),
        ] {
            assert_eq!(list(json, false), want, "{json}");
        }
    }

    #[test]
    fn devices_have_properties() {
        let device = |name, value| of_device(name, "8:16", value).unwrap();
        assert_eq!(device("IODeviceWeight", 5).1.signature(), "a(st)");
        for (json, bfq, want) in [
            (r#"{"blockIO":{"weight":60}}"#, false, vec![("IOWeight", Value::U64(506))]),
            (r#"{"blockIO":{"weight":60}}"#, true, vec![("IOWeight", Value::U64(60))]),
            (r#"{"blockIO":{"weight":1000}}"#, true, vec![("IOWeight", Value::U64(10_000))]),
            (
                r#"{"blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":20}]}}"#,
                false,
                vec![device("IODeviceWeight", 102)],
            ),
            (
                r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":16,"rate":9}],
                    "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#,
                false,
                vec![device("IOReadBandwidthMax", 9), device("IOWriteIOPSMax", u64::MAX)],
            ),
            (
                r#"{"unified":{"io.max":"8:16 wbps=7 riops=6","io.latency":"8:16 target=75"}}"#,
                false,
                vec![
                    device("IODeviceLatencyTargetUSec", 75),
                    device("IOWriteBandwidthMax", 7),
                    device("IOReadIOPSMax", 6),
                ],
            ),
            (
                r#"{"unified":{"io.weight":"default 30\n8:16 40\n8:0 default"}}"#,
                false,
                vec![("IOWeight", Value::U64(30)), device("IODeviceWeight", 40)],
            ),
            (r#"{"unified":{"io.max":"../x rbps=1","io.latency":"x","io.weight":""}}"#, false, Vec::new()),
        ] {
            assert_eq!(list(json, bfq), want, "{json}");
        }
    }

    #[test]
    fn the_policy_for_want_of_memory_is_that_of_the_group() {
        for (value, want) in [("0", Some("continue")), ("1", Some("kill")), ("2", None)] {
            let json = serde_json::json!({"unified": {"memory.oom.group": value}});
            let writes = plan(Some(&serde_json::from_value(json).unwrap()), None, true).unwrap();
            assert_eq!(oom_policy(&writes), want.map(|want| ("OOMPolicy", Value::text(want))));
        }
    }

    #[test]
    fn annotations_are_properties() {
        let read = |name: &str, text: &str| {
            let annotations = HashMap::from([(format!("{ANNOTATION}{name}"), text.to_string())]);
            annotated(Some(&annotations)).map_err(|e| e.to_string())
        };
        let one = |name: &str, value: Value| Ok(vec![property(name, value)]);
        assert_eq!(read("KillSignal", "15"), one("KillSignal", Value::I32(15)));
        assert_eq!(read("TimeoutStopUSec", "uint64 10000000"), Ok(vec![of("TimeoutStopUSec", 10_000_000)]));
        assert_eq!(read("TimeoutStopSec", "1.5"), Ok(vec![of("TimeoutStopUSec", 1_500_000)]));
        assert_eq!(read("RuntimeMaxSec", "2"), Ok(vec![of("RuntimeMaxUSec", 2_000_000)]));
        assert_eq!(read("CollectMode", "'inactive'"), one("CollectMode", Value::text("inactive")));
        for (name, text) in [("Ab", "1"), ("A-b", "1"), ("KillSignal", "x"), ("StopSec", "-1"), ("StopSec", "'1'")] {
            assert!(read(name, text).unwrap_err().starts_with("annotations[org.systemd.property."), "{name}");
        }
    }
}
