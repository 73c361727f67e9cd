//! podman, of root and of an ordinary user.

use std::fs;
use std::path::Path;

use super::{Engine, LIMITS, TERMINAL, on_terminal};
use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, User, eventually, suite};
use crate::{deviates, needs};

#[test]
fn podman_hands_on_output_and_exit_codes() {
    needs!(Need::Program("podman"));
    let podman = Engine::podman();
    podman.run(&["--rm"], &["echo", "hello", "--", "exit", "7"]).run().exits(7).line("hello");
    podman.run(&["--rm", "-i"], &["stdin"]).stdin("words").run().ok().line("stdin words");
    on_terminal(podman.run(&["--rm", "-it"], &TERMINAL));
    let at = podman.c.rootfs();
    let program =
        |name: &str| podman.cmd(&["run", "--rm", "--network", "none"]).args(LIMITS).arg("--rootfs").arg(&at).arg(name);
    program("nosuch").run().exits(127);
    program("/etc/passwd").run().exits(126);
    podman.run(&["--rm", "--sysctl", "net.ipv4.ip_forward=x"], &["echo"]).run().exits(126);
}

#[test]
fn podman_takes_a_container_through_its_life() {
    needs!(Need::Program("podman"));
    let podman = Engine::podman();
    let health = r#"["/probe","echo","well"]"#;
    let flags = ["-d", "--name", "one", "--health-cmd", health, "--health-interval", "disable"];
    podman.run(&flags, &["trap", "HUP", "TERM"]).run().ok();
    podman
        .act(&["exec", "-u", "3:4", "-e", "A=b", "-w", "/tmp", "one", "/probe", "ids", "--", "cwd", "--", "env"])
        .ok()
        .line("uid 3")
        .line("gid 4")
        .line("cwd /tmp")
        .line("A=b");
    podman.act(&["exec", "one", "/probe", "exit", "9"]).exits(9);
    podman.act(&["exec", "one", "/nosuch"]).exits(127);
    podman.act(&["exec", "one", "/etc/passwd"]).exits(126);
    on_terminal(podman.cmd(&["exec", "-it", "one", "/probe"]).args(TERMINAL));
    podman.act(&["exec", "-d", "one", "/probe", "write", "/tmp/made", "x"]).ok();
    eventually("a file of exec -d", || podman.c.rootfs().join("tmp/made").exists().then_some(()));
    podman.act(&["healthcheck", "run", "one"]).ok();
    podman.act(&["pause", "one"]).ok();
    podman.act(&["unpause", "one"]).ok();
    let top = podman.act(&["top", "one", "pid,args"]).ok();
    assert!(top.stdout.contains("trap HUP TERM"), "{top}");
    podman.act(&["kill", "--signal", "HUP", "one"]).ok();
    podman.act(&["stop", "--time", "20", "one"]).ok();
    let logs = podman.act(&["logs", "one"]).ok();
    assert_eq!(logs.stdout.lines().collect::<Vec<_>>(), ["ready", "signal HUP", "signal TERM"], "{logs}");
    podman.act(&["start", "one"]).ok();
    podman.act(&["kill", "one"]).ok();
    assert_eq!(podman.act(&["wait", "one"]).ok().stdout, "137\n");
    podman.act(&["rm", "one"]).ok();
}

