//! Control groups (config-linux.md, "Control groups" and what follows).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{container, not_created, refused};
use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, missing, runtime_kind, suite};
use crate::mounts::in_a_user_namespace;
use crate::{deviates, needs, skip, spec};

fn v2() -> bool {
    missing(&[Need::CgroupV2]).is_none()
}

/// A directory of the hierarchy of a controller.
fn dir(controller: &str, path: &str) -> PathBuf {
    Path::new(CGROUP_ROOT).join(if v2() { "" } else { controller }).join(path.trim_start_matches('/'))
}

#[test]
fn an_unfit_cgroup_is_an_error() {
    spec!("config-linux/cgroups/unfit");
    deviates!("runc" before 1.2, "only warns");
    deviates!("crun", "makes no such check");
    let first = Container::new(["sleep"]);
    first.started();
    let c = container(&["sleep"], &[("/linux/cgroupsPath", json!(first.cgroups_path()))]);
    refused(&c.create());
    // What was there is not harmed.
    assert_eq!(first.status(), "running");
    let frozen = Container::new(["sleep"]);
    let path = dir("freezer", frozen.cgroups_path());
    let (file, stop, go) = if v2() { ("cgroup.freeze", "1", "0") } else { ("freezer.state", "FROZEN", "THAWED") };
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(file), stop).unwrap();
    let out = frozen.create();
    fs::write(path.join(file), go).unwrap();
    let _ = fs::remove_dir(&path);
    refused(&out);
}

#[test]
fn an_absolute_path_begins_at_the_mount_point() {
    spec!("config-linux/cgroups/absolute-path");
    let c = Container::new(["sleep"]);
    c.started();
    assert_eq!(Container::cgroup_of(c.pid(), "pids"), dir("pids", c.cgroups_path()));
}

#[test]
fn a_path_is_always_one_place() {
    spec!("config-linux/cgroups/same-place");
    for path in ["", "relative"] {
        let places = [0, 1].map(|_| {
            let mut c = Container::new(["sleep"]);
            let path =
                if path.is_empty() { format!("/{}/same", suite().name) } else { format!("{}-same", suite().name) };
            c.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
            c.started();
            let place = Container::cgroup_of(c.pid(), "pids");
            c.command("delete", ["--force", &c.id]).run().ok();
            place
        });
        assert_eq!(places[0], places[1]);
    }
}

#[test]
fn a_path_that_cannot_be_is_an_error() {
    spec!("config-linux/cgroups/invalid-path");
    not_created(&container(&["sleep"], &[("/linux/cgroupsPath", json!(7))]));
    // Another runtime may take the whole hierarchy for its container's own.
    if runtime_kind() == "vessel" {
        not_created(&container(&["sleep"], &[("/linux/cgroupsPath", json!("/.."))]));
    }
}

/// A sleeping container in a user namespace whose cgroup is mounted writable, or not; with a cgroup namespace, or not.
fn owned(writable: bool, namespace: bool) -> Container {
    Container::with(["sleep"], |config| {
        in_a_user_namespace(config);
        if !namespace {
            config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
        }
        let mounts = config["mounts"].as_array_mut().unwrap();
        let mount = mounts.iter_mut().find(|m| m["destination"] == "/sys/fs/cgroup").unwrap();
        mount["options"] = if writable { json!(["rw"]) } else { json!(["ro"]) };
    })
}

fn owner(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).uid()
}

/// The owners of the directory and of its files by their names.
fn owners(c: &Container) -> (u32, Vec<(String, u32)>) {
    let dir = Container::cgroup_of(c.pid(), "pids");
    let files = fs::read_dir(&dir).unwrap().flatten().filter(|e| e.path().is_file());
    (owner(&dir), files.map(|e| (e.file_name().to_string_lossy().into_owned(), owner(&e.path()))).collect())
}

const ROOT: u32 = 200_000;

#[test]
fn on_v1_the_owner_stays() {
    spec!("config-linux/cgroup-owner/v1");
    needs!(Need::CgroupV1);
    let c = owned(true, true);
    c.started();
    let (dir, files) = owners(&c);
    assert!(dir == 0 && files.iter().all(|f| f.1 == 0), "{dir} {files:?}");
}

#[test]
fn without_a_cgroup_namespace_the_owner_stays() {
    spec!("config-linux/cgroup-owner/namespace");
    needs!(Need::CgroupV2);
    let c = owned(true, false);
    c.started();
    assert_eq!(owners(&c).0, 0);
}

