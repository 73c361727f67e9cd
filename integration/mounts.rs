//! Mounts (config.md, "Mounts"): every option takes effect, and what cannot be mounted says why.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::binds::on_a_shared_volume;
use crate::harness::{Cmd, Container, Need, Output, missing, runtime_kind, suite};
use crate::{deviates, needs, skip};

/// A mount as the container sees it.
#[derive(Debug)]
pub struct Mount {
    pub options: Vec<String>,
    pub propagation: String,
    pub kind: String,
    pub super_options: Vec<String>,
}

/// The topmost mount at a path, from the container's mountinfo.
#[track_caller]
pub fn mount_at(out: &Output, path: &str) -> Mount {
    let line = out.stdout.lines().rev().find(|l| l.split(' ').nth(4) == Some(path));
    let line = line.unwrap_or_else(|| panic!("no mount at {path} in: {out}"));
    let (before, after) = line.split_once(" - ").unwrap();
    let fields: Vec<&str> = before.split(' ').collect();
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    let after: Vec<&str> = after.split(' ').collect();
    Mount {
        options: words(fields[5]),
        propagation: fields[6..].join(" "),
        kind: after[0].to_owned(),
        super_options: words(after[2]),
    }
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option) || self.super_options.iter().any(|o| o == option)
    }
}

/// Adds a mount to the configuration.
pub fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// A container with one more mount, which shows its mounts.
pub fn shows(mount: Value) -> Container {
    Container::with(["mountinfo"], |config| {
        config["root"]["readonly"] = json!(false);
        add(config, mount);
    })
}

pub fn tmpfs(options: &[&str]) -> Value {
    json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options})
}

pub fn bind(source: impl AsRef<std::path::Path>, options: &[&str]) -> Value {
    json!({"destination": "/mnt", "type": "none", "source": source.as_ref(), "options": options})
}

#[test]
fn the_mounts_of_the_example_are_there_with_their_options() {
    let out = Container::new(["mountinfo"]).run().ok();
    for (path, kind, with, without) in [
        ("/proc", "proc", "", "ro"),
        ("/dev", "tmpfs", "nosuid size=65536k mode=755", "noexec nodev relatime ro"),
        ("/dev/pts", "devpts", "nosuid noexec gid=5 mode=620 ptmxmode=666", "ro"),
        ("/dev/shm", "tmpfs", "nosuid noexec nodev size=65536k", "ro"),
        ("/dev/mqueue", "mqueue", "nosuid noexec nodev", "ro"),
        ("/sys", "sysfs", "nosuid noexec nodev ro", ""),
    ] {
        let mount = mount_at(&out, path);
        assert_eq!(mount.kind, kind);
        with.split_whitespace().for_each(|o| assert!(mount.has(o), "{path} without {o}: {mount:?}"));
        without.split_whitespace().for_each(|o| assert!(!mount.has(o), "{path} with {o}: {mount:?}"));
    }
    assert!(mount_at(&out, "/sys/fs/cgroup").kind.starts_with(if v1() { "tmpfs" } else { "cgroup2" }));
}

fn v1() -> bool {
    missing(&[Need::CgroupV1]).is_none()
}

#[test]
fn every_option_takes_effect_on_a_new_file_system() {
    deviates!("crun", "does not undo them");
    for (options, with, without) in [
        ("ro", "ro", ""),
        ("ro rw", "rw", "ro"),
        ("nosuid nodev noexec", "nosuid nodev noexec", ""),
        ("nosuid suid nodev dev noexec exec", "", "nosuid nodev noexec"),
        ("noatime", "noatime", "relatime"),
        ("noatime atime", "relatime", "noatime"),
        ("nodiratime", "nodiratime relatime", ""),
        ("nodiratime diratime", "", "nodiratime"),
        ("relatime", "relatime", ""),
        ("strictatime", "", "relatime noatime"),
        ("strictatime nostrictatime", "relatime", ""),
        ("norelatime", "", "noatime"),
        ("sync", "sync", ""),
        ("sync async", "", "sync"),
        ("dirsync", "dirsync", ""),
        ("size=4096k,mode=700", "size=4096k mode=700", ""),
    ] {
        let words: Vec<&str> = options.split(' ').collect();
        let mount = mount_at(&shows(tmpfs(&words)).run().ok(), "/mnt");
        with.split_whitespace().for_each(|o| assert!(mount.has(o), "{options}: no {o}: {mount:?}"));
        without.split_whitespace().for_each(|o| assert!(!mount.has(o), "{options}: {o}: {mount:?}"));
    }
}

