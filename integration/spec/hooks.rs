//! Hooks (runtime.md, "Lifecycle"; config.md, "POSIX-platform Hooks"), kind by kind.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::refused;
use crate::harness::{Container, Need, eventually, missing};
use crate::{deviates, needs, spec};

/// A hook that runs a script of the shell. `DIR` is the test's directory as the script sees it.
fn script(c: &Container, kind: &str, text: &str) -> Value {
    let dir = if kind == "startContainer" { "/t".to_owned() } else { c.dir.display().to_string() };
    json!({"path": "/bin/sh", "args": ["sh", "-c", text.replace("DIR", &dir)], "env": ["PATH=/usr/bin:/bin"]})
}

/// A container that has the test's directory at /t, and whose program tells in a log there that it runs.
fn with_log() -> Container {
    let mut c = Container::new(["append", "/t/log", "program\n", "--", "sleep"]);
    let dir = c.dir.display().to_string();
    fs::write(c.path("log"), "").unwrap();
    if missing(&[Need::Busybox]).is_none() {
        c.busybox();
        std::os::unix::fs::symlink("busybox", c.rootfs().join("bin/readlink")).unwrap();
    }
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        let mount = json!({"destination": "/t", "type": "bind", "source": dir, "options": ["bind", "rw"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    c
}

/// The first words of the log's lines.
fn log(c: &Container) -> Vec<String> {
    let text = fs::read_to_string(c.path("log")).unwrap();
    text.lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect()
}

/// The log after create, after start and after delete of a container with these hooks.
fn life(c: &Container) -> [Vec<String>; 3] {
    c.create().ok();
    let created = log(c);
    c.start().ok();
    let started = log(c);
    eventually("the program", || log(c).contains(&"program".to_owned()).then_some(()));
    c.kill("KILL").ok();
    c.wait_exit();
    c.delete().ok();
    [created, started, log(c)]
}

/// The life of a container with one hook of a kind, which logs `hook` and whatever `say` prints; and that.
fn observe(kind: &str, say: &str) -> ([Vec<String>; 3], String) {
    let mut c = with_log();
    let hook = script(&c, kind, &format!("echo hook $({say}) >>DIR/log"));
    c.edit(|config| config["hooks"][kind] = json!([hook]));
    let life = life(&c);
    let text = fs::read_to_string(c.path("log")).unwrap();
    let said = text.lines().find_map(|l| l.strip_prefix("hook")).unwrap_or("nothing").trim().to_owned();
    (life, said)
}

#[track_caller]
fn runs(kind: &str) {
    let (life, _) = observe(kind, "true");
    assert_eq!(life[2].iter().filter(|l| *l == "hook").count(), 1, "{life:?}");
}

/// In create: the namespaces are there, and init is still at the host's root.
#[track_caller]
fn runs_before_the_root_is_changed(kind: &str) {
    let say = match kind {
        // Which is in the container's mount namespace itself.
        "createContainer" => "test -e DIR/log && readlink /proc/self/ns/mnt",
        _ => {
            "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); test -e /proc/$pid/root/DIR/log && readlink /proc/$pid/ns/mnt"
        }
    };
    let (life, said) = observe(kind, say);
    assert_eq!(life[0], ["hook"], "{life:?}");
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    assert!(said.starts_with("mnt:") && said != own.to_str().unwrap(), "{said}");
}

/// Whether the hook's mount and network namespaces are the runtime's.
#[track_caller]
fn runs_in_the_runtimes_namespaces(kind: &str, runtimes: bool) {
    let (_, said) = observe(kind, "readlink /proc/self/ns/mnt; readlink /proc/self/ns/net");
    let own = ["mnt", "net"].map(|n| fs::read_link(format!("/proc/self/ns/{n}")).unwrap().display().to_string());
    let found: Vec<&str> = said.split(' ').collect();
    assert_eq!(found.len(), 2, "{said}");
    assert_eq!([found[0] == own[0], found[1] == own[1]], [runtimes; 2], "{said}");
}

/// The hook's program lies on one side only.
#[track_caller]
fn is_found(kind: &str, in_the_container: bool) {
    let mut c = with_log();
    let text = if in_the_container { "#!/bin/sh\necho hook >>/t/log\n" } else { "#!/bin/sh\necho hook >>DIR/log\n" };
    let path = if in_the_container { c.rootfs().join("only-here") } else { c.path("only-here") };
    fs::write(&path, text.replace("DIR", c.dir.to_str().unwrap())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = if in_the_container { "/only-here".to_owned() } else { path.display().to_string() };
    c.edit(|config| config["hooks"][kind] = json!([{"path": path, "env": ["PATH=/usr/bin:/bin"]}]));
    let life = life(&c);
    assert!(life[2].contains(&"hook".to_owned()), "{life:?}");
}

/// A hook that fails: the operation is an error, the container is gone, and the poststop hooks have run.
#[track_caller]
fn fails(kind: &str) {
    let mut c = with_log();
    let (hook, last) = (script(&c, kind, "exit 7"), script(&c, "poststop", "echo poststop >>DIR/log"));
    c.edit(|config| config["hooks"] = json!({kind: [hook], "poststop": [last]}));
    let created = c.create();
    if ["startContainer", "poststart"].contains(&kind) {
        created.ok();
        refused(&c.start());
    } else {
        refused(&created);
    }
    let log = log(&c);
    assert!(log.contains(&"poststop".to_owned()), "the poststop hooks have not run");
    assert!(kind == "poststart" || !log.contains(&"program".to_owned()), "the program has run");
    c.nothing_left();
}

#[test]
fn prestart_hooks_run() {
    spec!("runtime/lifecycle/prestart");
    runs("prestart");
}

#[test]
fn create_runtime_hooks_run() {
    spec!("runtime/lifecycle/create-runtime");
    runs("createRuntime");
}

#[test]
fn create_container_hooks_run() {
    spec!("runtime/lifecycle/create-container");
    runs("createContainer");
}

#[test]
fn start_container_hooks_run() {
    spec!("runtime/lifecycle/start-container");
    needs!(Need::Busybox);
    runs("startContainer");
}

#[test]
fn poststart_hooks_run() {
    spec!("runtime/lifecycle/poststart");
    runs("poststart");
}

#[test]
fn poststop_hooks_run() {
    spec!("runtime/lifecycle/poststop");
    runs("poststop");
}

#[test]
fn a_prestart_hook_fails() {
    spec!("runtime/lifecycle/prestart-fails");
    deviates!("runc", "runs no poststop hooks then");
    deviates!("crun", "runs no poststop hooks then");
    fails("prestart");
}

#[test]
fn a_create_runtime_hook_fails() {
    spec!("runtime/lifecycle/create-runtime-fails");
    deviates!("runc", "runs no poststop hooks then");
    deviates!("crun", "runs no poststop hooks then");
    fails("createRuntime");
}

#[test]
fn a_create_container_hook_fails() {
    spec!("runtime/lifecycle/create-container-fails");
    deviates!("runc", "runs no poststop hooks then");
    deviates!("crun", "runs no poststop hooks then");
    fails("createContainer");
}

#[test]
fn a_start_container_hook_fails() {
    spec!("runtime/lifecycle/start-container-fails");
    deviates!("runc", "start succeeds all the same");
    deviates!("crun", "start succeeds all the same");
    needs!(Need::Busybox);
    fails("startContainer");
}

#[test]
fn a_poststart_hook_fails() {
    spec!("runtime/lifecycle/poststart-fails");
    deviates!("runc", "leaves the container until it is deleted");
    deviates!("crun", "leaves the container until it is deleted");
    fails("poststart");
}

#[test]
fn a_poststop_hook_fails() {
    spec!("runtime/lifecycle/poststop-fails", "runtime/warnings");
    deviates!("runc", "delete fails then");
    let mut c = with_log();
    let hooks = [script(&c, "poststop", "exit 7"), script(&c, "poststop", "echo second >>DIR/log")];
    c.edit(|config| config["hooks"]["poststop"] = json!(hooks));
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_exit();
    c.delete().ok();
    assert_eq!(log(&c), ["second"]);
    c.nothing_left();
}

#[test]
fn a_hook_has_a_path_that_is_absolute() {
    spec!("config/hooks/path", "config/hooks/path-absolute");
    deviates!("crun", "takes any path");
    for hook in [json!({"args": ["true"]}), json!({"path": "true"}), json!({"path": "./true"})] {
        let c = Container::with(["echo"], |config| config["hooks"]["createRuntime"] = json!([hook]));
        refused(&c.run());
    }
}

#[test]
fn a_timeout_is_greater_than_zero() {
    spec!("config/hooks/timeout");
    deviates!("runc", "takes zero for none");
    deviates!("crun", "takes zero for none");
    for timeout in [0, -1] {
        let hook = json!({"path": "/bin/true", "timeout": timeout});
        let c = Container::with(["echo"], |config| config["hooks"]["createRuntime"] = json!([hook]));
        refused(&c.run());
    }
}

#[test]
fn hooks_run_in_the_listed_order() {
    spec!("config/hooks/order");
    needs!(Need::Busybox);
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let mut c = with_log();
        let hooks = ["one", "two", "three"].map(|n| script(&c, kind, &format!("echo {n} >>DIR/log")));
        c.edit(|config| config["hooks"][kind] = json!(hooks));
        let mut log = life(&c)[2].clone();
        log.retain(|l| l != "program");
        assert_eq!(log, ["one", "two", "three"], "{kind}");
    }
}

#[test]
fn hooks_get_the_state() {
    spec!("config/hooks/state");
    needs!(Need::Busybox);
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let mut c = with_log();
        let hook = script(&c, kind, "cat >DIR/state");
        c.edit(|config| config["hooks"][kind] = json!([hook]));
        life(&c);
        let state: Value = serde_json::from_slice(&fs::read(c.path("state")).unwrap()).unwrap();
        assert!(state["ociVersion"].is_string() && state["status"].is_string(), "{kind}: {state}");
        assert_eq!(state["id"], c.id.as_str(), "{kind}: {state}");
        assert_eq!(state["bundle"], c.bundle().to_str().unwrap(), "{kind}: {state}");
        if ["prestart", "createRuntime", "poststart"].contains(&kind) {
            let pid: i32 = fs::read_to_string(c.path("pid")).unwrap().parse().unwrap();
            assert_eq!(state["pid"], pid, "{kind}: {state}");
        }
    }
}

#[test]
fn prestart_hooks_run_in_create() {
    spec!("config/hooks/prestart/when");
    runs_before_the_root_is_changed("prestart");
}

#[test]
fn create_runtime_hooks_run_in_create() {
    spec!("config/hooks/create-runtime/when");
    runs_before_the_root_is_changed("createRuntime");
}

#[test]
fn create_container_hooks_run_in_create() {
    spec!("config/hooks/create-container/when");
    runs_before_the_root_is_changed("createContainer");
}

#[test]
fn the_hooks_of_create_run_in_order() {
    spec!("config/hooks/prestart/first", "config/hooks/create-container/second");
    let mut c = with_log();
    for kind in ["createContainer", "createRuntime", "prestart"] {
        let hook = script(&c, kind, &format!("echo {kind} >>DIR/log"));
        c.edit(|config| config["hooks"][kind] = json!([hook]));
    }
    c.create().ok();
    assert_eq!(log(&c), ["prestart", "createRuntime", "createContainer"]);
}

#[test]
fn start_container_hooks_run_in_start() {
    spec!("config/hooks/start-container/when");
    needs!(Need::Busybox);
    let (life, _) = observe("startContainer", "true");
    assert!(life[0].is_empty(), "{life:?}");
    assert_eq!(life[2], ["hook", "program"], "{life:?}");
}

#[test]
fn poststart_hooks_run_after_the_program_and_in_start() {
    spec!("config/hooks/poststart/when");
    deviates!("runc" before 1.6, "runs them in create");
    let wait = "for i in 1 2 3 4 5 6 7 8 9 0; do grep -q program DIR/log && break; sleep 0.2; done";
    let (life, _) = observe("poststart", wait);
    assert!(life[0].is_empty(), "{life:?}");
    assert_eq!(life[1], ["program", "hook"], "{life:?}");
}

#[test]
fn poststop_hooks_run_after_the_deletion() {
    spec!("config/hooks/poststop/when");
    let mut c = with_log();
    let cgroups = if missing(&[Need::CgroupV2]).is_none() { "" } else { "/pids" };
    let cgroup = format!("/sys/fs/cgroup{cgroups}{}", c.cgroups_path());
    let hook = script(&c, "poststop", &format!("test -e {cgroup} || echo hook >>DIR/log"));
    c.edit(|config| config["hooks"]["poststop"] = json!([hook]));
    let life = life(&c);
    assert_eq!(life[1].iter().filter(|l| *l == "hook").count(), 0, "{life:?}");
    assert_eq!(life[2], ["program", "hook"], "{life:?}");
}

#[test]
fn the_path_of_prestart_hooks_is_the_runtimes() {
    spec!("config/hooks/prestart/path");
    is_found("prestart", false);
}

#[test]
fn the_path_of_create_runtime_hooks_is_the_runtimes() {
    spec!("config/hooks/create-runtime/path");
    is_found("createRuntime", false);
}

#[test]
fn the_path_of_create_container_hooks_is_the_runtimes() {
    spec!("config/hooks/create-container/path");
    is_found("createContainer", false);
}

#[test]
fn the_path_of_start_container_hooks_is_the_containers() {
    spec!("config/hooks/start-container/path");
    needs!(Need::Busybox);
    is_found("startContainer", true);
}

#[test]
fn the_path_of_poststart_hooks_is_the_runtimes() {
    spec!("config/hooks/poststart/path");
    is_found("poststart", false);
}

#[test]
fn the_path_of_poststop_hooks_is_the_runtimes() {
    spec!("config/hooks/poststop/path");
    is_found("poststop", false);
}

#[test]
fn prestart_hooks_run_in_the_runtimes_namespaces() {
    spec!("config/hooks/prestart/namespace");
    runs_in_the_runtimes_namespaces("prestart", true);
}

#[test]
fn create_runtime_hooks_run_in_the_runtimes_namespaces() {
    spec!("config/hooks/create-runtime/namespace");
    runs_in_the_runtimes_namespaces("createRuntime", true);
}

#[test]
fn create_container_hooks_run_in_the_containers_namespaces() {
    spec!("config/hooks/create-container/namespace");
    runs_in_the_runtimes_namespaces("createContainer", false);
}

#[test]
fn start_container_hooks_run_in_the_containers_namespaces() {
    spec!("config/hooks/start-container/namespace");
    needs!(Need::Busybox);
    runs_in_the_runtimes_namespaces("startContainer", false);
}

#[test]
fn poststart_hooks_run_in_the_runtimes_namespaces() {
    spec!("config/hooks/poststart/namespace");
    runs_in_the_runtimes_namespaces("poststart", true);
}

#[test]
fn poststop_hooks_run_in_the_runtimes_namespaces() {
    spec!("config/hooks/poststop/namespace");
    runs_in_the_runtimes_namespaces("poststop", true);
}
