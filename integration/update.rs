//! `update` (command line of the field's runtimes): limits of a running container change, and what the kernel is told.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Container, Need, missing, runtime_kind};
use crate::{deviates, needs};

fn v2() -> bool {
    missing(&[Need::CgroupV2]).is_none()
}

/// A sleeping container with known limits.
fn limited() -> Container {
    let c = Container::with(["sleep"], |config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 33_554_432, "reservation": 25_165_824},
            "cpu": {"shares": 100, "quota": 500_000, "period": 1_000_000},
            "pids": {"limit": 20}
        });
    });
    c.started();
    c
}

/// `update` with these flags.
#[track_caller]
fn update(c: &Container, flags: &[&str]) -> crate::harness::Output {
    c.command("update", flags).arg(&c.id).run()
}

/// `update` with these resources on standard input.
#[track_caller]
fn update_with(c: &Container, resources: &Value) -> crate::harness::Output {
    c.command("update", ["--resources", "-"]).arg(&c.id).stdin(resources.to_string()).run()
}

/// Controller, file and value on v1, and the same on v2; an empty file is not looked at.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

#[track_caller]
fn has(c: &Container, rows: &[Row]) {
    for (controller, file1, value1, file2, value2) in rows {
        let (file, value) = if v2() { (file2, value2) } else { (file1, value1) };
        if !file.is_empty() {
            assert_eq!(c.cgroup_file(controller, file), *value, "{file}");
        }
    }
}

const UNTOUCHED: [Row; 4] = [
    ("memory", "memory.limit_in_bytes", "33554432", "memory.max", "33554432"),
    ("memory", "memory.soft_limit_in_bytes", "25165824", "memory.low", "25165824"),
    ("cpu", "cpu.cfs_quota_us", "500000", "cpu.max", "500000 1000000"),
    ("pids", "pids.max", "20", "pids.max", "20"),
];

#[test]
fn each_flag_sets_its_limit() {
    deviates!("runc" before 1.5, "takes a limit of 0 processes for none");
    deviates!("crun", "takes bytes only");
    let c = limited();
    update(&c, &["--memory", "64M"]).ok();
    has(&c, &[("memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864")]);
    has(&c, &UNTOUCHED[1..]);
    update(&c, &["--memory-reservation=33554432", "--pids-limit", "10", "--cpu-share", "1024"]).ok();
    has(
        &c,
        &[
            ("memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"),
            ("pids", "pids.max", "10", "pids.max", "10"),
            ("cpu", "cpu.shares", "1024", "cpu.weight", "100"),
        ],
    );
    update(&c, &["--memory", "-1", "--pids-limit", "-1"]).ok();
    has(&c, &[("", "", "", "memory.max", "max"), ("pids", "pids.max", "max", "pids.max", "max")]);
    update(&c, &["--pids-limit", "0"]).ok();
    has(&c, &[("pids", "pids.max", "1", "pids.max", "1")]);
    update(&c, &["--cpu-period", "900000", "--cpu-burst", "100000"]).ok();
    has(&c, &[("cpu", "cpu.cfs_burst_us", "100000", "cpu.max.burst", "100000")]);
}

#[test]
fn a_quota_or_period_alone_keeps_the_other() {
    deviates!("crun", "takes the other for none");
    let c = limited();
    for (flags, quota, period, max) in [
        (&["--cpu-period", "900000"][..], "500000", "900000", "500000 900000"),
        (&["--cpu-quota", "600000"], "600000", "900000", "600000 900000"),
        // Unrelated changes leave both alone, and are remembered as such.
        (&["--pids-limit", "30"], "600000", "900000", "600000 900000"),
        (&["--cpu-period", "800000"], "600000", "800000", "600000 800000"),
        (&["--cpu-quota", "-1"], "-1", "800000", "max 800000"),
        (&["--cpu-period", "0"], "-1", "800000", "max 800000"),
    ] {
        if runtime_kind() == "runc" && flags[0] == "--pids-limit" {
            continue;
        }
        update(&c, flags).ok();
        has(&c, &[("cpu", "cpu.cfs_quota_us", quota, "cpu.max", max)]);
        has(&c, &[("cpu", "cpu.cfs_period_us", period, "", "")]);
    }
    if v2() && runtime_kind() == "vessel" {
        // What was set by the file's own name holds too.
        update_with(&c, &json!({"unified": {"cpu.max": "70000 100000"}})).ok();
        update(&c, &["--cpu-period", "200000"]).ok();
        has(&c, &[("cpu", "", "", "cpu.max", "70000 200000")]);
    }
}

#[test]
fn memory_and_swap_are_set_in_either_order() {
    deviates!("crun", "takes bytes only");
    needs!(Need::Controller("memory"));
    let c = limited();
    let file = Container::cgroup_of(c.pid(), "memory").join(if v2() {
        "memory.swap.max"
    } else {
        "memory.memsw.limit_in_bytes"
    });
    if !file.exists() {
        crate::skip!("the kernel does not count swap");
    }
    let mib = |n: u64| (n << 20).to_string();
    for (memory, both) in [("30M", 50), ("60M", 80), ("20M", 25)] {
        update(&c, &["--memory", memory, "--memory-swap", &format!("{both}M")]).ok();
        let limit: u64 = memory.trim_end_matches('M').parse().unwrap();
        let value = fs::read_to_string(&file).unwrap();
        assert_eq!(value.trim(), if v2() { mib(both - limit) } else { mib(both) });
    }
    // Swap alone: v2 has it without memory, and takes the limit of memory that holds.
    update(&c, &["--memory-swap", "40M"]).ok();
    let value = fs::read_to_string(&file).unwrap();
    assert_eq!(value.trim(), if v2() { mib(20) } else { mib(40) });
    update(&c, &["--memory", "-1"]).ok();
    let value = fs::read_to_string(&file).unwrap();
    if v2() {
        assert_eq!(value.trim(), "max");
    } else {
        assert!(value.trim().len() > 15, "{value}");
    }
}

