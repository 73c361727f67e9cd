//! The systemd driver: scopes, their slices and properties, and what becomes of them.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, User, eventually, suite};
use crate::{deviates, needs};

/// systemd that executes itself anew drops whoever is talking to it: that test runs while no other one here does.
static CALM: RwLock<()> = RwLock::new(());

pub fn calm() -> RwLockReadGuard<'static, ()> {
    CALM.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    CALM.write().unwrap_or_else(PoisonError::into_inner)
}

/// A container in a slice below another, with a name that no other has.
fn scoped<S: AsRef<str>>(args: impl IntoIterator<Item = S>, edit: impl FnOnce(&mut Value)) -> Container {
    let mut c = Container::with(args, edit);
    let path = format!("{SLICE}:test:{}", c.id);
    c.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.global(&["--systemd-cgroup"]);
    c
}

/// systemd keeps slices, so there is one for all runs.
const SLICE: &str = "vesseltest-scopes.slice";

fn unit(c: &Container) -> String {
    format!("test-{}.scope", c.id)
}

fn systemctl(args: &[&str]) -> String {
    args.iter().fold(Cmd::new(Path::new("systemctl")), |cmd, arg| cmd.arg(arg)).run().stdout
}

/// A property of a unit.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit]).trim().to_owned()
}

/// Whether systemd knows a unit.
fn known(unit: &str) -> bool {
    property(unit, "LoadState") != "not-found"
}

/// Later commands come without the flag, as engines send them.
fn without_flag(c: &Container, args: &[&str]) -> Cmd {
    args.iter().fold(Cmd::new(&suite().runtime).arg("--root").arg(c.root()), |cmd, arg| cmd.arg(arg))
}

#[test]
fn a_container_is_a_scope() {
    let _calm = calm();
    deviates!("crun", "makes a cgroup within it");
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864, "reservation": 33_554_432},
            "pids": {"limit": 32},
            "cpu": {"shares": 512, "quota": 50_000, "period": 200_000}
        });
    });
    c.started();
    let dir = Container::cgroup_of(c.pid(), "");
    let want = format!("vesseltest.slice/{SLICE}/{}", unit(&c));
    assert_eq!(dir, Path::new(CGROUP_ROOT).join(want));
    let pids: Vec<_> = fs::read_to_string(dir.join("cgroup.procs")).unwrap().lines().map(String::from).collect();
    assert_eq!(pids, [c.pid().to_string()], "nobody but init");
    for (name, want) in [
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("TasksMax", "32"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "250ms"),
        ("CPUQuotaPeriodUSec", "200ms"),
    ] {
        assert_eq!(property(&unit(&c), name), want, "{name}");
    }
    for (file, want) in [("memory.max", "67108864"), ("pids.max", "32"), ("cpu.max", "50000 200000")] {
        assert_eq!(c.cgroup_file("", file), want, "{file}");
    }
    // The driver is remembered.
    let out = without_flag(&c, &["exec", &c.id, "/probe", "ids", "--", "exit", "3"]).run().exits(3);
    assert_eq!(out.value("uid"), "0");
    without_flag(&c, &["kill", &c.id, "KILL"]).run().ok();
    c.wait_exit();
    without_flag(&c, &["delete", &c.id]).run().ok();
    assert!(!known(&unit(&c)), "the scope is left");
    c.nothing_left();
}

#[test]
fn limits_and_devices_outlive_a_reload() {
    let _alone = alone();
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |config| {
        config["linux"]["resources"] = json!({
            "pids": {"limit": 32},
            "unified": {"memory.high": "50003968", "pids.max": "31"},
            "devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}
            ]
        });
        config["linux"]["devices"] = json!([
            {"path": "/dev/yes", "type": "c", "major": 1, "minor": 11},
            {"path": "/dev/no", "type": "c", "major": 1, "minor": 2}
        ]);
    });
    c.started();
    let pid = c.pid();
    let check = || {
        assert_eq!(c.cgroup_file("", "pids.max"), "31");
        assert_eq!(c.cgroup_file("", "memory.high"), "50003968");
        let tries = ["open", "/dev/yes", "r", "--", "open", "/dev/no", "r", "--", "open", "/dev/yes", "w"];
        let out = c.exec(tries).ok().stdout;
        assert_eq!(out.lines().collect::<Vec<_>>(), ["open ok 0", "open EPERM", "open EPERM"]);
        assert_eq!((c.status().as_str(), c.pid()), ("running", pid), "it is the same container");
    };
    check();
    for command in ["daemon-reload", "daemon-reexec"] {
        systemctl(&[command]);
        check();
        assert_eq!(property(&unit(&c), "NeedDaemonReload"), "no");
    }
}

