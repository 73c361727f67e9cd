//! `linux.resources` (config-linux.md, "Control groups"), field by field: each is set by `create`, changed by `update`, and
//! read back from the kernel, with every driver of cgroups that the machine has; and the limits bite.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, eventually, missing, runtime, suite};
use crate::systemd::calm;
use crate::{deviates, needs, needs_vm, skip};

fn v2() -> bool {
    missing(&[Need::CgroupV2]).is_none()
}

/// Whether containers are made with the systemd driver too.
fn drivers() -> &'static [bool] {
    if missing(&[Need::CgroupV2, Need::Systemd]).is_none() { &[false, true] } else { &[false] }
}

fn container(systemd: bool, args: &[&str], resources: &Value) -> Container {
    let mut c = Container::with(args, |config| config["linux"]["resources"] = resources.clone());
    if systemd {
        let path = format!("vesseltest-resources.slice:test:{}", c.id);
        c.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
        c.global(&["--systemd-cgroup"]);
    }
    c
}

/// A controller with a file of v1, one of v2, and the value. What begins with ~ is to be found in the file's text.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str);

#[track_caller]
fn has(c: &Container, rows: &[Row]) {
    for (controller, file1, file2, want) in rows {
        let file = if v2() { file2 } else { file1 };
        if file.is_empty() {
            continue;
        }
        let text = c.cgroup_file(controller, file);
        match want.strip_prefix('~') {
            Some(part) => assert!(text.lines().any(|line| line.contains(part)), "{file}: {text:?} has no {part:?}"),
            None => assert_eq!(text, *want, "{file}"),
        }
    }
}

/// Creates with some resources, changes them to others, and looks at the files after each.
#[track_caller]
fn set_and_changed(first: &Value, rows: &[Row], second: &Value, changed: &[Row]) {
    let _calm = calm();
    for &systemd in drivers() {
        let c = container(systemd, &["sleep"], first);
        c.started();
        has(&c, rows);
        c.command("update", ["--resources", "-"]).arg(&c.id).stdin(second.to_string()).run().ok();
        has(&c, changed);
    }
}

#[test]
fn memory_is_set_and_changed() {
    deviates!("crun", "knows other fields");
    deviates!("runc", "has no kernelTCP since 1.2");
    needs!(Need::Controller("memory"));
    set_and_changed(
        &json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432, "useHierarchy": true}}),
        &[
            ("memory", "memory.limit_in_bytes", "memory.max", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "memory.low", "33554432"),
            ("memory", "memory.use_hierarchy", "", "1"),
        ],
        &json!({"memory": {"limit": 50_331_648, "reservation": 16_777_216}}),
        &[
            ("memory", "memory.limit_in_bytes", "memory.max", "50331648"),
            ("memory", "memory.soft_limit_in_bytes", "memory.low", "16777216"),
        ],
    );
}

#[test]
fn what_v1_alone_has_of_memory_is_set_and_changed() {
    deviates!("crun", "knows other fields");
    deviates!("runc", "has no kernelTCP since 1.2");
    needs!(Need::CgroupV1);
    set_and_changed(
        &json!({"memory": {"swappiness": 20, "disableOOMKiller": true, "kernelTCP": 16_777_216}}),
        &[
            ("memory", "memory.swappiness", "", "20"),
            ("memory", "memory.oom_control", "", "~oom_kill_disable 1"),
            ("memory", "memory.kmem.tcp.limit_in_bytes", "", "16777216"),
        ],
        &json!({"memory": {"swappiness": 30, "kernelTCP": 8_388_608}}),
        &[("memory", "memory.swappiness", "", "30"), ("memory", "memory.kmem.tcp.limit_in_bytes", "", "8388608")],
    );
}

