//! containerd, which drives the runtime through its shim.

use std::fs;

use super::{Engine, TERMINAL, on_terminal, traces};
use crate::harness::{CGROUP_ROOT, Cmd, Need, Output, eventually, runtime};
use crate::{deviates, needs};

/// A containerd of the test's own.
struct Containerd {
    engine: Engine,
}

impl Containerd {
    fn start() -> Containerd {
        let mut engine = Engine::podman();
        let dir = engine.c.dir.clone();
        let config = dir.join("containerd.toml");
        let settings =
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";
        fs::write(&config, settings).unwrap();
        let daemon = Cmd::new("containerd").arg("--config").arg(&config).arg("--root").arg(dir.join("lib"));
        let daemon =
            daemon.arg("--state").arg(engine.short.join("run")).arg("--address").arg(engine.short.join("socket"));
        engine.daemon = Some(daemon.timeout(30).spawn());
        let containerd = Containerd { engine };
        containerd.engine.wait_for_daemon(|| containerd.ctr(&["version"]));
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Cmd {
        Cmd::new("ctr").arg("--address").arg(self.engine.short.join("socket")).args(args)
    }

    fn task(&self, args: &[&str]) -> Output {
        self.ctr(&["task"]).args(args).run()
    }

    /// `ctr run` of the probe, to be changed and run.
    fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Cmd {
        let cmd = self.ctr(&["run", "--runc-binary"]).arg(runtime()).args(flags);
        cmd.arg("--rootfs").arg(self.engine.c.rootfs()).arg(id).arg("/probe").args(args)
    }

    /// Kills a container, and takes it away.
    fn end(&self, id: &str) {
        self.task(&["kill", "--signal", "KILL", id]).ok();
        eventually("the end of the task", || self.task(&["ls"]).ok().stdout.contains("STOPPED").then_some(()));
        let deleted = self.task(&["delete", id]);
        assert!(deleted.code == 137 || deleted.stderr.contains("exit code 137"), "{deleted}");
        self.ctr(&["container", "delete", id]).run().ok();
    }

    fn wait_shims(&self) {
        eventually("the end of the shims", || {
            let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let socket = self.engine.short.join("socket").display().to_string();
            (!processes().any(|pid| comm(pid).contains("shim") && comm(pid).contains(&socket))).then_some(())
        });
    }
}

#[test]
fn containerd_drives_it_through_its_shim() {
    deviates!("crun", "has other words");
    needs!(Need::Program("containerd"), Need::Program("ctr"), Need::CgroupV2);
    let containerd = Containerd::start();
    let cgroup = format!("{}/ctr", containerd.engine.c.cgroups_path());
    let run =
        |flags: &[&str], id: &str, args: &[&str]| containerd.run(&[&["--cgroup", &cgroup], flags].concat(), id, args);
    run(&["--rm"], "one", &["echo", "hello", "--", "exit", "4"]).run().exits(4).line("hello");
    on_terminal(run(&["--rm", "--tty"], "one", &TERMINAL));
    run(&["--detach"], "two", &["trap", "HUP", "TERM"]).run().ok();
    let task = |args: &[&str]| containerd.task(args);
    task(&["exec", "--exec-id", "e1", "two", "/probe", "ids", "--", "exit", "6"]).exits(6).line("uid 0");
    task(&["pause", "two"]).ok();
    assert!(task(&["ls"]).ok().stdout.contains("PAUSED"));
    task(&["resume", "two"]).ok();
    assert!(task(&["ps", "two"]).ok().stdout.lines().count() > 1);
    containerd.end("two");
    let missing = containerd.ctr(&["run", "--rm", "--runc-binary"]).arg(runtime()).args(["--cgroup", &cgroup]);
    let missing = missing.arg("--rootfs").arg(containerd.engine.c.rootfs()).args(["three", "/nosuch"]);
    missing.run().fails("no such file or directory");
    containerd.wait_shims();
}

/// What the shim counts of a container, and what it leaves, in that cgroup.
fn metrics(flags: &[&str], name: &str) {
    let containerd = Containerd::start();
    let flags = [flags, &["--memory-limit", "67108864", "--detach"]].concat();
    containerd.run(&flags, name, &["fork", "1", "--", "sleep"]).run().ok();
    eventually("two processes", || {
        let out = containerd.task(&["metrics", "--format", "json", name]).ok();
        let metrics = out.json();
        assert_eq!(metrics["memory"]["usage_limit"].to_string().trim_matches('"'), "67108864", "{out}");
        (metrics["pids"]["current"].to_string().trim_matches('"') == "2").then_some(())
    });
    assert!(!traces(name).is_empty(), "no cgroup has the container's name");
    containerd.task(&["pause", name]).ok();
    containerd.task(&["resume", name]).ok();
    containerd.task(&["exec", "--exec-id", "e1", name, "/probe", "exit", "6"]).exits(6);
    containerd.end(name);
    containerd.wait_shims();
    eventually("no unit and no cgroup", || traces(name).is_empty().then_some(()));
}

#[test]
fn containerd_counts_with_cgroupfs() {
    deviates!("crun", "has other words");
    needs!(Need::Program("containerd"), Need::Program("ctr"), Need::CgroupV2);
    let name = format!("counted-{}", std::process::id());
    metrics(&["--cgroup", &format!("/vessel-ctr/{name}")], &name);
    let _ = fs::remove_dir(std::path::Path::new(CGROUP_ROOT).join("vessel-ctr"));
}

/// As the kubelet has it with `SystemdCgroup = true`.
#[test]
fn containerd_counts_with_systemd() {
    deviates!("crun", "has other words");
    needs!(Need::Program("containerd"), Need::Program("ctr"), Need::CgroupV2, Need::Systemd);
    let _calm = crate::systemd::calm();
    let name = format!("scoped-{}", std::process::id());
    let path = format!("vesseltest-ctr.slice:cri-containerd:{name}");
    metrics(&["--runc-systemd-cgroup", "--cgroup", &path], &name);
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}