#[test]
fn changed_limits_are_told_to_systemd() {
    let _calm = calm();
    deviates!("crun", "rounds in another way");
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |config| config["linux"]["resources"] = json!({"pids": {"limit": 32}}));
    c.started();
    let flags = ["--memory", "67108864", "--pids-limit", "20", "--cpu-quota", "50001", "--cpu-period", "100000"];
    c.command("update", flags).arg(&c.id).run().ok();
    let check = || {
        for (file, want) in [("memory.max", "67108864"), ("pids.max", "20"), ("cpu.max", "51000 100000")] {
            assert_eq!(c.cgroup_file("", file), want, "{file}");
        }
    };
    check();
    assert_eq!(property(&unit(&c), "TasksMax"), "20");
    assert_eq!(property(&unit(&c), "CPUQuotaPerSecUSec"), "510ms");
    systemctl(&["daemon-reload"]);
    check();
    // systemd has no period where there is no limit.
    c.command("update", ["--cpu-quota", "-1", "--cpu-period", "50000"]).arg(&c.id).run().ok();
    assert_eq!(c.cgroup_file("", "cpu.max"), "max 50000");
}

/// The disk of the file system in which the container lies, as systemd and the kernel name it.
fn disk(c: &Container) -> Option<String> {
    let number = fs::metadata(c.bundle()).unwrap().dev();
    let name = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    Path::new("/sys/dev/block").join(&name).exists().then_some(name)
}

#[test]
fn every_limit_is_a_property_and_a_file() {
    let _alone = alone();
    deviates!("runc", "leaves throttling, zswap and more to the cgroup's files");
    deviates!("crun", "leaves throttling and more to the cgroup's files");
    needs!(Need::Systemd, Need::CgroupV2, Need::Controller("memory"), Need::Controller("io"));
    let mut c = scoped(["sleep"], |config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296},
            "pids": {"limit": 32},
            "cpu": {"shares": 512, "quota": 50_000, "period": 200_000},
            "unified": {
                "memory.min": "8388608", "memory.high": "50331648", "memory.oom.group": "1",
                "memory.zswap.max": "4194304", "memory.zswap.writeback": "0"
            }
        });
    });
    let disk = disk(&c);
    if let Some((major, minor)) = disk.as_ref().and_then(|disk| disk.split_once(':')) {
        let device = |rate: u64| json!([{"major": number(major), "minor": number(minor), "rate": rate}]);
        c.edit(|config| {
            config["linux"]["resources"]["blockIO"] = json!({
                "throttleReadBpsDevice": device(1_048_576), "throttleWriteBpsDevice": device(2_097_152),
                "throttleReadIOPSDevice": device(1000), "throttleWriteIOPSDevice": device(2000)
            });
        });
    }
    c.started();
    for (name, want) in [
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "33554432"),
        ("MemoryMin", "8388608"),
        ("MemoryHigh", "50331648"),
        ("MemoryZSwapMax", "4194304"),
        ("MemoryZSwapWriteback", "no"),
        ("OOMPolicy", "kill"),
        ("TasksMax", "32"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "250ms"),
        ("CPUQuotaPeriodUSec", "200ms"),
    ] {
        assert_eq!(property(&unit(&c), name), want, "{name}");
    }
    let files = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        ("memory.min", "8388608"),
        ("memory.high", "50331648"),
        ("memory.zswap.max", "4194304"),
        ("memory.zswap.writeback", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "32"),
        ("cpu.weight", "59"),
        ("cpu.max", "50000 200000"),
    ];
    let check = || {
        for (file, want) in files {
            assert_eq!(c.cgroup_file("", file), want, "{file}");
        }
        if let Some(disk) = &disk {
            let want = format!("{disk} rbps=1048576 wbps=2097152 riops=1000 wiops=2000");
            assert_eq!(c.cgroup_file("", "io.max"), want);
        }
    };
    check();
    if let Some(disk) = &disk {
        for (name, want) in [
            ("IOReadBandwidthMax", 1_048_576),
            ("IOWriteBandwidthMax", 2_097_152),
            ("IOReadIOPSMax", 1000),
            ("IOWriteIOPSMax", 2000),
        ] {
            assert_eq!(property(&unit(&c), name), format!("/dev/block/{disk} {want}"), "{name}");
        }
    }
    for command in ["daemon-reload", "daemon-reexec"] {
        systemctl(&[command]);
        check();
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap()
}