#[test]
fn podman_gives_what_its_flags_ask_for() {
    needs!(Need::Program("podman"), Need::Controller("memory"), Need::Controller("pids"));
    let podman = Engine::podman();
    let profile = podman.c.path("profile.json");
    let rule = r#"[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]"#;
    fs::write(&profile, format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {rule}}}"#)).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let volume = format!("{}:/run:ro", podman.c.path("bundle").display());
    let flags = [
        "--rm --memory 64m --pids-limit 50 --read-only --user 5:6 --group-add 7 --cap-drop all --cap-add chown",
        "--tmpfs /tmp:size=1m --hostname box --device /dev/full:/dev/other:r --shm-size 2m",
        "--sysctl net.ipv4.ip_unprivileged_port_start=81 --workdir /tmp --env A=b --stop-signal HUP",
        "--security-opt no-new-privileges --umask 0027 --oom-score-adj 500 --security-opt",
    ]
    .map(|f| f.split(' '))
    .into_iter()
    .flatten()
    .chain([seccomp.as_str(), "--volume", &volume]);
    let (memory, pids) = match Path::new(CGROUP_ROOT).join("cgroup.controllers").exists() {
        true => ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"),
        false => ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max"),
    };
    let probe = format!(
        "ids -- caps -- cwd -- umask -- oom -- hostname -- env -- rlimit NOFILE -- statfs /dev/shm -- statfs /tmp -- \
         cat /proc/sys/net/ipv4/ip_unprivileged_port_start -- cat {memory} -- cat {pids} -- stat /run/config.json -- \
         try-write /run/x -- try-write /x -- stat /dev/other -- open /dev/other r -- mkdir /tmp/d"
    );
    let flags: Vec<_> = flags.collect();
    let out = podman.run(&flags, &probe.split_whitespace().collect::<Vec<_>>()).run().exits(1);
    let out = out.line("uid 5").line("gid 6").line("cwd /tmp").line("umask 0027").line("oom 500");
    let out = out.line("hostname box").line("A=b").line("rlimit NOFILE soft=512 hard=1024");
    let out = out.line("NoNewPrivs 1").line("CapBnd 0000000000000001").line("Seccomp 2");
    let out = out.line("81").line("67108864").line("50").line("write EROFS").line("error EIO mkdir /tmp/d");
    assert!(out.value("groups").split(' ').any(|g| g == "7"), "{out}");
    assert!(out.values("statfs").iter().any(|l| l.starts_with("/dev/shm") && l.ends_with("size=2097152")), "{out}");
    assert!(out.values("statfs").iter().any(|l| l.starts_with("/tmp") && l.ends_with("size=1048576")), "{out}");
    assert_eq!(out.values("write"), ["EROFS", "EROFS"], "{out}");
    assert!(out.values("stat").iter().any(|l| l.starts_with("/dev/other char") && l.contains("rdev=1:7")), "{out}");
    assert_eq!(out.value("open"), "ok 0", "{out}");
}

#[test]
fn podman_changes_limits_of_a_container_that_runs() {
    needs!(Need::Program("podman"), Need::Controller("memory"), Need::Controller("cpu"));
    let podman = Engine::podman();
    podman.run(&["-d", "--name", "one", "--memory", "64m"], &["sleep"]).run().ok();
    let pid = podman.act(&["inspect", "--format", "{{.State.Pid}}", "one"]).ok().stdout.trim().parse().unwrap();
    podman.act(&["update", "--memory", "32m", "--cpu-period", "200000", "--cpu-quota", "50000", "one"]).ok();
    let file = |controller, name| fs::read_to_string(Container::cgroup_of(pid, controller).join(name)).unwrap();
    if Path::new(CGROUP_ROOT).join("cgroup.controllers").exists() {
        assert_eq!(file("memory", "memory.max"), "33554432\n");
        assert_eq!(file("cpu", "cpu.max"), "50000 200000\n");
    } else {
        assert_eq!(file("memory", "memory.limit_in_bytes"), "33554432\n");
        assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000\n");
        assert_eq!(file("cpu", "cpu.cfs_period_us"), "200000\n");
    }
    podman.act(&["rm", "--force", "--time", "0", "one"]).ok();
}

#[test]
fn podman_checkpoints_a_container_and_restores_it() {
    needs!(Need::Program("podman"), Need::Criu);
    deviates!("crun", "this machine's is built without CRIU");
    let podman = Engine::podman();
    podman
        .run(
            &["-d", "--name", "one"],
            &["echo", "before", "--", "wait-file", "/tmp/go", "--", "echo", "after", "--", "sleep"],
        )
        .run()
        .ok();
    eventually("before", || (podman.act(&["logs", "one"]).stdout == "before\n").then_some(()));
    let pid = || podman.act(&["inspect", "--format", "{{.State.Pid}}", "one"]).ok().stdout.trim().to_owned();
    let first = pid();
    podman.act(&["container", "checkpoint", "one"]).ok();
    let status = podman.act(&["inspect", "--format", "{{.State.Status}} {{.State.Checkpointed}}", "one"]).ok();
    assert_eq!(status.stdout, "exited true\n");
    podman.act(&["container", "restore", "one"]).ok();
    assert_ne!(pid(), first);
    podman.act(&["exec", "one", "/probe", "write", "/tmp/go"]).ok();
    eventually("after", || (podman.act(&["logs", "one"]).stdout == "before\nafter\n").then_some(()));
    podman.act(&["container", "checkpoint", "--leave-running", "one"]).ok();
    podman.act(&["rm", "--force", "--time", "0", "one"]).ok();
}

/// What podman does where it is not told who makes cgroups.
fn scope_by(podman: &Engine) {
    let _calm = crate::systemd::calm();
    let cmd = podman.cmd(&["--cgroup-manager", "systemd", "run", "--rm", "--network", "none", "--pids-limit", "30"]);
    let cmd = cmd.args(LIMITS).arg("--rootfs").arg(podman.c.rootfs()).arg("/probe");
    let out = cmd.args(["cat", "/sys/fs/cgroup/pids.max", "--", "exit", "5"]).run().exits(5);
    assert_eq!(out.stdout, "30\n", "{out}");
}

