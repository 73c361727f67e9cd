//! Terminals (config.md, "process.terminal" and "process.consoleSize"): with a console socket and without.

use std::fs::{self, File};
use std::io::Write;

use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{ConsoleSocket, Container, Need, Output, Pty};
use crate::{deviates, needs};

fn terminal<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Container {
    Container::with(args, |config| config["process"]["terminal"] = json!(true))
}

/// `create` with a console socket; the master, and the name that came with it.
fn created(c: &Container) -> (File, String) {
    let socket = ConsoleSocket::new(&c.path("console"));
    let mut create = c.create_cmd_with(&["--console-socket", socket.path.to_str().unwrap()]).spawn();
    let (master, name) = socket.receive();
    create.wait().ok();
    (master.into(), name)
}

fn set_size(master: &File, rows: u16, columns: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).unwrap();
}

#[test]
fn a_console_socket_gets_the_master() {
    let mut c = terminal(["isatty", "--", "winsize", "--", "stat", "/dev/console", "--", "readline"]);
    c.edit(|config| config["process"]["consoleSize"] = json!({"height": 33, "width": 111}));
    let (mut master, name) = created(&c);
    assert!(!name.is_empty() && name.len() < 4096, "{name:?}");
    c.start().ok();
    let text = crate::harness::read_until(&master, "rdev=136:");
    for fd in 0..3 {
        assert!(text.contains(&format!("isatty {fd} true")), "{text}");
    }
    assert!(text.contains("winsize 33x111"), "{text}");
    assert!(text.contains("stat /dev/console char"), "{text}");
    master.write_all(b"typed\n").unwrap();
    crate::harness::read_until(&master, "line typed");
    assert_eq!(c.wait_exit(), 0);
}

#[test]
fn a_size_that_no_terminal_can_have_is_refused() {
    deviates!("runc", "takes what is left of it in 16 bits");
    deviates!("crun", "takes what is left of it in 16 bits");
    let mut c = terminal(["echo"]);
    c.edit(|config| config["process"]["consoleSize"] = json!({"height": 33, "width": 65536}));
    let socket = ConsoleSocket::new(&c.path("console"));
    let create = c.create_cmd_with(&["--console-socket", socket.path.to_str().unwrap()]).run();
    create.exits(1).fails("process.consoleSize.width: 65536 is above 65535");
    c.nothing_left();
    c.edit(|config| config["process"]["terminal"] = json!(false));
    c.run().ok();
}

#[test]
fn an_executed_process_gets_a_terminal_of_its_own() {
    let c = Container::new(["sleep"]);
    c.started();
    let socket = ConsoleSocket::new(&c.path("console"));
    let pid_file = c.path("exec.pid");
    let flags = ["--tty", "--detach", "--pid-file", pid_file.to_str().unwrap(), "--console-socket"];
    let flags = [&flags[..], &[socket.path.to_str().unwrap()]].concat();
    let mut exec = c.exec_cmd(&flags, ["isatty", "--", "readline"]).spawn();
    let master = File::from(socket.receive().0);
    exec.wait().ok();
    crate::harness::read_until(&master, "isatty 2 true");
    (&master).write_all(b"typed\n").unwrap();
    crate::harness::read_until(&master, "line typed");
    // Like a monitor, or the container's pid namespace could not end.
    let pid = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert_eq!(waitpid(Pid::from_raw(pid), None), Ok(WaitStatus::Exited(Pid::from_raw(pid), 0)));
}

