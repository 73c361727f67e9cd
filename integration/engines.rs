//! Engines that drive the runtime: what they ask for is more than any list of flags tells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, Output, Pty, Running, User, eventually, runtime, suite};
use crate::{deviates, needs};

/// An engine with everything of its own in the test's directory and cgroup, and the container's root filesystem.
struct Engine {
    c: Container,
    user: Option<User>,
    daemon: Option<Running>,
    /// A directory with a short path, which engines ask for where they have sockets.
    short: PathBuf,
    /// The turn of an ordinary user's engine: all of hers share one process that holds her user namespace, and each ends
    /// it when it goes.
    _turn: Option<MutexGuard<'static, ()>>,
}

static TURN: Mutex<()> = Mutex::new(());

/// Flags without which engines ask for more than a root without CAP_SYS_RESOURCE may give.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=512:1024", "--ulimit", "nproc=1000:1000"];

impl Engine {
    fn podman() -> Engine {
        let short = suite().dir.join(suite().number().to_string());
        fs::create_dir(&short).unwrap();
        Engine { c: Container::new(["echo"]), user: None, daemon: None, short, _turn: None }
    }

    /// podman of an ordinary user.
    fn rootless() -> Engine {
        let user = User::ordinary();
        // A test that failed in its turn has ended it all the same.
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut engine = Engine::podman();
        engine._turn = Some(turn);
        fs::create_dir(engine.c.path("home")).unwrap();
        engine.c.own(&user);
        std::os::unix::fs::chown(&engine.short, Some(user.uid), Some(user.gid)).unwrap();
        engine.user = Some(user);
        engine
    }

    /// The runtime with the test's state root. podman has a flag for that, but forgets it where it cleans up.
    fn runtime(&self) -> PathBuf {
        let script = self.short.join(runtime().file_name().unwrap());
        if !script.exists() {
            let call = format!("exec {} --root {} \"$@\"", runtime().display(), self.c.root().display());
            fs::write(&script, format!("#!/bin/sh\n{call}\n")).unwrap();
            fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        }
        script
    }

    /// podman with arguments, to be changed and run.
    fn cmd(&self, args: &[&str]) -> Cmd {
        let c = &self.c;
        let mut cmd = Cmd::new("podman").timeout(180).cwd(&c.dir).env("HOME", c.path("home"));
        if let Some(user) = &self.user {
            let session = format!("/run/user/{}", user.uid);
            let bus = format!("unix:path={session}/bus");
            cmd = cmd.user(user).env("XDG_RUNTIME_DIR", session).env("DBUS_SESSION_BUS_ADDRESS", bus);
        }
        let cmd = cmd.arg("--root").arg(c.path("storage")).arg("--runroot").arg(&self.short);
        let cmd =
            cmd.arg("--tmpdir").arg(c.path("tmp")).args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        cmd.args(["--events-backend", "none", "--runtime"]).arg(self.runtime()).args(args)
    }

    /// podman with arguments.
    #[track_caller]
    fn act(&self, args: &[&str]) -> Output {
        self.cmd(args).run()
    }

    /// `podman run` of the probe, to be changed and run. The image is the container's root filesystem.
    fn run(&self, flags: &[&str], args: &[&str]) -> Cmd {
        let cmd = self.cmd(&["run", "--network", "none"]).args(LIMITS);
        // An ordinary user's podman knows which cgroup she may use.
        let cmd = if self.user.is_some() { cmd } else { cmd.args(["--cgroup-parent", self.c.cgroups_path()]) };
        let cmd = cmd.args(flags);
        let cmd = match flags.last() {
            Some(&"image") => cmd,
            _ => cmd.arg("--rootfs").arg(self.c.rootfs()),
        };
        cmd.arg("/probe").args(args)
    }

    /// The root filesystem as a tarball.
    fn tarball(&self) -> PathBuf {
        let path = self.c.path("rootfs.tar");
        Cmd::new("tar").arg("-cf").arg(&path).arg("-C").arg(self.c.rootfs()).arg(".").run().ok();
        path
    }

    /// Imports the root filesystem as `image`.
    fn import(&self) {
        self.cmd(&["import"]).arg(self.tarball()).arg("image").run().ok();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.signal(nix::sys::signal::Signal::SIGTERM);
            if !std::thread::panicking() {
                daemon.wait();
            }
        }
        if let Some(user) = &self.user {
            // Her podman keeps a process that holds her user namespace.
            let file = format!("/run/user/{}/libpod/tmp/pause.pid", user.uid);
            let pid = fs::read_to_string(&file).unwrap_or_default();
            if let Ok(pid) = pid.trim().parse() {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(pid, None);
            }
            // Else the next one would try to join it.
            let _ = fs::remove_file(&file);
        }
        // Monitors clean up when their engine has answered already.
        if !std::thread::panicking() {
            let process = |line: &String| line.starts_with("process");
            eventually("the end of the engine's helpers", || (!self.c.left().iter().any(process)).then_some(()));
        }
        remove_empty(self.c.cgroups_path());
        let _ = fs::remove_dir_all(&self.short);
    }
}

/// Removes the cgroup that engines made theirs in, as soon as their monitors have left it; other processes in it are a
/// fault, which the container's own check reports.
fn remove_empty(cgroup: &str) {
    fn remove(dir: &Path) -> bool {
        let below = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
        below.for_each(|p| _ = remove(&p));
        !dir.exists() || fs::remove_dir(dir).is_ok()
    }
    let cgroup = cgroup.trim_start_matches('/');
    let v1 = fs::read_dir(CGROUP_ROOT).unwrap().flatten().map(|e| e.path().join(cgroup));
    let mut dirs: Vec<_> = v1.chain([Path::new(CGROUP_ROOT).join(cgroup)]).collect();
    for _ in 0..500 {
        dirs.retain(|p| !remove(p));
        if dirs.is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A command on a terminal, which is asked for a line: what comes out of the terminal.
#[track_caller]
fn on_terminal(cmd: Cmd) -> String {
    let mut pty = Pty::new();
    let mut running = cmd.terminal(pty.take_slave()).spawn();
    let mut shown = pty.read_until("isatty 2 true");
    std::io::Write::write_all(&mut pty.master, b"typed\n").unwrap();
    shown.push_str(&pty.read_until("line typed"));
    running.wait().ok();
    shown
}

/// What [`on_terminal`] expects.
const TERMINAL: [&str; 3] = ["isatty", "--", "readline"];

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

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}
