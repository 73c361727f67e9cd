//! A container's life (runtime.md, "Lifecycle" and "Operations"): what each operation does, where it is an error, and
//! that nothing is left.

use std::fs;

use serde_json::json;

use crate::harness::{Cmd, Container, eventually, runtime};
use crate::{deviates, spec};

#[test]
fn run_gives_the_output_and_the_exit_code_of_the_program() {
    Container::new(["echo", "hello"]).run().ok().line("hello");
    Container::new(["exit", "42"]).run().exits(42);
}

#[test]
fn run_deletes_the_container_at_its_end() {
    deviates!("crun", "has other words");
    let c = Container::new(["exit", "3"]);
    c.run().exits(3);
    c.nothing_left();
    c.command("state", [&c.id]).run().exits(1).fails("does not exist");
}

#[test]
fn the_program_starts_with_start_and_not_with_create() {
    let c = Container::new(["write", "/tmp/ran", "yes", "--", "sleep"]);
    let mut c = c;
    c.edit(|config| config["root"]["readonly"] = json!(false));
    c.create().ok();
    let state = c.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], c.pid());
    assert!(!c.rootfs().join("tmp/ran").exists());

    c.start().ok();
    assert_eq!(c.status(), "running");
    crate::harness::eventually("the program's file", || c.rootfs().join("tmp/ran").exists().then_some(()));

    c.kill("KILL").ok();
    assert_eq!(c.wait_exit(), 137);
    let state = c.state();
    assert_eq!(state["status"], "stopped");
    assert_eq!(state["pid"], 0);
    c.delete().ok();
    c.nothing_left();
}

#[test]
fn the_state_has_what_the_specification_and_engines_ask_for() {
    deviates!("crun", "tells the root as it is written");
    let mut c = Container::new(["sleep"]);
    c.edit(|config| config["annotations"] = json!({"org.example.key": "value"}));
    c.create().ok();
    let state = c.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["bundle"], c.bundle().to_str().unwrap());
    assert_eq!(state["rootfs"], c.rootfs().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    let created = state["created"].as_str().unwrap();
    assert!(created.len() >= 20 && created.ends_with('Z') && created.as_bytes()[10] == b'T', "{created}");
}

#[test]
fn an_id_is_used_once() {
    spec!("runtime/state/id-unique", "runtime/create/id-used", "runtime/create/id-used-nothing");
    let c = Container::new(["sleep"]);
    c.create().ok();
    let pid = c.pid();
    let again = c.command("create", ["--bundle"]).arg(c.bundle()).arg(&c.id).run().exits(1);
    again.fails("exist");
    // The first one is unharmed.
    assert_eq!(c.state()["pid"], pid);
    assert_eq!(c.status(), "created");
    c.run().fails("exist");
    c.start().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn ids_that_are_no_names_are_refused() {
    deviates!("crun", "takes any");
    let c = Container::new(["echo", "must not run"]);
    for id in ["", ".", "..", "a/b", "../x", "a b", "a\nb", "ä", "a*"] {
        let out = c.command("run", ["--bundle"]).arg(c.bundle()).arg(id).run();
        assert_ne!(out.code, 0, "id {id:?}: {out}");
        assert!(!out.stdout.contains("must not run"), "id {id:?}: {out}");
    }
    c.nothing_left();
}

#[test]
fn ids_may_have_the_characters_that_engines_use() {
    let c = Container::new(["echo", "ran"]);
    for suffix in ["_x", "+x", "-x", ".x", "X9"] {
        c.command("run", ["--bundle"]).arg(c.bundle()).arg(format!("{}{suffix}", c.id)).run().ok().line("ran");
    }
}

#[test]
fn an_unknown_container_is_an_error_that_engines_know() {
    deviates!("crun", "has other words");
    let c = Container::new(["echo"]);
    for args in [&["state", "nobody"][..], &["start", "nobody"], &["kill", "nobody", "9"], &["delete", "nobody"]] {
        c.runtime().args(args).run().exits(1).fails("does not exist");
    }
    c.command("delete", ["--force", "nobody"]).run().ok();
    c.command("exec", ["nobody", "/probe", "echo"]).run().exits(255).fails("does not exist");
}

#[test]
fn start_is_an_error_unless_the_container_is_created() {
    spec!("runtime/start/not-created-effect", "runtime/start/not-created-error");
    let c = Container::new(["sleep"]);
    c.started();
    c.start().exits(1);
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.start().exits(1);
}

#[test]
fn kill_is_an_error_when_the_container_is_stopped() {
    deviates!("crun", "has other words");
    let c = Container::new(["exit", "0"]);
    c.started();
    c.wait_status("stopped");
    c.kill("KILL").exits(1).fails("not running");
}

#[test]
fn kill_reaches_a_created_container() {
    let c = Container::new(["echo", "must not run"]);
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete().ok();
    c.nothing_left();
    assert_eq!(c.stdout(), "");
}

/// A created container ends by any signal that ends programs, where `command` creates it.
fn signals_end_what_was_created(command: impl Fn(&Container) -> Cmd) {
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let c = Container::new(["echo", "never"]);
        c.create_with(command(&c)).ok();
        c.kill(signal).ok();
        c.wait_status("stopped");
        c.delete().ok();
    }
}