#[test]
fn a_terminal_and_a_socket_go_together_when_the_runtime_detaches() {
    deviates!("crun", "has other texts");
    let mut c = terminal(["echo"]);
    c.create().exits(1).fails("cannot allocate tty if");
    c.command("run", ["--detach", "--bundle"])
        .arg(c.bundle())
        .arg(&c.id)
        .run()
        .exits(1)
        .fails("cannot allocate tty if");
    let socket = ConsoleSocket::new(&c.path("console"));
    let with_socket =
        c.command("run", ["--console-socket"]).arg(&socket.path).arg("--bundle").arg(c.bundle()).arg(&c.id);
    with_socket.run().exits(1).fails("cannot use console socket if");
    c.edit(|config| config["process"]["terminal"] = json!(false));
    let flags = ["--console-socket", socket.path.to_str().unwrap()];
    c.create_cmd_with(&flags).run().exits(1).fails("cannot use console socket if");
    c.nothing_left();
}

#[test]
fn a_socket_that_nobody_listens_on_is_an_error() {
    deviates!("crun", "has other words");
    let c = terminal(["echo"]);
    let path = c.path("nobody");
    c.create_cmd_with(&["--console-socket", path.to_str().unwrap()]).run().exits(1).fails("no such file or directory");
    c.nothing_left();
}

/// Runs the container in the foreground on a terminal of the test.
fn on_a_terminal(c: &Container, rows: u16, columns: u16) -> (Pty, crate::harness::Running) {
    let mut pty = Pty::new();
    set_size(&pty.master, rows, columns);
    let slave = pty.take_slave();
    let run = c.run_cmd().terminal(slave.try_clone().unwrap()).spawn();
    // Kept, or the terminal would lose its modes with the last of its users.
    pty.slave = Some(slave);
    (pty, run)
}

fn is_raw(pty: &Pty) -> bool {
    !tcgetattr(&pty.master).unwrap().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
}

#[test]
fn in_the_foreground_the_terminal_is_copied() {
    deviates!("runc" before 1.2, "sets the size of the terminal late");
    deviates!("crun", "sets the size of the terminal late");
    let c = terminal(["winsize", "--", "trap", "WINCH", "INT", "--", "readline", "--", "exit", "9"]);
    let (mut pty, mut run) = on_a_terminal(&c, 40, 120);
    let text = pty.read_until("ready");
    assert!(text.contains("winsize 40x120"), "{text}");
    assert!(is_raw(&pty));
    set_size(&pty.master, 50, 130);
    let text = pty.read_until("signal WINCH");
    let text = if text.contains("50x130") { text } else { text + &pty.read_until("x") };
    assert!(text.contains("50x"), "{text}");
    // Typed, not sent: it is the container's terminal that makes a signal of it.
    pty.master.write_all(b"\x03").unwrap();
    pty.read_until("signal INT");
    pty.master.write_all(b"typed\r").unwrap();
    pty.read_until("line typed");
    run.wait().exits(9);
    assert!(!is_raw(&pty), "the terminal is left raw");
}

#[test]
fn our_terminal_is_restored_whatever_ends_the_program() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let c = terminal(["trap", "HUP", "TERM", "--", "echo", "no end"]);
        let (mut pty, mut run) = on_a_terminal(&c, 24, 80);
        pty.read_until("ready");
        assert!(is_raw(&pty));
        run.signal(signal);
        if signal == Signal::SIGHUP {
            pty.read_until("signal HUP");
            c.kill("KILL").ok();
            run.wait().exits(137);
        } else {
            run.wait().ok();
        }
        assert!(!is_raw(&pty), "the terminal is left raw");
    }
}

#[test]
fn the_modes_are_untouched_when_the_container_cannot_be_made() {
    let c = Container::with(["echo"], |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["args"] = json!(["/no/such/program"]);
    });
    let (pty, mut run) = on_a_terminal(&c, 24, 80);
    assert_ne!(run.wait().code, 0);
    assert!(!is_raw(&pty));
}

#[test]
fn all_output_comes_before_the_end() {
    deviates!("crun", "wants a terminal of its own");
    needs!(Need::Busybox);
    deviates!("runc", "wants a terminal of its own");
    let mut c = terminal(["unused"]);
    c.busybox();
    c.edit(|config| {
        let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 4";
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    });
    // The runtime's own streams are files.
    let out: Output = c.run().exits(4);
    assert_eq!(out.stdout.lines().count(), 20_000);
    assert!(out.stdout.ends_with("line 19999\n"));
}

