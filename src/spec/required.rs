//! What the specification calls REQUIRED, where oci-spec takes what is absent for zero: a zero that nobody has written is
//! no id, limit or device that anybody has asked for.

use serde_json::Value;

use super::load::fault;
use crate::error::Result;

/// Not here are the gid of process.user and the priority of process.ioPriority: configurations that work with other
/// runtimes leave them out, and mean 0.
///
/// Places, `[]` for each entry of a list, and what must be there if the place is.
const REQUIRED: [(&str, &[&str]); 17] = [
    ("process.user", &["uid"]),
    ("process.rlimits[]", &["soft", "hard"]),
    ("process.ioPriority", &["class"]),
    ("mounts[].uidMappings[]", &["containerID", "hostID"]),
    ("mounts[].gidMappings[]", &["containerID", "hostID"]),
    ("linux.uidMappings[]", &["containerID", "hostID"]),
    ("linux.gidMappings[]", &["containerID", "hostID"]),
    ("linux.devices[]", &["major", "minor"]),
    ("linux.resources.devices[]", &["allow"]),
    ("linux.resources.blockIO.weightDevice[]", &["major", "minor"]),
    ("linux.resources.blockIO.throttleReadBpsDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleWriteBpsDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleReadIOPSDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.blockIO.throttleWriteIOPSDevice[]", &["major", "minor", "rate"]),
    ("linux.resources.hugepageLimits[]", &["limit"]),
    ("linux.resources.network.priorities[]", &["name", "priority"]),
    (CONSOLE, &["height", "width"]),
];

const CONSOLE: &str = "process.consoleSize";

/// Places of objects. A list there would be read as the values of their properties in some order, and an
/// empty one as an object that asks for nothing: `"linux": []` would be a container without a namespace.
const OBJECTS: [&str; 53] = [
    "process",
    "process.consoleSize",
    "process.user",
    "process.rlimits[]",
    "process.capabilities",
    "process.scheduler",
    "process.ioPriority",
    "process.execCPUAffinity",
    "root",
    "mounts[]",
    "mounts[].uidMappings[]",
    "mounts[].gidMappings[]",
    "hooks",
    "hooks.prestart[]",
    "hooks.createRuntime[]",
    "hooks.createContainer[]",
    "hooks.startContainer[]",
    "hooks.poststart[]",
    "hooks.poststop[]",
    "annotations",
    "linux",
    "linux.uidMappings[]",
    "linux.gidMappings[]",
    "linux.sysctl",
    "linux.namespaces[]",
    "linux.devices[]",
    "linux.netDevices",
    "linux.resources",
    "linux.resources.devices[]",
    "linux.resources.memory",
    "linux.resources.cpu",
    "linux.resources.pids",
    "linux.resources.blockIO",
    "linux.resources.blockIO.weightDevice[]",
    "linux.resources.blockIO.throttleReadBpsDevice[]",
    "linux.resources.blockIO.throttleWriteBpsDevice[]",
    "linux.resources.blockIO.throttleReadIOPSDevice[]",
    "linux.resources.blockIO.throttleWriteIOPSDevice[]",
    "linux.resources.hugepageLimits[]",
    "linux.resources.network",
    "linux.resources.network.priorities[]",
    "linux.resources.rdma",
    "linux.resources.rdma{}",
    "linux.resources.unified",
    "linux.seccomp",
    "linux.seccomp.syscalls[]",
    "linux.seccomp.syscalls[].args[]",
    "linux.intelRdt",
    "linux.memoryPolicy",
    "linux.personality",
    "linux.timeOffsets",
    "linux.timeOffsets{}",
    "linux.netDevices{}",
];

/// Refuses a configuration that lacks one of them, or has something else where an object belongs.
pub(super) fn check(text: &str) -> Result<()> {
    let config: Value = serde_json::from_str(text).map_err(fault)?;
    check_below(&config, config["process"]["terminal"] == true, "")
}

/// The same of a process (of `exec --process`).
pub(super) fn check_process(text: &str) -> Result<()> {
    let process: Value = serde_json::from_str(text).map_err(fault)?;
    check_below(&process, process["terminal"] == true, "process.")
}

/// The same of `linux.resources` (of `update --resources`).
pub(super) fn check_resources(resources: &Value) -> Result<()> {
    check_below(resources, false, "linux.resources.")
}

