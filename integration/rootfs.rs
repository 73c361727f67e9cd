//! The root filesystem itself (config.md, "Root"; config-linux.md, "Rootfs Mount Propagation", "Masked Paths",
//! "Readonly Paths").

use std::fs;

use serde_json::json;

use crate::binds::on_a_shared_volume;
use crate::harness::{Cmd, Container, Need, eventually, suite};
use crate::mounts::{add, mount_at};
use crate::{deviates, needs};

#[test]
fn the_root_is_read_only_where_it_asks_to_be() {
    for (readonly, answer) in [(true, "write EROFS"), (false, "write ok 0")] {
        let c = Container::with(["try-write", "/f", "x", "--", "try-write", "/dev/shm/f", "x"], |config| {
            config["root"]["readonly"] = json!(readonly);
        });
        let out = c.run().ok();
        assert_eq!(out.stdout.lines().next(), Some(answer), "{out}");
        assert_eq!(out.stdout.lines().nth(1), Some("write ok 0"), "{out}");
    }
}

#[test]
fn the_root_may_be_named_by_an_absolute_path() {
    let mut c = Container::new(["echo", "here"]);
    let rootfs = c.rootfs();
    c.edit(|config| config["root"]["path"] = json!(rootfs));
    c.run().ok().line("here");
}

#[test]
fn a_root_that_is_none_is_refused() {
    deviates!("crun", "follows links");
    for (path, words) in
        [("missing", "no such file or directory"), ("link", "or a symlink"), ("config.json", "not a directory")]
    {
        let mut c = Container::new(["echo", "here"]);
        std::os::unix::fs::symlink("rootfs", c.path("bundle/link")).unwrap();
        c.edit(|config| config["root"]["path"] = json!(path));
        let out = c.run().exits(1);
        if crate::harness::runtime_kind() == "vessel" {
            out.fails(words).fails("root.path");
        }
        c.nothing_left();
    }
}

#[test]
fn nothing_of_the_host_is_left_in_the_mount_namespace() {
    let mut c = Container::new(["mountinfo"]);
    for pivot in [true, false] {
        let mut cmd = c.command("run", ["--bundle"]).arg(c.bundle());
        if !pivot {
            cmd = cmd.arg("--no-pivot");
        }
        let out = cmd.arg(&c.id).run().ok();
        let mut paths: Vec<&str> = out.stdout.lines().filter_map(|l| l.split(' ').nth(4)).collect();
        paths.sort_unstable();
        let allowed = ["/", "/dev", "/proc", "/sys"];
        for path in paths {
            let inside = allowed.contains(&path) || allowed[1..].iter().any(|a| path.starts_with(&format!("{a}/")));
            assert!(inside, "pivot {pivot}: {path} in: {out}");
        }
    }
    c.edit(|_| ());
}

/// With --no-pivot, the host's whole sysfs must not stay in the namespace: the kernel would take it for the leave to mount
/// a new one, without masks.
#[test]
fn no_pivot_hides_the_pseudo_file_systems_of_the_host() {
    // In new user, mount and network namespaces.
    let verbs = ["unshare", "0x50020000", "--", "mount", "sysfs", "/tmp", "sysfs", "14"];
    let c = Container::with(verbs, |config| {
        config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/sys"));
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
        }
    });
    let out = c.command("run", ["--no-pivot", "--bundle"]).arg(c.bundle()).arg(&c.id).run().ok();
    assert_eq!(out.stdout, "unshare ok 0\nmount EPERM\n", "{out}");
}

#[test]
fn the_propagation_of_the_root_is_as_configured() {
    deviates!("runc" before 1.2, "makes it private");
    for (name, want) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("slave", ""),
        ("rslave", ""),
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
    ] {
        let c = Container::with(["mountinfo"], |config| {
            config["linux"]["rootfsPropagation"] = json!(name);
            // Masks are clones, which an unbindable tree has none of.
            if name == "unbindable" {
                config["linux"]["maskedPaths"] = json!([]);
            }
        });
        let root = mount_at(&c.run().ok(), "/");
        let got = root.propagation.trim_end_matches(|c: char| c.is_ascii_digit());
        // A slave has a master where the host's mount is shared.
        let got = if got == "master:" && name.ends_with("slave") { "" } else { got };
        assert_eq!(got, want, "{name}: {root:?}");
    }
}

/// What the host mounts on a root that is a slave comes to the container, and nothing goes back.
#[test]
fn a_root_that_is_a_slave_has_the_hosts_mount_as_its_master() {
    deviates!("crun", "leaves it as it is");
    needs!(Need::Program("unshare"));
    for (name, want) in [("slave", true), ("rslave", true), ("private", false)] {
        let c = Container::with(["mountinfo"], |config| config["linux"]["rootfsPropagation"] = json!(name));
        let root = mount_at(&on_a_shared_volume(&c, "mount --make-rshared /; run").ok(), "/");
        assert_eq!(root.propagation.starts_with("master:"), want, "{name}: {root:?}");
    }
}

