//! Docker, which drives the runtime through containerd.

use super::{Engine, TERMINAL, on_terminal};
use crate::harness::{Cmd, Need, eventually, runtime};
use crate::{deviates, needs};

#[test]
fn docker_runs_containers() {
    deviates!("crun", "has other words");
    needs!(Need::Program("dockerd"), Need::CgroupV2);
    let mut engine = Engine::podman();
    let dir = engine.c.dir.clone();
    let host = format!("unix://{}", engine.short.join("socket").display());
    let daemon = Cmd::new("dockerd").args(["--host", &host]).arg("--data-root").arg(dir.join("lib"));
    let daemon = daemon.arg("--exec-root").arg(dir.join("run")).arg("--pidfile").arg(dir.join("pid"));
    let daemon = daemon.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]);
    let daemon = daemon.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent"]);
    let daemon = daemon.arg(engine.c.cgroups_path()).arg("--add-runtime");
    engine.daemon = Some(daemon.arg(format!("tested={}", runtime().display())).timeout(60).spawn());
    let docker =
        |args: &[&str]| Cmd::new("docker").env("HOME", dir.as_os_str()).timeout(120).args(["--host", &host]).args(args);
    eventually("dockerd", || (docker(&["version"]).run().code == 0).then_some(()));
    docker(&["import"]).arg(engine.tarball()).arg("image").run().ok();
    let run = |flags: &[&str], args: &[&str]| {
        docker(&["run", "--runtime", "tested", "--network", "none"]).args(flags).arg("image").args(args)
    };
    run(&["--rm"], &["/probe", "echo", "hello", "--", "exit", "9"]).run().exits(9).line("hello");
    run(&["--rm"], &["/nosuch"]).run().exits(127);
    run(&["--rm"], &["/etc/passwd"]).run().exits(126);
    let flags = "--rm --user 5:6 --read-only --cap-drop all --memory 64m --pids-limit 50 --tmpfs /tmp --init";
    let probe =
        "/probe ids -- caps -- try-write /x -- cat /sys/fs/cgroup/memory.max -- cat /sys/fs/cgroup/pids.max -- pid";
    let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
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
