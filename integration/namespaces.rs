//! Namespaces (config-linux.md, "Namespaces"): new ones, joined ones, and the runtime's own where none is listed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Container, Need, Output, eventually};
use crate::{deviates, needs};

/// The type in the configuration, and the file in /proc/PID/ns.
const KINDS: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("cgroup", "cgroup")];

fn of(pid: i32, file: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap().display().to_string()
}

fn own(file: &str) -> String {
    of(std::process::id() as i32, file)
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().unwrap()
}

/// Takes a namespace out of the list, with the hostname that needs one.
fn without(config: &mut Value, kind: &str) {
    namespaces(config).retain(|n| n["type"] != kind);
    if kind == "uts" {
        config.as_object_mut().unwrap().remove("hostname");
    }
    if kind == "network" {
        // Only the owner of a network namespace may mount its sysfs; root is.
        config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
    }
}

/// Adds a user namespace in which root is the host's 100000.
fn user_namespace(config: &mut Value) {
    namespaces(config).push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
}

#[test]
fn each_listed_namespace_is_new() {
    let out = Container::new(["ns"]).run().ok();
    for (_, file) in KINDS {
        assert_ne!(out.value(file), own(file), "{out}");
    }
    assert_eq!(out.value("user"), own("user"));
}

#[test]
fn a_namespace_that_is_not_listed_is_the_runtimes() {
    for (kind, file) in KINDS.iter().filter(|k| k.0 != "mount") {
        let c = Container::with(["ns"], |config| without(config, kind));
        let out = c.run().ok();
        assert_eq!(out.value(file), own(file), "{kind}: {out}");
    }
}

