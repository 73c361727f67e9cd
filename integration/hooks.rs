//! Hooks (config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle"): order, namespaces, state, failure and timeout.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Container, Need, eventually, runtime_kind};
use crate::{deviates, needs};

/// A hook that runs a script of the shell.
fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

/// A container whose hooks of one kind are these scripts, and whose poststop hook leaves `poststop` behind. The program
/// leaves `program`.
fn with_hooks(kind: &str, scripts: &[&str]) -> Container {
    let mut c = Container::new(["write", "/t/program", "ran"]);
    bind_test_directory(&mut c);
    let dir = c.dir.display().to_string();
    c.edit(|config| {
        config["hooks"]["poststop"] = json!([hook(&format!("echo ran >{dir}/poststop"))]);
        config["hooks"][kind] = scripts.iter().map(|s| hook(&s.replace("DIR", &dir))).collect();
    });
    c
}

/// The test's directory is `/t` in the container.
fn bind_test_directory(c: &mut Container) {
    let dir = c.dir.display().to_string();
    c.edit(|config| {
        let mount = json!({"destination": "/t", "type": "bind", "source": dir, "options": ["bind", "rw"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
        config["root"]["readonly"] = json!(false);
    });
}

#[test]
fn hooks_run_in_order_in_their_namespaces_with_the_state() {
    deviates!("crun", "tells the status created");
    needs!(Need::Busybox);
    deviates!("runc" before 1.6, "runs the poststart hooks in create");
    let mut c = Container::new(["append", "/t/log", "program\n"]);
    bind_test_directory(&mut c);
    c.busybox();
    let dir = c.dir.display().to_string();
    c.edit(|config| {
        let script = |kind: &str, dir: &str, busybox: &str| {
            let link = |ns: &str| format!("$({busybox}readlink /proc/self/ns/{ns})");
            let (mnt, net) = (link("mnt"), link("net"));
            hook(&format!("{busybox}cat >{dir}/{kind}.state; echo {kind} {mnt} {net} >>{dir}/log"))
        };
        for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            config["hooks"][kind] = json!([script(kind, &dir, "")]);
        }
        config["hooks"]["startContainer"] = json!([script("startContainer", "/t", "/bin/busybox ")]);
    });
    c.create().ok();
    let pid = c.pid();
    let namespace = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
    let inside = (namespace("mnt"), namespace("net"));
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let outside = (own("mnt"), own("net"));
    let log = || fs::read_to_string(c.path("log")).unwrap();
    let kinds = |log: &str| log.lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(kinds(&log()), ["prestart", "createRuntime", "createContainer"]);
    c.start().ok();
    c.wait_exit();
    c.delete().ok();

    let log = log();
    let mut order = kinds(&log);
    // The program and the poststart hooks run side by side.
    order.retain(|k| k != "program");
    let want = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(order, want, "{log}");
    let position = |kind: &str| log.lines().position(|l| l.starts_with(kind)).unwrap();
    assert!(position("program") > position("startContainer") && position("program") < position("poststop"), "{log}");

    for line in log.lines().filter(|l| *l != "program") {
        let fields: Vec<&str> = line.split(' ').collect();
        let want = if ["createContainer", "startContainer"].contains(&fields[0]) { &inside } else { &outside };
        assert_eq!((fields[1], fields[2]), (want.0.as_str(), want.1.as_str()), "{log}");
    }
    for (kind, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let state: Value = serde_json::from_slice(&fs::read(c.path(&format!("{kind}.state"))).unwrap()).unwrap();
        assert_eq!(state["id"], c.id.as_str(), "{kind}: {state}");
        assert_eq!(state["bundle"], c.bundle().to_str().unwrap(), "{kind}: {state}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}: {state}");
        assert_eq!(state["status"], status, "{kind}: {state}");
        match kind {
            "prestart" | "createRuntime" | "poststart" => assert_eq!(state["pid"], pid, "{kind}: {state}"),
            // As it is seen in the container's pid namespace.
            "startContainer" => assert_eq!(state["pid"], 1, "{kind}: {state}"),
            "poststop" if runtime_kind() == "vessel" => assert_eq!(state.get("pid"), None, "{kind}: {state}"),
            _ => {}
        }
    }
}

/// A createContainer hook finds the root as its current directory; there the runtime's own does not count.
#[test]
fn the_current_directory_of_create_container_hooks_is_the_root() {
    deviates!("crun", "takes the directory of the runtime");
    for mount_namespace in [true, false] {
        if !mount_namespace {
            deviates!("runc", "wants a /proc in the root");
        }
        let mut c = Container::new(["echo", "ran"]);
        c.edit(|config| {
            config["hooks"]["createContainer"] = json!([hook("echo here >made")]);
            if !mount_namespace {
                config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "mount");
                config["linux"].as_object_mut().unwrap().retain(|name, _| !name.ends_with("Paths"));
                config["mounts"] = json!([]);
                config["root"]["readonly"] = json!(false);
            }
        });
        c.run().ok().line("ran");
        assert_eq!(fs::read_to_string(c.rootfs().join("made")).unwrap(), "here\n", "{mount_namespace}");
    }
}

#[test]
fn a_failing_hook_is_an_error_that_names_it_and_undoes_the_container() {
    deviates!("crun", "has another text, and runs no poststop hooks then");
    deviates!("runc", "runs no poststop hooks then");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let c =
            with_hooks(kind, &["echo first >>DIR/hooks", "echo out; echo why >&2; exit 7", "echo third >>DIR/hooks"]);
        let out = c.run().exits(1);
        assert!(out.stderr.contains(&format!("error running {kind} hook #1:")), "{out}");
        assert!(out.stderr.contains("exit status 7, stdout: out, stderr: why"), "{out}");
        assert_eq!(fs::read_to_string(c.path("hooks")).unwrap(), "first\n", "{kind}");
        assert!(!c.path("program").exists(), "{kind}");
        assert!(c.path("poststop").exists(), "{kind}: the poststop hooks have not run");
        c.nothing_left();
    }
}