#[test]
fn options_that_only_new_runtimes_know_take_effect() {
    deviates!("crun", "takes iversion, lazytime and silent for data of the file system");
    for (options, with, without) in [
        ("lazytime", "lazytime", ""),
        ("lazytime nolazytime", "", "lazytime"),
        ("nosymfollow", "nosymfollow", ""),
        ("nosymfollow symfollow", "", "nosymfollow"),
        // These do not show, but are no data of the file system either.
        ("iversion", "rw", ""),
        ("iversion noiversion", "rw", ""),
        ("silent ro nosuid", "ro nosuid", ""),
        ("silent loud", "rw", ""),
        ("mand nomand", "rw", ""),
    ] {
        let words: Vec<&str> = options.split(' ').collect();
        let mount = mount_at(&shows(tmpfs(&words)).run().ok(), "/mnt");
        with.split_whitespace().for_each(|o| assert!(mount.has(o), "{options}: no {o}: {mount:?}"));
        without.split_whitespace().for_each(|o| assert!(!mount.has(o), "{options}: {o}: {mount:?}"));
    }
}

#[test]
fn propagation_options_show() {
    deviates!("crun", "leaves it private");
    for (options, want) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("private", ""),
        ("shared rprivate", ""),
        ("slave", ""),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
        ("shared rslave", ""),
    ] {
        let words: Vec<&str> = options.split(' ').collect();
        let mount = mount_at(&shows(tmpfs(&words)).run().ok(), "/mnt");
        let got = mount.propagation.trim_end_matches(|c: char| c.is_ascii_digit());
        assert_eq!(got, want, "{options}: {mount:?}");
    }
}

#[test]
fn what_cannot_be_mounted_says_which_mount_and_why() {
    for (mount, words) in [
        (json!({"destination": "/mnt", "source": "/no/such/place", "options": ["bind"]}), "no such file or directory"),
        (
            bind("/etc", &["bind", "size=1k", "r0"]),
            "bind mounts cannot have any filesystem-specific options applied: r0",
        ),
        (bind("/etc", &["bind", "ro=1"]), "bind mounts cannot have any filesystem-specific options applied: ro"),
        (bind("/dev/null", &["bind"]), ""),
        (json!({"destination": "/mnt", "type": "nosuchfs", "source": "x"}), "no such device"),
        (json!({"destination": "/", "type": "tmpfs", "source": "x"}), "is on the top of rootfs"),
        (json!({"destination": "/..", "type": "tmpfs", "source": "x"}), "is on the top of rootfs"),
        (json!({"destination": "/mnt"}), "type"),
    ] {
        deviates!("runc", "words of its own");
        deviates!("crun", "words of its own");
        let c = shows(mount.clone());
        if words.is_empty() {
            // A file on a directory.
            fs::create_dir(c.rootfs().join("mnt")).unwrap();
            c.run().exits(1).fails("not a directory").fails("mounts[7]");
        } else {
            c.run().exits(1).fails(words).fails("mounts[7]");
        }
        c.nothing_left();
    }
}

/// config.md: "The runtime MUST mount entries in the listed order." mountinfo does not tell: the kernel lists mounts by
/// when they were made (since 6.8), and a bind mount may be made before it is its turn to be attached.
#[test]
fn a_later_entry_lies_on_an_earlier_one() {
    let c = Container::with(["stat", "/bound/passwd", "--", "stat", "/empty/passwd"], |config| {
        config["root"]["readonly"] = json!(false);
        let entry = |at: &str, bind: bool| match bind {
            true => json!({"destination": at, "source": "/etc", "options": ["bind"]}),
            false => json!({"destination": at, "type": "tmpfs", "source": "tmpfs"}),
        };
        for (at, bind) in [("/bound", false), ("/bound", true), ("/empty", true), ("/empty", false)] {
            add(config, entry(at, bind));
        }
    });
    let out = c.run().exits(1).line("error ENOENT stat /empty/passwd");
    assert!(out.value("stat").starts_with("/bound/passwd file"), "{out}");
}

#[test]
fn options_without_an_effect_on_a_bind_mount_are_a_warning() {
    deviates!("runc", "is silent, and new versions refuse them");
    deviates!("crun", "is silent");
    for kind in [json!(null), json!("bind")] {
        let mut mount = bind("/etc", &["rbind", "ro", "mode=755", "size=1k"]);
        mount["type"] = kind;
        let out = shows(mount).run().ok();
        assert!(mount_at(&out, "/mnt").has("ro"), "{out}");
        let warning = out.stderr.lines().find(|line| line.contains("level=warning")).unwrap_or_default();
        for word in ["mounts[7].options", "mode=755,size=1k", "ignores"] {
            assert!(warning.contains(word), "no {word}: {out}");
        }
    }
}