/// Checks what is at the places below `prefix`, of which `value` is the value.
fn check_below(value: &Value, terminal: bool, prefix: &str) -> Result<()> {
    let object = |value: &Value, place: &str| match value {
        Value::Object(_) | Value::Null => Ok(()),
        _ if place.is_empty() => Err(fault("an object is wanted")),
        _ => Err(fault(format_args!("{place}: an object is wanted"))),
    };
    object(value, "")?;
    for place in OBJECTS.iter().filter_map(|place| place.strip_prefix(prefix)) {
        at(value, place, String::new(), &mut |value, place| object(value, place))?;
    }
    for (place, names) in REQUIRED {
        // It has no effect then, whatever it is.
        if place == CONSOLE && !terminal {
            continue;
        }
        let Some(place) = place.strip_prefix(prefix) else { continue };
        at(value, place, String::new(), &mut |object, place| {
            if object.is_null() {
                return Ok(());
            }
            // A fifo has no numbers.
            let fifo = names.contains(&"major") && object["type"] == "p";
            match names.iter().find(|name| !fifo && object.get(name).is_none_or(Value::is_null)) {
                Some(name) => Err(fault(format_args!("{place}: {name} is missing"))),
                None => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// Calls `each` with every value at the place `rest` below `value`, and its full name.
fn at(value: &Value, rest: &str, before: String, each: &mut dyn FnMut(&Value, &str) -> Result<()>) -> Result<()> {
    let (name, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let mut go = |value: &Value, place: String| match rest {
        "" => each(value, &place),
        rest => at(value, rest, place + ".", each),
    };
    if let Some(name) = name.strip_suffix("{}") {
        let map = value.get(name).and_then(Value::as_object);
        return map.into_iter().flatten().try_for_each(|(key, v)| go(v, format!("{before}{name}.{key}")));
    }
    match name.strip_suffix("[]") {
        None => match value.get(name) {
            Some(value) => go(value, before + name),
            None => Ok(()),
        },
        Some(name) => {
            let list = value.get(name).and_then(Value::as_array);
            list.into_iter().flatten().enumerate().try_for_each(|(i, v)| go(v, format!("{before}{name}[{i}]")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_told_with_its_place() {
        for (config, want) in [
            (json!({}), None),
            (json!({"process": {"user": {"uid": 0, "gid": 0}}}), None),
            (json!({"process": {"user": {"uid": null, "gid": 0}}}), Some("process.user: uid is missing")),
            (json!({"process": {"user": {"uid": 1}, "ioPriority": {"class": "IOPRIO_CLASS_BE"}}}), None),
            (json!({"process": {"user": {"gid": 0}}}), Some("process.user: uid is missing")),
            (
                json!({"process": {"rlimits": [{"soft": 1, "hard": 1}, {"soft": 1}]}}),
                Some("process.rlimits[1]: hard is missing"),
            ),
            (json!({"process": {"consoleSize": {"width": 1}}}), None),
            (
                json!({"process": {"terminal": true, "consoleSize": {"width": 1}}}),
                Some("process.consoleSize: height is missing"),
            ),
            (json!({"linux": {"devices": [{"type": "p"}]}}), None),
            (json!({"linux": {"devices": [{"type": "c", "major": 1}]}}), Some("linux.devices[0]: minor is missing")),
            (
                json!({"mounts": [{}, {"uidMappings": [{"hostID": 1}]}]}),
                Some("mounts[1].uidMappings[0]: containerID is missing"),
            ),
            (
                json!({"linux": {"resources": {"blockIO": {"throttleReadBpsDevice": [{"major": 1, "minor": 1}]}}}}),
                Some("linux.resources.blockIO.throttleReadBpsDevice[0]: rate is missing"),
            ),
        ] {
            let fault = check(&config.to_string()).err().map(|e| e.to_string());
            assert_eq!(fault.as_deref(), want, "{config}");
        }
        for (config, want) in [
            (json!([]), "an object is wanted"),
            (json!({"linux": []}), "linux: an object is wanted"),
            (json!({"process": {"user": [1000, 1000]}}), "process.user: an object is wanted"),
            (json!({"mounts": [{"destination": "/x"}, ["/x"]]}), "mounts[1]: an object is wanted"),
            (json!({"linux": {"timeOffsets": {"boottime": [1]}}}), "linux.timeOffsets.boottime: an object is wanted"),
        ] {
            assert_eq!(check(&config.to_string()).unwrap_err().to_string(), want, "{config}");
        }
        assert_eq!(check_resources(&json!({"pids": [7]})).unwrap_err().to_string(), "pids: an object is wanted");
        let process = json!({"rlimits": [{"hard": 1}], "cwd": "/"});
        assert_eq!(check_process(&process.to_string()).unwrap_err().to_string(), "rlimits[0]: soft is missing");
        assert!(check_process("{}").is_ok());
    }
}
