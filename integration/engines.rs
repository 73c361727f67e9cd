//! Engines that drive the runtime: what they ask for is more than any list of flags tells.

use std::fs;

use crate::harness::{Cmd, Container, Need, User, runtime};
use crate::{deviates, needs};

/// podman with a storage of its own in the test's directory.
fn podman(c: &Container) -> Cmd {
    let cmd = Cmd::new("podman").env("HOME", c.dir.as_os_str()).timeout(180).cwd(&c.dir);
    let cmd = cmd.arg("--root").arg(c.path("storage")).arg("--runroot").arg(c.path("run"));
    let cmd = cmd.arg("--tmpdir").arg(c.path("tmp")).args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
    cmd.arg("--runtime").arg(runtime())
}

fn run(c: &Container, flags: &[&str], args: &[&str]) -> Cmd {
    let cmd = podman(c).args(["run", "--network", "none", "--security-opt", "label=disable"]).args(flags);
    cmd.arg("--rootfs").arg(c.rootfs()).arg("/probe").args(args)
}

#[test]
fn podman_runs_containers() {
    needs!(Need::Program("podman"), Need::CgroupV2);
    let c = Container::new(["echo"]);
    run(&c, &["--rm"], &["echo", "hello"]).run().ok().line("hello");
    run(&c, &["--rm"], &["exit", "7"]).run().exits(7);
    run(&c, &["--rm", "-i"], &["stdin"]).stdin("words").run().ok().line("stdin words");
    let out = run(&c, &["--rm", "-t"], &["isatty"]).run().ok();
    assert!(out.stdout.contains("isatty 0 true"), "{out}");
    let missing = podman(&c).args(["run", "--rm", "--network", "none", "--rootfs"]).arg(c.rootfs()).arg("nosuch").run();
    missing.exits(127);
}

#[test]
fn podman_takes_a_container_through_its_life() {
    needs!(Need::Program("podman"), Need::CgroupV2);
    let c = Container::new(["echo"]);
    let run =
        run(&c, &["--detach", "--name", "first", "--memory", "64m", "--pids-limit", "50"], &["trap", "HUP", "TERM"]);
    run.run().ok();
    let act = |args: &[&str]| podman(&c).args(args).run();
    act(&["exec", "first", "/probe", "ids"]).ok().line("uid 0");
    act(&["exec", "first", "/probe", "exit", "9"]).exits(9);
    act(&["exec", "-t", "first", "/probe", "isatty"]).ok();
    act(&["exec", "first", "/nosuch"]).exits(127);
    act(&["pause", "first"]).ok();
    act(&["unpause", "first"]).ok();
    act(&["kill", "--signal", "HUP", "first"]).ok();
    act(&["stop", "--time", "20", "first"]).ok();
    let logs = act(&["logs", "first"]).ok();
    assert_eq!(logs.stdout.lines().collect::<Vec<_>>(), ["ready", "signal HUP", "signal TERM"], "{logs}");
    act(&["rm", "first"]).ok();
}

#[test]
fn podman_of_an_ordinary_user_runs_containers() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    deviates!("crun", "podman gives it other flags");
    let c = Container::new(["echo"]);
    let user = User::ordinary();
    fs::create_dir(c.path("home")).unwrap();
    c.own(&user);
    let own = |cmd: Cmd| {
        let session = format!("/run/user/{}", user.uid);
        let bus = format!("unix:path={session}/bus");
        cmd.user(&user).env("HOME", c.path("home")).env("XDG_RUNTIME_DIR", session).env("DBUS_SESSION_BUS_ADDRESS", bus)
    };
    let out = own(run(&c, &["--rm"], &["ids"])).run().ok();
    out.line("uid 0");
    own(run(&c, &["--rm", "--user", "1000:1001"], &["ids"])).run().ok().line("uid 1000").line("gid 1001");
    // Her podman keeps a process that holds its user namespace.
    let pause = fs::read_to_string(format!("/run/user/{}/libpod/tmp/pause.pid", user.uid)).unwrap();
    let pause = nix::unistd::Pid::from_raw(pause.trim().parse().unwrap());
    nix::sys::signal::kill(pause, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(pause, None).unwrap();
}
