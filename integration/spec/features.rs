//! features.md and features-linux.md: what is told is so.

use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::container;
use crate::harness::{Cmd, Container, Need, User, missing, receive_fd, runtime, skip};
use crate::mounts::{add, in_a_user_namespace};
use crate::{deviates, needs, spec};

/// The document; none where the runtime has no such command, and the test is skipped then.
fn features() -> Option<Value> {
    let out = Cmd::new(runtime()).arg("features").run();
    if out.code != 0 {
        skip("the runtime has no features");
        return None;
    }
    Some(out.json())
}

/// The texts of a list of the document.
fn list(features: &Value, pointer: &str) -> Vec<String> {
    let list = features.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// Runs a container with a part of the configuration.
#[track_caller]
fn takes(pointer: &str, part: Value) {
    container(&["echo", "taken"], &[(pointer, part)]).run().ok().line("taken");
}

#[test]
fn what_is_told_does_not_depend_on_the_machine() {
    spec!("features/compiled");
    needs!(Need::Program("unshare"));
    let Some(features) = features() else { return };
    let script = "mount --make-rprivate /; mount -t tmpfs none /sys; exec \"$@\"";
    let hidden = Cmd::new("unshare").args(["-m", "sh", "-c", script, "sh"]).arg(runtime()).arg("features").run().ok();
    assert_eq!(hidden.json(), features);
    let c = Container::rootless(["exit", "0"]);
    let user = User::ordinary();
    let other = Cmd::new(runtime()).arg("--root").arg(c.root()).arg("features").user(&user).run().ok();
    assert_eq!(other.json(), features);
}

#[test]
fn the_least_version_is_told_and_accepted() {
    spec!("features/version-min", "features/version-min-accepted");
    let Some(features) = features() else { return };
    takes("/ociVersion", json!(features["ociVersionMin"].as_str().unwrap()));
}

#[test]
fn the_greatest_version_is_told_and_accepted() {
    spec!("features/version-max", "features/version-max-accepted");
    let Some(features) = features() else { return };
    takes("/ociVersion", json!(features["ociVersionMax"].as_str().unwrap()));
}

/// The numbers of a version.
fn numbers(features: &Value, name: &str) -> Vec<u32> {
    let text = features[name].as_str().unwrap();
    text.split(['-', '+']).next().unwrap().split('.').map(|n| n.parse().unwrap()).collect()
}

#[test]
fn the_versions_are_in_order() {
    spec!("features/version-order");
    let Some(features) = features() else { return };
    assert!(numbers(&features, "ociVersionMin") <= numbers(&features, "ociVersionMax"));
}

/// The properties of the document, and the version that has defined them.
#[test]
fn properties_are_those_of_the_version() {
    spec!("features/properties");
    let Some(features) = features() else { return };
    let defined = [
        ("", "ociVersionMin ociVersionMax hooks mountOptions linux annotations", [1, 1, 0]),
        ("", "potentiallyUnsafeConfigAnnotations", [1, 2, 0]),
        ("/linux", "namespaces capabilities cgroup seccomp apparmor selinux intelRdt", [1, 1, 0]),
        ("/linux", "mountExtensions", [1, 2, 0]),
        ("/linux", "netDevices memoryPolicy", [1, 3, 0]),
        ("/linux/cgroup", "v1 v2 systemd systemdUser rdma", [1, 1, 0]),
        ("/linux/seccomp", "enabled actions operators archs knownFlags supportedFlags", [1, 1, 0]),
        ("/linux/apparmor", "enabled", [1, 1, 0]),
        ("/linux/selinux", "enabled", [1, 1, 0]),
        ("/linux/intelRdt", "enabled", [1, 1, 0]),
        ("/linux/intelRdt", "schemata monitoring", [1, 3, 0]),
        ("/linux/mountExtensions", "idmap", [1, 2, 0]),
        ("/linux/mountExtensions/idmap", "enabled", [1, 2, 0]),
        ("/linux/netDevices", "enabled", [1, 3, 0]),
        ("/linux/memoryPolicy", "modes flags", [1, 3, 0]),
    ];
    let max = numbers(&features, "ociVersionMax");
    for parent in defined.map(|d| d.0) {
        let Some(object) = features.pointer(parent).and_then(Value::as_object) else { continue };
        for name in object.keys() {
            let known = |d: &&(&str, &str, [u32; 3])| d.0 == parent && d.1.split(' ').any(|n| n == name);
            let version = defined.iter().find(known).unwrap_or_else(|| panic!("{parent}/{name} is not defined")).2;
            assert!(version.as_slice() <= max.as_slice(), "{parent}/{name} is newer than {max:?}");
        }
    }
}

#[test]
fn hooks_that_are_told_are_supported() {
    spec!("features/hooks");
    needs!(Need::Busybox);
    let Some(features) = features() else { return };
    for kind in list(&features, "/hooks") {
        let c = Container::with(["sleep"], |config| {
            config["hooks"][&kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 0"]}]);
        });
        c.busybox();
        c.started();
    }
}

#[test]
fn mount_options_that_are_told_are_known() {
    spec!("features/mount-options");
    needs!(Need::Kernel(5, 12));
    let Some(features) = features() else { return };
    let options = list(&features, "/mountOptions");
    assert!(!options.is_empty());
    let c = Container::with(["echo", "taken"], |config| {
        config["root"]["readonly"] = json!(false);
        for (i, option) in options.iter().enumerate() {
            let place = format!("/mnt/{i}");
            let bound = json!({"destination": place, "source": "/dev/shm", "options": ["rbind", option]});
            add(
                config,
                match option.as_str() {
                    "idmap" | "ridmap" => continue,
                    "remount" => json!({"destination": "/dev/shm", "options": ["bind", "remount", "nosuid"]}),
                    // Of symbolic links as sources.
                    "bind" | "rbind" | "copy-symlink" | "src-nofollow" | "dest-nofollow" => bound,
                    o if o.starts_with('r') && !["ro", "rw", "relatime"].contains(&o) => bound,
                    _ => json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": [option]}),
                },
            );
        }
    });
    c.run().ok().line("taken");
}

#[test]
fn options_of_file_systems_are_not_told() {
    spec!("features/mount-options-of-file-systems");
    let Some(features) = features() else { return };
    let options = list(&features, "/mountOptions");
    for option in ["size", "mode", "uid", "gid", "nr_inodes", "newinstance", "ptmxmode", "lowerdir", "data", "context"]
    {
        assert!(!options.iter().any(|o| o.split('=').next() == Some(option)), "{option}");
    }
}

#[test]
fn annotations_of_the_runtime_are_texts() {
    spec!("features/annotations");
    let Some(features) = features() else { return };
    let annotations = features["annotations"].as_object().cloned().unwrap_or_default();
    assert!(annotations.iter().all(|(key, value)| !key.is_empty() && value.is_string()), "{annotations:?}");
}

#[test]
fn namespaces_that_are_told_are_known() {
    spec!("features-linux/namespaces");
    let Some(features) = features() else { return };
    for kind in list(&features, "/linux/namespaces") {
        if missing(&[Need::TimeNamespace]).is_some() && kind == "time" {
            continue;
        }
        let c = Container::with(["echo", "taken"], |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|n| n["type"] != kind.as_str());
            match kind.as_str() {
                "user" => in_a_user_namespace(config),
                kind => namespaces.push(json!({"type": kind})),
            }
        });
        c.run().ok().line("taken");
    }
}

