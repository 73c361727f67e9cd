//! config-linux.md, "IntelRdt", as far as it can be seen from outside. Few machines have a resctrl: most tests show the
//! runtime a table of mounts that tells of one, which is a directory. What a runtime does with a group that it makes is
//! tested beside the code, as nothing fills a directory that is made here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{container, not_created, refused};
use crate::harness::{Cmd, Container, Need, runtime_kind, suite};
use crate::{needs, skip, spec};

/// Has the table of mounts begin with a resctrl at the first argument, and runs the others. The mounts are those of the
/// process, which stays the same one.
const SHOW: &str = r#"set -e
{ echo "resctrl $1 resctrl rw,relatime 0 0"; cat /proc/self/mounts; } >"$1.mounts"
{ echo "9999 1 0:9999 / $1 rw,relatime - resctrl resctrl rw"; cat /proc/self/mountinfo; } >"$1.mountinfo"
for table in mounts mountinfo; do mount -n --bind "$1.$table" /proc/$$/$table; done
shift
exec "$@""#;

/// The directory in the place of the resctrl, which has the class `gold`.
fn resctrl(c: &Container) -> PathBuf {
    let root = c.path("resctrl");
    for (class, schemata) in [("", "    L3:0=fffff\n    MB:0=  100\n"), ("gold", "    L3:0=0000f\n    MB:0=   20\n")] {
        let dir = root.join(class);
        fs::create_dir_all(dir.join("mon_groups")).unwrap();
        fs::write(dir.join("schemata"), schemata).unwrap();
        fs::write(dir.join("tasks"), "").unwrap();
    }
    for part in ["info/L3", "info/MB"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    fs::write(root.join("info/last_cmd_status"), "ok\n").unwrap();
    root
}

/// A command of the runtime that sees the resctrl.
fn seeing(c: &Container, args: &[&str]) -> Cmd {
    let cmd = Cmd::new("unshare").args(["-m", "sh", "-c", SHOW, "sh"]).arg(c.path("resctrl")).arg(&suite().runtime);
    cmd.arg("--root").arg(c.root()).args(args).env("VESSEL_TEST", c.dir.as_os_str()).cwd(&c.dir)
}

fn create_cmd(c: &Container) -> Cmd {
    seeing(c, &["create", "--bundle", "bundle", "--pid-file", "pid", &c.id])
}

/// All that is below a directory, with what changes when it is written to.
fn all_of(dir: &Path) -> Vec<String> {
    let mut entries = vec![];
    let mut left = vec![dir.to_path_buf()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let text = if about.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        entries.push(format!("{} {:?} {}.{:09}", path.display(), text, about.ctime(), about.ctime_nsec()));
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    entries.sort();
    entries
}

/// Whether the runtime takes the directory for a resctrl. Another may look at the filesystem itself.
fn believes() -> bool {
    let c = container(&["sleep"], &[("/linux/intelRdt", json!({"closID": "gold"}))]);
    let root = resctrl(&c);
    c.create_with(create_cmd(&c));
    let written = fs::read_to_string(root.join("gold/tasks")).unwrap();
    assert!(!written.is_empty() || runtime_kind() != "vessel", "{}", c.stderr());
    seeing(&c, &["delete", "--force", &c.id]).run();
    !written.is_empty()
}

macro_rules! needs_a_resctrl {
    () => {
        needs!(Need::Program("unshare"));
        if !believes() {
            skip!("the runtime does not believe the table of mounts");
        }
    };
}

#[test]
fn without_intel_rdt_no_resctrl_is_touched() {
    spec!("config-linux/intel-rdt/unset");
    needs_a_resctrl!();
    let c = Container::new(["sleep"]);
    let root = resctrl(&c);
    let before = all_of(&root);
    c.create_with(create_cmd(&c)).ok();
    assert_eq!(all_of(&root), before, "create");
    seeing(&c, &["start", &c.id]).run().ok();
    seeing(&c, &["exec", &c.id, "/probe", "exit", "0"]).run().ok();
    assert_eq!(all_of(&root), before, "start and exec");
    seeing(&c, &["kill", &c.id, "KILL"]).run().ok();
    c.wait_exit();
    seeing(&c, &["delete", &c.id]).run().ok();
    assert_eq!(all_of(&root), before, "delete");
}

#[test]
fn a_class_that_is_there_takes_the_container_and_stays() {
    spec!(
        "config-linux/intel-rdt/tasks",
        "config-linux/intel-rdt/class-alone",
        "config-linux/intel-rdt/no-schema",
        "config-linux/intel-rdt/kept",
    );
    needs_a_resctrl!();
    let mut c = container(&["sleep"], &[("/linux/intelRdt", json!({"closID": "gold"}))]);
    let root = resctrl(&c);
    let schemata = fs::read_to_string(root.join("gold/schemata")).unwrap();
    c.create_with(create_cmd(&c)).ok();
    assert_eq!(fs::read_to_string(root.join("gold/tasks")).unwrap().trim(), c.pid().to_string());
    seeing(&c, &["delete", "--force", &c.id]).run().ok();
    assert_eq!(fs::read_to_string(root.join("gold/schemata")).unwrap(), schemata);
    assert!(root.join("gold/tasks").exists());
    c.edit(|config| config["linux"]["intelRdt"] = json!({"closID": "silver"}));
    refused(&c.create_with(create_cmd(&c)));
}

#[test]
fn the_root_of_the_resctrl_takes_the_container() {
    spec!("config-linux/intel-rdt/default-class");
    needs_a_resctrl!();
    let c = container(&["sleep"], &[("/linux/intelRdt", json!({"closID": "/"}))]);
    let root = resctrl(&c);
    c.create_with(create_cmd(&c)).ok();
    assert_eq!(fs::read_to_string(root.join("tasks")).unwrap().trim(), c.pid().to_string());
}

#[test]
fn a_class_that_is_there_is_compared() {
    spec!("config-linux/intel-rdt/class-compared");
    needs_a_resctrl!();
    let mut c = container(&["sleep"], &[("/linux/intelRdt", json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}))]);
    resctrl(&c);
    c.create_with(create_cmd(&c)).ok();
    seeing(&c, &["delete", "--force", &c.id]).run().ok();
    c.edit(|config| config["linux"]["intelRdt"]["l3CacheSchema"] = json!("L3:0=ff"));
    refused(&c.create_with(create_cmd(&c)));
}

