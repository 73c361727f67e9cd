//! podman with each manager of cgroups, of root and of an ordinary user: what is asked for is set, counted and changed,
//! and goes with the container.

use std::fs;

use super::{Engine, LIMITS, traces, v2};
use crate::harness::{Container, Need, User, eventually};
use crate::systemd_inside::{self, Machine};
use crate::{deviates, needs};

/// A fact of a container, by podman's template.
fn inspect(podman: &Engine, name: &str, what: &str) -> String {
    podman.act(&["inspect", "--format", what, name]).ok().stdout.trim().to_owned()
}

fn pid(podman: &Engine, name: &str) -> i32 {
    inspect(podman, name, "{{.State.Pid}}").parse().unwrap()
}

/// A container of podman with limits, through all that touches them.
fn limits_through_a_life(podman: &Engine) {
    let _calm = crate::systemd::calm();
    podman.run(&["--rm", "--pids-limit", "30"], &["cgroup", "--", "exit", "5"]).run().exits(5);
    let flags = ["-d", "--name", "one", "--memory", "64m", "--pids-limit", "30"];
    podman.run(&flags, &["fork", "1", "--", "trap", "TERM"]).run().ok();
    let id = inspect(podman, "one", "{{.Id}}");
    assert!(!traces(&id).is_empty(), "no cgroup has the container's name");
    let cgroup = |controller| Container::cgroup_of(pid(podman, "one"), controller);
    let file = |controller, name| fs::read_to_string(cgroup(controller).join(name)).unwrap().trim_end().to_owned();
    let (limit, quota) = if v2() { ("memory.max", "cpu.max") } else { ("memory.limit_in_bytes", "cpu.cfs_quota_us") };
    assert_eq!((file("memory", limit), file("pids", "pids.max")), ("67108864".into(), "30".into()));

    // podman of later versions counts on v2 alone.
    if v2() {
        let out = podman.act(&["stats", "--no-stream", "--format", "json", "one"]).ok();
        let stats = &out.json()[0];
        assert_eq!(stats["pids"], "2", "{out}");
        assert!(stats["mem_usage"].as_str().unwrap().ends_with(" / 67.11MB"), "{out}");
        assert_ne!(stats["mem_percent"], "0.00%", "{out}");
    }

    let pids = if v2() { "20" } else { "30" };
    let flags = ["--memory", "32m", "--cpu-period", "200000", "--cpu-quota", "50000"];
    // Versions of podman for v1 change no more.
    let more = if v2() { &["--pids-limit", "20"][..] } else { &[] };
    podman.cmd(&["update"]).args(flags).args(more).arg("one").run().ok();
    assert_eq!((file("memory", limit), file("pids", "pids.max")), ("33554432".into(), pids.into()));
    assert_eq!(file("cpu", quota), if v2() { "50000 200000" } else { "50000" });
    podman.act(&["pause", "one"]).ok();
    assert_eq!(inspect(podman, "one", "{{.State.Status}}"), "paused");
    podman.act(&["unpause", "one"]).ok();
    podman.act(&["exec", "one", "/probe", "fork", "1", "--", "exit", "3"]).exits(3);
    podman.act(&["restart", "--time", "20", "one"]).ok();
    if v2() {
        assert_eq!((file("memory", limit), file("pids", "pids.max")), ("33554432".into(), pids.into()));
    }
    podman.act(&["stop", "--time", "20", "one"]).ok();
    assert_eq!(inspect(podman, "one", "{{.State.ExitCode}}"), "0");
    podman.act(&["rm", "one"]).ok();
    eventually("no unit and no cgroup", || traces(&id).is_empty().then_some(()));
}

#[test]
fn root_with_cgroupfs() {
    needs!(Need::Program("podman"), Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpu"));
    limits_through_a_life(&Engine::podman().with("cgroupfs"));
}

#[test]
fn root_with_systemd() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Systemd);
    limits_through_a_life(&Engine::podman().with("systemd"));
}