/// Also as the first process of its pid namespace, which has no default action for a signal.
#[test]
fn a_created_container_ends_by_any_signal_that_ends_programs() {
    deviates!("crun", "ends by KILL alone");
    signals_end_what_was_created(Container::create_cmd);
}

/// As under nohup(1), or as a background job of a script.
#[test]
fn a_created_container_ends_by_signals_that_its_creator_ignores() {
    deviates!("crun", "ends by KILL alone");
    deviates!("runc", "hands on what is ignored");
    signals_end_what_was_created(|c| {
        let shell = Cmd::new("/bin/sh").args(["-c", "trap '' HUP INT QUIT TERM; exec \"$@\"", "sh"]).arg(runtime());
        let create = shell.arg("--root").arg(c.root()).args(["create", "--bundle"]).arg(c.bundle());
        create.arg("--pid-file").arg(c.path("pid")).arg(&c.id)
    });
}

#[test]
fn kill_takes_signals_by_name_and_by_number() {
    deviates!("crun", "wants capitals");
    let c = Container::new(["trap", "HUP", "USR1", "USR2", "INT", "QUIT", "TERM"]);
    c.started();
    c.wait_for("ready");
    for (signal, seen) in [("HUP", "HUP"), ("SIGUSR1", "USR1"), ("usr2", "USR2"), ("2", "INT"), ("sigquit", "QUIT")] {
        c.kill(signal).ok();
        c.wait_for(&format!("signal {seen}\n"));
    }
    for signal in ["NOSUCH", "SIG", "-1", "65", "9999999999"] {
        let out = c.command("kill", ["--", &c.id, signal]).run();
        assert_ne!(out.code, 0, "signal {signal:?}: {out}");
    }
    // Without one, it is TERM.
    c.command("kill", [&c.id]).run().ok();
    c.wait_for("signal TERM\n");
    assert_eq!(c.wait_exit(), 0);
}

#[test]
fn delete_is_an_error_while_the_container_runs() {
    let c = Container::new(["sleep"]);
    c.started();
    c.delete().exits(1);
    assert_eq!(c.status(), "running");
    c.command("delete", ["--force", &c.id]).run().ok();
    c.nothing_left();
}

#[test]
fn a_program_whose_first_thread_has_ended_still_runs() {
    deviates!("runc", "takes it for stopped");
    deviates!("crun", "takes it for stopped");
    let c = Container::new(["headless"]);
    c.started();
    let pid = c.pid();
    let headless = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    eventually("the end of the first thread", || headless().then_some(()));
    assert_eq!(c.status(), "running");
    c.delete().exits(1).fails("that is not stopped: running");
    c.kill("KILL").ok();
    assert_eq!(c.wait_exit(), 137);
    c.delete().ok();
    c.nothing_left();
}

#[test]
fn delete_by_force_ends_all_processes() {
    let c = Container::new(["fork", "5", "--", "echo", "forked", "--", "sleep"]);
    c.started();
    c.wait_for("forked");
    c.command("delete", ["--force", &c.id]).run().ok();
    c.nothing_left();
}

