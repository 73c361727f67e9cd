//! `events` (command line of the field's runtimes): statistics in runc's JSON, and word of memory running out.

use serde_json::{Value, json};

use crate::harness::{Container, Need, Running, eventually, missing};
use crate::{deviates, needs};

fn v2() -> bool {
    missing(&[Need::CgroupV2]).is_none()
}

/// The statistics of now.
#[track_caller]
fn stats(c: &Container) -> Value {
    let event = c.command("events", ["--stats", &c.id]).run().ok().json();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["id"], c.id);
    event["data"].clone()
}

/// `events`, in the background.
fn follow(c: &Container, interval: &str) -> Running {
    c.command("events", ["--interval", interval, &c.id]).spawn()
}

#[test]
fn statistics_have_what_was_used_and_what_is_allowed() {
    deviates!("crun", "has no events");
    let c = Container::with(["sleep"], |config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864},
            "pids": {"limit": 32},
            "cpu": {"quota": 50_000, "period": 100_000}
        });
    });
    c.started();
    c.exec(["cat", "/dev/null"]).ok();
    let data = stats(&c);
    assert_eq!(data["pids"]["limit"], 32);
    assert!(data["pids"]["current"].as_u64().unwrap() >= 1, "{data}");
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["memory"]["usage"]["failcnt"], 0);
    assert!(data["memory"]["raw"].as_object().unwrap().len() > 10, "{data}");
    let cpu = &data["cpu"]["usage"];
    let (total, user, kernel) = (cpu["total"].as_u64().unwrap(), cpu["user"].as_u64(), cpu["kernel"].as_u64());
    // Nanoseconds: more than a few microseconds, less than the test has taken.
    assert!((10_000..60_000_000_000).contains(&total) && user.is_some() && kernel.is_some(), "{data}");
    if v2() {
        assert!(data["memory"]["raw"]["anon"].is_u64(), "{data}");
    } else {
        assert_eq!(data["memory"]["raw"]["hierarchical_memory_limit"], 67_108_864);
        let percpu = cpu["percpu"].as_array().unwrap();
        assert_eq!(percpu.len(), cpu["percpu_user"].as_array().unwrap().len());
        assert!(!data["cpuset"]["cpus"].as_array().unwrap().is_empty(), "{data}");
    }
    for key in ["cpuset", "blkio", "hugetlb", "intel_rdt"] {
        assert!(data[key].is_object(), "{key} in {data}");
    }
    assert!(data["network_interfaces"].is_null());
    c.command("pause", [&c.id]).run().ok();
    stats(&c);
    c.command("resume", [&c.id]).run().ok();
}

#[test]
fn statistics_tell_of_pressure() {
    deviates!("crun", "has no events");
    let file = if v2() { "/sys/fs/cgroup/cgroup.procs" } else { "/sys/fs/cgroup/unified/cgroup.procs" };
    needs!(Need::File("/proc/pressure/cpu"), Need::File(file));
    if !v2() {
        deviates!("runc", "tells it only where cgroup v2 is alone");
    }
    let c = Container::new(["sleep"]);
    c.started();
    let data = stats(&c);
    for part in ["cpu", "memory", "blkio"] {
        assert!(data[part]["psi"].is_object(), "{part} in {data}");
    }
}

#[test]
fn statistics_come_in_intervals_until_the_container_ends() {
    deviates!("crun", "has no events");
    let c = Container::new(["sleep"]);
    c.started();
    let mut events = follow(&c, "50ms");
    let several = || Some(events.stdout()).filter(|text| text.lines().count() >= 3);
    let text = eventually("three statistics", several);
    for line in text.lines().take(3) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(c.id)));
    }
    assert!(!events.ended());
    c.finish();
    events.wait().ok();
    assert_eq!(events.stderr(), "");
}

#[test]
fn an_interval_that_is_too_short_leaves_some_out() {
    deviates!("crun", "has no events");
    let c = Container::new(["sleep"]);
    c.started();
    let mut events = follow(&c, "1ns");
    eventually("statistics", || (events.stdout().lines().count() >= 3).then_some(()));
    c.finish();
    events.wait().ok();
}

#[test]
fn the_end_of_init_ends_events_too() {
    deviates!("runc", "follows on v1 until the cgroup is removed");
    deviates!("crun", "has no events");
    let c = Container::new(["sleep"]);
    c.started();
    // Longer than the test: the end is not found by looking now and then.
    let mut events = follow(&c, "1h");
    let watches = || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", events.pid())).into_iter().flatten().flatten();
        let mut targets = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        targets.any(|target| target.to_string_lossy().contains("pidfd")).then_some(())
    };
    eventually("events to watch init", watches);
    c.kill("KILL").ok();
    c.wait_exit();
    events.wait().ok();
    c.command("events", [&c.id]).run().fails("is not running");
}

#[test]
fn memory_that_runs_out_is_told() {
    deviates!("crun", "has no events");
    needs!(Need::Controller("memory"));
    let c = Container::with(["sleep"], |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
    });
    c.started();
    let mut events = follow(&c, "100ms");
    events.wait_for("stats");
    c.exec(["memhog", "268435456"]).exits(137);
    let line = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", c.id);
    events.wait_for(&line);
    c.finish();
    events.wait().ok();
}

#[test]
fn init_that_ends_for_want_of_memory_is_told_of_as_well() {
    deviates!("crun", "has no events");
    needs!(Need::Controller("memory"));
    let c = Container::with(["memhog", "268435456"], |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
    });
    c.create().ok();
    let mut events = follow(&c, "100ms");
    events.wait_for("stats");
    c.start();
    c.wait_exit();
    events.wait_for(r#"{"type":"oom","id":"#);
    c.finish();
    events.wait().ok();
}

#[test]
fn intervals_are_durations() {
    deviates!("crun", "has no events");
    let c = Container::new(["sleep"]);
    c.started();
    for (interval, words) in [("0", "must be greater than 0"), ("-1s", "must be greater than 0"), ("5", "-interval")] {
        c.command("events", ["--interval", interval, &c.id]).run().fails(words);
    }
    c.command("events", ["nobody"]).run().fails("does not exist");
}

/// The statistics of a container without a cgroup are there, and go on.
#[track_caller]
fn are_empty(c: &Container) {
    c.started();
    let out = c.command("events", ["--stats", &c.id]).run().ok();
    let line: serde_json::Value = serde_json::from_str(out.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&line["type"], &line["id"], &line["data"]["cpu"]),
        (&json!("stats"), &json!(c.id), &json!({})),
        "{out}"
    );
    let running = c.command("events", ["--interval", "10ms", &c.id]).spawn();
    eventually("statistics", || (running.stdout().matches("\"stats\"").count() > 2).then_some(()));
    c.kill("KILL").ok();
    eventually("the end", || running.ended().then_some(()));
}

#[test]
fn without_a_cgroup_the_statistics_are_empty() {
    deviates!("crun", "has no events");
    are_empty(&Container::rootless(["sleep"]));
}

#[test]
fn with_cgroups_disabled_the_statistics_are_empty() {
    deviates!("runc", "has no such flag");
    deviates!("crun", "has no events");
    let mut c = Container::new(["sleep"]);
    c.global(&["--cgroup-manager", "disabled"]);
    c.edit(|config| _ = config["linux"].as_object_mut().unwrap().remove("resources"));
    are_empty(&c);
}