#[test]
fn processors_time_is_set_and_changed() {
    deviates!("crun", "converts shares in another way");
    deviates!("runc" before 1.5, "converts shares in another way");
    needs!(Need::Controller("cpu"), Need::Kernel(5, 15));
    set_and_changed(
        &json!({"cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 20_000}}),
        &[
            ("cpu", "cpu.shares", "", "512"),
            ("cpu", "", "cpu.weight", "59"),
            ("cpu", "cpu.cfs_quota_us", "", "50000"),
            ("cpu", "cpu.cfs_period_us", "", "100000"),
            ("cpu", "", "cpu.max", "50000 100000"),
            ("cpu", "cpu.cfs_burst_us", "cpu.max.burst", "20000"),
        ],
        &json!({"cpu": {"shares": 1024, "quota": 60_000, "period": 200_000, "burst": 10_000}}),
        &[
            ("cpu", "cpu.shares", "", "1024"),
            ("cpu", "", "cpu.weight", "100"),
            ("cpu", "cpu.cfs_quota_us", "", "60000"),
            ("cpu", "cpu.cfs_period_us", "", "200000"),
            ("cpu", "", "cpu.max", "60000 200000"),
            ("cpu", "cpu.cfs_burst_us", "cpu.max.burst", "10000"),
        ],
    );
    set_and_changed(
        &json!({"cpu": {"idle": 1}}),
        &[("cpu", "cpu.idle", "cpu.idle", "1")],
        &json!({"cpu": {"idle": 0}}),
        &[("cpu", "cpu.idle", "cpu.idle", "0")],
    );
}

/// The cgroup above has to have a budget of its own.
#[test]
fn real_time_is_set_and_changed() {
    needs!(Need::CgroupV1, Need::File("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"));
    let above = Path::new(CGROUP_ROOT).join("cpu").join(format!("{}-rt", suite().name));
    fs::create_dir(&above).unwrap();
    let budget = fs::write(above.join("cpu.rt_runtime_us"), "100000");
    if let Err(e) = budget {
        fs::remove_dir(&above).unwrap();
        skip!("no budget of real time can be given: {e}");
    }
    let resources = json!({"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 500_000}});
    let mut c = container(false, &["sleep"], &resources);
    let path = format!("/{}-rt/{}", suite().name, c.id);
    c.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.started();
    has(&c, &[("cpu", "cpu.rt_runtime_us", "", "5000"), ("cpu", "cpu.rt_period_us", "", "500000")]);
    c.command("update", ["--cpu-rt-runtime", "6000", "--cpu-rt-period", "600000", &c.id]).run().ok();
    has(&c, &[("cpu", "cpu.rt_runtime_us", "", "6000"), ("cpu", "cpu.rt_period_us", "", "600000")]);
    c.finish();
    for hierarchy in fs::read_dir(CGROUP_ROOT).unwrap().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(above.file_name().unwrap()));
    }
}

#[test]
fn processors_and_nodes_are_set_and_changed() {
    // On v2 the vm alone has them.
    needs_vm!(Need::Controller("cpuset"), Need::TwoCpus);
    set_and_changed(
        &json!({"cpu": {"cpus": "0", "mems": "0"}}),
        &[("cpuset", "cpuset.cpus", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "cpuset.mems", "0")],
        &json!({"cpu": {"cpus": "0-1"}}),
        &[("cpuset", "cpuset.cpus", "cpuset.cpus", "0-1"), ("cpuset", "cpuset.mems", "cpuset.mems", "0")],
    );
}

#[test]
fn processors_and_nodes_of_v2_hold() {
    needs_vm!(Need::CgroupV2, Need::Controller("cpuset"), Need::TwoCpus);
    let _calm = calm();
    for &systemd in drivers() {
        let c = container(systemd, &["sleep"], &json!({"cpu": {"cpus": "1", "mems": "0"}}));
        c.started();
        has(&c, &[("cpuset", "", "cpuset.cpus.effective", "1"), ("cpuset", "", "cpuset.mems.effective", "0")]);
        c.command("update", ["--cpuset-cpus", "0", &c.id]).run().ok();
        has(&c, &[("cpuset", "", "cpuset.cpus.effective", "0")]);
        container(systemd, &["sleep"], &json!({"cpu": {"cpus": "4000"}})).run().exits(1);
    }
}

#[test]
fn numbers_of_processes_are_set_and_changed() {
    deviates!("runc" before 1.5, "takes zero for none");
    deviates!("crun", "takes zero for none");
    for (first, second, want) in [(10, 0, "1"), (0, -1, "max"), (-1, 12, "12")] {
        set_and_changed(
            &json!({"pids": {"limit": first}}),
            &[],
            &json!({"pids": {"limit": second}}),
            &[("pids", "pids.max", "pids.max", want)],
        );
    }
}

/// A disk's numbers.
fn disk() -> Option<(u64, u64)> {
    let entries = fs::read_dir("/sys/block").ok()?.flatten();
    let mut disks = entries.filter(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        !["loop", "ram", "zram", "fd", "sr", "dm-"].iter().any(|kind| name.starts_with(kind))
    });
    let text = fs::read_to_string(disks.next()?.path().join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn rates_of_disks_are_set_and_changed() {
    deviates!("crun", "does not change them");
    needs!(Need::Controller(if v2() { "io" } else { "blkio" }));
    let Some((major, minor)) = disk() else { skip!("no disk") };
    let rates = |rates: [u64; 4]| {
        let one = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        json!({"blockIO": {
            "throttleReadBpsDevice": one(rates[0]), "throttleWriteBpsDevice": one(rates[1]),
            "throttleReadIOPSDevice": one(rates[2]), "throttleWriteIOPSDevice": one(rates[3]),
        }})
    };
    let wants = |rates: [u64; 4]| -> Vec<(&'static str, String)> {
        let [r, w, ri, wi] = rates;
        if v2() {
            return vec![("io.max", format!("{major}:{minor} rbps={r} wbps={w} riops={ri} wiops={wi}"))];
        }
        let of = |rate| format!("{major}:{minor} {rate}");
        vec![
            ("blkio.throttle.read_bps_device", of(r)),
            ("blkio.throttle.write_bps_device", of(w)),
            ("blkio.throttle.read_iops_device", of(ri)),
            ("blkio.throttle.write_iops_device", of(wi)),
        ]
    };
    let (first, second) = ([1_048_576, 2_097_152, 300, 400], [1_048_577, 2_097_153, 301, 401]);
    let _calm = calm();
    for &systemd in drivers() {
        let c = container(systemd, &["sleep"], &rates(first));
        c.started();
        let see = |wants: Vec<(&str, String)>| {
            wants.iter().for_each(|(file, want)| assert_eq!(c.cgroup_file("blkio", file), *want, "{file}"));
        };
        see(wants(first));
        c.command("update", ["--resources", "-"]).arg(&c.id).stdin(rates(second).to_string()).run().ok();
        see(wants(second));
    }
}

/// The scheduler's weight, or on v2 the general one of another range.
#[test]
fn weights_of_disks_are_set_and_changed() {
    deviates!("crun", "has other files");
    needs!(Need::Controller(if v2() { "io" } else { "blkio" }));
    let _calm = calm();
    for &systemd in drivers() {
        let c = container(systemd, &["sleep"], &json!({}));
        c.started();
        let dir = Container::cgroup_of(c.pid(), "blkio");
        let files: &[(&str, [&str; 2])] = if v2() {
            &[("io.bfq.weight", ["~500", "~10"]), ("io.weight", ["~4950", "~1"])]
        } else {
            &[("blkio.weight", ["500", "10"]), ("blkio.bfq.weight", ["500", "10"])]
        };
        let set = |weight: u16| json!({"blockIO": {"weight": weight}});
        let Some((file, wants)) = files.iter().find(|(file, _)| dir.join(file).exists()) else {
            let fault = container(systemd, &["sleep"], &set(500));
            fault.run().fails("linux.resources.blockIO.weight");
            return;
        };
        let c = container(systemd, &["sleep"], &set(500));
        c.started();
        has(&c, &[("blkio", file, file, wants[0])]);
        c.command("update", ["--blkio-weight", "10", &c.id]).run().ok();
        has(&c, &[("blkio", file, file, wants[1])]);
    }
}

/// Controllers that the host knows and does not use: in a mount namespace of its own they are.
#[test]
fn classes_and_priorities_of_networks_are_set() {
    deviates!("crun", "looks for them in the usual place only");
    deviates!("runc", "looks for them in the usual place only");
    needs!(Need::CgroupV1, Need::Program("unshare"));
    let free = || {
        let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        ["net_cls", "net_prio"].iter().all(|name| known.lines().any(|line| line.starts_with(&format!("{name}\t0\t"))))
    };
    if !free() {
        skip!("the controllers are mounted elsewhere, or missing");
    }
    let resources = json!({
        "network": {"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 3}]},
    });
    let c = container(false, &["sleep"], &resources);
    let script = r#"
        set -e
        mount -t cgroup -o net_cls,net_prio none "$1"
        "$2" --root "$3" run --detach --pid-file "$7" --bundle "$4" "$5" </dev/null >/dev/null
        cd "$1$6"
        echo "class $(cat net_cls.classid)"
        echo "priority $(grep '^lo ' net_prio.ifpriomap)"
        cd /
        "$2" --root "$3" delete --force "$5"
        rmdir "$1"/vessel-test-* || true
        umount "$1"
    "#;
    let dir = c.path("cgroups");
    fs::create_dir(&dir).unwrap();
    let mut cmd = Cmd::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).env("VESSEL_TEST", c.dir.as_os_str());
    for path in [dir.as_path(), runtime(), &c.root(), &c.bundle()] {
        cmd = cmd.arg(path);
    }
    let out = cmd.arg(&c.id).arg(c.cgroups_path()).arg(c.path("pid")).run().ok();
    c.wait_exit();
    // The hierarchy outlives a mount that ends while the kernel still takes away the cgroup.
    eventually("the end of the hierarchy", || {
        let again = r#"mount -t cgroup -o net_cls,net_prio none "$1" && umount "$1""#;
        free().then_some(()).or_else(|| {
            Cmd::new("unshare").args(["--mount", "sh", "-c", again, "sh"]).arg(&dir).run();
            None
        })
    });
    assert_eq!(out.value("class"), "1048577");
    assert_eq!(out.value("priority"), "lo 3");
}

#[test]
fn huge_pages_of_v2_are_set_and_changed() {
    needs_vm!(Need::CgroupV2, Need::Controller("hugetlb"), Need::File("/sys/kernel/mm/hugepages/hugepages-2048kB"));
    fs::write("/proc/sys/vm/nr_hugepages", "8").unwrap();
    let pages = |bytes: u64| json!({"hugepageLimits": [{"pageSize": "2MB", "limit": bytes}]});
    set_and_changed(
        &pages(4_194_304),
        &[("", "", "hugetlb.2MB.max", "4194304"), ("", "", "hugetlb.2MB.rsvd.max", "4194304")],
        &pages(2_097_152),
        &[("", "", "hugetlb.2MB.max", "2097152"), ("", "", "hugetlb.2MB.rsvd.max", "2097152")],
    );
    fs::write("/proc/sys/vm/nr_hugepages", "0").unwrap();
}

#[test]
fn sizes_of_huge_pages_that_are_not_there_are_told() {
    needs_vm!(Need::CgroupV2, Need::Controller("hugetlb"));
    let c = container(false, &["sleep"], &json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}));
    c.run().fails("hugepageLimits[0]").fails("hugetlb.3MB");
    c.nothing_left();
}

/// What `misc` counts are keys of encrypted machines, which an emulated one has none of.
#[test]
fn misc_is_set_by_the_names_of_its_files() {
    needs_vm!(Need::CgroupV2, Need::Controller("misc"));
    let capacity = fs::read_to_string(Path::new(CGROUP_ROOT).join("misc.capacity")).unwrap_or_default();
    let name = capacity.split_whitespace().next().unwrap_or("sev").to_owned();
    let c = container(false, &["sleep"], &json!({"unified": {"misc.max": format!("{name} 1")}}));
    if capacity.is_empty() {
        c.run().fails("linux.resources.unified.misc.max").fails("misc.max");
        c.nothing_left();
        return;
    }
    c.started();
    has(&c, &[("", "", "misc.max", &format!("~{name} 1"))]);
}

#[test]
fn pressure_of_v2_is_told() {
    deviates!("crun", "has no events");
    needs_vm!(Need::CgroupV2, Need::Controller("memory"), Need::File("/proc/pressure/cpu"));
    let _calm = calm();
    for &systemd in drivers() {
        let c = container(systemd, &["sleep"], &json!({}));
        c.started();
        let event = c.command("events", ["--stats", &c.id]).run().ok().json();
        for part in ["cpu", "memory", "blkio"] {
            assert!(event["data"][part]["psi"].is_object(), "{part} in {event}");
        }
    }
}

/// In the kernel's words and the field's.
#[test]
fn controllers_that_are_not_there_are_named() {
    deviates!("runc", "has other words");
    deviates!("crun", "leaves a cgroup behind");
    for (controller, resources, field) in [
        ("hugetlb", json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}), "hugepageLimits[0]"),
        ("rdma", json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}), "rdma.mlx5_1"),
        ("cpuset", json!({"cpu": {"cpus": "0"}}), "cpu.cpus"),
    ] {
        if missing(&[Need::Controller(controller)]).is_some() {
            let c = container(false, &["sleep"], &resources);
            c.run().fails(&format!("linux.resources.{field}: cannot set {controller} limit"));
            c.nothing_left();
        }
    }
}

