//! Bind mounts (config.md, "Mounts"): what comes along, with which options, ids and propagation.

use std::fs;

use serde_json::json;

use crate::harness::{Cmd, Container, Need, Output, suite};
use crate::mounts::{add, bind, in_a_user_namespace, mount_at, shows, tmpfs};
use crate::{deviates, needs, skip};

#[test]
fn a_bind_mount_has_the_options_that_it_asks_for() {
    let shown = |options: &str| {
        let mut c = shows(json!({}));
        let source = c.path("volume");
        fs::create_dir(&source).unwrap();
        let words: Vec<&str> = options.split(' ').collect();
        c.edit(|config| *config["mounts"].as_array_mut().unwrap().last_mut().unwrap() = bind(&source, &words));
        mount_at(&c.run().ok(), "/mnt")
    };
    for (options, with, without) in [
        ("bind", "rw", "ro"),
        ("bind ro", "ro", "nosuid"),
        ("rbind ro nosuid nodev noexec", "ro nosuid nodev noexec", ""),
        ("bind noatime", "noatime", "relatime"),
        ("bind strictatime", "", "relatime noatime"),
        ("bind nodiratime", "nodiratime relatime", "noatime"),
        ("bind sync loud", "rw", ""),
    ] {
        let mount = shown(options);
        with.split_whitespace().for_each(|o| assert!(mount.has(o), "{options}: no {o}: {mount:?}"));
        without.split_whitespace().for_each(|o| assert!(!mount.has(o), "{options}: {o}: {mount:?}"));
    }
    // Whatever the source has.
    assert_eq!(shown("bind norelatime").options, shown("bind").options);
}

/// config.md lists the option among those that a runtime must know.
#[test]
fn defaults_is_no_option_of_the_file_system() {
    deviates!("runc", "hands it to the file system");
    let c = shows(tmpfs(&["defaults"]));
    let mount = mount_at(&c.run().ok(), "/mnt");
    assert!(mount.has("rw") && mount.has("relatime") && !mount.has("nosuid"), "{mount:?}");
    let mount = mount_at(&shows(bind("/dev", &["bind", "defaults"])).run().ok(), "/mnt");
    assert!(mount.has("rw"), "{mount:?}");
}

#[test]
fn a_bind_mount_is_recursive_only_where_it_asks() {
    let below = |out: &Output| out.stdout.lines().any(|l| l.split(' ').nth(4) == Some("/mnt/pts"));
    assert!(!below(&shows(bind("/dev", &["bind"])).run().ok()));
    assert!(below(&shows(bind("/dev", &["rbind"])).run().ok()));
}

#[test]
fn recursive_options_reach_the_mounts_below() {
    deviates!("runc" before 1.2, "does not undo them");
    deviates!("crun", "does not undo them");
    for (options, name, set) in [
        ("rro", "ro", true),
        ("rro rrw", "ro", false),
        ("rnosuid", "nosuid", true),
        ("rnosuid rsuid", "nosuid", false),
        ("rnodev", "nodev", true),
        ("rnodev rdev", "nodev", false),
        ("rnoexec", "noexec", true),
        ("rnoexec rexec", "noexec", false),
        ("rnodiratime", "nodiratime", true),
        ("rnodiratime rdiratime", "nodiratime", false),
        ("rnoatime", "noatime", true),
        ("rnoatime ratime", "noatime", false),
        ("rrelatime", "relatime", true),
        ("rstrictatime", "relatime", false),
        ("rstrictatime rnostrictatime", "relatime", true),
    ] {
        let mut words = vec!["rbind"];
        words.extend(options.split(' '));
        let out = shows(bind("/dev", &words)).run().ok();
        for path in ["/mnt", "/mnt/pts"] {
            let mount = mount_at(&out, path);
            let has = mount.options.iter().any(|o| o == name);
            assert_eq!(has, set, "{options}: {path}: {mount:?}");
        }
    }
}

#[test]
fn recursive_options_for_links_reach_the_mounts_below() {
    deviates!("runc" before 1.2, "does not undo them");
    deviates!("crun", "knows no rnosymfollow");
    for (options, set) in [("rnosymfollow", true), ("rnosymfollow rsymfollow", false)] {
        let mut words = vec!["rbind"];
        words.extend(options.split(' '));
        let out = shows(bind("/dev", &words)).run().ok();
        for path in ["/mnt", "/mnt/pts"] {
            assert_eq!(mount_at(&out, path).has("nosymfollow"), set, "{options}: {path}");
        }
    }
}