#[test]
fn a_created_container_can_be_deleted() {
    let c = Container::new(["echo", "must not run"]);
    c.create().ok();
    c.delete().ok();
    c.nothing_left();
    assert_eq!(c.stdout(), "");
    // And its name is free again.
    c.run().ok();
}

#[test]
fn changes_of_the_configuration_after_create_have_no_effect() {
    spec!("runtime/lifecycle/later-changes");
    let mut c = Container::new(["echo", "first"]);
    c.create().ok();
    c.program(["echo", "second"]);
    c.start().ok();
    assert_eq!(c.wait_exit(), 0);
    assert_eq!(c.stdout(), "first\n");
}

#[test]
fn a_failed_create_leaves_nothing() {
    deviates!("crun", "leaves a cgroup behind");
    type Fault = fn(&mut serde_json::Value);
    let faults: [(&str, Fault); 7] = [
        ("no such program", |c| c["process"]["args"] = json!(["/no/such/program"])),
        ("no root filesystem", |c| c["root"]["path"] = json!("missing")),
        ("no such source", |c| {
            let mount = json!({"destination": "/mnt", "type": "bind", "source": "/no/such/file", "options": ["bind"]});
            c["mounts"].as_array_mut().unwrap().push(mount);
        }),
        ("no such filesystem", |c| {
            let mount = json!({"destination": "/tmp", "type": "nosuchfs", "source": "x"});
            c["mounts"].as_array_mut().unwrap().push(mount);
        }),
        ("no such limit", |c| {
            c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}]);
        }),
        ("relative cwd", |c| c["process"]["cwd"] = json!("tmp")),
        ("no arguments", |c| c["process"]["args"] = json!([])),
    ];
    for (what, fault) in faults {
        let mut c = Container::new(["sleep"]);
        c.edit(fault);
        let out = c.create();
        assert_eq!(out.code, 1, "{what}: {out}");
        assert!(!out.stderr.trim().is_empty(), "{what}: {out}");
        c.nothing_left();
        assert!(!c.path("pid").exists(), "{what}: a pid file of a container that is not there");
        c.run().exits(1);
        c.nothing_left();
    }
}

#[test]
fn a_failed_run_says_why_in_one_line() {
    deviates!("crun", "has other words");
    deviates!("runc" before 1.5, "logs in several lines");
    let mut c = Container::new(["echo"]);
    c.edit(|config| config["process"]["args"] = json!(["/no/such/program"]));
    let out = c.run().exits(1).fails("no such file or directory");
    assert_eq!(out.stderr.trim().lines().count(), 1, "{out}");
    assert!(out.stderr.contains("/no/such/program"), "{out}");
}

#[test]
fn a_config_that_is_none_is_an_error() {
    deviates!("runc" before 1.5, "crashes on null");
    for text in ["", "{", "[]", "null", "{\"process\": 1}"] {
        let c = Container::new(["echo"]);
        fs::write(c.bundle().join("config.json"), text).unwrap();
        let out = c.create();
        assert_eq!(out.code, 1, "{text:?}: {out}");
        c.nothing_left();
    }
    let c = Container::new(["echo"]);
    fs::remove_file(c.bundle().join("config.json")).unwrap();
    c.create().exits(1).fails("config.json");
    c.nothing_left();
}

#[test]
fn unknown_properties_are_ignored() {
    let mut c = Container::new(["echo", "ran"]);
    c.edit(|config| {
        config["noSuchProperty"] = json!({"a": 1});
        config["linux"]["noSuchProperty"] = json!([1]);
        config["process"]["noSuchProperty"] = json!("x");
    });
    c.run().ok().line("ran");
}

#[test]
fn the_bundle_is_the_current_directory_by_default() {
    let c = Container::new(["echo", "ran"]);
    c.command("run", [&c.id]).cwd(c.bundle()).run().ok().line("ran");
}

