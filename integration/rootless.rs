//! Containers of an ordinary user: she has no rights but those over what is hers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;

use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, User, missing, runtime, suite};
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
fn limits_without_the_right_to_set_them_are_an_error_with_a_remedy() {
    deviates!("runc", "words its error in its own way");
    deviates!("crun", "words its error in its own way");
    let v2 = missing(&[Need::CgroupV2]).is_none();
    let remedy = if v2 && missing(&[Need::Systemd]).is_none() { "use --systemd-cgroup" } else { "by chown" };
    let limits = json!({"pids": {"limit": 10}});
    // With a path, the directory that cannot be made is named as well.
    let mut c = Container::rootless(["echo", "must not run"]);
    let path = c.cgroups_path().to_owned();
    c.edit(|config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = limits.clone();
    });
    let out = c.run().exits(1).fails(remedy);
    assert!(out.stderr.contains("mkdir /sys/fs/cgroup") && out.stderr.contains("permission denied"), "{out}");
    c.nothing_left();

    let mut c = Container::rootless(["echo", "must not run"]);
    c.edit(|config| config["linux"]["resources"] = limits.clone());
    let out = c.run().exits(1).fails(remedy);
    assert!(out.stderr.contains("linux.resources.pids.limit"), "{out}");
    c.nothing_left();

    // The same where the container runs already.
    let c = Container::rootless(["sleep"]);
    c.started();
    let out = c.command("update", ["--pids-limit", "10", &c.id]).run().exits(1).fails(remedy);
    assert!(out.stderr.contains("linux.resources.pids.limit"), "{out}");
    c.command("ps", [&c.id]).run().fails("it has no cgroup");
    c.command("pause", [&c.id]).run().fails("cgroups not configured");
}

#[test]
fn an_unreachable_systemd_is_an_error_with_a_remedy() {
    deviates!("runc", "words its error in its own way");
    deviates!("crun", "words its error in its own way");
    needs!(Need::Systemd, Need::CgroupV2);
    let mut c = Container::rootless(["echo", "must not run"]);
    c.global(&["--systemd-cgroup"]);
    c.run_cmd().env("XDG_RUNTIME_DIR", c.dir.as_os_str()).run().exits(1).fails("loginctl enable-linger");
    c.nothing_left();
}

/// A cgroup in each hierarchy that root has given to the user. On v2, where processes move only within what is hers, it
/// has one for those that she begins with.
struct Given {
    dirs: Vec<PathBuf>,
    user: User,
}