/// Runs a script in a mount namespace of its own, where `$V` is a shared mount.
pub fn on_a_shared_volume(c: &Container, script: &str) -> Output {
    fs::create_dir_all(c.path("volume/sub")).unwrap();
    let script = format!(
        "set -e; V={volume}; mount --make-rprivate /; mount -t tmpfs tmpfs $V; mkdir $V/sub; mount --make-shared $V; \
         run() {{ {runtime} --root {root} run --bundle {bundle} {id}; }}; {script}",
        volume = c.path("volume").display(),
        runtime = suite().runtime.display(),
        root = c.root().display(),
        bundle = c.bundle().display(),
        id = c.id,
    );
    Cmd::new("unshare").args(["-m", "sh", "-c", &script]).env("VESSEL_TEST", c.dir.as_os_str()).run()
}

fn mounts_on_the_volume(root: &str, options: &[&str]) -> Container {
    let mut c = Container::new(["mount", "none", "/mnt/sub", "tmpfs", "0", "--", "mountinfo"]);
    let source = c.path("volume");
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["linux"]["rootfsPropagation"] = json!(root);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
        }
        add(config, bind(source, options));
    });
    c
}

#[test]
fn a_mount_in_a_shared_volume_reaches_the_host_and_in_another_does_not() {
    needs!(Need::Program("unshare"));
    for (root, option, reaches) in
        [("rshared", "rshared", true), ("rslave", "rslave", false), ("rprivate", "rprivate", false)]
    {
        let c = mounts_on_the_volume(root, &["rbind", option]);
        let out = on_a_shared_volume(&c, "run; grep -c \" $V/sub \" /proc/self/mountinfo || true").ok();
        assert!(out.stdout.contains("mount ok"), "{out}");
        let found = out.stdout.lines().last() == Some("1");
        assert_eq!(found, reaches, "{root} {option}: {out}");
    }
}

#[test]
fn a_mount_of_the_host_reaches_a_slave() {
    needs!(Need::Program("unshare"));
    for (root, option, reaches) in [("rslave", "rslave", true), ("rprivate", "rprivate", false)] {
        let mut c = mounts_on_the_volume(root, &["rbind", option]);
        c.program(["write", "/mnt/ready", "--", "wait-file", "/mnt/go", "--", "mountinfo"]);
        let script = "run & while ! test -e $V/ready; do sleep 0.01; done; mount -t tmpfs x $V/sub; touch $V/go; wait";
        let out = on_a_shared_volume(&c, script).ok();
        let found = out.stdout.lines().any(|l| l.split(' ').nth(4) == Some("/mnt/sub"));
        assert_eq!(found, reaches, "{root} {option}: {out}");
    }
}

#[test]
fn the_place_of_a_bind_mount_is_made_as_the_source_is() {
    let mut c = Container::new(["cat", "/a/file", "--", "ls", "/b/dir", "--", "cat", "/rel"]);
    fs::create_dir(c.path("volume")).unwrap();
    fs::write(c.path("volume/inside"), "x").unwrap();
    fs::write(c.path("bundle/beside"), "beside the configuration\n").unwrap();
    let volume = c.path("volume");
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        add(config, json!({"destination": "/a/file", "source": "beside", "options": ["bind"]}));
        add(config, json!({"destination": "/b/dir", "source": volume, "options": ["rbind", "rprivate"]}));
        add(config, json!({"destination": "rel", "type": "bind", "source": "beside", "options": ["bind", "ro"]}));
    });
    let out = c.run().ok().line("inside");
    assert_eq!(out.stdout.matches("beside the configuration").count(), 2, "{out}");
    assert!(c.rootfs().join("a/file").is_file());
    assert!(c.rootfs().join("b/dir").is_dir());
}