#[test]
fn exec_gives_the_output_and_the_exit_code_of_its_program() {
    deviates!("crun", "leaves init after a delete by force");
    let c = Container::new(["sleep"]);
    c.started();
    c.exec(["echo", "inside"]).ok().line("inside");
    c.exec(["exit", "7"]).exits(7);
    c.exec(["signal-exit", "9"]).exits(137);
    c.exec(["signal-exit", "15"]).exits(143);
    c.command("exec", [&c.id, "/no/such/program"]).run().exits(255);
    assert_eq!(c.status(), "running");
}

#[test]
fn exec_needs_a_running_container() {
    deviates!("crun", "ends with another code");
    let c = Container::new(["exit", "0"]);
    c.started();
    c.wait_status("stopped");
    c.exec(["echo"]).exits(255);
}

#[test]
fn a_detached_run_returns_at_once() {
    let c = Container::new(["echo", "ready", "--", "sleep"]);
    let cmd = c.command("run", ["--detach", "--bundle"]).arg(c.bundle()).arg("--pid-file").arg(c.path("pid"));
    c.create_with(cmd.arg(&c.id)).ok();
    c.wait_for("ready");
    assert_eq!(c.status(), "running");
    assert_eq!(c.state()["pid"], c.pid());
}

#[test]
fn run_passes_signals_on() {
    let c = Container::new(["trap", "HUP", "USR1", "INT", "TERM"]);
    let mut run = c.run_cmd().spawn();
    run.wait_for("ready");
    for (signal, seen) in [
        (nix::sys::signal::Signal::SIGHUP, "HUP"),
        (nix::sys::signal::Signal::SIGUSR1, "USR1"),
        (nix::sys::signal::Signal::SIGINT, "INT"),
        (nix::sys::signal::Signal::SIGTERM, "TERM"),
    ] {
        run.signal(signal);
        run.wait_for(&format!("signal {seen}\n"));
    }
    run.wait().ok();
    c.nothing_left();
}

#[test]
fn run_passes_standard_input_on() {
    Container::new(["stdin"]).run_cmd().stdin("some text\n").run().ok().line("stdin some text");
}

#[test]
fn list_shows_the_containers_of_the_root() {
    deviates!("crun", "has other columns");
    let c = Container::new(["sleep"]);
    let second = format!("{}-second", c.id);
    c.started();
    let mut config = c.config.clone();
    config["linux"]["cgroupsPath"] = json!(format!("{}-second", c.cgroups_path()));
    let bundle = c.path("second");
    fs::create_dir(&bundle).unwrap();
    config["root"]["path"] = json!(c.rootfs());
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    c.command("create", ["--bundle"]).arg(&bundle).arg("--pid-file").arg(c.path("second.pid")).arg(&second).run().ok();

    let quiet = c.command("list", ["--quiet"]).run().ok();
    let mut ids: Vec<&str> = quiet.stdout.lines().collect();
    ids.sort_unstable();
    assert_eq!(ids, [c.id.as_str(), &second]);
    let list = c.command("list", ["--format", "json"]).run().ok().json();
    let entry = list.as_array().unwrap().iter().find(|e| e["id"] == c.id.as_str()).unwrap();
    assert_eq!(entry["status"], "running");
    assert_eq!(entry["owner"], "root");
    assert_eq!(entry["pid"], c.pid());
    let table = c.command("list", [""; 0]).run().ok();
    let title: Vec<&str> = table.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(title[..2], ["ID", "PID"]);
    assert_eq!(table.stdout.lines().count(), 3, "{table}");
    c.command("delete", ["--force", &second]).run().ok();
    let pid = fs::read_to_string(c.path("second.pid")).unwrap().parse().unwrap();
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
}

#[test]
fn kill_and_delete_take_a_regular_expression() {
    deviates!("runc", "has no --regex");
    let c = Container::new(["sleep"]);
    c.started();
    let state = |id: &str| c.command("state", [id]).run();
    c.command("kill", ["--regex", "^nobody$", "KILL"]).run().ok();
    assert_eq!(c.status(), "running");
    c.command("kill", ["-r", &format!("^{}.?$", &c.id[..c.id.len() - 1]), "KILL"]).run().ok();
    crate::harness::eventually("the end of the program", || (c.status() == "stopped").then_some(()));
    c.command("delete", ["--regex", "("]).run().exits(1).fails("--regex");
    c.command("delete", ["--regex", "."]).run().ok();
    state(&c.id).exits(1);
    c.nothing_left();
}

