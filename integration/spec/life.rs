//! runtime.md and bundle.md: the state, the operations, and when they are errors.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{container, not_created, refused};
use crate::harness::{Container, Output, eventually, hierarchies};
use crate::mounts::tmpfs;
use crate::{deviates, spec};

#[test]
fn whoever_creates_a_container_can_use_every_operation() {
    spec!("runtime/scope", "runtime/operations", "runtime/create/creates", "runtime/state-operation/answer");
    let c = Container::new(["sleep"]);
    c.create().ok();
    assert_eq!(c.state()["id"], c.id.as_str());
    c.start().ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete().ok();
    refused(&c.command("state", [&c.id]).run());
}

/// The state of a container that is created, runs and has stopped.
fn states() -> (Container, [Value; 3]) {
    let mut c = Container::new(["sleep"]);
    c.edit(|config| config["annotations"] = json!({"org.example.key": "value"}));
    c.create().ok();
    let created = c.state();
    c.start().ok();
    let running = c.state();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    let stopped = c.state();
    (c, [created, running, stopped])
}

#[test]
fn the_state_has_what_is_required() {
    spec!("runtime/state/oci-version", "runtime/state/id", "runtime/state/status", "runtime/state/bundle");
    let (c, states) = states();
    for (state, status) in states.iter().zip(["created", "running", "stopped"]) {
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
        assert_eq!(state["id"], c.id.as_str());
        assert_eq!(state["status"], status);
        assert_eq!(state["bundle"], c.bundle().to_str().unwrap());
    }
}

#[test]
fn the_state_has_the_pid_of_the_process() {
    spec!("runtime/state/pid");
    let (c, [created, running, _]) = states();
    let pid: i32 = fs::read_to_string(c.path("pid")).unwrap().parse().unwrap();
    assert_eq!((&created["pid"], &running["pid"]), (&json!(pid), &json!(pid)));
}

#[test]
fn the_state_keeps_to_the_schema() {
    spec!("runtime/state/schema");
    for state in states().1 {
        for name in ["ociVersion", "id", "status", "bundle"] {
            assert!(state[name].is_string(), "{name}: {state}");
        }
        assert!(["creating", "created", "running", "stopped"].contains(&state["status"].as_str().unwrap()), "{state}");
        assert!(state["pid"].is_null() || state["pid"].is_u64(), "{state}");
        assert_eq!(state["annotations"]["org.example.key"], "value", "{state}");
        assert!(state["annotations"].as_object().unwrap().values().all(Value::is_string), "{state}");
    }
}

#[test]
fn a_paused_container_has_a_status_of_its_own() {
    spec!("runtime/state/other-status");
    let c = Container::new(["sleep"]);
    c.started();
    c.command("pause", [&c.id]).run().ok();
    let status = c.status();
    c.command("resume", [&c.id]).run().ok();
    assert!(!["creating", "created", "stopped"].contains(&status.as_str()), "{status}");
    assert_eq!(c.status(), "running");
}

#[test]
fn the_environment_is_there_after_create() {
    spec!("runtime/lifecycle/environment", "runtime/lifecycle/resources", "runtime/create/properties");
    let c = container(
        &["hostname", "--", "sleep"],
        &[
            ("/mounts/-", tmpfs(&["size=4096k"])),
            ("/hostname", json!("of-the-test")),
            ("/linux/resources/pids", json!({"limit": 77})),
            ("/linux/sysctl", json!({"kernel.msgmax": "4321"})),
            ("/root/readonly", json!(false)),
        ],
    );
    c.create().ok();
    let pid = c.pid();
    for name in ["pid", "net", "ipc", "uts", "mnt"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(of(pid), of(std::process::id() as i32), "{name}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(mounts.lines().any(|l| l.split(' ').nth(4) == Some("/mnt") && l.contains("size=4096k")), "{mounts}");
    assert_eq!(c.cgroup_file("pids", "pids.max"), "77");
    let root = format!("/proc/{pid}/root");
    assert!(Path::new(&root).join("probe").exists() && Path::new(&root).join("dev/null").exists());
    c.start().ok();
    assert!(c.wait_for("domainname").contains("hostname of-the-test\n"));
    assert_eq!(c.exec(["cat", "/proc/sys/kernel/msgmax"]).ok().stdout, "4321\n");
}

#[test]
fn create_does_not_run_the_program() {
    spec!(
        "runtime/lifecycle/program-waits",
        "runtime/create/args",
        "runtime/lifecycle/program",
        "runtime/start/program"
    );
    let c = container(&["write", "/tmp/ran", "yes", "--", "sleep"], &[("/root/readonly", json!(false))]);
    c.create().ok();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!c.rootfs().join("tmp/ran").exists());
    c.start().ok();
    eventually("the program's file", || c.rootfs().join("tmp/ran").exists().then_some(()));
}

/// Containers with a part that no runtime can make.
fn impossible() -> impl Iterator<Item = Container> {
    let missing = json!({"destination": "/mnt", "type": "bind", "source": "/no/such/file", "options": ["bind"]});
    let parts = [
        ("/root/path", json!("missing")),
        ("/mounts/-", missing),
        ("/linux/namespaces/-", json!({"type": "nosuch"})),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}])),
        ("/linux/sysctl", json!({"net.no.such": "1"})),
    ];
    parts.into_iter().map(|part| container(&["sleep"], &[part]))
}

#[test]
fn what_cannot_be_made_is_an_error() {
    spec!(
        "runtime/lifecycle/environment-error",
        "runtime/create/property-fails",
        "runtime/create/property-fails-nothing"
    );
    impossible().for_each(|c| _ = not_created(&c));
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    spec!("runtime/errors");
    for c in impossible() {
        refused(&c.create());
        c.nothing_left();
    }
}