#[test]
fn whoever_goes_on_writing_is_not_waited_for() {
    deviates!("crun", "wants a terminal of its own");
    needs!(Need::Busybox);
    deviates!("runc", "wants a terminal of its own");
    let c = Container::new(["sleep"]);
    c.busybox();
    c.started();
    let script = "trap '' HUP; while :; do echo more; done & exit 3";
    let args = ["--tty", &c.id, "/bin/sh", "-c", script];
    let out = c.command("exec", args).timeout(20).run().exits(3);
    assert!(out.stdout.contains("more") || out.stdout.is_empty(), "{out}");
    c.command("kill", ["--all", &c.id, "KILL"]).run().ok();
}

#[test]
fn the_terminal_belongs_to_the_user_of_the_process() {
    let mut c = terminal(["stat", "/dev/console", "--", "echo", "end"]);
    c.edit(|config| config["process"]["user"] = json!({"uid": 1234, "gid": 1234}));
    let (master, _) = created(&c);
    c.start().ok();
    let text = crate::harness::read_until(&master, "end");
    assert!(text.contains("uid=1234"), "{text}");
    assert_eq!(c.wait_exit(), 0);
}

#[test]
fn a_console_that_is_a_link_leads_nowhere() {
    let mut c = terminal(["stat", "/dev/console"]);
    let canary = c.path("canary");
    fs::write(&canary, "untouched").unwrap();
    // The image brings its own /dev, with a link that would lead into the host.
    fs::create_dir(c.rootfs().join("dev/pts")).unwrap();
    std::os::unix::fs::symlink(&canary, c.rootfs().join("dev/console")).unwrap();
    c.edit(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !["/dev", "/dev/shm", "/dev/mqueue"].contains(&m["destination"].as_str().unwrap()));
        config["root"]["readonly"] = json!(false);
    });
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let mut pty = Pty::new();
    let slave = pty.take_slave();
    let out = c.run_cmd().terminal(slave).spawn().wait();
    if crate::harness::runtime_kind() == "vessel" {
        assert_eq!(out.code, 1);
    }
    assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), before);
}

/// Without a mount namespace of its own the container has the terminals of the host.
#[test]
fn a_terminal_without_a_mount_namespace() {
    deviates!("runc", "mounts on the host");
    deviates!("crun", "mounts on the host");
    let mut c = terminal(["isatty"]);
    c.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "mount");
        config["linux"].as_object_mut().unwrap().retain(|name, _| !name.ends_with("Paths"));
        config["mounts"] = json!([]);
        config["root"]["readonly"] = json!(false);
    });
    let (master, _) = created(&c);
    c.start().ok();
    crate::harness::read_until(&master, "isatty 2 true");
    assert_eq!(c.wait_exit(), 0);
}

#[test]
fn a_directory_in_place_of_the_devpts_is_refused() {
    deviates!("runc" before 1.4, "makes the terminal elsewhere");
    deviates!("crun", "makes the terminal elsewhere");
    let mut c = terminal(["stat", "/dev/console"]);
    let hostile = c.path("pts");
    fs::create_dir(&hostile).unwrap();
    std::os::unix::fs::symlink("/proc/sysrq-trigger", hostile.join("0")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", hostile.join("ptmx")).unwrap();
    c.edit(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev/pts" {
                *mount = json!({
                    "destination": "/dev/pts", "type": "bind", "source": hostile.to_str().unwrap(), "options": ["rbind"]
                });
            }
        }
    });
    let socket = ConsoleSocket::new(&c.path("console"));
    c.create_cmd_with(&["--console-socket", socket.path.to_str().unwrap()]).run().exits(1).fails("devpts");
    c.nothing_left();
}
