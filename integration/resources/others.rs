//! `linux.resources`: huge pages, networks, rdma, misc, and what is told of controllers that are not there.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{container, drivers, has, set_and_changed};
use crate::harness::{CGROUP_ROOT, Cmd, Need, eventually, in_any_vm, missing, on_v2, runtime, suite};
use crate::systemd::calm;
use crate::{deviates, needs, needs_vm, skip};

fn pages(bytes: u64) -> Value {
    json!({"hugepageLimits": [{"pageSize": "2MB", "limit": bytes}]})
}

/// The size that all of these machines have, and the limits of pages that are used and of those that are reserved.
#[test]
fn huge_pages_are_set_and_changed() {
    deviates!("runc", "does not look beside v1");
    deviates!("crun", "does not look beside v1");
    needs_vm!(Need::Controller("hugetlb"), Need::File("/sys/kernel/mm/hugepages/hugepages-2048kB"));
    let rows = |value| {
        [
            ("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max", value),
            ("hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max", value),
        ]
    };
    set_and_changed(&pages(4_194_304), &rows("4194304"), &pages(2_097_152), &rows("2097152"));
}

/// A container without limits gets them later, also where no other one has had the controller enabled.
#[test]
fn limits_of_huge_pages_may_come_later() {
    deviates!("runc", "does not look beside v1");
    deviates!("crun", "does not look beside v1");
    needs!(Need::CgroupV1, Need::Controller("hugetlb"), Need::File("/sys/kernel/mm/hugepages/hugepages-2048kB"));
    if !on_v2("hugetlb") {
        skip!("hugetlb is on v1");
    }
    let above = format!("{}-later", suite().name);
    let mut c = container(false, &["sleep"], &json!({}));
    let path = format!("/{above}/{}", c.id);
    c.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.started();
    c.command("update", ["--resources", "-"]).arg(&c.id).stdin(pages(2_097_152).to_string()).run().ok();
    has(&c, &[("hugetlb", "", "hugetlb.2MB.max", "2097152")]);
    c.finish();
    let hierarchies = fs::read_dir(CGROUP_ROOT).unwrap().flatten();
    hierarchies.for_each(|hierarchy| _ = fs::remove_dir(hierarchy.path().join(&above)));
}

#[test]
fn huge_pages_are_counted() {
    deviates!("crun", "has no events");
    deviates!("runc", "does not look beside v1");
    needs_vm!(Need::Controller("hugetlb"), Need::File("/sys/kernel/mm/hugepages/hugepages-2048kB"));
    let c = container(false, &["sleep"], &pages(4_194_304));
    c.started();
    let event = c.command("events", ["--stats", &c.id]).run().ok().json();
    assert!(event["data"]["hugetlb"]["2MB"]["failcnt"].is_u64(), "{event}");
}

#[test]
fn sizes_of_huge_pages_that_are_not_there_are_told() {
    deviates!("runc", "does not look beside v1");
    deviates!("crun", "does not look beside v1");
    needs_vm!(Need::Controller("hugetlb"));
    let c = container(false, &["sleep"], &json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}));
    c.run().fails("hugepageLimits[0]").fails("hugetlb.3MB");
    c.nothing_left();
}

/// A device of software. It is never taken away: Linux 6.12 has a list broken then if a cgroup with limits has gone.
#[test]
fn rdma_is_set_and_changed() {
    if !in_any_vm() {
        skip!("needs the vm (make vm): a device of rdma is made");
    }
    needs!(Need::Controller("rdma"));
    for args in [
        &["modprobe", "-a", "dummy", "rdma_rxe"][..],
        &["ip", "link", "add", "vesselrdma", "type", "dummy"],
        &["ip", "link", "set", "vesselrdma", "up"],
        &["rdma", "link", "add", "vesselrxe", "type", "rxe", "netdev", "vesselrdma"],
    ] {
        Cmd::new(args[0]).args(&args[1..]).run().ok();
    }
    let limits =
        |handles: u32, objects: u32| json!({"rdma": {"vesselrxe": {"hcaHandles": handles, "hcaObjects": objects}}});
    let row = |want| [("rdma", "rdma.max", "rdma.max", want)];
    set_and_changed(
        &limits(3, 100),
        &row("~vesselrxe hca_handle=3 hca_object=100"),
        &limits(4, 101),
        &row("~vesselrxe hca_handle=4 hca_object=101"),
    );
    set_and_changed(
        &json!({"rdma": {"vesselrxe": {"hcaObjects": 7}}}),
        &row("~vesselrxe hca_handle=max hca_object=7"),
        &json!({"rdma": {"vesselrxe": {"hcaHandles": 8}}}),
        &row("~vesselrxe hca_handle=8 hca_object=7"),
    );
    let c = container(false, &["sleep"], &json!({"rdma": {"nothing": {"hcaObjects": 7}}}));
    c.run().fails("linux.resources.rdma.nothing").fails("rdma.max");
    c.nothing_left();
}

#[test]
fn classes_and_priorities_of_networks_are_left_out_of_v2_with_a_warning() {
    deviates!("runc", "says nothing");
    deviates!("crun", "says nothing");
    needs!(Need::CgroupV2);
    let network = json!({"network": {"classID": 1, "priorities": [{"name": "lo", "priority": 3}]}});
    let out = container(false, &["echo", "runs"], &network).run().ok();
    for field in ["classID", "priorities"] {
        assert!(out.stderr.contains(&format!("linux.resources.network.{field} is ignored")), "{out}");
    }
}

/// Where the host has them mounted.
fn classes_and_priorities_are_set_and_changed() {
    let network = |class: u32, priority: u32| json!({"network": {"classID": class, "priorities": [{"name": "lo", "priority": priority}]}});
    set_and_changed(
        &network(1_048_577, 3),
        &[("net_cls", "net_cls.classid", "", "1048577"), ("net_prio", "net_prio.ifpriomap", "", "~lo 3")],
        &network(1_048_578, 4),
        &[("net_cls", "net_cls.classid", "", "1048578"), ("net_prio", "net_prio.ifpriomap", "", "~lo 4")],
    );
}

/// Or where it knows them and does not use them: then they are mounted in a namespace.
#[test]
fn classes_and_priorities_of_networks_are_set() {
    deviates!("crun", "looks for them in the usual place only");
    deviates!("runc", "looks for them in the usual place only");
    needs!(Need::CgroupV1, Need::Program("unshare"));
    if missing(&[Need::OnV1("net_cls"), Need::OnV1("net_prio")]).is_none() {
        return classes_and_priorities_are_set_and_changed();
    }
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
