//! Devices (config-linux.md, "Devices", "Default Devices", "Dev symbolic links").

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};

use serde_json::json;

use crate::harness::{Container, Need};
use crate::mounts::{add, in_a_user_namespace};
use crate::{deviates, needs};

const DEFAULT: [(&str, &str); 6] =
    [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")];

fn stat_of_default() -> Vec<String> {
    let paths = DEFAULT.iter().map(|(name, _)| format!("/dev/{name}"));
    std::iter::once("stat".to_owned()).chain(paths).collect()
}

#[test]
fn the_default_devices_are_there() {
    let out = Container::new(stat_of_default()).run().ok();
    for (name, number) in DEFAULT {
        out.clone().line(&format!("stat /dev/{name} char mode=0666 uid=0 gid=0 rdev={number} size=0"));
    }
}

#[test]
fn a_later_rule_for_more_devices_takes_back_what_was_allowed() {
    needs!(Need::OnV1("devices"));
    deviates!("runc", "keeps what an earlier rule has allowed");
    deviates!("crun", "keeps what an earlier rule has allowed");
    let rule = |allow, kind, minor: Option<u32>| {
        let major = if kind == "b" { 8 } else { 10 };
        json!({"allow": allow, "type": kind, "major": major, "minor": minor, "access": "rwm"})
    };
    let c = Container::with(["sleep"], |config| {
        config["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            rule(true, "b", Some(1)),
            rule(false, "b", None),
            rule(true, "c", Some(229)),
            rule(false, "c", None),
        ]);
    });
    c.started();
    let list = c.cgroup_file("devices", "devices.list");
    assert!(list.contains("c 10:200 rwm") && !list.contains(" 8:1 ") && !list.contains("10:229"), "{list}");
}

#[test]
fn a_later_rule_for_more_devices_takes_back_what_was_denied() {
    deviates!("runc", "keeps what an earlier rule has denied");
    let rule =
        |allow, minor: Option<u32>| json!({"allow": allow, "type": "c", "major": 10, "minor": minor, "access": "rw"});
    let mut c = Container::with(["open", "/dev/probe", "r"], |config| {
        config["linux"]["devices"] = json!([{"path": "/dev/probe", "type": "c", "major": 10, "minor": 229}]);
        config["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}, rule(false, Some(229))]);
    });
    c.run().line("open EPERM");
    c.edit(|config| {
        config["linux"]["resources"]["devices"].as_array_mut().unwrap().push(rule(true, None));
    });
    let out = c.run();
    assert!(out.stdout.starts_with("open ") && !out.stdout.contains("EPERM"), "{out}");
}

#[test]
fn the_default_links_are_there() {
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        Container::new(["readlink", &format!("/dev/{name}")]).run().ok().line(&format!("link {target}"));
    }
}

#[test]
fn devices_are_made_as_configured() {
    let verbs = ["stat", "/dev/mine", "/dev/below/disk", "/dev/pipe", "/dev/null", "/elsewhere"];
    let c = Container::with(verbs, |config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o4640, "uid": 5, "gid": 6},
            {"path": "/dev/below/disk", "type": "b", "major": 7, "minor": 3, "fileMode": 0o600},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 1},
            {"path": "/dev/null", "type": "u", "major": 1, "minor": 3, "fileMode": 0o600},
            {"path": "/elsewhere", "type": "c", "major": 1, "minor": 5},
        ]);
        // Only for default devices a rule is implied.
        let rules = config["linux"]["resources"]["devices"].as_array_mut().unwrap();
        rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}));
    });
    let out = c.run().ok();
    out.clone().line("stat /dev/below/disk block mode=0600 uid=0 gid=0 rdev=7:3 size=0");
    out.clone().line("stat /dev/null char mode=0600 uid=0 gid=0 rdev=1:3 size=0");
    out.clone().line("stat /dev/pipe fifo mode=0622 uid=1 gid=0 rdev=0:0 size=0");
    out.clone().line("stat /elsewhere char mode=0666 uid=0 gid=0 rdev=1:5 size=0");
    assert!(out.stdout.contains("stat /dev/mine char mode="), "{out}");
    assert!(out.stdout.contains("uid=5 gid=6 rdev=10:229"), "{out}");
}