#[test]
fn an_unknown_propagation_is_refused() {
    deviates!("runc", "words of its own");
    deviates!("crun", "words of its own");
    let c = Container::with(["mountinfo"], |config| config["linux"]["rootfsPropagation"] = json!("everywhere"));
    c.run().exits(1).fails("linux.rootfsPropagation").fails("everywhere");
}

#[test]
fn masked_paths_cannot_be_read() {
    let verbs =
        ["try-read", "/secret", "--", "ls", "/hidden", "--", "stat", "/hidden", "--", "try-write", "/hidden/x", "--"];
    let mut c =
        Container::new(verbs.into_iter().chain(["try-read", "/proc/keys", "--", "stat", "/secret", "/other/f"]));
    fs::write(c.rootfs().join("secret"), "secret").unwrap();
    fs::create_dir(c.rootfs().join("hidden")).unwrap();
    fs::write(c.rootfs().join("hidden/f"), "secret").unwrap();
    fs::create_dir(c.rootfs().join("other")).unwrap();
    fs::write(c.rootfs().join("other/f"), "secret").unwrap();
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["maskedPaths"] =
            json!(["/secret", "/hidden", "/proc/keys", "/other/f", "/sys/firmware", "/not/there", "/proc/acpi"]);
    });
    let out = c.run().ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines[0], "read ok 0");
    assert!(lines[1].starts_with("stat /hidden dir"), "{out}");
    assert_eq!(lines[2], "write EROFS");
    assert_eq!(lines[3], "read ok 0");
    assert!(lines[4].contains("char") && lines[4].contains("rdev=1:3"), "{out}");
    assert!(lines[5].contains("rdev=1:3"), "{out}");
    assert_eq!(fs::read_to_string(c.rootfs().join("secret")).unwrap(), "secret");
}

#[test]
fn a_path_is_masked_once() {
    deviates!("runc" before 1.5, "masks it as often as it is named");
    deviates!("crun", "masks it as often as it is named");
    let c = Container::with(["mountinfo"], |config| {
        config["linux"]["maskedPaths"] =
            json!(["/proc/keys", "/proc/bus", "/proc/keys", "/proc//bus/", "/proc/./keys"]);
        config["linux"]["readonlyPaths"] = json!([]);
    });
    let out = c.run().ok();
    for path in ["/proc/keys", "/proc/bus"] {
        let masks = out.stdout.lines().filter(|l| l.split(' ').nth(4) == Some(path)).count();
        assert_eq!(masks, 1, "{path}: {out}");
    }
}

#[test]
fn a_masked_path_that_cannot_be_looked_at_is_an_error() {
    let mut c = Container::new(["echo", "here"]);
    std::os::unix::fs::symlink("circle", c.rootfs().join("circle")).unwrap();
    c.edit(|config| config["linux"]["maskedPaths"] = json!(["/circle"]));
    let out = c.run().exits(1);
    if crate::harness::runtime_kind() == "vessel" {
        out.fails("linux.maskedPaths[0]");
    }
}

#[test]
fn read_only_paths_cannot_be_written_also_below() {
    deviates!("crun", "leaves the mounts below as they are");
    let verbs =
        ["try-write", "/fixed/f", "x", "--", "try-write", "/free/f", "x", "--", "try-write", "/fixed/mnt/f", "x", "--"];
    let mut c = Container::new(verbs.into_iter().chain(["mountinfo"]));
    for dir in ["fixed", "free"] {
        fs::create_dir(c.rootfs().join(dir)).unwrap();
    }
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["readonlyPaths"] = json!(["/fixed", "/not/there", "/proc/sys", "/dev/shm"]);
        let options = ["nosuid", "nodev"];
        add(config, json!({"destination": "/fixed/mnt", "type": "tmpfs", "source": "tmpfs", "options": options}));
    });
    let out = c.run().ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines[..2], ["write EROFS", "write ok 0"], "{out}");
    // What they were before stays.
    let shm = mount_at(&out, "/dev/shm");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(shm.options.iter().any(|o| o == option), "{shm:?}");
    }
    deviates!("runc", "leaves the mounts below as they are");
    assert_eq!(lines[2], "write EROFS", "{out}");
}

#[test]
fn a_read_only_dev_and_tmpfs_are_complete() {
    let mut c =
        Container::new(["stat", "/dev/null", "/tmp/made", "--", "try-write", "/dev/x", "--", "try-write", "/tmp/x"]);
    let source = c.path("volume");
    fs::create_dir(&source).unwrap();
    c.edit(|config| {
        config["mounts"][1]["options"].as_array_mut().unwrap().push(json!("ro"));
        add(config, json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}));
        add(config, json!({"destination": "/tmp/made", "source": source, "options": ["bind"]}));
    });
    let out = c.run().ok();
    assert_eq!(out.values("write"), ["EROFS", "EROFS"], "{out}");
}

