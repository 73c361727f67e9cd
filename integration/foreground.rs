//! `run` and `exec` in the foreground: signals, streams, exit codes.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;

use crate::harness::{Container, Need};
use crate::{deviates, needs};

#[test]
fn signals_reach_the_program() {
    let c = Container::new(["trap", "HUP", "INT", "QUIT", "USR1", "USR2", "CONT", "TERM"]);
    let mut run = c.run_cmd().spawn();
    run.wait_for("ready");
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGCONT, "CONT"),
        (Signal::SIGTERM, "TERM"),
    ] {
        run.signal(signal);
        run.wait_for(&format!("signal {name}\n"));
    }
    run.wait().ok();
    c.nothing_left();
}

#[test]
fn signals_reach_an_executed_process_too() {
    let c = Container::new(["sleep"]);
    c.started();
    let mut exec = c.exec_cmd(&[], ["trap", "USR1", "TERM"]).spawn();
    exec.wait_for("ready");
    exec.signal(Signal::SIGUSR1);
    exec.wait_for("signal USR1");
    exec.signal(Signal::SIGTERM);
    exec.wait().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_change_of_the_window_is_not_passed_on_without_a_terminal() {
    let c = Container::new(["trap", "WINCH", "TERM"]);
    let mut run = c.run_cmd().spawn();
    run.wait_for("ready");
    run.signal(Signal::SIGWINCH);
    run.signal(Signal::SIGTERM);
    let out = run.wait().ok();
    assert!(!out.stdout.contains("WINCH"), "{out}");
}

#[test]
fn the_exit_code_of_a_signal_is_128_and_its_number() {
    let c = Container::new(["sleep"]);
    c.started();
    c.exec(["signal-exit", "15"]).exits(143);
    c.exec(["signal-exit", "9"]).exits(137);
    c.exec(["exit", "42"]).exits(42);
    let c = Container::new(["echo", "up", "--", "sleep"]);
    let mut run = c.run_cmd().spawn();
    run.wait_for("up");
    c.kill("KILL").ok();
    run.wait().exits(137);
}

#[test]
fn a_real_time_signal_has_a_code_too() {
    let c = Container::new(["sleep"]);
    c.started();
    c.exec(["signal-exit", "34"]).exits(162);
}

#[test]
fn the_program_reads_what_the_runtime_is_given() {
    let c = Container::new(["stdin"]);
    c.run_cmd().stdin("some text").run().ok().line("stdin some text");
}

#[test]
fn a_pipe_ends_when_the_program_ends() {
    let c = Container::new(["echo", "through a pipe"]);
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let errors = std::process::Stdio::null();
    let mut run = c.run_cmd().streams(std::process::Stdio::null(), writer, errors).spawn();
    assert_eq!(read_to_end(reader), "through a pipe\n");
    run.wait().ok();
}

fn read_to_end(fd: OwnedFd) -> String {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn orphans_of_a_container_without_a_pid_namespace_are_reaped() {
    needs!(Need::Busybox);
    deviates!("crun", "does not become a subreaper");
    let mut c = Container::new(["unused"]);
    let dir = c.dir.display().to_string();
    c.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        let mount = serde_json::json!({"destination": "/t", "type": "bind", "source": dir, "options": ["bind", "rw"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
        config["root"]["readonly"] = serde_json::json!(false);
        // A child of the program's child is nobody's when that ends.
        config["process"]["args"] = serde_json::json!([
            "/bin/sh",
            "-c",
            "(/bin/sleep 0.05 & ) ; echo up; while ! test -e /t/go; do /bin/sleep 0.02; done"
        ]);
    });
    c.busybox();
    let mut run = c.run_cmd().spawn();
    run.wait_for("up");
    let zombies = || {
        let of_run = |stat: &str| {
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[0] == "Z" && fields[1] == run.pid().to_string()
        };
        let stats = std::fs::read_dir("/proc").unwrap().flatten();
        stats.filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok()).any(|stat| of_run(&stat))
    };
    // The orphan ends while the program waits, and is seen as a zombie for a moment at most.
    std::thread::sleep(std::time::Duration::from_millis(100));
    crate::harness::eventually("no zombies of the runtime", || (!zombies()).then_some(()));
    std::fs::write(c.path("go"), "").unwrap();
    run.wait().ok();
}