#[test]
fn a_program_without_memory_is_ended_and_told_of() {
    needs!(Need::Controller("memory"));
    let _calm = calm();
    for &systemd in drivers() {
        let resources = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
        container(systemd, &["memhog", "268435456"], &resources).run().exits(137);
    }
}

#[test]
fn forks_beyond_the_limit_fail() {
    let _calm = calm();
    for &systemd in drivers() {
        let out = container(systemd, &["fork", "20"], &json!({"pids": {"limit": 5}})).run();
        assert!(out.stdout.contains("EAGAIN"), "{out}");
    }
}

#[test]
fn a_spinner_with_a_quota_is_throttled() {
    deviates!("crun", "has no events");
    needs!(Need::Controller("cpu"));
    let _calm = calm();
    for &systemd in drivers() {
        let c = container(systemd, &["spin"], &json!({"cpu": {"quota": 10_000, "period": 100_000}}));
        c.started();
        eventually("the spinner to be throttled", || {
            let text = c.cgroup_file("cpu", "cpu.stat");
            let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap();
            (count != "0").then_some(())
        });
        let event = c.command("events", ["--stats", &c.id]).run().ok().json();
        let throttling = &event["data"]["cpu"]["throttling"];
        assert!(throttling["throttledPeriods"].as_u64().unwrap() > 0, "{event}");
        assert!(throttling["throttledTime"].as_u64().unwrap() > 0, "{event}");
    }
}