#[test]
fn operations_need_their_arguments() {
    spec!(
        "runtime/state-operation/no-id",
        "runtime/create/no-arguments",
        "runtime/start/no-id",
        "runtime/kill/no-id",
        "runtime/delete/no-id"
    );
    let c = Container::new(["sleep"]);
    for operation in ["state", "create", "start", "kill", "delete"] {
        refused(&c.command(operation, [""; 0]).cwd(c.bundle()).run());
    }
    // Without a bundle it is the current directory, and that is none.
    refused(&c.command("create", [&c.id]).run());
}

#[test]
fn the_state_of_no_container_is_an_error() {
    spec!("runtime/state-operation/unknown");
    refused(&Container::new(["sleep"]).command("state", ["missing"]).run());
}

#[test]
fn an_id_that_cannot_be_one_is_an_error() {
    spec!("runtime/create/id-invalid", "runtime/create/id-invalid-nothing");
    let c = Container::new(["sleep"]);
    for id in ["", "a/b", ".."] {
        refused(&c.command("create", ["--bundle"]).arg(c.bundle()).arg(id).run());
    }
    c.nothing_left();
}

#[test]
fn a_bundle_without_a_configuration_is_an_error() {
    spec!("bundle/config-json");
    let c = Container::new(["sleep"]);
    fs::rename(c.bundle().join("config.json"), c.bundle().join("rootfs/config.json")).unwrap();
    not_created(&c);
}

#[test]
fn start_needs_a_process() {
    spec!("runtime/start/no-process", "config/process");
    deviates!("runc", "create refuses it already");
    deviates!("crun", "start succeeds");
    let mut c = Container::new(["sleep"]);
    c.edit(|config| _ = config.as_object_mut().unwrap().remove("process"));
    c.create().ok();
    refused(&c.start());
}

#[test]
fn kill_needs_a_process() {
    spec!("runtime/kill/stopped-effect", "runtime/kill/stopped-error");
    let c = Container::new(["exit", "0"]);
    refused(&c.kill("KILL"));
    c.started();
    c.wait_exit();
    let before = c.state();
    refused(&c.kill("KILL"));
    assert_eq!(c.state(), before);
}

#[test]
fn kill_sends_the_signal() {
    spec!("runtime/kill/signal");
    let c = Container::new(["trap", "USR1", "HUP", "TERM"]);
    c.started();
    c.wait_for("ready");
    for (signal, seen) in [("USR1", "USR1"), ("1", "HUP"), ("TERM", "TERM")] {
        c.kill(signal).ok();
        c.wait_for(&format!("signal {seen}\n"));
    }
    assert_eq!(c.wait_exit(), 0);
}

/// Which is so for a created container only where it is asked for: engines of the field delete what was never started.
fn delete_strictly(c: &Container) -> Output {
    c.command("delete", [&c.id]).env("VESSEL_STRICT", "1").run()
}

#[test]
fn delete_needs_a_container_that_has_stopped() {
    spec!("runtime/delete/not-stopped-effect", "runtime/delete/not-stopped-error");
    deviates!("runc", "deletes a created one");
    deviates!("crun", "deletes a created one");
    let c = Container::new(["sleep"]);
    c.create().ok();
    refused(&delete_strictly(&c));
    assert_eq!(c.status(), "created");
    c.start().ok();
    refused(&delete_strictly(&c));
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_exit();
    delete_strictly(&c).ok();
    c.nothing_left();
}

#[test]
fn delete_removes_what_create_has_made() {
    spec!("runtime/delete/resources", "runtime/lifecycle/destroyed");
    let c = Container::new(["sleep"]);
    c.started();
    c.kill("KILL").ok();
    c.wait_exit();
    c.delete().ok();
    c.nothing_left();
    refused(&c.command("state", [&c.id]).run());
}

#[test]
fn delete_leaves_what_create_has_not_made() {
    spec!("runtime/delete/others");
    let first = Container::new(["sleep"]);
    first.started();
    let mut c = Container::new(["sleep"]);
    let (pid, volume) = (first.pid(), c.path("volume"));
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    let parent = c.cgroups_path().to_owned();
    c.edit(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("{parent}/below"));
        let network = config["linux"]["namespaces"].as_array_mut().unwrap();
        network.iter_mut().find(|n| n["type"] == "network").unwrap()["path"] = json!(format!("/proc/{pid}/ns/net"));
        config["root"]["readonly"] = json!(false);
        config["mounts"].as_array_mut().unwrap().push(crate::mounts::bind(&volume, &["bind"]));
    });
    let parent = parent.trim_start_matches('/');
    let parents: Vec<_> = hierarchies().into_iter().map(|dir| dir.join(parent)).collect();
    parents.iter().for_each(|dir| _ = fs::create_dir_all(dir));
    c.started();
    c.kill("KILL").ok();
    c.wait_exit();
    c.delete().ok();
    let kept = parents.iter().filter(|dir| dir.exists()).count();
    parents.iter().for_each(|dir| _ = fs::remove_dir(dir));
    assert_eq!(kept, parents.len(), "a cgroup above is gone");
    assert!(
        volume.join("file").exists() && c.rootfs().join("probe").exists() && c.bundle().join("config.json").exists()
    );
    assert_eq!(first.status(), "running");
    first.exec(["interfaces"]).ok().line("lo");
}

#[test]
fn the_links_in_dev_are_made() {
    spec!("runtime-linux/dev-links");
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let out = Container::new(["readlink", &format!("/dev/{name}")]).run().ok();
        out.line(&format!("link /proc/self/{target}"));
    }
}
