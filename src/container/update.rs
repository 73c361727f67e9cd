//! `update`: changes limits of a container that runs.
//!
//! Resources are handled as JSON in the shape of `linux.resources`, in which what was not named can be told from what
//! is 0, and a change is laid over what holds.

use std::path::PathBuf;

use oci_spec::runtime::LinuxIntelRdt;
use serde_json::{Map, Value, json};

use super::state::{State, Status};
use super::{Host, UpdateRequest, store};
use crate::error::{Cause, Error, Result};
use crate::{log, rdt, spec};

pub(super) fn update(host: &Host, request: &UpdateRequest) -> Result<()> {
    let id = &request.id;
    let entry = store::open_locked(host, id)?;
    let mut state = entry.state()?;
    if matches!(state.status(&entry)?, Status::Stopped | Status::Creating) {
        return Err(Error::of(Cause::State, format!("container not running: {id}")));
    }
    let old = match state.vessel.resources.take() {
        Some(resources) => resources,
        None => configured(&entry.config()?)?,
    };
    let cgroup = &state.vessel.cgroup;
    let Change { writes, all } = Change::new(old, request.resources.clone(), || cgroup.cpu_max())?;
    let resources = spec::parse_resources(&writes)?;
    for warning in cgroup.ignored(&resources) {
        log::warn(&warning);
    }
    let undo = cgroup.update(&resources, writes["pids"]["limit"].as_i64())?;
    state.vessel.resources = Some(all);
    let caches =
        if request.schemata.is_empty() { Ok(None) } else { set_schemata(&mut state, &request.schemata).map(Some) };
    let saved =
        caches.and_then(|caches| entry.write_state(&state).inspect_err(|_| caches.iter().for_each(Caches::restore)));
    if saved.is_err() {
        undo.restore();
    }
    saved
}

/// What the limits of caches were before a change.
struct Caches {
    root: PathBuf,
    group: rdt::Group,
    /// The lines that held; none where the group was made for the change.
    held: Option<String>,
}

impl Caches {
    /// Puts them back. What fails here is not what went wrong.
    fn restore(&self) {
        let _ = match &self.held {
            Some(lines) => self.group.set(&self.root, &lines.lines().collect::<Vec<_>>()),
            None => self.group.remove(),
        };
    }
}

/// Limits caches and memory bandwidth, in a group that is made where the container has none. A failure leaves all as it
/// was.
fn set_schemata(state: &mut State, lines: &[String]) -> Result<Caches> {
    let root = rdt::mountpoint()?;
    let caches = match &state.vessel.rdt {
        Some(group) => Caches { held: Some(group.schemata()?), group: group.clone(), root },
        None => {
            let config = LinuxIntelRdt::default();
            let group = rdt::Group::plan(&root, &state.id, &config)?;
            group.make(&root, &config)?;
            Caches { root, group, held: None }
        }
    };
    let set = || {
        if caches.held.is_none() {
            // One that has ended meanwhile needs no limit.
            let add = |pid| match caches.group.add(pid) {
                Err(e) if e.errno() == libc::ESRCH => Ok(()),
                done => done,
            };
            state.vessel.cgroup.pids()?.into_iter().try_for_each(add)?;
        }
        caches.group.set(&caches.root, &lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    set().inspect_err(|_| caches.restore())?;
    state.vessel.rdt = Some(caches.group.clone());
    Ok(caches)
}

/// The resources of the configuration at create.
fn configured(config: &str) -> Result<Value> {
    let mut config: Value =
        serde_json::from_str(config).map_err(|e| Error::new(format!("the kept config.json is broken: {e}")))?;
    Ok(config["linux"]["resources"].take())
}

/// A change of resources.
#[derive(Debug)]
struct Change {
    /// What is to be set: what was asked for, with the values that hold where two go together.
    writes: Value,
    /// What holds afterwards.
    all: Value,
}

/// Fields whose 0 means that they are not set.
const ZERO_IS_UNSET: [(&str, &[&str]); 3] = [
    ("memory", &["limit", "reservation", "swap", "kernel", "kernelTCP"]),
    ("cpu", &["shares", "quota", "period", "realtimeRuntime", "realtimePeriod"]),
    ("blockIO", &["weight", "leafWeight"]),
];

impl Change {
    /// `cpu_max` gives the quota and the period that hold, where the kernel takes the two together.
    fn new(mut old: Value, mut asked: Value, cpu_max: impl FnOnce() -> Option<(i64, u64)>) -> Result<Change> {
        drop_unset(&mut asked);
        let Some(map) = asked.as_object_mut() else { return Err(Error::new("the resources are not a JSON object")) };
        // Rules of devices stay as they are: others (GPU plug-ins) may have added theirs.
        map.remove("devices");
        if asked["memory"]["limit"] == -1 && asked["memory"].get("swap").is_none() {
            // No limit of memory means none of swap either.
            if let Some(memory) = old.get_mut("memory").and_then(Value::as_object_mut) {
                memory.remove("swap");
            }
        }
        let mut writes = asked.clone();
        complete(&mut writes, "memory", ["limit", "swap"], || old.get("memory").cloned());
        complete(&mut writes, "cpu", ["quota", "period"], || {
            cpu_max().map(|(quota, period)| json!({ "quota": quota, "period": period }))
        });
        if !old.is_object() {
            old = Value::Object(Map::new());
        }
        merge(&mut old, asked);
        Ok(Change { writes, all: old })
    }
}

/// Takes away what says nothing: null, and 0 and "" where they stand for a value that is not set.
fn drop_unset(value: &mut Value) {
    drop_nulls(value);
    for (part, fields) in ZERO_IS_UNSET {
        let Some(map) = value.get_mut(part).and_then(Value::as_object_mut) else { continue };
        map.retain(|name, value| *value != 0 || !fields.contains(&name.as_str()));
    }
    if let Some(cpu) = value.get_mut("cpu").and_then(Value::as_object_mut) {
        cpu.retain(|_, value| *value != "");
    }
}

fn drop_nulls(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// Adds the other of two values that go together, from what holds.
fn complete(writes: &mut Value, part: &str, pair: [&str; 2], held: impl FnOnce() -> Option<Value>) {
    let Some(map) = writes.get_mut(part).and_then(Value::as_object_mut) else { return };
    let other = match pair.map(|name| map.contains_key(name)) {
        [true, false] => pair[1],
        [false, true] => pair[0],
        _ => return,
    };
    if let Some(value) = held().and_then(|held| held.get(other).cloned()).filter(|value| !value.is_null()) {
        map.insert(other.to_string(), value);
    }
}

/// Lays `new` over `old`: objects by their keys, lists by what their items are for.
fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(old), Value::Array(new)) if new.iter().all(|item| identity(item).is_some()) => {
            for item in new {
                // Of several for the same, the last one holds.
                match old.iter().rposition(|other| identity(other) == identity(&item)) {
                    Some(at) => merge(&mut old[at], item),
                    None => old.push(item),
                }
            }
        }
        (old, new) => *old = new,
    }
}