/// A createContainer hook finds the root with its mounts at its path, and what it mounts there the container has.
#[test]
fn hooks_find_the_mounts_at_the_path_of_the_root() {
    for user_namespace in [false, true] {
        let mut c = Container::new(["cat", "/mnt/from-hook", "--", "cat", "/tmp/group"]);
        fs::create_dir(c.path("volume")).unwrap();
        fs::write(c.path("volume/inside"), "of the volume\n").unwrap();
        fs::set_permissions(c.path("volume"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        fs::create_dir(c.rootfs().join("mnt")).unwrap();
        let script = format!("cd {}; cat mnt/inside > mnt/from-hook; mount --bind etc tmp", c.rootfs().display());
        let source = c.path("volume");
        c.edit(|config| {
            if user_namespace {
                crate::mounts::in_a_user_namespace(config);
            }
            add(config, json!({"destination": "/mnt", "source": source, "options": ["bind"]}));
            config["hooks"]["createContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-ec", script]}]);
        });
        assert_eq!(c.run().ok().stdout, "of the volume\nroot:x:0:\n");
    }
}

/// In a user namespace that may not search the path of the root, the container still starts.
#[test]
fn the_path_of_the_root_need_not_be_searched_in_a_user_namespace() {
    deviates!("runc", "searches the path");
    deviates!("crun", "searches the path");
    for flag in [None, Some("--no-pivot")] {
        let c = Container::with(["echo", "here"], crate::mounts::in_a_user_namespace);
        fs::set_permissions(c.bundle(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let cmd = c.command("run", flag).arg("--bundle").arg(c.bundle()).arg(&c.id);
        cmd.run().ok().line("here");
    }
}

/// A joined mount namespace is set up as a new one is, and only that.
#[test]
fn a_mount_namespace_can_be_joined() {
    needs!(Need::Program("unshare"));
    let mut c = Container::new(["mountinfo", "--", "ns"]);
    let mut holder = Cmd::new("unshare").args(["-m", "sleep", "60"]).env("VESSEL_TEST", c.dir.as_os_str()).spawn();
    let path = format!("/proc/{}/ns/mnt", holder.pid());
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let theirs = eventually("a mount namespace", || fs::read_link(&path).ok().filter(|link| *link != own));
    c.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "mount");
        namespaces.push(json!({"type": "mount", "path": path}));
    });
    let out = c.run().ok();
    out.clone().line(&format!("mnt {}", theirs.display()));
    assert_eq!(mount_at(&out, "/proc").kind, "proc");
    holder.signal(nix::sys::signal::Signal::SIGKILL);
    holder.wait();
}

/// Where the mount namespace is the runtime's own, a mount would be the host's.
#[test]
fn without_a_mount_namespace_nothing_is_mounted() {
    deviates!("runc", "mounts on the host");
    deviates!("crun", "mounts on the host");
    for namespace in [None, Some("/proc/self/ns/mnt")] {
        let mut c = Container::new(["stat", "/probe"]);
        c.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|n| n["type"] != "mount");
            namespaces.extend(namespace.map(|path| json!({"type": "mount", "path": path})));
            config["root"]["readonly"] = json!(false);
            config["linux"].as_object_mut().unwrap().retain(|name, _| name != "maskedPaths" && name != "readonlyPaths");
        });
        let out = c.run().ok();
        assert!(out.stdout.starts_with("stat /probe file"), "{out}");
        assert!(out.stderr.contains("mounts: ignored without a private mount namespace"), "{out}");
        assert!(!c.rootfs().join("dev/null").exists());
        c.edit(|config| config["mounts"] = json!([]));
        assert_eq!(c.run().ok().stderr, "");
        c.edit(|config| config["linux"]["maskedPaths"] = json!(["/probe"]));
        c.run().exits(1).fails("linux.maskedPaths");
        c.nothing_left();
    }
}

/// The runtime in a user namespace, as an engine without privileges starts it: the container has none of its own, and yet
/// nodes cannot be made, nor locked flags cleared.
#[test]
fn the_runtime_may_be_in_a_user_namespace() {
    needs!(Need::Program("unshare"), Need::File("/proc/self/ns/user"));
    for own_network in [true, false] {
        if !own_network {
            deviates!("runc", "binds no sysfs");
        }
        let c = Container::with(["stat", "/dev/null", "/mnt/null", "--", "mountinfo"], |config| {
            config["root"]["readonly"] = json!(false);
            config["process"].as_object_mut().unwrap().remove("rlimits");
            config["linux"].as_object_mut().unwrap().remove("resources");
            for mount in config["mounts"].as_array_mut().unwrap() {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|o| !o.as_str().unwrap().starts_with("gid="));
                }
            }
            if !own_network {
                config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
            }
            add(config, json!({"destination": "/mnt", "source": "/dev", "options": ["rbind", "ro"]}));
        });
        let cmd = Cmd::new("unshare").args(["-U", "-r", "-m"]).arg(&suite().runtime).arg("--root").arg(c.root());
        let cmd = cmd.args(["run", "--bundle"]).arg(c.bundle()).arg(&c.id).env("VESSEL_TEST", c.dir.as_os_str());
        let out = cmd.run().ok();
        for path in ["/dev/null", "/mnt/null"] {
            assert!(out.stdout.contains(&format!("stat {path} char mode=0666")), "{out}");
        }
        let sys = mount_at(&out, "/sys");
        assert!(sys.kind == "sysfs" && sys.options.iter().any(|o| o == "ro"), "{sys:?}");
    }
}