#[test]
fn idle_is_a_weight_of_systemds() {
    let _alone = alone();
    deviates!("runc", "keeps the weight of an idle scope");
    deviates!("crun", "makes a cgroup within it");
    needs!(Need::Systemd, Need::CgroupV2, Need::Controller("cpu"));
    let c = scoped(["sleep"], |config| config["linux"]["resources"] = json!({"cpu": {"shares": 512, "idle": 1}}));
    c.started();
    let check = |idle: &str, weight: &str, shown: &str| {
        assert_eq!((&*c.cgroup_file("", "cpu.idle"), &*c.cgroup_file("", "cpu.weight")), (idle, weight));
        assert_eq!(property(&unit(&c), "CPUWeight"), shown);
    };
    // The kernel's own weight of what is idle.
    check("1", "1", "idle");
    systemctl(&["daemon-reload"]);
    check("1", "1", "idle");
    let update = |cpu: Value| {
        let resources = json!({"cpu": cpu}).to_string();
        c.command("update", ["--resources", "-"]).arg(&c.id).stdin(resources).run().ok();
    };
    update(json!({"idle": 0}));
    check("0", "100", "100");
    systemctl(&["daemon-reload"]);
    check("0", "100", "100");
    update(json!({"idle": 1}));
    check("1", "1", "idle");
    // Another weight ends it.
    update(json!({"shares": 512}));
    check("0", "59", "59");
}

#[test]
fn a_failed_update_puts_the_properties_back() {
    let _alone = alone();
    deviates!("runc", "writes its state in another way");
    deviates!("crun", "writes its state in another way");
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |config| {
        config["linux"]["resources"] = json!({
            "pids": {"limit": 32}, "memory": {"limit": 67_108_864}, "cpu": {"quota": 50_000, "period": 200_000}
        });
    });
    c.started();
    // The limits are set before the state is written, which fails where no file may grow.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
    let update = Cmd::new(Path::new("sh")).args(["-c", script, "sh"]).arg(&suite().runtime).arg("--root").arg(c.root());
    let flags = ["update", "--pids-limit", "20", "--memory", "50331648", "--cpu-quota", "10000"];
    update.args(flags).arg(&c.id).run().exits(1);
    let check = || {
        for (name, want) in [("TasksMax", "32"), ("MemoryMax", "67108864"), ("CPUQuotaPerSecUSec", "250ms")] {
            assert_eq!(property(&unit(&c), name), want, "{name}");
        }
        for (file, want) in [("pids.max", "32"), ("memory.max", "67108864"), ("cpu.max", "50000 200000")] {
            assert_eq!(c.cgroup_file("", file), want, "{file}");
        }
    };
    check();
    systemctl(&["daemon-reload"]);
    check();
}

#[test]
fn a_process_of_the_container_that_runs_out_of_memory_does_not_stop_the_scope() {
    let _calm = calm();
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |_| {});
    c.started();
    assert_eq!(property(&unit(&c), "OOMPolicy"), "continue");
}

