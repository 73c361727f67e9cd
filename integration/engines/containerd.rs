//! containerd, which drives the runtime through its shim.

use std::fs;

use super::{Engine, TERMINAL, on_terminal};
use crate::harness::{Cmd, Need, eventually, runtime};
use crate::{deviates, needs};

#[test]
fn containerd_drives_it_through_its_shim() {
    deviates!("crun", "has other words");
    needs!(Need::Program("containerd"), Need::Program("ctr"), Need::CgroupV2);
    let mut engine = Engine::podman();
    let dir = engine.c.dir.clone();
    let config = dir.join("containerd.toml");
    let settings =
        "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";
    fs::write(&config, settings).unwrap();
    let daemon = Cmd::new("containerd").arg("--config").arg(&config).arg("--root").arg(dir.join("lib"));
    let daemon = daemon.arg("--state").arg(dir.join("run")).arg("--address").arg(engine.short.join("socket"));
    engine.daemon = Some(daemon.timeout(30).spawn());
    let ctr = |args: &[&str]| Cmd::new("ctr").arg("--address").arg(engine.short.join("socket")).args(args);
    eventually("containerd", || (ctr(&["version"]).run().code == 0).then_some(()));
    let cgroup = format!("{}/ctr", engine.c.cgroups_path());
    let run = |flags: &[&str], id: &str, args: &[&str]| {
        let cmd = ctr(&["run", "--runc-binary"]).arg(runtime()).args(["--cgroup", &cgroup]).args(flags);
        cmd.arg("--rootfs").arg(engine.c.rootfs()).arg(id).arg("/probe").args(args)
    };
    run(&["--rm"], "one", &["echo", "hello", "--", "exit", "4"]).run().exits(4).line("hello");
    on_terminal(run(&["--rm", "--tty"], "one", &TERMINAL));
    run(&["--detach"], "two", &["trap", "HUP", "TERM"]).run().ok();
    let task = |args: &[&str]| ctr(&["task"]).args(args).run();
    task(&["exec", "--exec-id", "e1", "two", "/probe", "ids", "--", "exit", "6"]).exits(6).line("uid 0");
    task(&["pause", "two"]).ok();
    assert!(task(&["ls"]).ok().stdout.contains("PAUSED"));
    task(&["resume", "two"]).ok();
    assert!(task(&["ps", "two"]).ok().stdout.lines().count() > 1);
    task(&["kill", "--signal", "KILL", "two"]).ok();
    eventually("the end of the task", || task(&["ls"]).ok().stdout.contains("STOPPED").then_some(()));
    let deleted = task(&["delete", "two"]);
    assert!(deleted.code == 137 || deleted.stderr.contains("exit code 137"), "{deleted}");
    ctr(&["container", "delete", "two"]).run().ok();
    let missing = ctr(&["run", "--rm", "--runc-binary"]).arg(runtime()).args(["--cgroup", &cgroup, "--rootfs"]);
    missing.arg(engine.c.rootfs()).args(["three", "/nosuch"]).run().fails("no such file or directory");
    eventually("the end of the shims", || {
        let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let socket = engine.short.join("socket").display().to_string();
        (!processes().any(|pid| comm(pid).contains("shim") && comm(pid).contains(&socket))).then_some(())
    });
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}