#[test]
fn a_failing_start_container_hook_keeps_the_program_from_running() {
    deviates!("crun", "runs it all the same");
    deviates!("runc", "start succeeds all the same");
    let mut c = Container::new(["write", "/t/program", "ran"]);
    bind_test_directory(&mut c);
    let dir = c.dir.display().to_string();
    c.edit(|config| {
        config["hooks"]["startContainer"] =
            json!([{"path": "/probe", "args": ["probe", "stderr", "why", "--", "exit", "7"]}]);
        config["hooks"]["poststop"] = json!([hook(&format!("echo ran >{dir}/poststop"))]);
    });
    c.create().ok();
    let out = c.start();
    assert_ne!(out.code, 0);
    c.wait_exit();
    assert!(!c.path("program").exists());
    if crate::harness::runtime_kind() == "vessel" {
        assert!(out.stderr.contains("error running startContainer hook #0: /probe: exit status 7"), "{out}");
        assert!(out.stderr.contains("stderr: why"), "{out}");
    }
}

#[test]
fn start_container_hooks_get_the_environment_of_the_process_unless_they_have_one() {
    let mut c = Container::new(["exit", "0"]);
    bind_test_directory(&mut c);
    c.edit(|config| {
        config["process"]["env"].as_array_mut().unwrap().push(json!("OF=process"));
        config["hooks"]["startContainer"] = json!([
            {"path": "/probe", "args": ["probe", "env", "--", "exit", "1"]},
        ]);
    });
    deviates!("crun", "does not show what a hook has printed");
    deviates!("runc", "shows it in the log of init alone");
    assert!(c.run().exits(1).stderr.contains("OF=process"));
    c.edit(|config| config["hooks"]["startContainer"][0]["env"] = json!(["OF=hook"]));
    let out = c.run().exits(1);
    assert!(out.stderr.contains("stdout: OF=hook,"), "{out}");
}

#[test]
fn a_failing_poststart_hook_stops_the_container() {
    deviates!("runc" before 1.6, "leaves it running");
    deviates!("crun", "leaves it running, in old versions");
    let mut c = with_hooks("poststart", &["echo why >&2; exit 7"]);
    c.program(["sleep"]);
    c.create().ok();
    let out = c.start().exits(1);
    assert!(out.stderr.contains("error running poststart hook #0:"), "{out}");
    assert_eq!(c.wait_exit(), 137);
    c.command("delete", ["--force", &c.id]).run().ok();
    assert!(c.path("poststop").exists());
    c.nothing_left();
}

#[test]
fn a_failing_poststop_hook_is_a_warning_and_the_others_run() {
    deviates!("runc", "makes delete fail");
    let c = with_hooks("poststop", &["echo why >&2; exit 7", "echo second >DIR/second"]);
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_exit();
    let out = c.delete().ok();
    assert!(c.path("second").exists());
    if crate::harness::runtime_kind() == "vessel" {
        assert!(out.stderr.contains("error running poststop hook #0:"), "{out}");
    }
    c.nothing_left();
}

#[test]
fn a_hook_is_ended_at_its_timeout() {
    deviates!("crun", "has another text");
    let mut c = with_hooks("createRuntime", &["exec sleep 50"]);
    c.edit(|config| config["hooks"]["createRuntime"][0]["timeout"] = json!(1));
    let start = Instant::now();
    c.run().exits(1).fails("hook ran past specified timeout of 1.0s");
    assert!(start.elapsed() < Duration::from_secs(20));
    c.nothing_left();
}