#[test]
fn annotations_are_properties() {
    let _calm = calm();
    deviates!("crun", "knows fewer types");
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |config| {
        config["annotations"] = json!({
            "org.systemd.property.KillSignal": "15",
            "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
            "org.systemd.property.RuntimeMaxSec": "99.5",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['basic.target']"
        });
    });
    c.started();
    for (name, want) in [
        ("KillSignal", "15"),
        ("TimeoutStopUSec", "7s"),
        ("RuntimeMaxUSec", "1min 39.500000s"),
        ("CollectMode", "inactive-or-failed"),
    ] {
        assert_eq!(property(&unit(&c), name), want, "{name}");
    }
    assert!(property(&unit(&c), "After").contains("basic.target"));
}

#[test]
fn annotations_that_systemd_refuses_leave_nothing() {
    let _calm = calm();
    deviates!("runc", "has other words");
    deviates!("crun", "has other words");
    needs!(Need::Systemd, Need::CgroupV2);
    for (name, value, want) in [
        ("KillSignal", "what", "annotations[org.systemd.property.KillSignal]"),
        ("Kill-Signal", "15", "annotations[org.systemd.property.Kill-Signal]"),
        ("NoSuchProperty", "true", "NoSuchProperty"),
    ] {
        let c = scoped(["echo", "must not run"], |config| {
            config["annotations"] = json!({format!("org.systemd.property.{name}"): value});
        });
        let out = c.run().exits(1);
        assert!(out.stderr.contains(want), "{out}");
        assert!(!known(&unit(&c)));
        c.nothing_left();
    }
}

#[test]
fn a_limit_of_one_process_has_room_for_init() {
    let _calm = calm();
    deviates!("crun", "sets it within the scope alone");
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |config| config["linux"]["resources"] = json!({"pids": {"limit": 0}}));
    c.started();
    assert_eq!((c.cgroup_file("", "pids.max"), c.cgroup_file("", "pids.current")), ("1".into(), "1".into()));
    c.exec(["echo", "must not run"]).exits(255);
}

#[test]
fn a_failed_creation_leaves_no_scope() {
    let _calm = calm();
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["echo"], |config| config["process"]["args"] = json!(["/no/such/program"]));
    c.run().exits(1);
    eventually("the end of the scope", || (!known(&unit(&c))).then_some(()));
    c.nothing_left();
}

#[test]
fn an_init_that_fails_while_systemd_makes_its_scope_leaves_none() {
    let _calm = calm();
    needs!(Need::Systemd, Need::CgroupV2);
    // At once, and in a moment.
    for source in ["tmpfs", "proc"] {
        let c = scoped(["echo", "must not run"], |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            let wrong = json!({"destination": "/x", "type": source, "source": source, "options": ["nonsense=1"]});
            mounts.insert(if source == "tmpfs" { 0 } else { mounts.len() }, wrong);
        });
        for _ in 0..5 {
            let out = c.run().exits(1);
            assert!(out.stderr.contains("mount"), "{out}");
            assert!(!known(&unit(&c)), "the scope is left");
        }
        c.nothing_left();
    }
}

#[test]
fn a_unit_that_has_failed_is_in_nobodys_way() {
    let _calm = calm();
    deviates!("runc", "has no --cgroup-manager");
    deviates!("crun", "fails");
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |config| {
        config["annotations"] = json!({
            "org.systemd.property.RuntimeMaxSec": "1",
            "org.systemd.property.TimeoutStopSec": "1"
        });
    });
    c.started();
    c.wait_exit();
    eventually("a failed unit", || (property(&unit(&c), "ActiveState") == "failed").then_some(()));
    // Another container of the same path takes its place.
    let mut other = Container::new(["echo", "runs"]);
    let path = c.config["linux"]["cgroupsPath"].clone();
    other.edit(|config| config["linux"]["cgroupsPath"] = path);
    other.global(&["--cgroup-manager", "systemd"]);
    assert_eq!(other.run().ok().stdout, "runs\n");
    c.delete().ok();
    assert!(!known(&unit(&c)));
}

