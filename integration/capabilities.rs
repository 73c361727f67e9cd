//! Capabilities (config.md, `process.capabilities`): the five sets of the program, and what cannot be given.

use serde_json::{Value, json};

use crate::harness::{Container, Need};
use crate::{deviates, needs};

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const SYS_RESOURCE: u32 = 24;

/// The probe's sets as numbers: bounding, effective, permitted, inheritable, ambient.
fn sets(out: &crate::harness::Output) -> [u64; 5] {
    ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"].map(|name| u64::from_str_radix(&out.value(name), 16).unwrap())
}

fn with(capabilities: Value) -> Container {
    Container::with(["caps"], |config| config["process"]["capabilities"] = capabilities)
}

#[test]
fn root_gets_the_sets_of_the_configuration() {
    let both = json!(["CAP_CHOWN", "CAP_KILL"]);
    let c = with(json!({"bounding": both, "effective": both, "permitted": both}));
    assert_eq!(sets(&c.run().ok()), [CHOWN | KILL, CHOWN | KILL, CHOWN | KILL, 0, 0]);
}

#[test]
fn without_capabilities_there_are_none() {
    assert_eq!(sets(&with(json!({})).run().ok()), [0; 5]);
    // The specification leaves open what it means to say nothing.
    deviates!("runc", "leaves all, in new versions");
    let c = Container::with(["caps"], |config| {
        config["process"].as_object_mut().unwrap().remove("capabilities");
    });
    assert_eq!(sets(&c.run().ok()), [0; 5]);
}

#[test]
fn a_user_keeps_what_is_ambient_and_nothing_else() {
    let all = json!(["CAP_CHOWN", "CAP_KILL"]);
    let kill = json!(["CAP_KILL"]);
    let mut c =
        with(json!({"bounding": all, "effective": all, "permitted": all, "inheritable": kill, "ambient": kill}));
    c.edit(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    assert_eq!(sets(&c.run().ok()), [CHOWN | KILL, KILL, KILL, KILL, KILL]);

    let mut c = with(json!({"bounding": all, "effective": all, "permitted": all}));
    c.edit(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    assert_eq!(sets(&c.run().ok()), [CHOWN | KILL, 0, 0, 0, 0]);
}

#[test]
fn an_ambient_capability_that_cannot_be_raised_is_a_warning() {
    deviates!("crun", "fails");
    let chown = json!(["CAP_CHOWN"]);
    let out = with(json!({"bounding": chown, "effective": chown, "permitted": chown, "ambient": chown})).run().ok();
    assert_eq!(sets(&out), [CHOWN, CHOWN, CHOWN, 0, 0]);
    deviates!("runc" before 1.3, "is silent");
    assert!(out.stderr.contains("can't raise ambient capability CAP_CHOWN: "), "{out}");
}

#[test]
fn a_capability_that_nobody_knows_is_a_warning() {
    deviates!("crun", "new ones fail");
    let names = json!(["CAP_KILL", "CAP_OF_TOMORROW"]);
    let out = with(json!({"bounding": names, "effective": names, "permitted": names})).run().ok();
    assert_eq!(sets(&out), [KILL, KILL, KILL, 0, 0]);
    assert!(out.stderr.contains("CAP_OF_TOMORROW"), "{out}");
}

#[test]
fn a_capability_that_the_runtime_does_not_hold_is_a_warning() {
    deviates!("runc", "fails");
    deviates!("crun", "fails");
    if crate::harness::missing(&[Need::Capability(SYS_RESOURCE)]).is_none() {
        crate::skip!("the suite has CAP_SYS_RESOURCE");
    }
    let names = json!(["CAP_KILL", "CAP_SYS_RESOURCE"]);
    let out = with(json!({"bounding": names, "effective": names, "permitted": names})).run().ok();
    assert_eq!(sets(&out), [KILL, KILL, KILL, 0, 0]);
    assert!(out.stderr.contains("CAP_SYS_RESOURCE"), "{out}");
}

#[test]
fn root_of_a_user_namespace_gets_its_sets_there() {
    needs!(Need::File("/proc/self/ns/user"));
    let all = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYS_RESOURCE"]);
    let c = Container::with(["caps"], |config| {
        config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
        let linux = config["linux"].as_object_mut().unwrap();
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        linux.insert("uidMappings".into(), json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
        linux.insert("gidMappings".into(), json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    });
    let all = CHOWN | KILL | 1 << SYS_RESOURCE;
    assert_eq!(sets(&c.run().ok()), [all, all, all, 0, 0]);
}

#[test]
fn exec_takes_the_containers_sets_and_adds_to_them() {
    let kill = json!(["CAP_KILL"]);
    let mut c = with(json!({"bounding": kill, "effective": kill, "permitted": kill}));
    c.program(["sleep"]);
    c.started();
    assert_eq!(sets(&c.exec(["caps"]).ok()), [KILL, KILL, KILL, 0, 0]);
    let out = c.exec_cmd(&["--cap", "CAP_CHOWN"], ["caps"]).run().ok();
    let [_, effective, permitted, inheritable, ambient] = sets(&out);
    assert_eq!((effective & CHOWN, permitted & CHOWN), (CHOWN, CHOWN), "{out}");
    // A program with inheritable capabilities of its file would gain them (CVE-2022-29162).
    assert_eq!((inheritable, ambient), (0, 0), "{out}");
}

#[test]
fn a_process_without_sets_gets_the_containers() {
    let kill = json!(["CAP_KILL"]);
    let mut c = with(json!({"bounding": kill, "effective": kill, "permitted": kill}));
    c.program(["sleep"]);
    c.started();
    let process = c.path("process.json");
    let mut config = json!({"cwd": "/", "args": ["/probe", "caps"], "user": {"uid": 0, "gid": 0}});
    let exec = |config: &Value| {
        std::fs::write(&process, config.to_string()).unwrap();
        sets(&c.command("exec", ["--process"]).arg(&process).arg(&c.id).run().ok())
    };
    assert_eq!(exec(&config), [KILL, KILL, KILL, 0, 0]);
    config["capabilities"] = json!({});
    assert_eq!(exec(&config), [0; 5]);
}