#[test]
fn the_configuration_may_have_another_name() {
    deviates!("runc", "has no --config");
    let c = Container::new(["echo", "from", "another"]);
    c.run().ok().line("from another");
    let config = fs::read_to_string(c.bundle().join("config.json")).unwrap();
    fs::write(c.bundle().join("other.json"), config.replace("another", "other.json")).unwrap();
    let run = |file: &str| c.command("run", ["--config", file, "--bundle"]).arg(c.bundle()).arg(&c.id).run();
    run("other.json").ok().line("from other.json");
    run("missing.json").fails("missing.json");
    c.nothing_left();
}

/// Whatever a killed create had made by then, `delete --force` finds and removes: processes, cgroup, state.
#[test]
fn a_create_that_is_killed_leaves_only_what_delete_removes() {
    deviates!("runc", "it leaves a cgroup or a process that delete does not find");
    deviates!("crun", "it leaves a cgroup or a process that delete does not find");
    let c = Container::new(["sleep"]);
    for step in 0..40 {
        let mut create = c.create_cmd().spawn();
        std::thread::sleep(std::time::Duration::from_micros(step * 400));
        create.signal(nix::sys::signal::Signal::SIGKILL);
        create.wait();
        c.command("delete", ["--force", &c.id]).run().ok();
    }
    c.reap_orphans();
    c.nothing_left();
}

/// The program of a run may be there already. Whether it is or not, kill reaches it, and `delete --force` removes the rest.
#[test]
fn a_run_that_is_killed_leaves_only_what_delete_removes() {
    deviates!("runc", "it leaves a cgroup or a process that delete does not find");
    deviates!("crun", "it leaves a cgroup or a process that delete does not find");
    let c = Container::new(["sleep"]);
    for step in 0..40 {
        let mut run = c.command("run", ["--detach", "--bundle"]).arg(c.bundle()).arg(&c.id).spawn();
        std::thread::sleep(std::time::Duration::from_micros(step * 500));
        // It may have ended by itself before that.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(run.pid()), nix::sys::signal::Signal::SIGKILL);
        run.wait();
        c.command("delete", ["--force", &c.id]).run().ok();
    }
    c.reap_orphans();
    c.nothing_left();
}

#[test]
fn a_program_that_is_not_there_leaves_no_pid_file() {
    let mut c = Container::new(["sleep"]);
    c.started();
    let file = c.path("exec-pid");
    for args in [&["--pid-file"][..], &["--detach", "--pid-file"]] {
        let args: Vec<&str> = args.iter().copied().chain([file.to_str().unwrap()]).collect();
        let out = c.command("exec", &args).arg(&c.id).arg("/no/such/program").run();
        assert!(out.code != 0 && !file.exists(), "{out}");
    }
    c.finish();
    c.edit(|config| config["process"]["args"] = json!(["/no/such/program"]));
    c.command("run", ["--pid-file"]).arg(&file).arg("--bundle").arg(c.bundle()).arg(&c.id).run().exits(1);
    assert!(!file.exists(), "run");
}

/// Two containers may not share a cgroup; and a second one that is killed while it finds that out must not give
/// `delete --force` a claim on the processes of the first.
#[test]
fn delete_of_a_killed_create_spares_a_cgroup_of_others() {
    deviates!("runc", "it keeps no state before the cgroup is made");
    deviates!("crun", "it shares cgroups");
    let first = Container::new(["sleep"]);
    first.started();
    let second = Container::with(["sleep"], |config| {
        config["linux"]["cgroupsPath"] = json!(first.cgroups_path());
    });
    for step in 0..15 {
        let mut create = second.create_cmd().spawn();
        std::thread::sleep(std::time::Duration::from_micros(step * 500));
        // It may have failed by itself before that.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(create.pid()), nix::sys::signal::Signal::SIGKILL);
        create.wait();
        second.command("delete", ["--force", &second.id]).run().ok();
        assert_eq!(first.status(), "running");
    }
}
