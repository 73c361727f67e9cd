//! Attributes of the process (config.md, "Process" and "Linux Process"; config-linux.md, "Personality", "Memory policy").

use serde_json::{Value, json};

use crate::harness::{Cmd, Container, Need, missing, runtime, runtime_kind};
use crate::{deviates, needs, skip};

const SYS_RESOURCE: Need = Need::Capability(24);

fn process(args: &[&str], field: &str, value: Value) -> Container {
    Container::with(args, |config| config["process"][field] = value)
}

fn linux(args: &[&str], field: &str, value: Value) -> Container {
    Container::with(args, |config| config["linux"][field] = value)
}

#[test]
fn limits_are_set() {
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 23},
    ]);
    let out = process(&["rlimits"], "rlimits", limits).run().ok();
    let limit = |name: &str| {
        let line = out.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{out}"));
        line[name.len()..].split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limit("Max open files"), "100 200");
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max stack size"), "1048576 8388608");
}

#[test]
fn a_hard_limit_above_the_runtimes_is_explained() {
    if missing(&[SYS_RESOURCE]).is_none() {
        skip!("the suite has CAP_SYS_RESOURCE");
    }
    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1u64 << 40}]);
    let c = process(&["rlimits"], "rlimits", limit);
    let out = c.run().fails("peration not permitted");
    c.nothing_left();
    deviates!("runc", "tells less");
    deviates!("crun", "tells less");
    assert!(out.stderr.contains("the hard limit of RLIMIT_NOFILE is "), "{out}");
    assert!(out.stderr.contains("CAP_SYS_RESOURCE"), "{out}");
}