/// config-linux.md: a file at the path that does not match the device MUST be an error.
#[test]
fn what_is_there_must_match_the_device() {
    deviates!("runc", "leaves what is there");
    deviates!("crun", "leaves what is there");
    let container = |path: &str| {
        Container::with(["stat", "/node"], |config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["devices"] = json!([{"path": path, "type": "c", "major": 1, "minor": 3}]);
        })
    };
    let node = |c: &Container, minor| {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        mknod(&c.rootfs().join("node"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, minor)).unwrap();
    };
    let c = container("/node");
    node(&c, 3);
    assert!(c.run().ok().stdout.contains("rdev=1:3"));
    let c = container("/node");
    node(&c, 5);
    c.run().exits(1).fails("linux.devices[0]").fails("character device 1:5");
    let c = container("/node");
    fs::write(c.rootfs().join("node"), "").unwrap();
    c.run().exits(1).fails("a regular file");
    let c = container("/node");
    symlink("/dev/null", c.rootfs().join("node")).unwrap();
    c.run().exits(1).fails("a symbolic link");
    let c = container("/etc");
    c.run().exits(1).fails("a directory");
}

#[test]
fn in_a_user_namespace_the_nodes_are_the_hosts() {
    let verbs = stat_of_default().into_iter();
    let writes = ["--", "try-write", "/dev/null", "x", "--", "open", "/dev/zero", "r"];
    let c = Container::with(verbs.chain(writes.map(str::to_owned)), in_a_user_namespace);
    let out = c.run().ok();
    for (name, number) in DEFAULT {
        let found = out.stdout.lines().any(|l| l.starts_with(&format!("stat /dev/{name} char")) && l.contains(number));
        assert!(found, "{name}: {out}");
    }
    out.clone().line("write ok 0").line("open ok 0");
}

#[test]
fn in_a_user_namespace_a_fifo_is_made() {
    deviates!("runc", "binds the host's");
    let c = Container::with(["stat", "/dev/own"], |config| {
        in_a_user_namespace(config);
        config["linux"]["devices"] = json!([{"path": "/dev/own", "type": "p"}]);
    });
    let out = c.run().ok();
    assert!(out.stdout.contains("stat /dev/own fifo"), "{out}");
}

#[test]
fn a_rootless_container_has_devices() {
    let out = Container::rootless(stat_of_default()).run().ok();
    assert_eq!(out.stdout.lines().filter(|l| l.contains(" char ")).count(), DEFAULT.len(), "{out}");
}

#[test]
fn in_a_user_namespace_the_hosts_node_must_match() {
    deviates!("runc", "binds whatever is there");
    deviates!("crun", "binds whatever is there");
    let c = Container::with(["stat", "/dev/null"], |config| {
        in_a_user_namespace(config);
        config["linux"]["devices"] = json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 3}]);
    });
    c.run().exits(1).fails("linux.devices[0]").fails("character device 1:7");
}

/// A /dev of the host is used as it is: nothing is made or removed in it.
#[test]
fn a_bound_dev_is_left_alone() {
    deviates!("runc" before 1.4, "wants a /dev/null");
    deviates!("crun", "wants a /dev/null");
    let mut c = Container::new(["ls", "/dev"]);
    let dev = c.path("dev");
    fs::create_dir(&dev).unwrap();
    fs::write(dev.join("ptmx"), "").unwrap();
    c.edit(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
        // There is no /dev/null to mask with.
        config["linux"]["maskedPaths"] = json!([]);
        add(config, json!({"destination": "/dev/", "source": dev, "options": ["rbind"]}));
    });
    let out = c.run().ok();
    assert_eq!(out.stdout.trim(), "ptmx", "{out}");
    assert!(fs::metadata(c.path("dev/ptmx")).unwrap().file_type().is_file());
}

#[test]
fn a_configured_ptmx_is_that_of_the_container_also_where_nodes_are_bound() {
    deviates!("crun", "binds the host's");
    let configured = |mut c: Container| {
        c.edit(|config| {
            config["linux"]["devices"] = json!([{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]);
        });
        c.run().ok().line("link pts/ptmx");
    };
    configured(Container::new(["readlink", "/dev/ptmx"]));
    configured(Container::rootless(["readlink", "/dev/ptmx"]));
}

/// Without a mount on /dev they are made in the image's.
#[test]
fn devices_are_made_in_the_root_itself() {
    let mut c = Container::new(["stat", "/dev/null", "--", "readlink", "/dev/ptmx"]);
    symlink("/somewhere", c.rootfs().join("dev/ptmx")).unwrap();
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    });
    c.run().ok().line("link pts/ptmx");
    assert!(fs::symlink_metadata(c.rootfs().join("dev/null")).unwrap().file_type().is_char_device());
}