#[test]
fn resources_come_as_json_too() {
    deviates!("runc" before 1.5, "crashes where parts are not given");
    deviates!("crun", "wants every controller that is named");
    let c = limited();
    let change = json!({
        "memory": {"limit": 50_331_648, "reservation": 0, "swap": null},
        "cpu": {"quota": 300_000, "cpus": ""},
        "pids": {"limit": 12},
        "devices": [{"allow": false, "access": "rwm"}]
    });
    update_with(&c, &change).ok();
    let rows = [
        ("memory", "memory.limit_in_bytes", "50331648", "memory.max", "50331648"),
        UNTOUCHED[1],
        ("cpu", "cpu.cfs_quota_us", "300000", "cpu.max", "300000 1000000"),
        ("pids", "pids.max", "12", "pids.max", "12"),
    ];
    has(&c, &rows);
    fs::write(c.path("change.json"), r#"{"pids": {"limit": 14}}"#).unwrap();
    update(&c, &["-r", c.path("change.json").to_str().unwrap(), "--pids-limit", "99"]).ok();
    has(&c, &[("pids", "pids.max", "14", "pids.max", "14")]);
    has(&c, &rows[..3]);
    // Devices are as they were: the null device can be opened.
    c.exec(["cat", "/dev/null"]).ok();
    update_with(&c, &json!({"unified": {"pids.max": "9"}})).exits(i32::from(!v2()));
    has(&c, &[("pids", "pids.max", "14", "pids.max", "9")]);
}

#[test]
fn a_limit_that_fails_puts_the_others_back() {
    deviates!("runc", "writes what it knows of, and not what was there");
    deviates!("crun", "does not put limits back");
    let c = limited();
    // Written in the order pids, memory, cpu: the last is refused by the kernel.
    let change = json!({
        "pids": {"limit": 5},
        "memory": {"limit": 50_331_648, "reservation": 20_971_520},
        "cpu": {"quota": 1, "period": 1}
    });
    update_with(&c, &change).fails("linux.resources.cpu");
    has(&c, &UNTOUCHED);
    // The next change builds on what holds, not on what failed.
    update(&c, &["--cpu-period", "900000"]).ok();
    has(&c, &[("cpu", "cpu.cfs_quota_us", "500000", "cpu.max", "500000 900000")]);
}

#[test]
fn a_paused_container_is_changed_and_stays_paused() {
    let c = limited();
    c.command("pause", [&c.id]).run().ok();
    update(&c, &["--pids-limit", "30"]).ok();
    assert_eq!(c.status(), "paused");
    c.command("resume", [&c.id]).run().ok();
    has(&c, &[("pids", "pids.max", "30", "pids.max", "30")]);
}

#[test]
fn a_created_container_can_be_changed_and_a_stopped_one_cannot() {
    deviates!("crun", "changes a stopped one too");
    let c = Container::new(["sleep"]);
    c.create().ok();
    update(&c, &["--pids-limit", "30"]).ok();
    has(&c, &[("pids", "pids.max", "30", "pids.max", "30")]);
    c.start().ok();
    // A process of exec is still read from the configuration.
    c.exec(["cat", "/dev/null"]).ok();
    c.kill("KILL").ok();
    c.wait_exit();
    c.wait_status("stopped");
    update(&c, &["--pids-limit", "31"]).fails("not running");
    c.command("update", ["--pids-limit", "1", "nobody"]).run().fails("does not exist");
}

#[test]
fn a_limit_below_the_usage_is_refused_when_asked_to() {
    deviates!("crun", "has other words");
    needs!(Need::CgroupV2, Need::Controller("memory"));
    let c = limited();
    let low = json!({"memory": {"limit": 1024, "checkBeforeUpdate": true}});
    update_with(&c, &low).fails("rejecting memory limit");
    let low = json!({"memory": {"limit": 1024, "swap": 2048, "checkBeforeUpdate": true}});
    update_with(&c, &low).fails("rejecting memory+swap limit");
    has(&c, &UNTOUCHED);
    assert_eq!(c.status(), "running");
}

#[test]
fn faults_name_the_flag() {
    deviates!("crun", "has other words");
    let c = limited();
    for (flags, words) in [
        (&["--memory", "5x"][..], "invalid value for memory"),
        (&["--cpu-period", "-5"], "invalid value for cpu-period"),
        (&["--cpu-quota", "much"], "invalid value for cpu-quota"),
        (&["--resources", "/nowhere.json"], "/nowhere.json"),
        (&["--l3-cache-schema", "L3:0=f"], "l3 cache schema is not enabled"),
        (&["--mem-bw-schema", "MB:0=20"], "memory bandwidth schema is not enabled"),
    ] {
        update(&c, flags).fails(words);
    }
    c.command("update", ["-r", "-"]).arg(&c.id).stdin("{").run().exits(1);
    has(&c, &UNTOUCHED);
}
