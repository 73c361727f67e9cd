//! Control groups (config-linux.md, "Cgroups", "Control groups" and "Allowed Device list"): where they are, what the
//! kernel is told of each limit, that limits bite, and whose processes and directories are touched.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, eventually, missing, runtime, runtime_kind};
use crate::{deviates, needs, skip};

fn v2() -> bool {
    missing(&[Need::CgroupV2]).is_none()
}

/// A sleeping container with these resources.
fn limited(resources: Value) -> Container {
    Container::with(["sleep"], |config| config["linux"]["resources"] = resources)
}

/// The directories of a container's cgroup, by its path.
fn dirs(path: &str) -> Vec<PathBuf> {
    let path = path.trim_start_matches('/');
    let roots: Vec<_> = if v2() {
        vec![PathBuf::from(CGROUP_ROOT)]
    } else {
        fs::read_dir(CGROUP_ROOT).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect()
    };
    roots.into_iter().map(|root| root.join(path)).collect()
}

/// Kills a process that has become the suite's own, and waits for it.
fn end(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(pid, None).unwrap();
}

#[test]
fn limits_of_memory_pids_and_cpu_are_set() {
    deviates!("crun", "converts shares in another way");
    let c = limited(json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296},
        "pids": {"limit": 32},
        "cpu": {"shares": 512, "quota": 50_000, "period": 200_000}
    }));
    c.started();
    let files: &[_] = if v2() {
        &[
            ("memory", "memory.max", "67108864"),
            ("memory", "memory.low", "33554432"),
            ("pids", "pids.max", "32"),
            ("cpu", "cpu.weight", "59"),
            ("cpu", "cpu.max", "50000 200000"),
        ]
    } else {
        &[
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("memory", "memory.memsw.limit_in_bytes", "100663296"),
            ("pids", "pids.max", "32"),
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpu", "cpu.cfs_period_us", "200000"),
        ]
    };
    for (controller, file, want) in files {
        assert_eq!(c.cgroup_file(controller, file), *want, "{file}");
    }
}

