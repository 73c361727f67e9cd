//! What could hold a command up for ever: another command on the same container, an agent that is not there, files of the
//! image that block whoever reads them, limits that leave no room.

use serde_json::json;

use crate::harness::{Cmd, Container, Need, receive_fd, runtime};
use crate::{deviates, needs};

/// Seconds that a command may take at most.
const PATIENCE: u64 = 8;

#[test]
fn a_container_that_runs_in_the_foreground_obeys_other_commands() {
    let c = Container::new(["sleep"]);
    let mut foreground = c.run_cmd().spawn();
    let known = || c.command("state", [&c.id]).run().code == 0;
    crate::harness::eventually("the container", || known().then_some(()));
    c.wait_status("running");
    for (command, status) in [("pause", "paused"), ("resume", "running")] {
        c.command(command, [&c.id]).timeout(PATIENCE).run().ok();
        assert_eq!(c.status(), status);
    }
    c.command("delete", ["--force", &c.id]).timeout(PATIENCE).run().ok();
    assert_eq!(foreground.wait().code, 137);
    c.nothing_left();
}

#[test]
fn a_fifo_in_the_image_is_no_file_to_wait_for() {
    deviates!("crun", "waits for whoever opens it");
    deviates!("runc", "waits for whoever opens it");
    let c = Container::new(["env"]);
    let passwd = c.rootfs().join("etc/passwd");
    std::fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    c.run_cmd().timeout(PATIENCE).run().ok().line("HOME=/");

    let mut c = Container::new(["sleep"]);
    nix::unistd::mkfifo(&c.rootfs().join("tmp/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    c.edit(|config| config["process"]["args"] = json!(["/tmp/fifo"]));
    c.run_cmd().timeout(PATIENCE).run().fails("/tmp/fifo");
    c.nothing_left();
}

#[test]
fn an_agent_that_is_not_there_ends_the_process_at_once() {
    deviates!("crun", "wants it in create already");
    deviates!("runc", "wants it in create already");
    let mut c = Container::new(["sleep"]);
    let path = c.path("agent");
    c.edit(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path.to_str(),
            "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
    });
    c.create().ok();
    c.command("start", [&c.id]).timeout(PATIENCE).run().fails("seccomp agent");

    let agent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let c = Container::with(["sleep"], |config| *config = c.config.clone());
    let served = std::thread::spawn(move || receive_fd(&agent.accept().unwrap().0));
    c.started();
    served.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    c.exec_cmd(&[], ["echo"]).timeout(PATIENCE).run().exits(255).fails("seccomp agent");
}

#[test]
fn a_low_limit_of_open_files_is_the_programs_alone() {
    deviates!("crun", "fails where it needs more itself");
    deviates!("runc", "fails where init itself needs more");
    let limits = |text: &str| -> Vec<String> {
        let line = text.lines().find(|l| l.starts_with("Max open files")).expect("the limit").to_owned();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect()
    };
    let c = Container::with(["echo", "ran"], |config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 4}]);
    });
    c.create().ok();
    c.command("start", [&c.id]).timeout(PATIENCE).run().ok();
    c.wait_for("ran");

    let mut c = Container::with(["rlimits"], |config| {
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}]);
    });
    assert_eq!(limits(&c.run_cmd().timeout(PATIENCE).run().ok().stdout), ["5", "6"]);
    c.program(["sleep"]);
    c.started();
    assert_eq!(limits(&c.exec_cmd(&[], ["rlimits"]).timeout(PATIENCE).run().ok().stdout), ["5", "6"]);
}

#[test]
fn a_timeout_of_ages_is_no_fault() {
    deviates!("crun", "takes no such number");
    deviates!("runc", "takes it for a negative one");
    let c = Container::with(["echo", "ran"], |config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "timeout": i64::MAX}]});
    });
    c.run().ok().line("ran");
}

#[test]
fn kill_ends_all_of_a_container_in_a_joined_pid_namespace() {
    deviates!("runc" before 1.2, "kills init alone");
    deviates!("crun", "kills init alone");
    let pod = Container::new(["sleep"]);
    pod.started();
    let c = Container::with(["fork", "2", "--", "sleep"], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "pid");
        namespaces.push(json!({"type": "pid", "path": format!("/proc/{}/ns/pid", pod.pid())}));
    });
    c.started();
    let pids = || c.command("ps", ["--format", "json", &c.id]).run().ok().json().as_array().map_or(0, Vec::len);
    crate::harness::eventually("the children", || (pids() == 3).then_some(()));
    c.kill("KILL").ok();
    crate::harness::eventually("the end of all", || (pids() == 0).then_some(()));
    assert_eq!(pod.status(), "running");
    // The dead are left to the pod's init, which itself ends after all others in its namespace.
    c.wait_exit();
    pod.kill("KILL").ok();
    pod.wait_exit();
}

