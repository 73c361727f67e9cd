//! From the text of a config.json to the types of oci-spec.
//!
//! Most texts are what oci-spec expects, and are read once. Where it refuses one, the text is read as plain JSON, put
//! right where oci-spec is stricter than the specification or has a name wrong, and read again; what is refused then
//! has its place named.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, LinuxResources, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::options::Options;
use super::{Config, place, required};
use crate::error::{Cause, Context, Error, Result};
use crate::log;

/// Reads a configuration from a file.
pub fn load(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
    parse(text).map_err(|e| e.context(path.display()))
}

/// Reads a configuration from its text.
pub fn parse(text: String) -> Result<Config> {
    let mut warnings = Vec::new();
    let mut spec: Spec = read(&text, |value| {
        if let Some(process) = value.get_mut("process") {
            mend_process(process, "process.", &mut warnings);
        }
        if let Some(linux) = value.get_mut("linux") {
            mend_linux(linux);
        }
    })?;
    required::check(&text)?;
    drop_empty(&mut spec);
    let pids_limit = pids_limit(&spec, &text);
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        if mount.destination().is_relative() {
            let place = mount.destination().display();
            warnings.push(format!("mounts: the relative destination {place} is deprecated, and taken from the root"));
        }
        let options = Options::of(mount);
        if options.flags & libc::MS_BIND != 0 && !options.data.is_empty() {
            let data = options.data;
            warnings
                .push(format!("mounts[{i}].options: the kernel ignores {data} where it binds what is mounted already"));
        }
    }
    Ok(Config { spec, pids_limit, warnings, text })
}

/// Reads the process of `exec --process`, which has the shape of `process` in config.json.
pub fn parse_process(text: &str) -> Result<Process> {
    let mut warnings = Vec::new();
    let mut process = read(text, |value| mend_process(value, "", &mut warnings))?;
    required::check_process(text)?;
    drop_empty_of_process(&mut process);
    warnings.iter().for_each(|w| log::warn(w));
    Ok(process)
}

/// Reads limits in the shape of `linux.resources`, as `update` takes them.
pub fn parse_resources(value: &Value) -> Result<LinuxResources> {
    let mut linux = serde_json::json!({ "resources": value });
    drop_nulls(&mut linux);
    mend_linux(&mut linux);
    required::check_resources(&linux["resources"])?;
    read_mended(&linux["resources"], |_| "")
}

/// Reads a text; where it is refused, `mend` may put it right.
fn read<T: DeserializeOwned>(text: &str, mend: impl FnOnce(&mut Value)) -> Result<T> {
    if let Ok(done) = serde_json::from_str(text) {
        return Ok(done);
    }
    let mut value: Value = serde_json::from_str(text).map_err(fault)?;
    drop_nulls(&mut value);
    mend(&mut value);
    read_mended(&value, key_phrase)
}

/// Reads what was mended: from text again, so that there is one piece of code for each type and not two.
fn read_mended<T: DeserializeOwned>(value: &Value, phrase: fn(&str) -> &'static str) -> Result<T> {
    let text = value.to_string();
    serde_json::from_str(&text).map_err(|e| match place::of(&e, &text).as_str() {
        "" => fault(place::words(&e)),
        at => fault(format_args!("{at}: {}{}", phrase(at), place::words(&e))),
    })
}

/// Words that other programs look for, where the value at that place is refused.
fn key_phrase(place: &str) -> &'static str {
    match place {
        "linux.memoryPolicy" | "linux.memoryPolicy.mode" => "invalid memory policy mode: ",
        place if place.starts_with("linux.memoryPolicy.flags") => "invalid memory policy flag: ",
        _ => "",
    }
}

pub(super) fn fault(text: impl std::fmt::Display) -> Error {
    Error::of(Cause::Config, text.to_string())
}

/// A property that is null is one that is absent: both leave the default in place.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn mend_process(process: &mut Value, place: &str, warnings: &mut Vec<String>) {
    let Some(process) = process.as_object_mut() else { return };
    process.entry("user").or_insert_with(|| Value::Object(Map::new()));
    process.entry("cwd").or_insert_with(|| "".into());
    for (set, names) in process.get_mut("capabilities").and_then(Value::as_object_mut).into_iter().flatten() {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let known = !name.is_string() || Capability::deserialize(name).is_ok();
            if !known {
                warnings.push(format!("{place}capabilities.{set}: the unknown capability {name} is left out"));
            }
            known
        });
    }
    for flag in process.get_mut("scheduler").and_then(|s| s["flags"].as_array_mut()).into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        affinity.retain(|_, list| list != "");
    }
}

fn mend_linux(linux: &mut Value) {
    let Some(resources) = linux.get_mut("resources") else { return };
    for rule in resources.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(rule) = rule.as_object_mut().filter(|r| r.get("type").is_some_and(|t| t == "")) {
            rule.remove("type");
        }
    }
    // Unsigned in the specification; as a limit, all numbers beyond the signed ones mean the same.
    for limit in resources.get_mut("hugepageLimits").and_then(Value::as_array_mut).into_iter().flatten() {
        if limit["limit"].as_u64().is_some_and(|n| i64::try_from(n).is_err()) {
            limit["limit"] = i64::MAX.into();
        }
    }
}

/// The limit that oci-spec gives as 0 may not have been set.
fn pids_limit(spec: &Spec, text: &str) -> Option<i64> {
    let pids = (*spec.linux().as_ref()?.resources().as_ref()?.pids())?;
    match pids.limit() {
        0 => serde_json::from_str::<Value>(text).ok()?["linux"]["resources"]["pids"]["limit"].as_i64(),
        limit => Some(limit),
    }
}

