//! Pods of podman: containers that share namespaces and a cgroup above theirs.

use std::fs;
use std::path::PathBuf;

use super::{Engine, traces, v2};
use crate::harness::{Container, Need, eventually};
use crate::needs;

/// A pod of two containers through its life.
fn pod(podman: &Engine) {
    let _calm = crate::systemd::calm();
    podman.import();
    let infra = ["--infra-image", "image", "--infra-command", "/probe trap TERM"];
    let flags = ["--name", "pod", "--network", "none", "--share", "ipc,net,uts,pid", "--hostname", "shared"];
    let limits = ["--memory", "96m"];
    let made = podman.cmd(&["pod", "create"]).args(flags).args(infra).args(podman.parent());
    // podman of an ordinary user has no cgroup for a pod unless systemd makes it.
    let limited = v2() && (podman.user.is_none() || podman.manager == "systemd");
    let made = if limited { made.args(limits) } else { made };
    let id = made.run().ok().stdout.trim().to_owned();
    let run = |flags: &[&str], args: &[&str]| {
        podman.cmd(&["run", "--pod", "pod"]).args(flags).arg("image").arg("/probe").args(args).run()
    };
    run(&["-d", "--name", "one", "--memory", "64m"], &["trap", "TERM"]).ok();
    let one = podman.act(&["exec", "one", "/probe", "ns", "--", "hostname"]).ok();
    let two = run(&["--rm", "--name", "two"], &["ns", "--", "hostname", "--", "exit", "4"]).exits(4);
    for name in ["ipc", "net", "uts", "pid"] {
        assert_eq!(one.value(name), two.value(name), "{name}");
    }
    assert_ne!(one.value("mnt"), two.value("mnt"));
    if v2() {
        assert_ne!(one.value("cgroup"), two.value("cgroup"));
    }
    one.line("hostname shared");
    let pid = |name| podman.act(&["inspect", "--format", "{{.State.Pid}}", name]).ok().stdout.trim().parse().unwrap();
    let above = |name| -> PathBuf { Container::cgroup_of(pid(name), "memory").parent().unwrap().into() };
    run(&["-d", "--name", "three"], &["sleep"]).ok();
    assert_eq!(above("one"), above("three"));
    if limited {
        assert_eq!(fs::read_to_string(above("one").join("memory.max")).unwrap(), "100663296\n");
    }
    if v2() {
        let stats = podman.act(&["pod", "stats", "--no-stream", "--format", "json", "pod"]).ok();
        assert_eq!(stats.json().as_array().unwrap().len(), 3, "{stats}");
    }

    let status =
        |name: &str| podman.act(&["inspect", "--format", "{{.State.Status}}", name]).ok().stdout.trim().to_owned();
    podman.act(&["pod", "pause", "pod"]).ok();
    assert_eq!((status("one"), status("three")), ("paused".into(), "paused".into()));
    podman.act(&["pod", "unpause", "pod"]).ok();
    assert_eq!((status("one"), status("three")), ("running".into(), "running".into()));
    let top = podman.act(&["pod", "top", "pod", "args"]).ok();
    assert!(top.stdout.contains("/probe sleep"), "{top}");
    podman.act(&["pod", "stop", "--time", "2", "pod"]).ok();
    // First they are stopped, and exited when their monitors have cleaned up.
    let exited = || ["one", "three"].iter().all(|name| status(name) == "exited");
    eventually("the end of all", || exited().then_some(()));
    podman.act(&["pod", "start", "pod"]).ok();
    podman.act(&["exec", "three", "/probe", "exit", "8"]).exits(8);
    let all = podman.act(&["ps", "--all", "--quiet", "--no-trunc"]).ok().stdout;
    let mut gone: Vec<_> = all.lines().map(str::to_owned).collect();
    assert_eq!(gone.len(), 3, "{all}");
    if v2() {
        // On v1 podman leaves it.
        gone.push(id);
    }
    podman.act(&["pod", "kill", "pod"]).ok();
    podman.act(&["pod", "rm", "--force", "--time", "2", "pod"]).ok();
    eventually("no unit and no cgroup", || gone.iter().all(|id| traces(id).is_empty()).then_some(()));
}

#[test]
fn of_root_with_cgroupfs() {
    needs!(Need::Program("podman"), Need::Controller("memory"));
    pod(&Engine::podman().with("cgroupfs"));
}

#[test]
fn of_root_with_systemd() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Systemd);
    pod(&Engine::podman().with("systemd"));
}

#[test]
fn of_an_ordinary_user_with_cgroupfs() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    pod(&Engine::rootless().with("cgroupfs"));
}

#[test]
fn of_an_ordinary_user_with_systemd() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    pod(&Engine::rootless().with("systemd"));
}