#[test]
fn kill_reaches_init_where_there_is_no_cgroup() {
    deviates!("runc", "has no --cgroup-manager");
    let mut c = Container::with(["sleep"], |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        config["linux"].as_object_mut().unwrap().remove("resources");
    });
    c.global(&["--cgroup-manager", "disabled"]);
    c.started();
    c.kill("KILL").ok();
    assert_eq!(c.wait_exit(), 137);
}

#[test]
fn kill_of_all_takes_a_stopped_container_with_a_cgroup_or_without() {
    deviates!("crun", "has other words");
    for c in [Container::new(["sleep"]), Container::rootless(["sleep"])] {
        c.started();
        c.kill("KILL").ok();
        c.wait_status("stopped");
        c.kill("0").exits(1).fails("not running");
        c.command("kill", ["--all", &c.id, "0"]).run().ok();
    }
}

/// Leaves a container no pid namespace of its own.
fn share_pids(c: &mut Container) {
    c.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        // A proc of its own takes a pid namespace of its own.
        let mounts = config["mounts"].as_array_mut().unwrap();
        let proc = mounts.iter_mut().find(|m| m["destination"] == "/proc").unwrap();
        *proc = json!({"destination": "/proc", "source": "/proc", "options": ["rbind", "nosuid", "nodev", "noexec"]});
    });
}

/// Its other processes may live on, and nobody knows them.
#[test]
fn kill_of_all_does_not_claim_what_it_cannot_know() {
    deviates!("runc", "says that it is done");
    deviates!("crun", "has other words");
    let mut c = Container::rootless(["sleep"]);
    share_pids(&mut c);
    c.started();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.command("kill", ["--all", &c.id, "KILL"]).run().exits(1).fails("not running");
}

#[test]
fn a_container_whose_processes_nothing_holds_together_is_a_warning() {
    deviates!("runc" before 1.2, "says nothing");
    deviates!("crun", "says nothing");
    let mut c = Container::rootless(["echo", "ran"]);
    assert_eq!(c.run().ok().line("ran").stderr, "");
    share_pids(&mut c);
    let out = c.run().ok().line("ran");
    let warned = |line: &str| line.contains("level=warning") && line.contains("is strongly discouraged");
    assert!(out.stderr.lines().any(warned), "{out}");
}

#[test]
fn the_program_ignores_no_signal_that_its_caller_does() {
    deviates!("runc", "hands them on");
    let c = Container::new(["status"]);
    let shell = Cmd::new("/bin/sh").args(["-c", "trap '' INT QUIT; exec \"$@\"", "sh"]).arg(runtime());
    let out = shell.arg("--root").arg(c.root()).args(["run", "--bundle"]).arg(c.bundle()).arg(&c.id).run().ok();
    let (interrupt, quit) = (1 << (libc::SIGINT - 1), 1 << (libc::SIGQUIT - 1));
    let ignored = u64::from_str_radix(&out.value("SigIgn"), 16).unwrap();
    assert_eq!(ignored & (interrupt | quit), 0, "{out}");
}

#[test]
fn an_ordinary_user_raises_the_oom_score_of_exec_too() {
    deviates!("crun", "leaves it as it is");
    let mut c = Container::rootless(["sleep"]);
    c.edit(|config| config["process"]["oomScoreAdj"] = json!(321));
    c.started();
    c.exec(["oom"]).ok().line("oom 321");
}

#[test]
fn an_ordinary_user_joins_the_namespaces_of_a_pod() {
    deviates!("runc" before 1.2, "wants mappings also for a joined user namespace");
    deviates!("crun", "joins them in another order");
    let pod = Container::rootless(["sleep"]);
    pod.started();
    let pid = pod.pid();
    let mut c = Container::rootless(["oom"]);
    c.edit(|config| {
        config["process"]["oomScoreAdj"] = json!(321);
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            let file = match kind.as_str() {
                "network" => "net",
                "mount" | "cgroup" => continue,
                other => other,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        config.as_object_mut().unwrap().remove("hostname");
    });
    c.run().ok().line("oom 321");
}

/// CVE-2016-9962: what a process of exec has open before it becomes the program is nothing for the container.
#[test]
fn exec_shows_the_container_nothing_of_the_host() {
    needs!(Need::Busybox);
    let mut c = Container::new(["sleep"]);
    c.busybox();
    // What leads out of the container, but for programs and the streams.
    let links = ["fd/[3-9]*", "fd/[1-9][0-9]*", "cwd", "root"].map(|link| format!("/proc/[0-9]*/{link}")).join(" ");
    let script = format!(
        "exec 2>/dev/null; echo ready; while :; do for f in {links}; do
        t=$(/bin/busybox readlink $f) && case $t in /|/proc|/proc/*|pipe:*) ;; *) echo seen $f $t;; esac; done; done"
    );
    c.edit(|config| config["process"]["args"] = json!(["/bin/sh", "-c", script]));
    c.create_with(c.create_cmd().stdin("")).ok();
    c.start().ok();
    c.wait_for("ready");
    for _ in 0..30 {
        c.exec(["echo", "x"]).ok();
    }
    assert!(!c.stdout().contains("seen"), "{}", c.stdout());
}