#[test]
fn the_kernels_reason_is_told() {
    deviates!("runc", "tells the errno only");
    deviates!("crun", "tells the errno only");
    needs!(Need::Kernel(5, 12));
    let c = shows(tmpfs(&["size=nonsense"]));
    c.run().exits(1).fails("cannot mount tmpfs on /mnt").fails("size").fails("invalid argument");
}

#[test]
fn a_tmpfs_has_the_mode_of_the_directory_that_it_hides() {
    deviates!("runc" before 1.4, "prefers the mode of the directory");
    for (options, mode) in [(vec![], "0751"), (vec!["mode=1700"], "1700")] {
        let mut c = Container::with(["stat", "/mnt"], |config| add(config, tmpfs(&options)));
        fs::create_dir(c.rootfs().join("mnt")).unwrap();
        fs::set_permissions(c.rootfs().join("mnt"), fs::Permissions::from_mode(0o751)).unwrap();
        c.edit(|config| config["root"]["readonly"] = json!(true));
        let out = c.run().ok();
        assert!(out.stdout.contains(&format!("dir mode={mode}")), "{options:?}: {out}");
    }
}

#[test]
fn tmpcopyup_copies_what_the_tmpfs_hides() {
    for options in [vec!["tmpcopyup"], vec!["tmpcopyup", "ro"]] {
        let verbs = ["stat", "/mnt/d", "/mnt/d/f", "/mnt/l", "--", "cat", "/mnt/d/f", "--", "readlink", "/mnt/l"];
        let mut c = Container::with(verbs, |config| add(config, tmpfs(&options)));
        let dir = c.rootfs().join("mnt");
        fs::create_dir_all(dir.join("d")).unwrap();
        fs::write(dir.join("d/f"), "content\n").unwrap();
        fs::set_permissions(dir.join("d/f"), fs::Permissions::from_mode(0o4750)).unwrap();
        std::os::unix::fs::chown(dir.join("d"), Some(11), Some(12)).unwrap();
        std::os::unix::fs::symlink("/outside", dir.join("l")).unwrap();
        c.edit(|config| config["root"]["readonly"] = json!(true));
        let out = c.run().ok().line("content").line("link /outside");
        assert!(out.stdout.contains("/mnt/d dir mode=0755 uid=11 gid=12"), "{out}");
        assert!(out.stdout.contains("/mnt/d/f file mode=4750 uid=0"), "{out}");
    }
}

