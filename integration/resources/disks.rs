//! `linux.resources.blockIO`: rates, and the weights that some schedulers have.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{container, drivers, has, v2};
use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, in_any_vm, runtime_kind};
use crate::systemd::calm;
use crate::{deviates, needs, skip};

fn controller() -> &'static str {
    if v2() { "io" } else { "blkio" }
}

/// A disk's numbers.
fn disk() -> Option<(u64, u64)> {
    let entries = fs::read_dir("/sys/block").ok()?.flatten();
    let mut disks = entries.filter(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        !["loop", "ram", "zram", "fd", "sr", "dm-", "null"].iter().any(|kind| name.starts_with(kind))
    });
    numbers(&disks.next()?.path())
}

fn numbers(disk: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(disk.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn rates_of_disks_are_set_and_changed() {
    deviates!("crun", "does not change them");
    needs!(Need::Controller(controller()));
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

/// A disk whose scheduler knows weights. The vm gets one.
fn weighing_disk() -> Option<(u64, u64)> {
    let scheduler = |disk: &Path| fs::read_to_string(disk.join("queue/scheduler")).unwrap_or_default();
    if in_any_vm() {
        Cmd::new("modprobe").args(["bfq"]).run().ok();
        fs::write(null_disk().join("queue/scheduler"), "bfq").unwrap();
    }
    let mut disks = fs::read_dir("/sys/block").ok()?.flatten().map(|e| e.path());
    numbers(&disks.find(|disk| scheduler(disk).contains("[bfq]"))?)
}

/// A disk of the vm that nobody uses.
fn null_disk() -> &'static Path {
    Cmd::new("modprobe").args(["null_blk", "nr_devices=1"]).run().ok();
    Path::new("/sys/block/nullb0")
}

fn weight(weight: u16) -> Value {
    json!({"blockIO": {"weight": weight}})
}

fn device_weight((major, minor): (u64, u64), weight: u16) -> Value {
    json!({"blockIO": {"weightDevice": [{"major": major, "minor": minor, "weight": weight}]}})
}

/// Sets the weights 500 and 10, for all disks and for one, and looks for what a file of the kernel has then.
fn set_and_changed(disk: Option<(u64, u64)>, file: &str, device_file: &str, wants: [&str; 2]) {
    for &systemd in drivers() {
        let c = container(systemd, &["sleep"], &weight(500));
        c.started();
        has(&c, &[("blkio", file, file, &format!("~{}", wants[0]))]);
        c.command("update", ["--blkio-weight", "10", &c.id]).run().ok();
        has(&c, &[("blkio", file, file, &format!("~{}", wants[1]))]);

        let Some(disk) = disk else { continue };
        let c = container(systemd, &["sleep"], &device_weight(disk, 500));
        c.started();
        let line = |want: &str| format!("~{}:{} {want}", disk.0, disk.1);
        has(&c, &[("blkio", device_file, device_file, &line(wants[0]))]);
        c.command("update", ["--resources", "-"]).arg(&c.id).stdin(device_weight(disk, 10).to_string()).run().ok();
        has(&c, &[("blkio", device_file, device_file, &line(wants[1]))]);
    }
}

/// The general weight of v2, of another range, which needs a model of the disk's costs; and the weight of a scheduler.
#[test]
fn weights_of_disks_are_set_and_changed() {
    deviates!("crun", "has other files");
    needs!(Need::Controller(controller()));
    let _calm = calm();
    let probe = container(false, &["sleep"], &json!({}));
    probe.started();
    let dir = Container::cgroup_of(probe.pid(), controller());
    if v2() && in_any_vm() {
        let (major, minor) = numbers(null_disk()).unwrap();
        fs::write(Path::new(CGROUP_ROOT).join("io.cost.qos"), format!("{major}:{minor} enable=1")).unwrap();
        set_and_changed(Some((major, minor)), "io.weight", "io.weight", ["4950", "1"]);
        fs::write(Path::new(CGROUP_ROOT).join("io.cost.qos"), format!("{major}:{minor} enable=0")).unwrap();
    }
    let disk = weighing_disk();
    let files = [
        ("io.bfq.weight", "io.bfq.weight", ["500", "10"]),
        ("io.weight", "io.weight", ["4950", "1"]),
        ("blkio.weight", "blkio.weight_device", ["500", "10"]),
        ("blkio.bfq.weight", "blkio.bfq.weight_device", ["500", "10"]),
    ];
    match files.iter().find(|(file, ..)| dir.join(file).exists()) {
        Some((file, device_file, wants)) => set_and_changed(disk, file, device_file, *wants),
        None => {
            for resources in [weight(500), device_weight((1, 1), 500)] {
                let c = container(false, &["sleep"], &resources);
                c.run().fails("linux.resources.blockIO.weight").fails("io.weight").fails("load the module bfq");
                c.nothing_left();
            }
        }
    }
}

/// Those of the idle scheduler's leaves went with it (Linux 5.0).
#[test]
fn weights_of_leaves_are_an_error_on_v1_and_a_warning_on_v2() {
    deviates!("crun", "leaves them out");
    needs!(Need::Controller(controller()));
    let leaf = json!({"blockIO": {"leafWeight": 500}});
    let of_device = json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 500}]}});
    if v2() {
        let out = container(false, &["echo", "runs"], &leaf).run().ok();
        if runtime_kind() == "vessel" {
            assert!(out.stderr.contains("linux.resources.blockIO.leafWeight is ignored"), "{out}");
        }
        return;
    }
    for (resources, file) in [(leaf, "blkio.leaf_weight"), (of_device, "blkio.leaf_weight_device")] {
        let c = container(false, &["sleep"], &resources);
        c.run().fails(file);
        c.nothing_left();
    }
}

#[test]
fn disks_that_are_not_there_are_told() {
    deviates!("runc", "has no hint");
    deviates!("crun", "has other words");
    needs!(Need::Controller(controller()));
    let one = json!([{"major": 0, "minor": 99, "rate": 5}]);
    for (resources, field) in [
        (json!({"blockIO": {"throttleReadBpsDevice": one}}), "throttleReadBpsDevice[0]"),
        (device_weight((0, 99), 500), "weightDevice[0]"),
    ] {
        let c = container(false, &["sleep"], &resources);
        let out = c.run().fails(&format!("linux.resources.blockIO.{field}"));
        assert!(out.stderr.contains("there is no such block device") || out.stderr.contains("load the module bfq"));
        c.nothing_left();
    }
}