#[test]
fn podman_has_systemd_make_the_cgroup() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Systemd);
    scope_by(&Engine::podman());
}

#[test]
fn podman_of_an_ordinary_user_has_her_systemd_make_the_cgroup() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    scope_by(&Engine::rootless());
}

#[test]
fn podman_gives_all_rights_or_an_init() {
    needs!(Need::Program("podman"), Need::Program("catatonit"));
    let podman = Engine::podman();
    let out = podman.run(&["--rm", "--init"], &["pid", "--", "cat", "/proc/1/comm"]).run().ok();
    assert_ne!(out.value("pid"), "1", "{out}");
    assert!(out.stdout.contains("catatonit") || out.stdout.contains("podman-init"), "{out}");
    let out = podman.run(&["--rm", "--privileged"], &["caps", "--", "write", "/proc/sys/kernel/domainname", "x"]).run();
    out.ok().line("Seccomp 0");
}

#[test]
fn podman_runs_an_image_in_a_user_namespace() {
    needs!(Need::Program("podman"));
    let podman = Engine::podman();
    podman.import();
    let map = "0:100000:65536";
    let flags = ["--rm", "--uidmap", map, "--gidmap", map, "--user", "8:9", "image"];
    let out = podman.run(&flags, &["ids", "--", "cat", "/proc/self/uid_map", "--", "stat", "/probe"]).run().ok();
    let out = out.line("uid 8").line("gid 9");
    assert!(out.stdout.contains("100000      65536"), "{out}");
    assert!(out.value("stat").contains("uid=0 gid=0"), "{out}");
}

#[test]
fn podman_of_an_ordinary_user_runs_containers() {
    needs!(Need::Program("podman"), Need::CgroupV2, Need::Subids, Need::UserSystemd);
    deviates!("crun", "podman gives it other flags");
    let podman = Engine::rootless();
    podman.run(&["--rm"], &["ids", "--", "exit", "6"]).run().exits(6).line("uid 0");
    let files = format!("{}:/run", podman.c.path("home").display());
    let flags =
        ["--rm", "--user", "1000:1001", "--read-only", "--cap-drop", "all", "--tmpfs", "/tmp:mode=1777", "-v", &files];
    let out = podman
        .run(
            &flags,
            &[
                "ids",
                "--",
                "caps",
                "--",
                "try-write",
                "/x",
                "--",
                "try-write",
                "/tmp/x",
                "--",
                "open",
                "/dev/null",
                "rw",
            ],
        )
        .run()
        .ok();
    let out = out.line("uid 1000").line("gid 1001").line("CapBnd 0000000000000000").line("open ok 0");
    assert_eq!(out.values("write"), ["EROFS", "ok 0"], "{out}");

    podman.import();
    let user = User::ordinary();
    let out = podman
        .run(&["--rm", "--userns", "keep-id", "-v", &files, "image"], &["ids", "--", "write", "/run/made", "x"])
        .run()
        .ok();
    out.line(&format!("uid {}", user.uid));
    let made = fs::metadata(podman.c.path("home/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), user.uid);
    on_terminal(podman.run(&["--rm", "-it", "--userns", "auto:size=5000", "image"], &TERMINAL));

    podman.run(&["-d", "--name", "one", "--pids-limit", "50", "image"], &["trap", "TERM"]).run().ok();
    podman
        .act(&["exec", "one", "/probe", "ids", "--", "cat", "/sys/fs/cgroup/pids.max", "--", "exit", "9"])
        .exits(9)
        .line("uid 0")
        .line("50");
    podman.act(&["pause", "one"]).ok();
    podman.act(&["unpause", "one"]).ok();
    podman.act(&["rm", "--force", "one"]).ok();
}

#[test]
fn the_callers_groups_are_kept_where_an_engine_asks_for_it() {
    needs!(Need::Program("setpriv"));
    deviates!("runc", "does not know the annotation");
    let mut c = Container::new(["ids"]);
    c.edit(|config| config["process"]["user"]["additionalGids"] = serde_json::json!([7]));
    let run = |c: &Container| {
        let cmd = Cmd::new("setpriv").args(["--groups", "4242"]).arg(&suite().runtime).arg("--root").arg(c.root());
        cmd.args(["run", "--bundle"]).arg(c.bundle()).arg(&c.id).run().ok().value("groups")
    };
    assert_eq!(run(&c), "7");
    c.edit(|config| config["annotations"] = serde_json::json!({"run.oci.keep_original_groups": "1"}));
    assert_eq!(run(&c), "4242");
}