/// In a user namespace, where all can be given.
#[test]
fn capabilities_that_are_told_are_known() {
    spec!("features-linux/capabilities");
    let Some(features) = features() else { return };
    let names = list(&features, "/linux/capabilities");
    let c = Container::with(["caps"], |config| {
        in_a_user_namespace(config);
        config["process"]["capabilities"] = json!({"bounding": names, "effective": names, "permitted": names});
    });
    let out = c.run().ok();
    let set = u64::from_str_radix(&out.value("CapBnd"), 16).unwrap();
    assert_eq!(set.count_ones() as usize, names.len(), "{out}");
}

/// A container with a rule of seccomp about a call that it does not make, and an agent for it.
#[track_caller]
fn takes_profile(change: impl FnOnce(&mut Value)) -> crate::harness::Output {
    let mut c = Container::new(["echo", "taken"]);
    let path = c.path("agent");
    let socket = UnixListener::bind(&path).unwrap();
    let mut profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}],
    });
    change(&mut profile);
    let notifies = profile["syscalls"][0]["action"] == "SCMP_ACT_NOTIFY";
    if notifies {
        profile["listenerPath"] = json!(path);
    }
    c.edit(|config| config["linux"]["seccomp"] = profile);
    let agent = notifies.then(|| std::thread::spawn(move || receive_fd(&socket.accept().unwrap().0)));
    let out = c.run();
    if out.code == 0 {
        agent.map(|a| a.join().unwrap());
    }
    out
}