impl Given {
    fn new(path: &str) -> Given {
        let user = User::ordinary();
        let own = |path: PathBuf| {
            if path.exists() {
                std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
            }
        };
        let v2 = missing(&[Need::CgroupV2]).is_none();
        let top = PathBuf::from(CGROUP_ROOT);
        let below =
            || fs::read_dir(&top).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink());
        let hierarchies: Vec<PathBuf> = if v2 { vec![top.clone()] } else { below().collect() };
        let mut dirs = Vec::new();
        for hierarchy in hierarchies {
            let dir = hierarchy.join(path.trim_start_matches('/'));
            fs::create_dir_all(&dir).unwrap();
            for above in [dir.parent().unwrap(), &dir] {
                for name in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|name| !v2 && above.join(name).exists()) {
                    fs::write(above.join(name), fs::read(hierarchy.join(name)).unwrap()).unwrap();
                }
            }
            own(dir.clone());
            if v2 {
                for above in [&*hierarchy, dir.parent().unwrap()] {
                    fs::write(above.join("cgroup.subtree_control"), "+memory +pids").unwrap();
                }
            }
            if dir.join("cgroup.controllers").exists() {
                fs::create_dir(dir.join("hers")).unwrap();
                for name in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                    own(dir.join(name));
                    own(dir.join("hers").join(name));
                }
            }
            dirs.push(dir);
        }
        Given { dirs, user }
    }

    /// The runtime as the user runs it from there.
    fn runtime(&self, c: &Container) -> Cmd {
        let enter = self.dirs.iter().map(|dir| dir.join("hers/cgroup.procs")).find(|procs| procs.exists());
        let enter = enter.unwrap_or(PathBuf::from("/dev/null"));
        let (uid, gid) = (self.user.uid.to_string(), self.user.gid.to_string());
        let cmd = Cmd::new("sh").args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(enter);
        let cmd = cmd.args(["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"]).arg(runtime());
        cmd.env("XDG_RUNTIME_DIR", c.dir.as_os_str()).arg("--root").arg(c.root())
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for dir in &self.dirs {
            let _ = fs::remove_dir(dir.join("hers"));
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
fn an_ordinary_user_has_limits_in_a_cgroup_that_is_hers() {
    needs!(Need::Program("setpriv"), Need::Controller("memory"), Need::Controller("pids"));
    let mut c = Container::rootless(["sleep"]);
    let given = Given::new(c.cgroups_path());
    let path = format!("{}/own", c.cgroups_path());
    c.edit(|config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 10}});
    });
    if given.dirs.iter().any(|dir| dir.join("hers").exists()) {
        // Her session is elsewhere.
        c.run().exits(1).fails("the caller is in no cgroup below");
    }
    let act = |args: &[&str]| given.runtime(&c).args(args).arg(&c.id);
    let pid = c.path("pid");
    let bundle = c.bundle();
    c.create_with(act(&["create", "--bundle", bundle.to_str().unwrap(), "--pid-file", pid.to_str().unwrap()])).ok();
    act(&["start"]).run().ok();
    let v2 = missing(&[Need::CgroupV2]).is_none();
    let memory = || c.cgroup_file("memory", if v2 { "memory.max" } else { "memory.limit_in_bytes" });
    assert_eq!((memory(), c.cgroup_file("pids", "pids.max")), ("67108864".into(), "10".into()));
    act(&["update", "--memory", "33554432", "--pids-limit", "9"]).run().ok();
    assert_eq!((memory(), c.cgroup_file("pids", "pids.max")), ("33554432".into(), "9".into()));
    let out = act(&["exec"]).args(["/probe", "fork", "20"]).run().ok();
    assert!(out.stdout.contains("fork EAGAIN"), "{out}");
    act(&["pause"]).run().ok();
    assert_eq!(act(&["state"]).run().ok().json()["status"], "paused");
    act(&["resume"]).run().ok();
    assert!(act(&["ps", "--format", "json"]).run().ok().json().as_array().unwrap().len() > 1);
    act(&["events", "--stats"]).run().ok();
    act(&["delete", "--force"]).run().ok();
    for dir in &given.dirs {
        assert!(!dir.join("own").exists(), "{}", dir.display());
    }
}

#[test]
fn on_a_hybrid_host_cgroups_of_v1_are_enough_for_an_ordinary_user() {
    deviates!("crun", "wants one on the v2 side");
    needs!(Need::CgroupV1, Need::Program("setpriv"), Need::Controller("pids"));
    let mut c = Container::rootless(["sleep"]);
    let given = Given::new(c.cgroups_path());
    let path = format!("{}/own", c.cgroups_path());
    c.edit(|config| {
        config["linux"]["cgroupsPath"] = json!(path);
        config["linux"]["resources"] = json!({"pids": {"limit": 10}});
    });
    for dir in given.dirs.iter().filter(|dir| dir.join("hers").exists()) {
        fs::remove_dir(dir.join("hers")).unwrap();
        fs::remove_dir(dir).unwrap();
    }
    let act = |args: &[&str]| given.runtime(&c).args(args).arg(&c.id);
    let pid = c.path("pid");
    let bundle = c.bundle();
    c.create_with(act(&["create", "--bundle", bundle.to_str().unwrap(), "--pid-file", pid.to_str().unwrap()])).ok();
    act(&["start"]).run().ok();
    assert_eq!(c.cgroup_file("pids", "pids.max"), "10");
    act(&["pause"]).run().ok();
    act(&["resume"]).run().ok();
    act(&["exec"]).args(["/probe", "exit", "0"]).run().ok();
    act(&["delete", "--force"]).run().ok();
    for dir in &given.dirs {
        assert!(!dir.join("own").exists(), "{}", dir.display());
    }
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