#[test]
fn bursts_and_idle_groups_are_set() {
    deviates!("runc" before 1.2, "does not know them");
    needs!(Need::Controller("cpu"), Need::Kernel(5, 15));
    let c = limited(json!({"cpu": {"quota": 50_000, "period": 100_000, "burst": 20_000}}));
    c.started();
    let file = if v2() { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    assert_eq!(c.cgroup_file("cpu", file), "20000");
    let c = limited(json!({"cpu": {"idle": 1}}));
    c.started();
    assert_eq!(c.cgroup_file("cpu", "cpu.idle"), "1");
}

#[test]
fn processors_and_memory_nodes_are_set() {
    needs!(Need::Controller("cpuset"));
    let c = limited(json!({"cpu": {"cpus": "0", "mems": "0"}}));
    c.started();
    assert_eq!(c.cgroup_file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(c.cgroup_file("cpuset", "cpuset.mems"), "0");
    let fault = limited(json!({"cpu": {"cpus": "4000"}}));
    fault.run().fails("cpuset.cpus");
    fault.nothing_left();
}

#[test]
fn v1_fills_a_cpuset_that_is_there_and_empty() {
    needs!(Need::OnV1("cpuset"));
    let c = Container::new(["sleep"]);
    let dir = Path::new(CGROUP_ROOT).join("cpuset").join(&c.cgroups_path()[1..]);
    fs::create_dir_all(&dir).unwrap();
    assert_eq!(fs::read_to_string(dir.join("cpuset.cpus")).unwrap().trim(), "");
    c.started();
    assert_ne!(c.cgroup_file("cpuset", "cpuset.cpus"), "");
    assert_ne!(c.cgroup_file("cpuset", "cpuset.mems"), "");
}

#[test]
fn v1_has_swappiness_and_an_oom_killer_to_disable() {
    needs!(Need::CgroupV1);
    let c = limited(json!({"memory": {"limit": 67_108_864, "swappiness": 20, "disableOOMKiller": true}}));
    c.started();
    assert_eq!(c.cgroup_file("memory", "memory.swappiness"), "20");
    assert!(c.cgroup_file("memory", "memory.oom_control").contains("oom_kill_disable 1"));
    limited(json!({"memory": {"swappiness": 101}})).run().fails("swappiness");
    limited(json!({"cpu": {"shares": 1}})).run().fails("minimum allowed cpu-shares is 2");
    limited(json!({"unified": {"memory.max": "1"}})).run().fails("cannot use unified on cgroup v1");
}

#[test]
fn v1_limits_the_memory_of_tcp() {
    needs!(Need::CgroupV1);
    deviates!("runc", "ignores it");
    let resources = json!({"memory": {"limit": 67_108_864, "kernelTCP": 33_554_432, "kernel": 33_554_432}});
    let c = Container::with(["echo", "ran"], |config| config["linux"]["resources"] = resources);
    let out = c.create().ok();
    assert_eq!(c.cgroup_file("memory", "memory.kmem.tcp.limit_in_bytes"), "33554432");
    assert!(!out.stderr.contains("kernelTCP"), "{out}");
    c.command("update", ["--kernel-memory-tcp", "16777216", &c.id]).run().ok();
    assert_eq!(c.cgroup_file("memory", "memory.kmem.tcp.limit_in_bytes"), "16777216");
}

#[test]
fn v1_lists_allowed_devices_in_their_order() {
    needs!(Need::CgroupV1);
    deviates!("runc", "sorts them");
    let rule = |kind, major, minor, access| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
    let rules = [rule("c", 10, 229, "rwm"), rule("b", 8, 20, "rw"), rule("b", 10, 200, "r")];
    let all = json!({"allow": false, "access": "rwm"});
    let c = limited(json!({"devices": [all, rules[0], rules[1], rules[2]]}));
    c.started();
    let list = c.cgroup_file("devices", "devices.list");
    assert_eq!(list.lines().take(3).collect::<Vec<_>>(), ["c 10:229 rwm", "b 8:20 rw", "b 10:200 r"], "{list}");
}

#[test]
fn without_limits_there_are_none() {
    let c = limited(json!({}));
    c.started();
    assert_eq!(c.cgroup_file("pids", "pids.max"), "max");
}

#[test]
fn a_pids_limit_of_zero_forbids_forks_and_a_negative_one_allows_all() {
    deviates!("runc" before 1.5, "takes zero for none");
    deviates!("crun", "takes zero for none");
    let c = Container::with(["fork", "1"], |config| config["linux"]["resources"] = json!({"pids": {"limit": 0}}));
    let out = c.run();
    assert!(out.stdout.contains("EAGAIN"), "{out}");
    let c = limited(json!({"pids": {"limit": -1}}));
    c.started();
    assert_eq!(c.cgroup_file("pids", "pids.max"), "max");
}

#[test]
fn a_program_that_exceeds_its_memory_is_ended() {
    let c = Container::with(["memhog", "268435456"], |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}});
    });
    c.run().exits(137);
}

#[test]
fn files_of_v2_are_set_by_their_names() {
    deviates!("crun", "leaves a cgroup behind");
    needs!(Need::CgroupV2, Need::Controller("memory"));
    let c = limited(json!({
        "memory": {"limit": 67_108_864},
        "unified": {"memory.high": "50331648", "memory.max": "134217728", "cgroup.max.depth": "7"}
    }));
    c.started();
    assert_eq!(c.cgroup_file("memory", "memory.high"), "50331648");
    assert_eq!(c.cgroup_file("memory", "cgroup.max.depth"), "7");
    // What is said by name holds against what is translated.
    assert_eq!(c.cgroup_file("memory", "memory.max"), "134217728");
    for (key, words) in
        [("nothing.max", "nothing"), ("../memory.max", "memory.max"), ("memory.nothing", "memory.nothing")]
    {
        let c = limited(json!({"unified": {key: "1"}}));
        c.run().fails(words);
        c.nothing_left();
    }
}