#[test]
fn actions_of_seccomp_that_are_told_are_known() {
    spec!("features-linux/seccomp/actions");
    let Some(features) = features() else { return };
    let actions = list(&features, "/linux/seccomp/actions");
    for action in actions {
        takes_profile(|p| p["syscalls"][0]["action"] = json!(action)).ok().line("taken");
    }
}

#[test]
fn operators_of_seccomp_that_are_told_are_known() {
    spec!("features-linux/seccomp/operators");
    let Some(features) = features() else { return };
    let operators = list(&features, "/linux/seccomp/operators");
    for op in operators {
        let args = json!([{"index": 0, "value": 1, "valueTwo": 1, "op": op}]);
        takes_profile(|p| p["syscalls"][0]["args"] = args).ok().line("taken");
    }
}

#[test]
fn architectures_of_seccomp_that_are_told_are_known() {
    spec!("features-linux/seccomp/archs");
    let Some(features) = features() else { return };
    let archs = list(&features, "/linux/seccomp/archs");
    for arch in archs {
        let out = takes_profile(|p| (p["architectures"], p["syscalls"]) = (json!([arch]), json!([])));
        // One of another byte order cannot be in a filter of this machine, which is another matter.
        assert!(out.code == 0 || !out.stderr.contains(&arch), "{arch}: {out}");
    }
}

#[test]
fn flags_of_seccomp_that_are_known_are_known() {
    spec!("features-linux/seccomp/known-flags");
    let Some(features) = features() else { return };
    for flag in list(&features, "/linux/seccomp/knownFlags") {
        let out = takes_profile(|p| p["flags"] = json!([flag]));
        // A kernel need not know it.
        assert!(out.code == 0 || !out.stderr.contains(&flag), "{flag}: {out}");
    }
}

#[test]
fn flags_of_seccomp_that_are_supported_are_supported() {
    spec!("features-linux/seccomp/supported-flags");
    let Some(features) = features() else { return };
    for flag in list(&features, "/linux/seccomp/supportedFlags") {
        let with_listener = flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
        let out = takes_profile(|p| {
            p["flags"] = json!([flag]);
            if with_listener {
                p["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY");
            }
        });
        out.ok().line("taken");
    }
}

#[test]
fn modes_of_memory_policies_that_are_told_are_known() {
    spec!("features-linux/memory-policy/modes");
    needs!(Need::File("/sys/devices/system/node/node0"));
    deviates!("runc" before 1.4, "knows none");
    let Some(features) = features() else { return };
    for mode in list(&features, "/linux/memoryPolicy/modes") {
        let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str()) { "" } else { "0" };
        takes("/linux/memoryPolicy", json!({"mode": mode, "nodes": nodes}));
    }
}

#[test]
fn flags_of_memory_policies_that_are_told_are_known() {
    spec!("features-linux/memory-policy/flags");
    needs!(Need::File("/sys/devices/system/node/node0"));
    deviates!("runc" before 1.4, "knows none");
    let Some(features) = features() else { return };
    for flag in list(&features, "/linux/memoryPolicy/flags") {
        takes("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}));
    }
}

#[test]
fn mappings_of_mounts_are_told() {
    spec!("features-linux/idmap");
    let Some(features) = features() else { return };
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}