/// All cgroups of this run with a word in their name.
fn cgroups_with(dir: &Path, word: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        if entry.file_name().to_string_lossy().contains(word) {
            found.push(entry.path());
        }
        cgroups_with(&entry.path(), word, found);
    }
}

/// Eight loops make and delete 25 containers each.
fn made_and_deleted(systemd: bool) {
    let ids = std::sync::Mutex::new(Vec::new());
    let resources = json!({
        "memory": {"limit": 67_108_864}, "pids": {"limit": 20}, "cpu": {"shares": 512, "quota": 50_000}
    });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let c = container(systemd, &["sleep"], &resources);
                ids.lock().unwrap().push(c.id.clone());
                for _ in 0..25 {
                    c.create().ok();
                    c.command("delete", ["--force", &c.id]).run().ok();
                    c.wait_exit();
                }
                c.nothing_left();
            });
        }
    });
    let ids = ids.into_inner().unwrap();
    assert_eq!(ids.len(), 8);
    let mut found = Vec::new();
    cgroups_with(Path::new(CGROUP_ROOT), &suite().name, &mut found);
    let of = |path: &PathBuf| ids.iter().any(|id| path.ends_with(format!("test-{id}.scope")));
    assert!(!found.iter().any(of), "{found:?}");
    if systemd {
        let units =
            Cmd::new("systemctl").args(["list-units", "--all", "--full", "--plain", "--no-legend", "test-*.scope"]);
        let units = units.run().ok().stdout;
        assert!(!ids.iter().any(|id| units.contains(&format!("test-{id}.scope"))), "{units}");
    }
}

#[test]
fn two_hundred_made_by_eight_leave_nothing() {
    made_and_deleted(false);
}

#[test]
fn two_hundred_scopes_made_by_eight_leave_nothing() {
    needs!(Need::CgroupV2, Need::Systemd);
    let _calm = calm();
    made_and_deleted(true);
}