#[test]
fn a_limit_of_a_controller_that_is_not_there_is_an_error_with_its_name() {
    deviates!("crun", "leaves a cgroup behind");
    if missing(&[Need::Controller("rdma")]).is_none() {
        skip!("the controller rdma is there");
    }
    let c = limited(json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}));
    c.run().fails("rdma");
    c.nothing_left();
}

#[test]
fn devices_are_denied_unless_a_rule_allows_them() {
    deviates!("crun", "allows all where there is no rule");
    needs!(Need::File("/dev/loop-control"));
    let open = |rules: Value| {
        let c = Container::with(["open", "/dev/probe", "r"], |config| {
            config["linux"]["devices"] = json!([{"path": "/dev/probe", "type": "c", "major": 10, "minor": 237}]);
            match rules {
                Value::Null => _ = config["linux"].as_object_mut().unwrap().remove("resources"),
                rules => config["linux"]["resources"] = json!({ "devices": rules }),
            }
        });
        c.run().stdout.contains("EPERM")
    };
    let all = |allow: bool| json!({"allow": allow, "access": "rwm"});
    let one =
        |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 10, "minor": 237, "access": access});
    assert!(open(Value::Null), "no resources");
    assert!(open(json!([])), "no rules");
    assert!(open(json!([all(false)])), "all denied");
    assert!(open(json!([one(true, "rwm"), all(false)])), "allowed, and then all denied");
    assert!(!open(json!([all(false), one(true, "r")])), "allowed to read");
    assert!(open(json!([all(false), one(true, "w")])), "allowed to write");
    assert!(!open(json!([all(true)])), "all allowed");
    assert!(open(json!([all(true), one(false, "r")])), "all allowed but this");
    assert!(
        !open(json!([all(false), {"allow": true, "type": "c", "major": 10, "access": "r"}])),
        "by the major number"
    );
}

#[test]
fn the_usual_devices_are_always_allowed() {
    let c = Container::new(["open", "/dev/null", "w", "--", "open", "/dev/zero", "r", "--", "open", "/dev/ptmx", "r"]);
    let out = c.run().ok();
    assert!(!out.stdout.contains("EPERM"), "{out}");
}

#[test]
fn device_rules_that_cannot_be_read_name_their_place() {
    deviates!("runc", "has other words");
    deviates!("crun", "has other words");
    for (rule, words) in [
        (json!({"allow": true, "type": "c"}), "linux.resources.devices[0]"),
        (json!({"allow": true, "type": "p", "access": "r"}), "linux.resources.devices[0]"),
        (json!({"allow": true, "type": "c", "access": "rx"}), "linux.resources.devices[0]"),
    ] {
        let c = limited(json!({ "devices": [rule] }));
        c.run().fails(words);
        c.nothing_left();
    }
}

#[test]
fn a_cgroup_that_is_in_use_is_refused_and_left_alone() {
    deviates!("runc" before 1.2, "only warns");
    deviates!("crun", "enters it all the same");
    let first = Container::new(["sleep"]);
    first.started();
    let mut second = Container::new(["sleep"]);
    let path = first.cgroups_path().to_owned();
    second.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    second.run().fails("container's cgroup is not empty");
    second.finish();
    assert_eq!(first.status(), "running");
}

#[test]
fn a_frozen_cgroup_is_refused() {
    deviates!("crun", "enters it all the same");
    let c = Container::new(["exit", "0"]);
    let (dir, file, stop, go) = if v2() {
        (dirs(c.cgroups_path()).remove(0), "cgroup.freeze", "1", "0")
    } else {
        (Path::new(CGROUP_ROOT).join("freezer").join(&c.cgroups_path()[1..]), "freezer.state", "FROZEN", "THAWED")
    };
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(file), stop).unwrap();
    let out = c.run();
    fs::write(dir.join(file), go).unwrap();
    out.fails("container's cgroup unexpectedly frozen");
    // It was there before, and may be used when it is thawed.
    assert!(dir.exists());
    c.run().ok();
}