#[test]
fn intel_rdt_needs_a_resctrl() {
    spec!("config-linux/intel-rdt/no-resctrl");
    if fs::read_to_string("/proc/mounts").unwrap().contains(" resctrl ") {
        skip!("there is a resctrl");
    }
    not_created(&container(&["exit", "0"], &[("/linux/intelRdt", json!({"closID": "a"}))]));
}

#[test]
fn schemas_of_intel_rdt_are_one_line_each() {
    spec!("config-linux/intel-rdt/mem-bw-format", "config-linux/intel-rdt/schemata-format");
    if runtime_kind() != "vessel" {
        skip!("no way to check a configuration alone");
    }
    for (rdt, right) in [
        (json!({"memBwSchema": "MB:0=20", "schemata": ["MB:0=20", "L3:0=f"]}), true),
        (json!({"memBwSchema": "L3:0=f"}), false),
        (json!({"memBwSchema": "MB:0=20\nMB:1=20"}), false),
        (json!({"schemata": ["MB:0=20", "MB:0=20\nL3:0=f"]}), false),
    ] {
        let c = container(&["exit", "0"], &[("/linux/intelRdt", rdt)]);
        let out = c.command("check", ["--bundle"]).arg(c.bundle()).run();
        assert_eq!(out.code == 0, right, "{out}");
    }
}
