//! `mounts add` and `mounts remove`: mounts of containers that run.

use std::fs;

use serde_json::{Value, json};

use crate::deviates;
use crate::harness::{Container, Output};

fn change(c: &Container, how: &str, mounts: &Value) -> Output {
    c.command("mounts", [how, &c.id, "-"]).stdin(mounts.to_string()).run()
}

fn bind(source: &std::path::Path, destination: &str, options: &[&str]) -> Value {
    let mut all = vec!["bind"];
    all.extend(options);
    json!({"destination": destination, "type": "bind", "source": source, "options": all})
}

/// A container that runs, with a directory `shared` beside it that has a file.
fn running(mut c: Container) -> Container {
    c.edit(|config| config["root"]["readonly"] = json!(false));
    fs::create_dir(c.path("shared")).unwrap();
    fs::write(c.path("shared/file"), "hello").unwrap();
    c.started();
    c
}

fn comes_and_goes(c: &Container) {
    let mounts = json!([
        bind(&c.path("shared"), "/new/deep", &["ro"]),
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "nosuid"]},
    ]);
    change(c, "add", &mounts).ok();
    assert_eq!(c.exec(["cat", "/new/deep/file"]).ok().stdout, "hello");
    assert_eq!(c.exec(["try-write", "/new/deep/file", "x"]).ok().value("write"), "EROFS");
    c.exec(["write", "/scratch/a", "text", "--", "cat", "/scratch/a"]).ok();
    let all = c.exec(["mountinfo"]).ok().stdout;
    assert!(all.lines().any(|l| l.contains(" /scratch ") && l.contains("nosuid") && l.contains("size=64k")), "{all}");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/new/deep"), "it reached the host");

    change(c, "remove", &mounts).ok();
    c.exec(["cat", "/new/deep/file"]).exits(1);
    let all = c.exec(["mountinfo"]).ok().stdout;
    assert!(!all.contains(" /scratch ") && !all.contains(" /new/deep "), "{all}");
    change(c, "remove", &mounts).exits(1).fails("nothing is mounted there");
}

#[test]
fn mounts_come_to_a_running_container_and_go() {
    deviates!("runc", "has no such command");
    deviates!("crun", "takes no standard input");
    comes_and_goes(&running(Container::new(["sleep"])));
}

#[test]
fn mounts_come_to_a_container_in_a_user_namespace_and_go() {
    deviates!("runc", "has no such command");
    deviates!("crun", "takes no standard input");
    let c = Container::with(["sleep"], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    });
    std::os::unix::fs::chown(c.rootfs(), Some(100_000), Some(100_000)).unwrap();
    comes_and_goes(&running(c));
}

#[test]
fn mounts_come_to_the_container_of_an_ordinary_user_and_go() {
    deviates!("runc", "has no such command");
    deviates!("crun", "takes no standard input");
    comes_and_goes(&running(Container::rootless(["sleep"])));
}

/// None of them stays where one cannot be made; and what cannot be added is refused with its place.
#[test]
fn mounts_that_cannot_be_made_leave_nothing() {
    deviates!("runc", "has no such command");
    deviates!("crun", "takes no standard input");
    let c = running(Container::new(["sleep"]));
    let before = c.exec(["mountinfo"]).ok().stdout.lines().count();
    let tmpfs = |destination: &str| json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"});
    for (mounts, words) in [
        (json!([tmpfs("/a"), bind(&c.path("missing"), "/b", &[])]), "mounts[1].source: cannot open"),
        (json!([tmpfs("/a"), tmpfs("/proc/self")]), "mounts[1]: cannot mount tmpfs on /proc/self"),
        (json!([tmpfs("/a"), bind(&c.path("shared"), "/probe", &[])]), "mounts[1]: cannot mount"),
        (json!([{"destination": "/a", "type": "proc", "source": "proc"}]), "mounts[0]: it cannot be added"),
        (json!([{"destination": "/a", "type": "tmpfs", "options": ["remount"]}]), "mounts[0]: it cannot be added"),
        (json!([{"type": "tmpfs"}]), "destination"),
        (json!({}), "it is no array of mounts"),
        (json!([tmpfs("/")]), "the top of rootfs"),
    ] {
        change(&c, "add", &mounts).exits(1).fails(words);
        assert_eq!(c.exec(["mountinfo"]).ok().stdout.lines().count(), before, "{mounts}");
    }
    change(&c, "remove", &json!([tmpfs("/")])).exits(1).fails("the root filesystem stays");
    c.command("mounts", ["move", &c.id, "-"]).run().exits(1).fails("add and remove are known");
    c.command("mounts", ["add", "nobody", "-"]).stdin("[]").run().exits(1).fails("does not exist");
}

/// Links of the container lead nowhere but into its own root.
#[test]
fn links_of_the_container_do_not_lead_a_mount_out_of_it() {
    deviates!("runc", "has no such command");
    deviates!("crun", "takes no standard input");
    let c = running(Container::new(["sleep"]));
    let out = c.path("out");
    fs::create_dir(&out).unwrap();
    c.exec(["symlink", out.to_str().unwrap(), "/link"]).ok();
    change(&c, "add", &json!([bind(&c.path("shared"), "/link/here", &[])])).ok();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "made outside of the root");
    assert_eq!(c.exec(["cat", "/link/here/file"]).ok().stdout, "hello");
}