#[test]
fn ids_of_a_mount_are_mapped() {
    deviates!("runc" before 1.2, "maps no mounts");
    let mut c = Container::new(["stat", "/mnt/zero", "/mnt/seven"]);
    fs::create_dir(c.path("volume")).unwrap();
    for (name, id) in [("zero", 0), ("seven", 7)] {
        fs::write(c.path("volume").join(name), "").unwrap();
        std::os::unix::fs::chown(c.path("volume").join(name), Some(id), Some(id)).unwrap();
    }
    let source = c.path("volume");
    c.edit(|config| {
        let mut mount = bind(source, &["bind", "idmap"]);
        mount["uidMappings"] = json!([{"containerID": 0, "hostID": 3000, "size": 10}]);
        mount["gidMappings"] = json!([{"containerID": 0, "hostID": 4000, "size": 10}]);
        config["root"]["readonly"] = json!(false);
        add(config, mount);
    });
    let out = c.run();
    if out.code != 0 && out.stderr.contains("invalid argument") {
        skip!("the file system of {} cannot map ids", c.dir.display());
    }
    let out = out.ok();
    assert!(out.stdout.contains("/mnt/zero file mode=0644 uid=3000 gid=4000"), "{out}");
    assert!(out.stdout.contains("/mnt/seven file mode=0644 uid=3007 gid=4007"), "{out}");
}

#[test]
fn a_mount_without_mappings_takes_those_of_the_container() {
    deviates!("runc" before 1.2, "maps no mounts");
    let mut c = Container::new(["stat", "/mnt/seven"]);
    fs::create_dir(c.path("volume")).unwrap();
    fs::write(c.path("volume/seven"), "").unwrap();
    std::os::unix::fs::chown(c.path("volume/seven"), Some(7), Some(7)).unwrap();
    let source = c.path("volume");
    c.edit(|config| {
        in_a_user_namespace(config);
        add(config, bind(source, &["rbind", "ridmap"]));
    });
    fs::create_dir(c.rootfs().join("mnt")).unwrap();
    let out = c.run();
    if out.code != 0 && out.stderr.contains("invalid argument") {
        skip!("the file system of {} cannot map ids", c.dir.display());
    }
    assert!(out.clone().ok().stdout.contains("uid=7 gid=7"), "{out}");
}

/// A source inside the root is what it is at its turn: with what earlier entries have mounted there, and not with what
/// lies there before anything is mounted.
#[test]
fn a_source_inside_the_root_has_the_mounts_before_it() {
    deviates!("runc" before 1.2, "takes the mounts in another order");
    deviates!("crun", "takes the mounts in another order");
    for user_namespace in [false, true] {
        for mapped in [false, true] {
            let mut c = Container::new(["cat", "/final/sub/file", "--", "stat", "/final/sub/file"]);
            for (dir, text) in [("one", "no"), ("two", "of the second mount\n")] {
                fs::create_dir_all(c.path(dir).join("sub")).unwrap();
                fs::write(c.path(dir).join("file"), text).unwrap();
            }
            fs::create_dir(c.rootfs().join("mnt")).unwrap();
            fs::create_dir(c.rootfs().join("final")).unwrap();
            let (one, two, root) = (c.path("one"), c.path("two"), c.rootfs());
            c.edit(|config| {
                config["root"]["readonly"] = json!(false);
                let ids = if user_namespace { 200_000 } else { 3000 };
                if user_namespace {
                    in_a_user_namespace(config);
                }
                add(config, bind(one, &["bind"]));
                add(config, json!({"destination": "/mnt/sub", "source": two, "options": ["bind"]}));
                let options = if mapped { ["rbind", "ridmap"] } else { ["rbind", "rw"] };
                // The destination by its path on the host.
                let mut last = json!({"destination": root.join("final"), "options": options});
                last["source"] = json!(root.join("mnt"));
                if mapped {
                    last["uidMappings"] = json!([{"containerID": 0, "hostID": ids + 5, "size": 10}]);
                    last["gidMappings"] = last["uidMappings"].clone();
                }
                add(config, last);
            });
            let out = c.run();
            if mapped && out.code != 0 && out.stderr.contains("invalid argument") {
                skip!("the file system of {} cannot map ids", c.dir.display());
            }
            let uid = match (user_namespace, mapped) {
                (true, true) => 5,
                (false, true) => 3005,
                (true, false) => 65534,
                (false, false) => 0,
            };
            let out = out.ok().line("of the second mount");
            assert!(out.stdout.contains(&format!("uid={uid} gid={uid}")), "{user_namespace} {mapped}: {out}");
        }
    }
}