#[test]
fn a_container_is_paused_and_resumed() {
    deviates!("crun", "resumes what is not paused");
    let c = Container::new(["sleep"]);
    c.started();
    c.command("resume", [&c.id]).run().exits(1);
    c.command("pause", [&c.id]).run().ok();
    assert_eq!(c.status(), "paused");
    c.command("pause", [&c.id]).run().exits(1);
    c.exec(["echo"]).exits(255).fails("paused");
    c.command("resume", [&c.id]).run().ok();
    assert_eq!(c.status(), "running");
    c.exec(["echo", "again"]).ok().line("again");
    c.command("pause", [&c.id]).run().ok();
    // Not even a paused one resists.
    c.finish();
}

#[test]
fn a_relative_path_and_none_lie_with_the_callers_cgroup() {
    deviates!("crun", "fails on a path that leads upward");
    let own = Container::cgroup_of(std::process::id() as i32, "pids");
    // On v2 beside it, as a cgroup with processes cannot divide its resources.
    let base = if v2() && own != Path::new(CGROUP_ROOT) { own.parent().unwrap().to_owned() } else { own };
    let mut c = Container::new(["sleep"]);
    let name = format!("{}-relative", c.id);
    c.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("../../../{name}")));
    c.started();
    assert_eq!(Container::cgroup_of(c.pid(), "pids"), base.join(&name));
    c.finish();

    let mut c = Container::new(["sleep"]);
    c.edit(|config| _ = config["linux"].as_object_mut().unwrap().remove("cgroupsPath"));
    c.started();
    assert_eq!(Container::cgroup_of(c.pid(), "pids"), base.join(&c.id));
}

#[test]
fn no_path_leads_out_of_the_hierarchy() {
    deviates!("crun", "fails on a path that leads upward");
    let mut c = Container::new(["sleep"]);
    let path = c.cgroups_path().to_owned();
    c.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("/../..{path}")));
    c.started();
    let want = dirs(&path);
    assert!(want.contains(&Container::cgroup_of(c.pid(), "pids")), "{want:?}");
}

/// Where the container's cgroup cannot be entered, the process goes where init is, unless a cgroup is asked for.
#[test]
fn exec_follows_init_that_has_left_its_cgroup() {
    deviates!("runc", "has other words");
    deviates!("crun", "enters another cgroup where that is in use");
    needs!(Need::CgroupV2, Need::Controller("pids"));
    let c = Container::new(["sleep"]);
    c.started();
    let own = Container::cgroup_of(c.pid(), "");
    let enter = |dir: &Path| fs::write(dir.join("cgroup.procs"), c.pid().to_string()).unwrap();
    let below = own.join("below");
    fs::create_dir(&below).unwrap();
    enter(&below);
    fs::write(own.join("cgroup.subtree_control"), "+pids").unwrap();
    c.exec(["cgroup"]).ok().line("0::/below");
    let out = c.exec_cmd(&["--cgroup", "/"], ["echo"]).run().exits(255);
    out.fails("error adding pid of the process to cgroups").fails("resource busy");

    let beside = own.with_file_name(format!("{}-beside", c.id));
    fs::create_dir(&beside).unwrap();
    enter(&beside);
    fs::remove_dir(&below).unwrap();
    fs::remove_dir(&own).unwrap();
    c.exec(["echo", "in"]).ok().line("in");
    c.kill("KILL").ok();
    c.wait_exit();
    c.delete().ok();
    fs::remove_dir(&beside).unwrap();
}