#[test]
fn tmpcopyup_copies_what_is_no_ordinary_file() {
    deviates!("runc", "fails");
    let c = Container::with(["stat", "/mnt/p"], |config| add(config, tmpfs(&["tmpcopyup"])));
    let dir = c.rootfs().join("mnt");
    fs::create_dir(&dir).unwrap();
    nix::unistd::mkfifo(&dir.join("p"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let out = c.run().ok();
    assert!(out.stdout.contains("/mnt/p fifo mode=0600"), "{out}");
}

#[test]
fn remount_changes_the_mount_that_is_there() {
    let mut c = shows(tmpfs(&["nosuid", "size=64k"]));
    c.edit(|config| {
        add(config, json!({"destination": "/mnt", "options": ["bind", "remount", "ro", "nodev"]}));
    });
    let out = c.run().ok();
    let mount = mount_at(&out, "/mnt");
    assert!(mount.has("ro") && mount.has("nodev"), "{mount:?}");
    assert_eq!(out.stdout.lines().filter(|l| l.split(' ').nth(4) == Some("/mnt")).count(), 1, "{out}");
}

/// Gives the container a user namespace with ids of its own, and what it may not set there away.
pub fn in_a_user_namespace(config: &mut Value) {
    let maps = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = maps.clone();
    config["linux"]["gidMappings"] = maps;
}

#[test]
fn the_message_queues_of_a_user_namespace_are_its_roots() {
    deviates!("crun", "does not make them so");
    let c = Container::with(["stat", "/dev/mqueue"], in_a_user_namespace);
    let out = c.run().ok();
    // With runc the group is nobody's.
    assert!(out.value("stat").contains(" uid=0 "), "{out}");
}

#[test]
fn an_overlay_with_long_paths_is_mounted() {
    needs!(Need::Filesystem("overlay"));
    let mut c = Container::new(["cat", "/mnt/lower", "--", "write", "/mnt/new", "x"]);
    let long = "d".repeat(200);
    let base = c.path(&long);
    for dir in ["lower", "upper", "work"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    fs::write(base.join("lower/lower"), "from below\n").unwrap();
    let option =
        |name: &str, dir: &str| format!("{name}dir={}", base.join(&long).parent().unwrap().join(dir).display());
    let options = [option("lower", "lower"), option("upper", "upper"), option("work", "work")];
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        add(config, json!({"destination": "/mnt", "type": "overlay", "source": "overlay", "options": options}));
    });
    let out = c.run();
    if out.code != 0 && out.stderr.contains("invalid argument") {
        skip!("no overlay on the file system of {}", c.dir.display());
    }
    out.ok().line("from below");
    assert!(base.join("upper/new").exists());
}

#[test]
fn the_cgroup_is_read_only_where_it_asks_to_be() {
    for namespace in [true, false] {
        let mut c = Container::new(["mountinfo"]);
        c.edit(|config| {
            if !namespace {
                config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
            }
        });
        let out = c.run().ok();
        let below: Vec<&str> = out.stdout.lines().filter_map(|l| l.split(' ').nth(4)).collect();
        let below: Vec<&str> = below.into_iter().filter(|p| p.starts_with("/sys/fs/cgroup")).collect();
        assert!(!below.is_empty());
        for path in below {
            let mount = mount_at(&out, path);
            // The tmpfs that holds the hierarchies of v1 belongs to the container alone.
            let free = v1() && path == "/sys/fs/cgroup" && runtime_kind() == "runc";
            assert!(free || mount.options.iter().any(|o| o == "ro"), "{path}: {mount:?}");
        }
    }
}

#[test]
fn the_cgroup_can_be_written_where_it_may() {
    let mut c = Container::new(["mountinfo"]);
    c.edit(|config| {
        let mount = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        mount["options"].as_array_mut().unwrap().retain(|o| o != "ro");
    });
    let mount = mount_at(&c.run().ok(), "/sys/fs/cgroup");
    assert!(mount.has("rw"), "{mount:?}");
}

/// With v1, every hierarchy has its directory, and each of several controllers its name.
#[test]
fn every_hierarchy_is_there() {
    needs!(Need::CgroupV1);
    let out = Container::new(["ls", "/sys/fs/cgroup", "--", "cat", "/sys/fs/cgroup/pids/cgroup.procs"]).run().ok();
    for name in ["cpu", "memory", "pids", "systemd"] {
        if std::path::Path::new("/sys/fs/cgroup").join(name).exists() {
            assert!(out.stdout.lines().any(|l| l == name), "no {name}: {out}");
        }
    }
    // The container's own cgroup is at the top: init is in it.
    assert!(out.stdout.lines().any(|l| l == "1"), "{out}");
}

#[test]
fn without_a_network_namespace_of_its_own_a_rootless_container_gets_the_hosts_sysfs() {
    deviates!("runc", "fails");
    let mut c = Container::rootless(["mountinfo", "--", "ls", "/sys/class/net"]);
    c.edit(|config| config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network"));
    let out = c.run().ok();
    let sys = mount_at(&out, "/sys");
    assert!(sys.kind == "sysfs" && sys.options.iter().any(|o| o == "ro"), "{sys:?}");
}

/// All of it works with few descriptors.
#[test]
fn few_descriptors_are_enough() {
    needs!(Need::Program("prlimit"));
    let mut c = Container::with(["echo", "here"], in_a_user_namespace);
    // A program's own limit cannot be above.
    c.edit(|config| _ = config["process"].as_object_mut().unwrap().remove("rlimits"));
    let run = Cmd::new("prlimit").arg("--nofile=64").arg(&suite().runtime).arg("--root").arg(c.root());
    let run = run.args(["run", "--bundle"]).arg(c.bundle()).arg(&c.id).env("VESSEL_TEST", c.dir.as_os_str());
    run.run().ok().line("here");
}

/// In an outer container with masked paths the kernel refuses a new procfs: the error names a mask.
#[test]
fn a_refused_procfs_says_what_is_in_its_way() {
    deviates!("runc", "tells the errno only");
    deviates!("crun", "tells the errno only");
    needs!(Need::Program("unshare"), Need::File("/proc/keys"));
    let c = Container::with(["echo", "here"], in_a_user_namespace);
    let out = on_a_shared_volume(&c, "mount --bind /dev/null /proc/keys; run");
    out.exits(1).fails("mounts[0]: cannot mount proc on /proc").fails("/proc/keys").fails("operation not permitted");
}
