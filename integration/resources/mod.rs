//! `linux.resources` (config-linux.md, "Control groups"), field by field: each is set by `create`, changed by `update`, and
//! read back from the kernel, with every driver of cgroups that the machine has; and the limits bite.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, eventually, in_any_vm, missing, on_v2, suite};
use crate::systemd::calm;
use crate::{deviates, needs, needs_vm, skip};

mod disks;
mod others;

fn v2() -> bool {
    missing(&[Need::CgroupV2]).is_none()
}

/// Whether containers are made with the systemd driver too.
fn drivers() -> &'static [bool] {
    if missing(&[Need::CgroupV2, Need::Systemd]).is_none() { &[false, true] } else { &[false] }
}

/// A container made by one of the drivers.
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
        let file = if on_v2(controller) { file2 } else { file1 };
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

/// On v1 with memory, on v2 alone.
#[test]
fn swap_is_set_and_changed() {
    deviates!("crun", "knows other fields");
    let file = Path::new(CGROUP_ROOT).join("memory/memory.memsw.limit_in_bytes");
    if !on_v2("memory") && !file.exists() {
        skip!("the kernel does not count swap");
    }
    set_and_changed(
        &json!({"memory": {"limit": 67_108_864, "swap": 100_663_296}}),
        &[
            ("memory", "memory.limit_in_bytes", "memory.max", "67108864"),
            ("memory", "memory.memsw.limit_in_bytes", "", "100663296"),
            ("memory", "", "memory.swap.max", "33554432"),
        ],
        &json!({"memory": {"limit": 134_217_728, "swap": 134_217_728}}),
        &[
            ("memory", "memory.limit_in_bytes", "memory.max", "134217728"),
            ("memory", "memory.memsw.limit_in_bytes", "", "134217728"),
            ("memory", "", "memory.swap.max", "0"),
        ],
    );
}

/// With the usage: v1 gives nothing back then, and v2 would end processes if it was not asked to look before.
#[test]
fn a_limit_of_memory_below_the_usage_is_refused() {
    deviates!("crun", "has other words");
    needs!(Need::Controller("memory"));
    let _calm = calm();
    for &systemd in drivers() {
        let first = json!({"memory": {"limit": 67_108_864}});
        let c = container(systemd, &["memhog", "16777216", "--", "sleep"], &first);
        c.started().wait_for("memory 16777216");
        let low = json!({"memory": {"limit": 4_194_304, "checkBeforeUpdate": true}}).to_string();
        let words = if on_v2("memory") { "rejecting memory limit 4194304 <= usage" } else { "current usage" };
        c.command("update", ["--resources", "-"]).arg(&c.id).stdin(low).run().fails(words);
        has(&c, &[("memory", "memory.limit_in_bytes", "memory.max", "67108864")]);
        assert_eq!(c.status(), "running");
    }
}

#[test]
fn what_v1_alone_has_of_memory_is_set_and_changed() {
    deviates!("crun", "knows other fields");
    deviates!("runc", "has no kernelTCP since 1.2");
    needs!(Need::OnV1("memory"));
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
            // The kernel counts the time when it lets the processes go on, which is after the count of periods.
            let text = c.cgroup_file("cpu", "cpu.stat");
            let counted = text.lines().filter(|line| line.contains("throttled") && !line.ends_with(" 0")).count();
            (counted == 2).then_some(())
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
                // The emulated machine takes seconds for each.
                for _ in 0..if in_any_vm() { 5 } else { 25 } {
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