#[test]
fn exec_enters_a_sub_cgroup() {
    deviates!("runc" before 1.5, "has other words");
    deviates!("crun", "has other words");
    let c = Container::new(["sleep"]);
    c.started();
    c.exec_cmd(&["--cgroup", ".."], ["echo"]).run().exits(255).fails("bad sub cgroup path");
    c.exec_cmd(&["--cgroup", "nothing"], ["echo"]).run().exits(255).fails("no such file or directory");
    c.exec_cmd(&["--cgroup", "/"], ["echo", "in"]).run().ok().line("in");
    let sub: Vec<_> = dirs(c.cgroups_path()).iter().map(|dir| dir.join("sub")).collect();
    sub.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let cpuset = Path::new(CGROUP_ROOT).join("cpuset").join(&c.cgroups_path()[1..]);
    for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| !v2() && cpuset.exists()) {
        fs::write(cpuset.join("sub").join(file), fs::read(cpuset.join(file)).unwrap()).unwrap();
    }
    let pid_file = c.path("exec-pid");
    let cmd = c.exec_cmd(&["--cgroup", "sub", "--detach", "--pid-file", pid_file.to_str().unwrap()], ["sleep"]);
    cmd.spawn().wait().ok();
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert!(Container::cgroup_of(pid, "pids").ends_with("sub"));
    if !v2() {
        c.exec_cmd(&["--cgroup", "whaaat:/"], ["echo"]).run().exits(255).fails("unknown controller ");
        c.exec_cmd(&["--cgroup", ":/"], ["echo"]).run().exits(255).fails("invalid --cgroup argument");
    }
    // Its parent is the suite, and the pid namespace does not end before it is waited for.
    end(pid);
    // The directories below go with the container.
    c.finish();
}

#[test]
fn processes_that_outlive_init_are_ended_with_the_cgroup() {
    let mut c = Container::new(["fork", "1"]);
    c.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    c.create().ok();
    c.start().ok();
    let pid = c.wait_for("fork ok").trim().rsplit(' ').next().unwrap().parse().unwrap();
    c.wait_exit();
    let alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(alive());
    c.command("delete", ["--force", &c.id]).run().ok();
    assert!(!alive());
    end(pid);
}

#[test]
fn a_long_way_down_is_cleaned_up() {
    let c = Container::new(["sleep"]);
    c.started();
    for dir in dirs(c.cgroups_path()).into_iter().filter(|dir| dir.exists()) {
        let mut deep = dir;
        for _ in 0..30 {
            deep.push("d");
        }
        fs::create_dir_all(deep).unwrap();
    }
    c.finish();
}

#[test]
fn the_cgroup_is_gone_with_the_container() {
    let c = Container::new(["sleep"]);
    c.started();
    assert!(dirs(c.cgroups_path()).iter().any(|dir| dir.exists()));
    c.kill("KILL").ok();
    eventually("stopped", || (c.status() == "stopped").then_some(()));
    c.delete().ok();
    assert!(dirs(c.cgroups_path()).iter().all(|dir| !dir.exists()));
}

#[test]
fn a_container_without_a_manager_stays_where_its_caller_is() {
    deviates!("crun", "has other values for this flag");
    if runtime_kind() == "runc" {
        skip!("runc has no --cgroup-manager");
    }
    let mut c = Container::new(["sleep"]);
    c.global(&["--cgroup-manager", "disabled"]);
    c.edit(|config| _ = config["linux"].as_object_mut().unwrap().remove("resources"));
    c.started();
    let own = Container::cgroup_of(std::process::id() as i32, "pids");
    assert_eq!(Container::cgroup_of(c.pid(), "pids"), own);
    // Later commands know it without the flag, and say what they cannot do.
    let later = |args: &[&str]| args.iter().fold(Cmd::new(runtime()).arg("--root").arg(c.root()), Cmd::arg).run();
    later(&["update", "--pids-limit", "5", &c.id]).fails("the cgroup manager is disabled");
    later(&["ps", &c.id]).fails("it has no cgroup");
    later(&["pause", &c.id]).fails("cgroups not configured for container");
    later(&["exec", &c.id, "/probe", "exit", "3"]).exits(3);
    assert_eq!(later(&["state", &c.id]).ok().json()["status"], "running");
    later(&["kill", "--all", &c.id, "KILL"]).ok();
    assert_eq!(c.wait_exit(), 137);
    later(&["delete", &c.id]).ok();
    c.nothing_left();
    let mut c = limited(json!({"pids": {"limit": 5}}));
    c.global(&["--cgroup-manager", "disabled"]);
    c.run().fails("cannot set limits without cgroups");
}