#[test]
fn a_scope_that_is_in_use_is_refused() {
    let _calm = calm();
    deviates!("runc", "has other words");
    deviates!("crun", "has other words");
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["sleep"], |_| {});
    c.started();
    let mut other = Container::new(["echo", "must not run"]);
    let path = c.config["linux"]["cgroupsPath"].clone();
    other.edit(|config| config["linux"]["cgroupsPath"] = path);
    other.global(&["--systemd-cgroup"]);
    let out = other.run().exits(1);
    assert!(out.stderr.contains("container's cgroup is not empty"), "{out}");
    assert!(out.stderr.contains(&unit(&c)), "{out}");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_frozen_cgroup_that_is_no_unit_is_refused() {
    let _calm = calm();
    needs!(Need::Systemd, Need::CgroupV2);
    let c = scoped(["echo", "must not run"], |_| {});
    let dir = Path::new(CGROUP_ROOT).join("vesseltest.slice").join(SLICE).join(unit(&c));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    c.run().exits(1).fails("container's cgroup unexpectedly frozen");
    fs::remove_dir(&dir).unwrap();
    assert!(!known(&unit(&c)));
}

#[test]
fn a_path_that_is_no_scope_is_refused() {
    let _calm = calm();
    deviates!("runc", "has other words");
    deviates!("crun", "has other words");
    needs!(Need::Systemd, Need::CgroupV2);
    for path in ["/a/b", "system.slice:x", "nothing:p:n", "a--b.slice:p:n", "system.slice::x.slice"] {
        let mut c = Container::new(["echo", "must not run"]);
        c.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
        c.global(&["--systemd-cgroup"]);
        let out = c.run().exits(1);
        assert!(out.stderr.contains("linux.cgroupsPath"), "{out}");
        c.nothing_left();
    }
}

#[test]
fn a_container_without_a_path_lies_in_system_slice() {
    let _calm = calm();
    deviates!("runc", "names it after itself");
    deviates!("crun", "makes a cgroup within it");
    needs!(Need::Systemd, Need::CgroupV2);
    let mut c = Container::with(["sleep"], |config| {
        config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    c.global(&["--systemd-cgroup"]);
    c.started();
    let name = format!("vessel-{}.scope", c.id);
    assert_eq!(Container::cgroup_of(c.pid(), ""), Path::new(CGROUP_ROOT).join("system.slice").join(name));
}

#[test]
fn an_ordinary_users_container_is_a_scope_of_hers() {
    let _calm = calm();
    deviates!("runc", "names it after itself");
    deviates!("crun", "makes a cgroup within it");
    needs!(Need::UserSystemd, Need::CgroupV2);
    let mut c = Container::rootless(["sleep"]);
    c.edit(|config| config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 32}}));
    c.global(&["--systemd-cgroup"]);
    c.started();
    let uid = User::ordinary().uid;
    let name = format!("vessel-{}.scope", c.id);
    let dir = format!("user.slice/user-{uid}.slice/user@{uid}.service/user.slice/{name}");
    assert_eq!(Container::cgroup_of(c.pid(), ""), Path::new(CGROUP_ROOT).join(&dir));
    assert_eq!(c.cgroup_file("", "memory.max"), "67108864");
    assert_eq!(c.cgroup_file("", "pids.max"), "32");
    assert_eq!(c.exec(["ids"]).ok().value("uid"), "0");
    // The suite is outside of her part of the tree, so systemd moves the process also into a cgroup below.
    let sub = Path::new(CGROUP_ROOT).join(&dir).join("sub");
    fs::create_dir(&sub).unwrap();
    std::os::unix::fs::chown(&sub, Some(uid), None).unwrap();
    let out = c.exec_cmd(&["--cgroup", "sub"], ["cgroup"]).run().ok();
    assert!(out.stdout.contains("/sub\n"), "{out}");
    let out = c.exec_cmd(&["--cgroup", "none"], ["cgroup"]).run();
    assert_ne!(out.code, 0, "{out}");
    c.kill("KILL").ok();
    c.wait_exit();
    c.delete().ok();
    assert!(!Path::new(CGROUP_ROOT).join(&dir).exists());
    c.nothing_left();
}
