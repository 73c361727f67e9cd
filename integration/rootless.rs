//! Containers of an ordinary user: she has no rights but those over what is hers.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::harness::{Cmd, Container, Need, User, suite};
use crate::{deviates, needs};

#[test]
fn an_ordinary_user_runs_a_container() {
    let c = Container::rootless(["ids", "--", "exit", "5"]);
    let out = c.run().exits(5);
    assert_eq!((out.value("uid"), out.value("gid")), ("0".into(), "0".into()));
}

#[test]
fn a_whole_life_of_an_ordinary_users_container() {
    let c = Container::rootless(["trap", "HUP", "TERM"]);
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    c.wait_for("ready");
    let user = User::ordinary();
    let process = fs::metadata(format!("/proc/{}", c.pid())).unwrap();
    assert_eq!((process.uid(), process.gid()), (user.uid, user.gid));

    let out = c.exec(["ids", "--", "pid"]).ok();
    assert_eq!(out.value("uid"), "0");
    assert_ne!(out.value("pid"), "1");
    assert_eq!(c.command("list", ["--quiet"]).run().ok().stdout.trim(), c.id);
    c.kill("TERM").ok();
    c.wait_for("signal TERM");
    c.wait_status("stopped");
    c.delete().ok();
    c.nothing_left();
}

#[test]
fn the_configuration_of_spec_rootless_runs() {
    let mut c = Container::rootless(["echo"]);
    fs::remove_file(c.bundle().join("config.json")).unwrap();
    c.command("spec", ["--rootless", "--bundle"]).arg(c.bundle()).run().ok();
    let written = fs::read_to_string(c.bundle().join("config.json")).unwrap();
    c.edit(|config| {
        *config = serde_json::from_str(&written).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/probe", "ids"]);
    });
    let out = c.run().ok();
    assert_eq!(out.value("uid"), "0");
}

#[test]
fn files_that_a_container_of_an_ordinary_user_makes_are_hers() {
    let mut c = Container::rootless(["write", "/tmp/file", "text", "--", "stat", "/tmp/file"]);
    c.edit(|config| config["root"]["readonly"] = json!(false));
    c.run().ok();
    let file = fs::metadata(c.rootfs().join("tmp/file")).unwrap();
    let user = User::ordinary();
    assert_eq!((file.uid(), file.gid()), (user.uid, user.gid));
}

#[test]
fn an_ordinary_user_needs_a_user_namespace() {
    deviates!("crun", "runs it all the same");
    let mut c = Container::rootless(["echo", "must not run"]);
    c.edit(|config| {
        let linux = config["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        linux["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "user");
    });
    let out = c.run().exits(1);
    assert!(out.stderr.contains("user namespace"), "the error must say what to do: {out}");
    c.nothing_left();
}

#[test]
fn ids_that_are_not_hers_are_refused() {
    let mut c = Container::rootless(["echo", "must not run"]);
    c.edit(|config| config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    c.run().exits(1);
    c.nothing_left();
}

#[test]
fn subordinate_ids_are_mapped_by_newuidmap() {
    needs!(Need::Subids);
    let mut c = Container::rootless(["ids", "--", "cat", "/proc/self/uid_map"]);
    let user = User::ordinary();
    c.edit(|config| {
        let map = |own: u32| {
            json!([
                {"containerID": 0, "hostID": own, "size": 1},
                {"containerID": 1, "hostID": 100_000, "size": 65536},
            ])
        };
        config["linux"]["uidMappings"] = map(user.uid);
        config["linux"]["gidMappings"] = map(user.gid);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [7]});
    });
    let out = c.run().ok();
    assert_eq!(out.value("uid"), "1000");
    assert_eq!(out.value("groups"), "7");
    let numbers: Vec<&str> = out.stdout.split_whitespace().collect();
    assert!(numbers.windows(3).any(|w| w == ["1", "100000", "65536"]), "{out}");
}

#[test]
fn groups_cannot_be_set_where_setgroups_is_denied() {
    deviates!("crun", "runs it all the same");
    deviates!("runc", "words its error in its own way");
    let mut c = Container::rootless(["echo", "must not run"]);
    c.edit(|config| config["process"]["user"]["additionalGids"] = json!([0]));
    c.run().exits(1).fails("additionalGids");
    c.nothing_left();
}

#[test]
fn limits_without_the_right_to_set_them_are_an_error() {
    let mut c = Container::rootless(["echo", "must not run"]);
    let path = c.cgroups_path().to_owned();
    c.edit(|config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = json!({"pids": {"limit": 10}});
    });
    c.run().exits(1);
    c.nothing_left();
}

#[test]
fn the_state_of_a_container_is_its_owners() {
    let c = Container::rootless(["sleep"]);
    c.started();
    // Root may look at it, and end it.
    let root = || Cmd::new(&suite().runtime).arg("--root").arg(c.root());
    assert_eq!(root().args(["state", &c.id]).run().ok().json()["status"], "running");
    root().args(["kill", &c.id, "KILL"]).run().ok();
    assert_eq!(c.wait_exit(), 137);
    root().args(["delete", &c.id]).run().ok();
    c.nothing_left();
}
