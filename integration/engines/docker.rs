//! Docker, which drives the runtime through containerd.

use super::{Engine, TERMINAL, on_terminal, traces};
use crate::harness::{Cmd, Need, eventually, runtime};
use crate::{deviates, needs};

/// A dockerd of the test's own.
struct Docker {
    engine: Engine,
    host: String,
}

impl Docker {
    /// With that `native.cgroupdriver`, and the root filesystem as `image`.
    fn start(driver: &str) -> Docker {
        let mut engine = Engine::podman();
        let dir = engine.c.dir.clone();
        let host = format!("unix://{}", engine.short.join("socket").display());
        let daemon = Cmd::new("dockerd").args(["--host", &host]).arg("--data-root").arg(dir.join("lib"));
        let daemon = daemon.arg("--exec-root").arg(engine.short.join("run")).arg("--pidfile").arg(dir.join("pid"));
        let daemon = daemon.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]);
        let daemon = daemon.args(["--exec-opt", &format!("native.cgroupdriver={driver}"), "--cgroup-parent"]);
        let parent = if driver == "systemd" { "vesseltest-docker.slice" } else { engine.c.cgroups_path() };
        let daemon = daemon.arg(parent).arg("--add-runtime").arg(format!("tested={}", runtime().display()));
        engine.daemon = Some(daemon.timeout(600).spawn());
        let docker = Docker { engine, host };
        docker.engine.wait_for_daemon(|| docker.cmd(&["version"]));
        docker.cmd(&["import"]).arg(docker.engine.tarball()).arg("image").run().ok();
        docker
    }

    fn cmd(&self, args: &[&str]) -> Cmd {
        let home = self.engine.c.dir.as_os_str();
        Cmd::new("docker").env("HOME", home).timeout(120).args(["--host", &self.host]).args(args)
    }

    /// `docker run`, to be changed and run.
    fn run(&self, flags: &[&str], args: &[&str]) -> Cmd {
        self.cmd(&["run", "--runtime", "tested", "--network", "none"]).args(flags).arg("image").args(args)
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[test]
fn docker_runs_containers() {
    deviates!("crun", "has other words");
    needs!(Need::Program("dockerd"), Need::CgroupV2);
    let engine = Docker::start("cgroupfs");
    let docker = |args: &[&str]| engine.cmd(args);
    let run = |flags: &[&str], args: &[&str]| engine.run(flags, args);
    run(&["--rm"], &["/probe", "echo", "hello", "--", "exit", "9"]).run().exits(9).line("hello");
    run(&["--rm"], &["/nosuch"]).run().exits(127);
    run(&["--rm"], &["/etc/passwd"]).run().exits(126);
    let flags = "--rm --user 5:6 --read-only --cap-drop all --memory 64m --pids-limit 50 --tmpfs /tmp --init";
    let probe =
        "/probe ids -- caps -- try-write /x -- cat /sys/fs/cgroup/memory.max -- cat /sys/fs/cgroup/pids.max -- pid";
    let out = run(&words(flags), &words(probe)).run().ok().line("uid 5").line("CapBnd 0000000000000000");
    let out = out.line("write EROFS").line("67108864").line("50");
    assert_ne!(out.value("pid"), "1", "{out}");

    run(&["-d", "--name", "one"], &["/probe", "trap", "HUP", "TERM"]).run().ok();
    docker(&["exec", "one", "/probe", "ids", "--", "exit", "5"]).run().exits(5).line("uid 0");
    on_terminal(docker(&["exec", "-it", "one", "/probe"]).args(TERMINAL));
    docker(&["update", "--memory", "32m", "--memory-swap", "-1", "one"]).run().ok();
    docker(&["exec", "one", "/probe", "cat", "/sys/fs/cgroup/memory.max"]).run().ok().line("33554432");
    docker(&["restart", "one"]).run().ok();
    docker(&["stop", "one"]).run().ok();
    let logs = docker(&["logs", "one"]).run().ok();
    assert_eq!(logs.stdout.matches("ready\nsignal TERM\n").count(), 2, "{logs}");
    docker(&["rm", "one"]).run().ok();
}

/// Limits of one container, and cgroups that it makes itself.
fn cgroups(driver: &str) {
    let _calm = crate::systemd::calm();
    let engine = Docker::start(driver);
    let docker = |args: &[&str]| engine.cmd(args).run();
    engine.run(&words("-d --name one --memory 64m --pids-limit 50"), &words("/probe fork 1 -- trap TERM")).run().ok();
    let id = docker(&["inspect", "--format", "{{.Id}}", "one"]).ok().stdout.trim().to_owned();
    let stats = || docker(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "one"]).ok().stdout;
    let shown = stats();
    assert!(shown.starts_with("2 ") && shown.ends_with(" / 64MiB\n"), "{shown}");
    docker(&words("update --memory 32m --memory-swap 32m --pids-limit 20 --cpus 0.5 one")).ok();
    let shown = stats();
    assert!(shown.starts_with("2 ") && shown.ends_with(" / 32MiB\n"), "{shown}");
    let files = ["memory.max", "pids.max", "cpu.max"].map(|name| format!("cat /sys/fs/cgroup/{name}")).join(" -- ");
    let out = docker(&[&["exec", "one", "/probe"][..], &words(&files)].concat()).ok();
    assert_eq!(out.stdout, "33554432\n20\n50000 100000\n", "{out}");
    docker(&["pause", "one"]).ok();
    docker(&["unpause", "one"]).ok();
    assert!(docker(&["top", "one"]).ok().stdout.lines().count() == 3);
    docker(&["stop", "one"]).ok();
    docker(&["rm", "one"]).ok();
    eventually("no unit and no cgroup", || traces(&id).is_empty().then_some(()));

    // What Docker inside would do: a cgroup below for itself, and controllers for others.
    let at = "/sys/fs/cgroup";
    let inside = format!(
        "/probe caps -- cgroup -- mkdir {at}/own -- write {at}/own/cgroup.procs 0 -- mkdir {at}/other \
         -- write {at}/cgroup.subtree_control +memory -- write {at}/other/memory.max 16777216 \
         -- cat {at}/other/memory.max -- cgroup"
    );
    engine.run(&words("-d --name two --privileged --cgroupns private"), &words(&inside)).run().ok();
    let id = docker(&["inspect", "--format", "{{.Id}}", "two"]).ok().stdout.trim().to_owned();
    assert_eq!(docker(&["wait", "two"]).ok().stdout, "0\n");
    let out = docker(&["logs", "two"]).ok().line("0::/").line("0::/own").line("16777216");
    assert_eq!(out.value("CapEff"), out.value("CapBnd"));
    docker(&["rm", "two"]).ok();
    eventually("no unit and no cgroup", || traces(&id).is_empty().then_some(()));
    let out = engine.run(&words("--rm --cgroupns host"), &["/probe", "cgroup"]).run().ok();
    assert_ne!(out.stdout, "0::/\n", "{out}");
}

#[test]
fn docker_with_cgroupfs() {
    deviates!("crun", "has other words");
    needs!(Need::Program("dockerd"), Need::CgroupV2);
    cgroups("cgroupfs");
}

#[test]
fn docker_with_systemd() {
    deviates!("crun", "has other words");
    needs!(Need::Program("dockerd"), Need::CgroupV2, Need::Systemd);
    cgroups("systemd");
}