#[test]
fn a_read_only_cgroup_keeps_its_owner() {
    spec!("config-linux/cgroup-owner/read-only");
    needs!(Need::CgroupV2);
    let c = owned(false, true);
    c.started();
    assert_eq!(owners(&c).0, 0);
    let mut c = owned(false, true);
    c.edit(|config| config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/sys/fs/cgroup"));
    c.started();
    assert_eq!(owners(&c).0, 0);
}

#[test]
fn a_writable_cgroup_belongs_to_the_container() {
    spec!(
        "config-linux/cgroup-owner/writable",
        "config-linux/cgroup-owner/files",
        "config-linux/cgroup-owner/other-files",
        "config-linux/cgroup-owner/missing-files",
        "config-linux/cgroup-owner/existing-files"
    );
    needs!(Need::CgroupV2, Need::File("/sys/kernel/cgroup/delegate"));
    let c = owned(true, true);
    c.started();
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    let (dir, files) = owners(&c);
    assert_eq!(dir, ROOT);
    for (name, owner) in files {
        let want = if list.lines().any(|l| l == name) { ROOT } else { 0 };
        assert_eq!(owner, want, "{name}");
    }
}

#[test]
fn without_a_list_of_the_kernel_three_files_belong_to_the_container() {
    spec!("config-linux/cgroup-owner/fallback");
    needs!(Need::CgroupV2, Need::File("/sys/kernel/cgroup"), Need::Program("unshare"));
    let mut c = owned(true, true);
    // The kernel allows no new sysfs where a part of the old one is hidden.
    c.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/sys");
        config["root"]["readonly"] = json!(false);
    });
    fs::create_dir_all(c.rootfs().join("sys/fs/cgroup")).unwrap();
    let script = format!(
        "mount --make-rprivate /; mount -t tmpfs none /sys/kernel/cgroup; \
         exec {} --root {} create --bundle {} --pid-file {} {}",
        suite().runtime.display(),
        c.root().display(),
        c.bundle().display(),
        c.path("pid").display(),
        c.id,
    );
    c.create_with(Cmd::new("unshare").args(["-m", "sh", "-c", &script]).env("VESSEL_TEST", c.dir.as_os_str())).ok();
    let (dir, files) = owners(&c);
    assert_eq!(dir, ROOT);
    let mut given: Vec<_> = files.into_iter().filter(|f| f.1 == ROOT).map(|f| f.0).collect();
    given.sort();
    assert_eq!(given, ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]);
}

/// Whether /dev/probe, which is the loop devices' control, can be opened under these rules.
fn opens(rules: Value) -> bool {
    let c = container(
        &["open", "/dev/probe", "r"],
        &[
            ("/linux/devices", json!([{"path": "/dev/probe", "type": "c", "major": 10, "minor": 237}])),
            ("/linux/resources", json!({ "devices": rules })),
        ],
    );
    !c.run().ok().stdout.contains("EPERM")
}

#[test]
fn rules_for_devices_are_applied_in_their_order() {
    spec!("config-linux/device-rules/order");
    needs!(Need::File("/dev/loop-control"));
    let all = json!({"allow": false, "access": "rwm"});
    let one = |allow: bool| json!({"allow": allow, "type": "c", "major": 10, "minor": 237, "access": "rwm"});
    assert!(opens(json!([all, one(true)])));
    assert!(!opens(json!([one(true), all])));
    assert!(!opens(json!([all, one(true), one(false)])));
}

#[test]
fn a_limit_below_the_usage_is_refused_when_it_asks_for_a_check() {
    spec!("config-linux/memory/check");
    needs!(Need::CgroupV2, Need::Controller("memory"));
    let c = container(&["echo", "ready", "--", "sleep"], &[("/linux/resources/memory", json!({"limit": 67_108_864}))]);
    c.started();
    c.wait_for("ready");
    let resources = json!({"memory": {"limit": 1024, "checkBeforeUpdate": true}});
    let out = c.command("update", ["--resources", "-", &c.id]).stdin(resources.to_string()).run();
    refused(&out);
    assert_eq!(c.status(), "running");
}

#[test]
fn no_processes_is_a_limit() {
    spec!("config-linux/pids/zero");
    needs!(Need::Controller("pids"));
    deviates!("runc" before 1.5, "takes zero for none");
    deviates!("crun", "takes zero for none");
    let c = container(&["fork", "1"], &[("/linux/resources/pids", json!({"limit": 0}))]);
    let out = c.run();
    assert!(out.stdout.contains("EAGAIN"), "{out}");
}

#[test]
fn controllers_for_files_of_v2_are_turned_on() {
    spec!("config-linux/unified/controllers");
    needs!(Need::CgroupV2, Need::Controller("memory"));
    let c = container(&["sleep"], &[("/linux/resources/unified", json!({"memory.high": "50331648"}))]);
    c.started();
    assert_eq!(c.cgroup_file("memory", "memory.high"), "50331648");
}

#[test]
fn unknown_files_of_v2_are_written() {
    spec!("config-linux/unified/unknown");
    needs!(Need::CgroupV2);
    let c = container(&["sleep"], &[("/linux/resources/unified", json!({"cgroup.max.depth": "7"}))]);
    c.started();
    assert_eq!(c.cgroup_file("", "cgroup.max.depth"), "7");
}

#[test]
fn files_of_a_controller_that_is_not_there_are_an_error() {
    spec!("config-linux/unified/missing");
    needs!(Need::CgroupV2);
    not_created(&container(&["sleep"], &[("/linux/resources/unified", json!({"nothing.max": "1"}))]));
}

#[test]
fn what_v2_cannot_do_is_an_error() {
    spec!("config-linux/unified/conversion");
    needs!(Need::CgroupV2);
    if missing(&[Need::Controller("memory")]).is_some() {
        skip!("no controller memory");
    }
    deviates!("runc", "ignores it");
    let c = container(&["sleep"], &[("/linux/resources/memory", json!({"swappiness": 20}))]);
    refused(&c.create_with(c.create_cmd().env("VESSEL_STRICT", "1")));
    refused(&c.command("state", [&c.id]).run());
}