/// Go's zero value of a text is an absent one, and engines in Go write such texts.
fn drop_empty(spec: &mut Spec) {
    drop_text(spec.hostname_mut());
    drop_text(spec.domainname_mut());
    for mount in spec.mounts_mut().iter_mut().flatten() {
        drop_text(mount.typ_mut());
        drop_path(mount.source_mut());
    }
    if let Some(process) = spec.process_mut() {
        drop_empty_of_process(process);
    }
    let Some(linux) = spec.linux_mut() else { return };
    drop_text(linux.rootfs_propagation_mut());
    drop_text(linux.mount_label_mut());
    drop_path(linux.cgroups_path_mut());
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        if is_empty(namespace.path()) {
            namespace.set_path(None);
        }
    }
    if let Some(seccomp) = linux.seccomp_mut()
        && is_empty(seccomp.listener_path())
    {
        seccomp.set_listener_path(None);
    }
    let resources = linux.resources_mut().as_mut();
    if let Some(cpu) = resources.and_then(|r| r.cpu_mut().as_mut()) {
        if cpu.cpus().as_deref() == Some("") {
            cpu.set_cpus(None);
        }
        if cpu.mems().as_deref() == Some("") {
            cpu.set_mems(None);
        }
    }
}

fn drop_empty_of_process(process: &mut Process) {
    if process.apparmor_profile().as_deref() == Some("") {
        process.set_apparmor_profile(None);
    }
    if process.selinux_label().as_deref() == Some("") {
        process.set_selinux_label(None);
    }
}

fn drop_text(text: &mut Option<String>) {
    text.take_if(|t| t.is_empty());
}

fn drop_path(path: &mut Option<PathBuf>) {
    path.take_if(|p| p.as_os_str().is_empty());
}

fn is_empty(path: &Option<PathBuf>) -> bool {
    path.as_ref().is_some_and(|p| p.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Result<Config> {
        parse(value.to_string())
    }

    #[test]
    fn what_is_null_is_absent() {
        let c = config(json!({"ociVersion": null, "process": {"user": null, "cwd": "/", "args": null}, "linux": {
            "resources": {"pids": {"limit": null}, "devices": [{"type": "", "access": null, "allow": true}]},
            "namespaces": [{"type": "pid", "path": null}, {"type": "network", "path": ""}]}}))
        .unwrap();
        assert_eq!(c.spec.process().as_ref().unwrap().user().uid(), 0);
        let linux = c.spec.linux().as_ref().unwrap();
        assert!(linux.namespaces().iter().flatten().all(|n| n.path().is_none()));
        assert_eq!(linux.resources().as_ref().unwrap().devices().as_ref().unwrap()[0].typ(), None);
    }

    #[test]
    fn a_limit_of_no_processes_is_a_limit() {
        for (pids, want) in [
            (json!({"limit": 0}), Some(0)),
            (json!({"limit": -1}), Some(-1)),
            (json!({"limit": 7}), Some(7)),
            (json!({"limit": null}), None),
            (json!({}), None),
            (json!(null), None),
        ] {
            let c = config(json!({"linux": {"resources": {"pids": pids}}})).unwrap();
            assert_eq!(c.pids_limit, want, "{}", c.text);
        }
    }

    #[test]
    fn unknown_capabilities_are_left_out_with_a_warning() {
        let process = json!({"cwd": "/", "capabilities": {"bounding": ["CAP_KILL", "CAP_NO_SUCH"], "ambient": []}});
        let c = config(json!({"process": process})).unwrap();
        let caps = c.spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
        assert_eq!(caps.bounding().as_ref().unwrap().len(), 1);
        let want = "process.capabilities.bounding: the unknown capability \"CAP_NO_SUCH\" is left out";
        assert_eq!(c.warnings, [want]);
    }

    #[test]
    fn names_that_oci_spec_has_wrong_are_those_of_the_specification() {
        let flags = ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"];
        let p = parse_process(&json!({"scheduler": {"policy": "SCHED_DEADLINE", "flags": flags}}).to_string()).unwrap();
        assert_eq!(p.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 3);
    }

    #[test]
    fn faults_name_their_place_in_one_line() {
        for (value, want) in [
            (
                json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "foo"}]}}),
                "linux.namespaces[1].type: unknown variant `foo`",
            ),
            (
                json!({"process": {"cwd": "/", "user": {"uid": "x"}}}),
                "process.user.uid: invalid type: string \"x\", expected u32",
            ),
            (
                json!({"process": {"rlimits": [{"type": "RLIMIT_FOO"}]}}),
                "process.rlimits[0].type: unknown variant `RLIMIT_FOO`",
            ),
            (
                json!({"linux": {"memoryPolicy": {"nodes": "0"}}}),
                "linux.memoryPolicy: invalid memory policy mode: missing",
            ),
            (json!({"mounts": [{"source": "x"}]}), "mounts[0]: missing field `destination`"),
            (json!(null), "invalid type: null"),
        ] {
            let e = config(value).unwrap_err().to_string();
            assert!(e.starts_with(want), "{e}");
        }
        let e = parse("{\"root\": ".to_string()).unwrap_err().to_string();
        assert!(e.contains("line 1 column"), "{e}");
    }

    #[test]
    fn unknown_properties_are_passed_over() {
        let c = config(json!({"ociVersion": "1.0.0", "unknown": {"a": 1}, "linux": {"new": []}})).unwrap();
        assert_eq!(c.spec.version(), "1.0.0");
        assert!(c.warnings.is_empty());
    }
}