#[test]
fn a_namespace_can_be_joined_by_its_path() {
    let first = Container::new(["sleep"]);
    first.started();
    let pid = first.pid();
    for (kind, file) in KINDS.iter().filter(|k| k.0 != "mount") {
        let c = Container::with(["ns"], |config| {
            let entry = namespaces(config).iter_mut().find(|n| n["type"] == *kind).unwrap();
            entry["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        });
        let out = c.run().ok();
        assert_eq!(out.value(file), of(pid, file), "{kind}: {out}");
        for (_, other) in KINDS.iter().filter(|k| k.1 != *file) {
            assert_ne!(out.value(other), of(pid, other), "{kind}: {out}");
        }
    }
}

#[test]
fn many_namespaces_can_be_joined_at_once() {
    let first = Container::new(["sleep"]);
    first.started();
    let pid = first.pid();
    let c = Container::with(["ns"], |config| {
        for (kind, file) in KINDS.iter().filter(|k| k.0 != "mount") {
            let entry = namespaces(config).iter_mut().find(|n| n["type"] == *kind).unwrap();
            entry["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
    });
    let out = c.run().ok();
    for (_, file) in KINDS.iter().filter(|k| k.0 != "mount") {
        assert_eq!(out.value(file), of(pid, file), "{out}");
    }
}

#[test]
fn a_path_that_is_no_such_namespace_is_an_error() {
    deviates!("crun", "leaves a cgroup behind");
    for path in ["/proc/self/ns/ipc", "/no/such/file", "/proc/self/status", "relative/path"] {
        let c = Container::with(["echo"], |config| {
            namespaces(config).iter_mut().find(|n| n["type"] == "uts").unwrap()["path"] = json!(path);
        });
        let out = c.create();
        assert_eq!(out.code, 1, "{path}: {out}");
        c.nothing_left();
    }
}

#[test]
fn a_namespace_listed_twice_is_an_error() {
    deviates!("crun", "leaves a cgroup behind");
    let c = Container::with(["echo"], |config| namespaces(config).push(json!({"type": "ipc"})));
    c.run().exits(1).fails("ipc");
    c.nothing_left();
}

#[test]
fn an_unknown_namespace_is_an_error() {
    deviates!("crun", "leaves a cgroup behind");
    let c = Container::with(["echo"], |config| namespaces(config).push(json!({"type": "nosuch"})));
    c.run().exits(1).fails("nosuch");
    c.nothing_left();
}

#[test]
fn the_program_is_the_first_process_of_its_pid_namespace() {
    let out = Container::new(["pid"]).run().ok();
    assert_eq!(out.value("pid"), "1");
    assert_eq!(out.value("sid"), "1");
}

#[test]
fn the_processes_of_a_container_without_a_pid_namespace_end_with_it() {
    let c = Container::with(["fork", "3", "--", "echo", "forked", "--", "sleep"], |config| without(config, "pid"));
    c.started();
    let printed = c.wait_for("forked");
    let pids: Vec<&str> = printed.lines().filter_map(|l| l.strip_prefix("fork ok ")).collect();
    assert_eq!(pids.len(), 3, "{printed}");
    c.command("delete", ["--force", &c.id]).run().ok();
    // They have come to us, their subreaper.
    for pid in pids {
        let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
        eventually("the end of a child", || match nix::sys::wait::waitpid(pid, None) {
            Ok(nix::sys::wait::WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)) => Some(()),
            other => panic!("{other:?}"),
        });
    }
    c.nothing_left();
}

#[test]
fn the_hostname_and_domainname_are_the_containers() {
    deviates!("runc" before 1.2, "knows no domainname");
    let c = Container::with(["hostname"], |config| {
        config["hostname"] = json!("some-host");
        config["domainname"] = json!("example.org");
    });
    let out = c.run().ok();
    assert_eq!(out.value("hostname"), "some-host");
    assert_eq!(out.value("domainname"), "example.org");
    let outside = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_ne!(outside.trim(), "some-host");
}

#[test]
fn a_hostname_needs_an_uts_namespace() {
    let c = Container::with(["echo"], |config| {
        without(config, "uts");
        config["hostname"] = json!("some-host");
    });
    c.run().exits(1);
    c.nothing_left();
}

#[test]
fn a_new_network_namespace_has_the_loopback_interface_up() {
    let c = Container::new(["interfaces", "--", "cat", "/sys/class/net/lo/flags"]);
    let out = c.run().ok().line("lo").line("0x9");
    // Tunnels that the kernel adds by itself are not there in the initial state of all machines.
    assert!(!out.stdout.contains("eth"), "{out}");
}

#[test]
fn the_cgroup_namespace_begins_at_the_containers_cgroup() {
    let out = Container::new(["cgroup"]).run().ok();
    for line in out.stdout.lines() {
        // The unified hierarchy of a hybrid host may be left alone.
        assert!(line.ends_with(":/") || line.starts_with("0::"), "{out}");
    }
}

#[test]
fn a_user_namespace_maps_the_ids() {
    let c = Container::with(
        ["ids", "--", "cat", "/proc/self/uid_map", "--", "cat", "/proc/self/gid_map", "--", "ns", "--", "sleep"],
        user_namespace,
    );
    c.started();
    let printed = c.wait_for("uts ");
    assert!(printed.contains("uid 0\ngid 0\n"), "{printed}");
    let numbers: Vec<&str> = printed.split_whitespace().collect();
    for map in [["0", "100000", "65536"], ["0", "200000", "65536"]] {
        assert!(numbers.windows(3).any(|w| w == map), "{printed}");
    }
    assert_ne!(of(c.pid(), "user"), own("user"));
    let process = fs::metadata(format!("/proc/{}", c.pid())).unwrap();
    assert_eq!((process.uid(), process.gid()), (100_000, 200_000));
    // A process of exec is the same.
    let out = c.exec(["ids", "--", "ns"]).ok();
    assert_eq!((out.value("uid"), out.value("gid")), ("0".into(), "0".into()));
    assert_eq!(out.value("user"), of(c.pid(), "user"));
}

#[test]
fn another_user_than_root_in_a_user_namespace() {
    let c = Container::with(["ids", "--", "sleep"], |config| {
        user_namespace(config);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6]});
    });
    c.started();
    let printed = c.wait_for("groups ");
    assert!(printed.contains("uid 1000\ngid 1001\n"), "{printed}");
    let groups = printed.lines().find_map(|l| l.strip_prefix("groups ")).unwrap();
    let mut groups: Vec<&str> = groups.split(' ').collect();
    groups.sort_unstable();
    assert_eq!(groups, ["5", "6"]);
    let process = fs::metadata(format!("/proc/{}", c.pid())).unwrap();
    assert_eq!((process.uid(), process.gid()), (101_000, 201_001));
}

#[test]
fn a_user_namespace_can_be_joined_with_what_belongs_to_it() {
    deviates!("runc" before 1.2, "wants mappings also for a joined user namespace");
    let first = Container::with(["sleep"], user_namespace);
    first.started();
    let pid = first.pid();
    let joined = |kinds: &[&str]| -> Output {
        let c = Container::with(["ns", "--", "ids"], |config| {
            namespaces(config).push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
            for (kind, file) in KINDS.iter().filter(|k| kinds.contains(&k.0)) {
                let entry = namespaces(config).iter_mut().find(|n| n["type"] == *kind).unwrap();
                entry["path"] = json!(format!("/proc/{pid}/ns/{file}"));
            }
        });
        c.run().ok()
    };
    let out = joined(&[]);
    assert_eq!(out.value("user"), of(pid, "user"));
    assert_ne!(out.value("net"), of(pid, "net"));
    assert_eq!(out.value("uid"), "0");

    let out = joined(&["network", "ipc", "uts"]);
    for file in ["user", "net", "ipc", "uts"] {
        assert_eq!(out.value(file), of(pid, file), "{out}");
    }
}

#[test]
fn a_user_namespace_without_mappings_is_an_error() {
    let c = Container::with(["echo"], |config| namespaces(config).push(json!({"type": "user"})));
    c.run().exits(1);
    c.nothing_left();
}

#[test]
fn mappings_without_a_user_namespace_are_an_error() {
    deviates!("crun", "ignores them");
    deviates!("runc", "ignores them");
    let c = Container::with(["echo"], |config| {
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    });
    c.run().exits(1);
    c.nothing_left();
}

#[test]
fn a_time_namespace_has_its_offsets() {
    needs!(Need::TimeNamespace);
    deviates!("runc" before 1.2, "knows no time namespaces");
    let c = Container::with(["time", "--", "ns"], |config| {
        namespaces(config).push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({
            "monotonic": {"secs": 7_000_000, "nanosecs": 2_700_000},
            "boottime": {"secs": 9_000_000, "nanosecs": 1000},
        });
    });
    let out = c.run().ok();
    assert_ne!(out.value("time"), own("time"));
    let monotonic: i64 = out.value("monotonic").parse().unwrap();
    let boottime: i64 = out.value("boottime").parse().unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime = uptime.split('.').next().unwrap().parse::<i64>().unwrap();
    assert!((boottime - uptime - 9_000_000).abs() < 60, "{out} {uptime}");
    assert!((7_000_000..7_000_000 + uptime + 60).contains(&monotonic), "{out} {uptime}");
}

#[test]
fn time_offsets_need_a_new_time_namespace() {
    deviates!("crun", "leaves a cgroup behind");
    deviates!("runc" before 1.2, "knows no time namespaces");
    let offsets = json!({"monotonic": {"secs": 1}});
    let c = Container::with(["echo"], |config| config["linux"]["timeOffsets"] = offsets.clone());
    c.run().exits(1);
    c.nothing_left();
    if Path::new("/proc/self/ns/time").exists() {
        let c = Container::with(["echo"], |config| {
            config["linux"]["timeOffsets"] = offsets;
            namespaces(config).push(json!({"type": "time", "path": "/proc/self/ns/time"}));
        });
        c.run().exits(1);
        c.nothing_left();
    }
}

#[test]
fn exec_joins_all_namespaces_of_the_container() {
    let c = Container::new(["sleep"]);
    c.started();
    let out = c.exec(["ns"]).ok();
    for (_, file) in KINDS {
        assert_eq!(out.value(file), of(c.pid(), file), "{out}");
    }
}

/// `linux` is not required: without it nothing is asked for, and so nothing is separated (config-linux.md, "Namespaces").
#[test]
fn without_linux_all_namespaces_are_the_runtimes() {
    deviates!("runc", "leaves a mount on the host");
    let mut c = Container::new(["hostname", "--", "pid"]);
    c.edit(|config| {
        config.as_object_mut().unwrap().remove("linux");
        config.as_object_mut().unwrap().remove("hostname");
        config["mounts"] = json!([]);
        config["root"]["readonly"] = json!(false);
    });
    let out = c.run().ok();
    let host = nix::unistd::gethostname().unwrap();
    assert_eq!(out.value("hostname"), host.to_str().unwrap());
    assert_ne!(out.value("pid"), "1");
}