#[test]
fn an_ordinary_user_with_cgroupfs() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    limits_through_a_life(&Engine::rootless().with("cgroupfs"));
}

#[test]
fn an_ordinary_user_with_systemd() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    limits_through_a_life(&Engine::rootless().with("systemd"));
}

/// `--cgroups=disabled`: the container is where its monitor is.
fn without_cgroups(podman: &Engine) {
    let _calm = crate::systemd::calm();
    let run = |flags: &[&str], args: &[&str]| {
        let cmd = podman.cmd(&["run", "--network", "none", "--cgroups", "disabled"]).args(LIMITS).args(flags);
        cmd.arg("--rootfs").arg(podman.c.rootfs()).arg("/probe").args(args).run()
    };
    run(&["--rm"], &["ids", "--", "exit", "5"]).exits(5).line("uid 0");
    run(&["-d", "--name", "one"], &["trap", "TERM"]).ok();
    let id = inspect(podman, "one", "{{.Id}}");
    let monitor = inspect(podman, "one", "{{.State.ConmonPid}}").parse().unwrap();
    for controller in if v2() { &[""][..] } else { &["memory", "pids", "devices"] } {
        assert_eq!(Container::cgroup_of(pid(podman, "one"), controller), Container::cgroup_of(monitor, controller));
    }
    podman.act(&["exec", "one", "/probe", "exit", "6"]).exits(6);
    podman.act(&["update", "--memory", "32m", "one"]).fails("the cgroup manager is disabled");
    podman.act(&["pause", "one"]).fails("cgroup");
    assert_eq!(inspect(podman, "one", "{{.State.Status}}"), "running");
    podman.act(&["stop", "--time", "20", "one"]).ok();
    podman.act(&["rm", "one"]).ok();
    assert!(traces(&id).is_empty(), "{:?}", traces(&id));
}

#[test]
fn root_without_cgroups() {
    deviates!("runc", "has no --cgroup-manager");
    needs!(Need::Program("podman"));
    without_cgroups(&Engine::podman());
}

#[test]
fn an_ordinary_user_without_cgroups() {
    deviates!("runc", "has no --cgroup-manager");
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    without_cgroups(&Engine::rootless());
}

/// `podman run --systemd=always`.
fn boots(podman: &Engine, ids: Option<&str>) {
    let _calm = crate::systemd::calm();
    let machine = Machine::new(&podman.c.dir, ids);
    // Else it may go on in a mount namespace that is older than the machine.
    podman.end_namespace();
    let cmd = podman.cmd(&["run", "-d", "--name", "one", "--network", "none", "--systemd", "always"]);
    cmd.args(podman.parent()).arg("--rootfs").arg(machine.root()).arg("/sbin/init").run().ok();
    let id = inspect(podman, "one", "{{.Id}}");
    systemd_inside::uses(&|args| podman.cmd(&["exec", "one"]).args(args).run());
    podman.act(&["stop", "--time", "60", "one"]).ok();
    assert_eq!(inspect(podman, "one", "{{.State.ExitCode}} {{.State.Status}}"), "0 exited");
    podman.act(&["rm", "one"]).ok();
    eventually("no unit and no cgroup", || traces(&id).is_empty().then_some(()));
}

#[test]
fn root_boots_systemd() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Systemd, Need::Filesystem("overlay"));
    for manager in ["cgroupfs", "systemd"] {
        boots(&Engine::podman().with(manager), None);
    }
}

#[test]
fn an_ordinary_user_boots_systemd() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd, Need::Filesystem("overlay"));
    let user = User::ordinary();
    // Her own id is root, and her subordinate ones follow.
    let subids = fs::read_to_string("/etc/subuid").unwrap();
    let first = subids.lines().find_map(|l| l.strip_prefix("alice:")).unwrap().split(':').next().unwrap();
    let ids = format!("b:0:{}:1 b:1:{first}:65535", user.uid);
    for manager in ["cgroupfs", "systemd"] {
        boots(&Engine::rootless().with(manager), Some(&ids));
    }
}