/// What an item of a list is for: a device, a size of pages, a network interface.
fn identity(item: &Value) -> Option<[Option<&Value>; 2]> {
    let of = |name| item.get(name);
    let (major, minor) = (of("major"), of("minor"));
    let found = if major.is_some() { [major, minor] } else { [of("pageSize").or(of("name")), None] };
    found[0].is_some().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(old: Value, asked: Value) -> (Value, Value) {
        let Change { writes, all } = Change::new(old, asked, || Some((500, 1000))).unwrap();
        (writes, all)
    }

    #[test]
    fn what_goes_together_is_written_together() {
        for (old, asked, writes) in [
            (
                json!({"cpu": {"quota": 7, "shares": 5}}),
                json!({"cpu": {"period": 900}}),
                json!({"cpu": {"quota": 500, "period": 900}}),
            ),
            (Value::Null, json!({"cpu": {"quota": -1, "period": 0}}), json!({"cpu": {"quota": -1, "period": 1000}})),
            (Value::Null, json!({"cpu": {"quota": 1, "period": 2}}), json!({"cpu": {"quota": 1, "period": 2}})),
            (json!({"cpu": {"quota": 5}}), json!({"cpu": {"shares": 7}}), json!({"cpu": {"shares": 7}})),
            (
                json!({"memory": {"limit": 10, "swap": 20}}),
                json!({"memory": {"limit": 15}}),
                json!({"memory": {"limit": 15, "swap": 20}}),
            ),
            (
                json!({"memory": {"limit": 10, "swap": 20}}),
                json!({"memory": {"limit": -1}}),
                json!({"memory": {"limit": -1}}),
            ),
            (
                json!({"memory": {"limit": 15, "swap": null}}),
                json!({"memory": {"limit": 20}}),
                json!({"memory": {"limit": 20}}),
            ),
            (Value::Null, json!({"memory": {"swap": 15}}), json!({"memory": {"swap": 15}})),
            (Value::Null, json!({"pids": {"limit": 0}, "devices": [1]}), json!({"pids": {"limit": 0}})),
        ] {
            assert_eq!(change(old, asked.clone()).0, writes, "{asked}");
        }
    }

    #[test]
    fn changes_are_laid_over_what_holds() {
        for (old, asked, all) in [
            (
                json!({"memory": {"limit": 10, "swap": 20}, "pids": {"limit": 1}}),
                json!({"memory": {"limit": -1}}),
                json!({"memory": {"limit": -1}, "pids": {"limit": 1}}),
            ),
            (json!({"memory": {"limit": 10}}), json!({"memory": {"limit": 0}}), json!({"memory": {"limit": 10}})),
            (Value::Null, json!({"cpu": {"cpus": "1", "mems": ""}}), json!({"cpu": {"cpus": "1"}})),
            (
                json!({"unified": {"a.b": "1", "a.c": "2"}}),
                json!({"unified": {"a.b": "3"}}),
                json!({"unified": {"a.b": "3", "a.c": "2"}}),
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
                json!({"hugepageLimits": [{"pageSize": "1GB", "limit": 2}, {"pageSize": "2MB", "limit": 3}]}),
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 3}, {"pageSize": "1GB", "limit": 2}]}),
            ),
        ] {
            assert_eq!(change(old, asked.clone()).1, all, "{asked}");
        }
        assert!(Change::new(Value::Null, json!([]), || None).is_err());
    }

    #[test]
    fn the_last_of_several_entries_for_a_device_is_replaced() {
        let device = |rate| json!({"major": 8, "minor": 0, "rate": rate});
        let list = |devices: &[Value]| json!({"blockIO": {"throttleReadBpsDevice": devices}});
        let other = json!({"major": 8, "minor": 1, "rate": 9});
        let all = change(list(&[device(1), device(2)]), list(&[device(3), other.clone()])).1;
        assert_eq!(all, list(&[device(1), device(3), other]));
        let weights = |list: Value| json!({"blockIO": {"weightDevice": list}});
        let old = weights(json!([{"major": 8, "minor": 0, "weight": 5, "leafWeight": 6}]));
        let all = change(old, weights(json!([{"major": 8, "minor": 0, "weight": 7}]))).1;
        assert_eq!(all, weights(json!([{"major": 8, "minor": 0, "weight": 7, "leafWeight": 6}])));
    }
}