/// A link in the root leads to a place in the root, also as a source.
#[test]
fn a_source_inside_the_root_stays_inside() {
    deviates!("runc", "follows it to the host");
    deviates!("crun", "follows it to the host");
    let mut c = Container::new(["cat", "/mnt/file"]);
    fs::create_dir_all(c.path("host")).unwrap();
    fs::write(c.path("host/file"), "of the host\n").unwrap();
    let target = c.path("host");
    let inside = c.rootfs().join(target.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("file"), "of the root\n").unwrap();
    std::os::unix::fs::symlink(&target, c.rootfs().join("link")).unwrap();
    let source = c.rootfs().join("link");
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        add(config, bind(source, &["bind"]));
    });
    c.run().ok().line("of the root");
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    deviates!("runc" before 1.2, "maps no mounts");
    deviates!("crun", "leaves a cgroup behind");
    let maps = json!([{"containerID": 0, "hostID": 3000, "size": 10}]);
    let mut half = bind("/etc", &["bind", "idmap"]);
    half["uidMappings"] = maps.clone();
    let mut new = tmpfs(&["idmap"]);
    new["uidMappings"] = maps.clone();
    new["gidMappings"] = maps;
    for mount in [half, new, bind("/etc", &["bind", "idmap"])] {
        shows(mount).run().exits(1).fails("apping");
    }
}

#[test]
fn flags_of_a_source_cannot_be_cleared_in_a_user_namespace() {
    deviates!("runc" before 1.2, "passes the options over");
    deviates!("crun", "clears what may be cleared, and says nothing");
    needs!(Need::Program("unshare"));
    let run = |options: &[&str]| {
        let c = Container::with(["mountinfo"], |config| {
            in_a_user_namespace(config);
            add(config, json!({"destination": "/mnt", "source": "../volume", "options": options}));
        });
        fs::create_dir(c.rootfs().join("mnt")).unwrap();
        on_a_shared_volume(&c, "mount -o remount,nodev,nosuid $V; run")
    };
    run(&["bind", "dev"]).exits(1).fails("cannot clear locked flags");
    run(&["bind", "noatime"]).exits(1).fails("cannot change locked atime flags");
    let mount = mount_at(&run(&["bind", "ro"]).ok(), "/mnt");
    assert!(mount.has("ro") && mount.has("nodev") && mount.has("nosuid"), "{mount:?}");
}

/// Without a user namespace a bind mount has what it asks for, and only that, if it asks for anything.
#[test]
fn flags_of_a_source_are_kept_only_where_no_option_is_given() {
    deviates!("runc" before 1.2, "keeps them");
    deviates!("crun", "keeps none of them");
    needs!(Need::Program("unshare"));
    for (options, kept) in [(vec!["bind"], true), (vec!["bind", "ro"], false), (vec!["bind", "dev"], false)] {
        let c = Container::with(["mountinfo"], |config| {
            config["root"]["readonly"] = json!(false);
            add(config, json!({"destination": "/mnt", "source": "../volume", "options": options}));
        });
        let mount = mount_at(&on_a_shared_volume(&c, "mount -o remount,nodev,nosuid $V; run").ok(), "/mnt");
        assert_eq!(mount.has("nosuid"), kept, "{options:?}: {mount:?}");
    }
}

/// More bind mounts than the caller may have files open, and the limit of the program is the caller's.
#[test]
fn many_bind_mounts_need_no_higher_limit() {
    deviates!("runc" before 1.2, "gives its own limit away");
    needs!(Need::Program("prlimit"));
    let mut c = Container::new(["rlimit", "NOFILE", "--", "cat", "/v/149"]);
    fs::write(c.path("file"), "bound\n").unwrap();
    let source = c.path("file");
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        config["process"].as_object_mut().unwrap().remove("rlimits");
        for i in 0..150 {
            add(config, json!({"destination": format!("/v/{i}"), "source": source, "options": ["bind"]}));
        }
    });
    let run = Cmd::new("prlimit").arg("--nofile=64:4096").arg(&suite().runtime).arg("--root").arg(c.root());
    let run = run.args(["run", "--bundle"]).arg(c.bundle()).arg(&c.id).env("VESSEL_TEST", c.dir.as_os_str());
    run.run().ok().line("bound").line("rlimit NOFILE soft=64 hard=4096");
}
