//! SELinux labels (config.md, `process.selinuxLabel`; config-linux.md, "Mount Label"; `exec --process-label`). The
//! test bed's second boot has Debian's policy, and carries out these tests alone.

use std::fs;

use serde_json::json;

use crate::harness::{Container, Need, missing, runtime_kind};
use crate::mounts::{add, tmpfs};
use crate::{deviates, needs, skip};

const LABEL: &str = "system_u:system_r:container_t:s0:c1,c2";
const OTHER: &str = "system_u:system_r:container_t:s0:c3,c4";
/// A type that no policy has.
const UNKNOWN: &str = "system_u:system_r:vessel_unknown_t:s0";

fn labelled(args: &[&str], label: &str) -> Container {
    Container::with(args, |config| config["process"]["selinuxLabel"] = json!(label))
}

#[test]
fn the_program_has_the_label_that_is_asked_for() {
    needs!(Need::Selinux);
    labelled(&["label"], LABEL).run().ok().line(&format!("current {LABEL}"));
    // Also an ordinary user, and one without a keyring of its own.
    let mut c = labelled(&["label"], LABEL);
    c.edit(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    let run = c.command("run", ["--no-new-keyring", "--bundle"]).arg(c.bundle()).arg(&c.id);
    run.run().ok().line(&format!("current {LABEL}"));
}

#[test]
fn an_exec_has_the_containers_label_or_its_own() {
    needs!(Need::Selinux);
    let c = labelled(&["label", "--", "sleep"], LABEL);
    c.started();
    assert!(c.wait_for("current ").contains(&format!("current {LABEL}\n")));
    c.exec(["label"]).ok().line(&format!("current {LABEL}"));
    c.exec_cmd(&["--process-label", OTHER], ["label"]).run().ok().line(&format!("current {OTHER}"));
    c.exec_cmd(&["--process-label", UNKNOWN], ["label"]).run().fails(words(UNKNOWN));
    c.finish();
}

#[test]
fn an_exec_takes_a_label_where_the_container_has_none() {
    needs!(Need::Selinux);
    let c = Container::new(["sleep"]);
    c.started();
    let own = fs::read_to_string("/proc/self/attr/current").unwrap();
    c.exec(["label"]).ok().line(&format!("current {}", own.trim_end_matches('\0')));
    c.exec_cmd(&["--process-label", OTHER], ["label"]).run().ok().line(&format!("current {OTHER}"));
    c.finish();
}

#[test]
fn a_label_that_the_policy_does_not_know_is_told() {
    needs!(Need::Selinux);
    let c = labelled(&["label"], UNKNOWN);
    c.run().fails(words(UNKNOWN));
    c.nothing_left();
}

/// What the error must have: other runtimes tell the reason of the kernel alone.
fn words(label: &str) -> &str {
    if runtime_kind() == "vessel" { label } else { "nvalid argument" }
}

/// linux.mountLabel: the context of what is mounted new.
#[test]
fn new_file_systems_have_the_label() {
    needs!(Need::Selinux);
    let context = "system_u:object_r:tmp_t:s0:c1,c2";
    let c = Container::with(["mountinfo", "--", "xattr", "/dev/mqueue", "security.selinux"], |config| {
        config["linux"]["mountLabel"] = json!(context);
        add(config, tmpfs(&["size=64k"]));
    });
    fs::create_dir(c.rootfs().join("mnt")).unwrap();
    let out = c.run().ok();
    for path in ["/dev", "/dev/pts", "/dev/shm", "/mnt"] {
        let line = out.stdout.lines().find(|l| l.split(' ').nth(4) == Some(path)).unwrap();
        assert!(line.contains("tmp_t:s0:c1,c2"), "{line}");
    }
    // The kernel takes no such option for it.
    out.line(&format!("xattr {context}"));
}

#[test]
fn a_label_needs_selinux() {
    deviates!("crun", "passes it over where it is off");
    if missing(&[Need::Selinux]).is_none() {
        skip!("SELinux is on");
    }
    let c = labelled(&["label"], LABEL);
    let out = c.run();
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.to_lowercase().contains("selinux"), "{out}");
    c.nothing_left();
    let c = Container::new(["sleep"]);
    c.started();
    let out = c.exec_cmd(&["--process-label", LABEL], ["label"]).run();
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.to_lowercase().contains("selinux"), "{out}");
    c.finish();
}
