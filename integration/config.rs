//! config.json: what breaks a rule is refused before anything is made, with the place of the fault; what is only unusual
//! is taken.

use std::fs;

use serde_json::{Value, json};

use crate::deviates;
use crate::harness::Container;

/// Replaces the part behind a JSON pointer.
fn put(config: &mut Value, pointer: &str, part: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = part;
}

#[test]
fn what_breaks_a_rule_is_refused_with_its_place() {
    deviates!("runc", "words its errors in its own way, and takes some of these");
    deviates!("crun", "words its errors in its own way, and takes some of these");
    let mut c = Container::new(["echo"]);
    let good = c.config.clone();
    let nofile = |soft: u64| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": 1024});
    for (pointer, part, words) in [
        ("/ociVersion", json!("invalid"), "ociVersion: "),
        ("/ociVersion", json!("2.0.0"), "ociVersion: "),
        ("/root", json!(null), "root: "),
        ("/process/args", json!([]), "process.args: "),
        ("/process/cwd", json!("tmp"), "process.cwd: "),
        ("/process/user", json!([1000, 1000]), "process.user: an object is wanted"),
        ("/process/user/uid", json!(u32::MAX), "process.user.uid: "),
        ("/linux/resources", json!([]), "linux.resources: an object is wanted"),
        ("/process/env", json!(["A=1", "B"]), "process.env[1]: "),
        ("/process/user", json!({"uid": -1}), "process.user.uid: "),
        ("/process/rlimits", json!([nofile(10), nofile(10)]), "process.rlimits[1].type: "),
        ("/process/rlimits", json!([nofile(2048)]), "process.rlimits[0]: "),
        ("/process/rlimits", json!([{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]), "process.rlimits[0].type: "),
        ("/mounts/0/destination", json!(""), "mounts[0].destination: "),
        ("/hooks", json!({"poststart": [{"path": "true"}]}), "hooks.poststart[0].path: "),
        ("/hooks", json!({"poststart": [{"path": "/true", "timeout": 0}]}), "hooks.poststart[0].timeout: "),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "mount"}]),
            "linux.namespaces[2].type: ",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "foo"}]),
            "linux.namespaces[2].type: ",
        ),
        ("/linux/namespaces", json!([{"type": "mount"}]), "hostname: "),
        ("/linux/namespaces", json!([{"type": "uts"}]), "linux.maskedPaths: "),
        ("/linux/sysctl", json!({"kernel.pid_max": "1000"}), "linux.sysctl: "),
        ("/linux/sysctl", json!({"kernel.hostname": "x"}), "linux.sysctl: "),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "linux.uidMappings: "),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}), "linux.timeOffsets: "),
        ("/linux/rootfsPropagation", json!("foo"), "linux.rootfsPropagation: "),
        ("/linux/netDevices", json!({"eth0": {"name": "a/b"}}), "linux.netDevices"),
        ("/linux/intelRdt", json!({"closID": ".."}), "linux.intelRdt.closID: "),
    ] {
        c.config = good.clone();
        c.edit(|config| put(config, pointer, part));
        let out = c.create().exits(1).fails(words);
        assert_eq!(out.stderr.lines().count(), 1, "{out}");
        assert!(out.stderr.contains("config.json"), "{out}");
        assert!(fs::read_dir(c.root()).map_or(0, Iterator::count) == 0, "{words} left a state");
        // The same words, without making anything.
        let out = c.command("check", ["--bundle"]).arg(c.bundle()).run().exits(1);
        assert!(out.stdout.contains(words) || out.stderr.contains(words), "{out}");
    }
}

#[test]
fn check_tells_all_faults_one_a_line() {
    deviates!("runc", "has no such command");
    deviates!("crun", "has no such command");
    let mut c = Container::new(["echo"]);
    c.command("check", ["--bundle"]).arg(c.bundle()).run().ok();
    c.edit(|config| {
        put(config, "/ociVersion", json!("x"));
        put(config, "/process/cwd", json!("x\ny"));
        put(config, "/root/path", json!("missing"));
    });
    let out = c.command("check", ["--bundle"]).arg(c.bundle()).run().exits(1).fails("3 faults");
    assert_eq!(out.stdout.lines().count(), 3, "{out}");
}

#[test]
fn text_that_is_no_json_is_told_with_its_line() {
    let c = Container::new(["echo"]);
    fs::write(c.bundle().join("config.json"), "{\"ociVersion\":\n nonsense}").unwrap();
    let out = c.create().exits(1);
    deviates!("runc", "does not tell the line");
    deviates!("crun", "words its error in its own way");
    out.fails("config.json: expected ident at line 2 column");
}

#[test]
fn a_missing_config_is_told_with_its_path() {
    let c = Container::new(["echo"]);
    fs::remove_file(c.bundle().join("config.json")).unwrap();
    c.create().exits(1).fails("config.json");
}

#[test]
fn unusual_configurations_are_taken() {
    for edits in [
        // Engines in Go write what is not set as null or empty.
        vec![
            ("/hooks", json!(null)),
            ("/domainname", json!("")),
            ("/process/apparmorProfile", json!("")),
            ("/process/selinuxLabel", json!("")),
            ("/process/user/additionalGids", json!(null)),
            ("/process/oomScoreAdj", json!(null)),
            ("/linux/rootfsPropagation", json!("")),
            ("/linux/seccomp", json!(null)),
            ("/linux/resources", json!({"devices": null, "memory": {"limit": null}, "cpu": {"cpus": ""}})),
        ],
        vec![("/ociVersion", json!("1.0.2-dev"))],
        vec![("/unknown", json!({"a": [1]})), ("/linux/unknown", json!(true))],
        vec![("/annotations", json!({"org.example.key": "value", "empty": ""}))],
    ] {
        let mut c = Container::new(["echo", "taken"]);
        deviates!("crun", "refuses some of these");
        c.edit(|config| edits.into_iter().for_each(|(pointer, part)| put(config, pointer, part)));
        c.run().ok().line("taken");
    }
}

#[test]
fn an_unknown_capability_is_a_warning() {
    deviates!("crun", "refuses it");
    let mut c = Container::new(["echo", "taken"]);
    c.edit(|config| put(config, "/process/capabilities/bounding", json!(["CAP_KILL", "CAP_NO_SUCH"])));
    let out = c.run().ok().line("taken");
    assert!(out.stderr.contains("level=warning") && out.stderr.contains("CAP_NO_SUCH"), "{out}");
}