/// CVE-2024-21626: the hook is a program of the image, and sees what init has open.
#[test]
fn the_host_is_not_open_while_start_container_hooks_run() {
    deviates!("crun", "closes what it has open with the program's execution only");
    let c = Container::with(["true"], |config| {
        config["hooks"]["startContainer"] = json!([{"path": "/probe", "args": ["probe", "sleep"]}]);
    });
    let mut run = c.run_cmd().spawn();
    let init = || {
        let state = c.command("state", [&c.id]).run();
        let pid = (state.code == 0).then(|| state.json()["pid"].as_i64())??;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        (pid > 0 && !children.is_empty()).then_some(pid)
    };
    let pid = eventually("the hook", init);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let (number, target) = (entry.file_name(), fs::read_link(entry.path()).unwrap());
        let standard = ["0", "1", "2"].iter().any(|n| number == **n);
        assert!(standard || !target.is_absolute(), "{number:?} is {}", target.display());
    }
    c.command("delete", ["--force", &c.id]).run().ok();
    run.wait();
    c.reap_orphans();
}

#[test]
fn a_timeout_that_is_not_positive_is_refused() {
    deviates!("runc", "takes it");
    deviates!("crun", "takes it");
    let mut c = with_hooks("createRuntime", &["true"]);
    c.edit(|config| config["hooks"]["createRuntime"][0]["timeout"] = json!(0));
    c.run().exits(1).fails("timeout");
}

#[test]
fn a_hook_inherits_neither_environment_nor_descriptors_nor_blocked_signals() {
    let mut c = with_hooks("createRuntime", &[]);
    let dir = c.dir.display().to_string();
    c.edit(|config| {
        let script = format!(
            "tr '\\0' '\\n' </proc/$$/environ >{dir}/env; while read -r key value; do case $key in SigBlk:) echo $value >{dir}/signals ;; esac; done </proc/$$/status; exec ls /proc/self/fd >{dir}/fds"
        );
        config["hooks"]["createRuntime"] = json!([
            {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", "A=b=c"]},
        ]);
    });
    let extra = fs::File::open("/").unwrap();
    c.run_cmd().fds(vec![extra.into()]).run().ok();
    // The last one is that of ls for the directory.
    assert_eq!(fs::read_to_string(c.path("fds")).unwrap().split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let environment = fs::read_to_string(c.path("env")).unwrap();
    let mut environment: Vec<&str> = environment.lines().collect();
    environment.sort_unstable();
    assert_eq!(environment, ["A=b=c", "PATH=/usr/bin:/bin"]);
    let signals = fs::read_to_string(c.path("signals")).unwrap();
    assert!(signals.trim_end().ends_with("0000000000000000"), "{signals}");
}

#[test]
fn a_hook_need_not_read_its_state_and_may_print_much() {
    let mut c = with_hooks("createRuntime", &["exec <&-; sleep 0.1", "head -c 1000000 /dev/zero; cat >/dev/null"]);
    c.edit(|config| config["annotations"] = json!({"org.example.large": "x".repeat(500_000)}));
    c.run().ok();
    assert!(c.path("program").exists());
}

#[test]
fn a_hook_may_be_named_by_its_path_alone() {
    deviates!("crun", "ends with another code");
    let mut c = Container::new(["exit", "0"]);
    c.edit(|config| config["hooks"]["createRuntime"] = json!([{"path": "/bin/true"}]));
    c.run().ok();
    c.edit(|config| config["hooks"]["createRuntime"] = json!([{"path": "/no/such/hook"}]));
    c.run().exits(1).fails("no such file or directory");
}

/// One that hangs makes the commands of others fail in the end, and `delete --force` ends it: create, hook and container.
#[test]
fn delete_by_force_ends_a_create_that_hangs_in_a_hook() {
    deviates!("runc", "has no lock, and leaves the hook behind");
    deviates!("crun", "has no lock, and leaves the hook behind");
    let mut c = with_hooks("createRuntime", &["echo $$ >DIR/pid; mv DIR/pid DIR/hook; exec sleep 1000"]);
    c.edit(|config| config["hooks"]["poststop"] = json!([]));
    let mut create = c.create_cmd().spawn();
    let hook = crate::harness::eventually("the hook", || fs::read_to_string(c.path("hook")).ok());
    c.command("start", [&c.id]).run().fails(&format!("process {} works on it", create.pid()));
    c.command("delete", ["--force", &c.id]).run().ok();
    create.wait();
    let hook = hook.trim().parse().unwrap();
    crate::harness::reap_orphan(hook);
    c.reap_orphans();
    c.nothing_left();
}