#[test]
fn limits_of_no_kind_and_of_one_kind_twice_are_refused() {
    deviates!("crun", "leaves a cgroup behind");
    process(&["rlimits"], "rlimits", json!([{"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}]))
        .run()
        .fails("RLIMIT_NOTHING");
    deviates!("runc", "takes duplicates");
    let one = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
    process(&["rlimits"], "rlimits", json!([one, one])).run().fails("RLIMIT_CORE");
}

#[test]
fn the_oom_score_is_set_and_left_alone_where_it_is_not_given() {
    process(&["oom"], "oomScoreAdj", json!(321)).run().ok().line("oom 321");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    Container::new(["oom"]).run().ok().line(&format!("oom {}", own.trim()));
}

#[test]
fn the_scheduler_is_set() {
    deviates!("runc" before 1.2, "does not know it");
    deviates!("crun" before 1.9, "does not know it");
    let scheduler = json!({"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    let out = process(&["sched"], "scheduler", scheduler).run().ok().value("sched");
    assert!(out.starts_with("policy=3 nice=5 priority=0 flags=0x1 "), "{out}");
    let out = process(&["sched"], "scheduler", json!({"policy": "SCHED_IDLE"})).run().ok().value("sched");
    assert!(out.starts_with("policy=5 "), "{out}");
}

#[test]
fn scheduler_fields_that_do_not_go_together_are_refused() {
    deviates!("runc" before 1.2, "does not know it");
    deviates!("crun", "tells other texts");
    let cases = [
        (json!({"policy": "SCHED_OTHER", "nice": 30}), "scheduler.nice"),
        (json!({"policy": "SCHED_BATCH", "priority": 5}), "scheduler.priority"),
        (json!({"policy": "SCHED_FIFO", "runtime": 5}), "scheduler"),
        (json!({"policy": "SCHED_OF_TOMORROW"}), "SCHED_OF_TOMORROW"),
    ];
    for (scheduler, text) in cases {
        let c = process(&["sched"], "scheduler", scheduler);
        c.run().fails(text);
        c.nothing_left();
    }
}

#[test]
fn the_io_priority_is_set() {
    deviates!("runc" before 1.2, "does not know it");
    let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    process(&["ioprio"], "ioPriority", priority).run().ok().line("ioprio class=2 level=6");
    deviates!("crun", "takes any number");
    let priority = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
    process(&["ioprio"], "ioPriority", priority).run().fails("ioPriority");
}

#[test]
fn an_exec_runs_on_the_cpus_that_are_asked_for() {
    deviates!("runc" before 1.3, "does not know it");
    deviates!("crun", "old versions do not know it");
    needs!(Need::TwoCpus);
    let mut c = process(&["sleep"], "execCPUAffinity", json!({"initial": "0-1", "final": "1"}));
    c.started();
    c.exec(["affinity"]).ok().line("affinity 1");
    deviates!("crun", "does not log it");
    deviates!("runc", "logs it as a mask");
    c.global(&["--debug"]);
    let out = c.exec(["affinity"]).ok();
    assert!(out.stderr.contains("msg=\"CPU affinity: 0-1 while joining, then 1\""), "{out}");
}

#[test]
fn the_personality_is_set() {
    deviates!("runc" before 1.2, "does not know it");
    linux(&["personality"], "personality", json!({"domain": "LINUX32"})).run().ok().line("personality 0x8");
    linux(&["personality"], "personality", json!({"domain": "LINUX"})).run().ok().line("personality 0x0");
    deviates!("runc", "passes flags over");
    deviates!("crun", "passes flags over");
    let c = linux(&["personality"], "personality", json!({"domain": "LINUX", "flags": ["SHORT_INODE"]}));
    c.run().fails("linux.personality.flags");
}

#[test]
fn the_memory_policy_is_set() {
    deviates!("runc" before 1.4, "does not know it");
    deviates!("crun", "old versions do not know it");
    needs!(Need::File("/sys/devices/system/node/node0"));
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    linux(&["mempolicy"], "memoryPolicy", policy).run().ok().line("mempolicy mode=0x8002 nodes=0x1");
    deviates!("runc", "words its errors in its own way");
    let cases = [
        (json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy"),
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0"}), "linux.memoryPolicy"),
        (json!({"mode": "MPOL_BIND", "nodes": "zero"}), "invalid memory policy node"),
        (json!({"mode": "MPOL_NOTHING"}), "invalid memory policy mode"),
        (json!({"mode": "MPOL_LOCAL", "flags": ["MPOL_F_NOTHING"]}), "invalid memory policy flag"),
    ];
    for (policy, text) in cases {
        linux(&["mempolicy"], "memoryPolicy", policy).run().fails(text);
    }
}

#[test]
fn the_container_has_a_session_keyring_of_its_own() {
    deviates!("crun", "gives it another name");
    needs!(Need::File("/proc/keys"));
    let c = Container::new(["keyring", "--", "sleep"]);
    c.started();
    let name = format!(";_ses.{}", c.id);
    let text = c.wait_for("keyring ");
    assert!(text.trim_end().ends_with(&name), "{text}");
    // The owner may search it: exec joins it by its name.
    let permissions = u32::from_str_radix(text.trim_end().split(';').nth(3).unwrap(), 16).unwrap();
    assert_eq!(permissions & 0x0008_0000, 0x0008_0000, "{text}");
    let out = c.exec(["keyring"]).ok();
    assert!(out.stdout.trim_end().ends_with(&name), "{out}");
}

#[test]
fn without_a_new_keyring_the_callers_stays() {
    needs!(Need::File("/proc/keys"));
    let c = Container::new(["keyring"]);
    let out = c.command("run", ["--no-new-keyring", "--bundle"]).arg(c.bundle()).arg(&c.id).run();
    assert!(!out.stdout.contains(";_ses."), "{out}");
}

/// CVE-2024-21626: no descriptor that the runtime has open leads out of the container by the working directory.
#[test]
fn the_working_directory_is_not_reached_through_descriptors() {
    let running = Container::new(["sleep"]);
    running.started();
    running.exec_cmd(&["--cwd", "/proc/self"], ["cwd"]).run().ok();
    for number in 3..24 {
        let path = format!("/proc/self/fd/{number}");
        let c = Container::with(["cwd"], |config| config["process"]["cwd"] = json!(path));
        let out = c.run();
        assert_ne!(out.code, 0, "{path}: {out}");
        let below = Container::with(["cwd"], |config| config["process"]["cwd"] = json!(format!("{path}/made")));
        assert_ne!(below.run().code, 0);
        let out = running.exec_cmd(&["--cwd", &path], ["cwd"]).run();
        assert_ne!(out.code, 0, "exec in {path}: {out}");
    }
}

#[test]
fn a_process_from_a_file_has_the_containers_umask_and_oom_score() {
    deviates!("crun", "takes over neither");
    let c = Container::with(["sleep"], |config| {
        config["process"]["oomScoreAdj"] = json!(500);
        config["process"]["user"]["umask"] = json!(0o077);
    });
    c.started();
    let file = c.path("process.json");
    for (verb, want) in [("oom", "oom 500"), ("umask", "umask 0077")] {
        let process = json!({"args": ["/probe", verb], "cwd": "/", "user": {"uid": 0, "gid": 0}});
        std::fs::write(&file, process.to_string()).unwrap();
        c.command("exec", ["--process"]).arg(&file).arg(&c.id).run().ok().line(want);
    }
}

#[test]
fn exec_makes_no_working_directory() {
    deviates!("crun", "makes it");
    let c = Container::with(["sleep"], |config| config["root"]["readonly"] = json!(false));
    c.started();
    c.exec_cmd(&["--cwd", "/typo"], ["cwd"]).run().exits(255).fails("no such file or directory");
    assert!(!c.rootfs().join("typo").exists());
}

/// CVE-2024-21626: nor are directories made through a descriptor because they are missing.
#[test]
fn a_working_directory_is_not_made_through_descriptors() {
    let running = Container::with(["sleep"], |config| config["root"]["readonly"] = json!(false));
    running.started();
    let host = running.path("host");
    std::fs::create_dir(&host).unwrap();
    for number in 3..32 {
        for up in ["..", "../.."] {
            let cwd = format!("/m{number}/../proc/self/fd/{number}/{up}{}/made", host.display());
            let _ = running.exec_cmd(&["--cwd", &cwd], ["cwd"]).run();
            let c = Container::with(["cwd"], |config| {
                config["root"]["readonly"] = json!(false);
                config["process"]["cwd"] = json!(cwd);
            });
            let _ = c.run();
            assert!(!host.join("made").exists(), "{cwd}");
        }
    }
}

/// CVE-2024-21626: nor is the program looked for through a descriptor.
#[test]
fn the_program_is_not_found_through_descriptors() {
    let running = Container::new(["sleep"]);
    running.started();
    let host = running.path("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::copy(running.rootfs().join("probe"), host.join("planted")).unwrap();
    let above =
        |number: i32| ["..", "../..", "1/root"].map(|way| format!("/proc/self/fd/{number}/{way}{}", host.display()));
    let path = format!("PATH={}", (3..32).flat_map(above).collect::<Vec<_>>().join(":"));
    let not_found = "executable file not found in $PATH";
    running.command("exec", ["--env", &path, &running.id, "planted", "echo"]).run().fails(not_found);
    for create in [false, true] {
        let c = Container::with(["echo"], |config| {
            config["process"]["args"][0] = json!("planted");
            config["process"]["env"] = json!([path]);
        });
        let out = if create { c.create() } else { c.run() };
        out.fails(not_found);
    }
}

/// CVE-2016-9962: a process that is not confined yet is out of the reach of those that are.
#[test]
fn a_created_init_cannot_be_rewritten() {
    let edits: [fn(&mut Value); 2] = [|_| {}, crate::mounts::in_a_user_namespace];
    for edit in edits {
        let c = Container::with(["sleep"], edit);
        c.create().ok();
        c.exec(["open", "/proc/1/mem", "rw"]).ok().line("open EACCES");
        c.start().ok();
    }
}

/// CVE-2021-43784: what is too long for any message or path is an error, and not cut.
#[test]
fn a_path_of_a_namespace_may_be_too_long() {
    let c = Container::with(["echo"], |config| {
        let long = format!("/proc/{}/ns/ipc", "x/".repeat(35_000));
        config["linux"]["namespaces"] =
            json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc", "path": long}]);
    });
    c.run().exits(1).fails("name too long");
    c.nothing_left();
}

#[test]
fn only_descriptors_of_the_caller_are_handed_over() {
    let c = Container::new(["fds"]);
    let file = std::fs::File::open("/dev/zero").unwrap();
    let cmd = c.command("run", ["--preserve-fds", "1", "--bundle"]).arg(c.bundle()).arg(&c.id);
    let out = cmd.fds(vec![file.into()]).run().ok();
    assert!(out.stdout.contains("fd 3 /dev/zero"), "{out}");
    if runtime_kind() != "vessel" {
        skip!("takes what it has opened itself");
    }
    // A log gets the lowest number that is free.
    let closed = ["-c", "exec \"$@\" 3>&-", "sh"];
    let cmd = Cmd::new("sh").args(closed).arg(runtime()).arg("--root").arg(c.root()).arg("--log").arg(c.path("a.log"));
    let cmd = cmd.args(["run", "--preserve-fds", "1", "--bundle"]).arg(c.bundle()).arg(&c.id);
    cmd.run().exits(1).fails("preserved-fd 0 (of 1): it is not open");
    c.nothing_left();
}
