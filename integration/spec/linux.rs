//! config-linux.md, but for cgroups and what is merely REQUIRED.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use super::{container, not_created, refused};
use crate::harness::{Cmd, ConsoleSocket, Container, Need, read_until, receive_fd, suite};
use crate::mounts::{add, bind, in_a_user_namespace, mount_at};
use crate::{deviates, needs, skip, spec};

#[test]
fn the_usual_file_systems_are_there() {
    spec!("config-linux/filesystems");
    let out = Container::new(["mountinfo"]).run().ok();
    for (path, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")] {
        assert_eq!(mount_at(&out, path).kind, kind, "{path}");
    }
}

/// The file in /proc/PID/ns of a type.
fn file(kind: &str) -> &str {
    match kind {
        "network" => "net",
        "mount" => "mnt",
        kind => kind,
    }
}

fn of(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{}", file(kind))).unwrap().display().to_string()
}

fn own(kind: &str) -> String {
    of(std::process::id() as i32, kind)
}

/// Gives the configuration a namespace of a type, and takes one there is away.
fn with_namespace(config: &mut Value, kind: &str, namespace: Option<Value>) {
    let list = config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|n| n["type"] != kind);
    list.extend(namespace);
}

#[track_caller]
fn is_new(kind: &str) {
    let c = Container::with(["ns"], |config| match kind {
        "user" => in_a_user_namespace(config),
        kind => with_namespace(config, kind, Some(json!({"type": kind}))),
    });
    let out = c.run().ok();
    assert_ne!(out.value(file(kind)), own(kind), "{out}");
}

#[test]
fn a_pid_namespace() {
    spec!("config-linux/namespaces/pid");
    is_new("pid");
    Container::new(["pid"]).run().ok().line("pid 1");
}

#[test]
fn a_network_namespace() {
    spec!("config-linux/namespaces/network");
    is_new("network");
}

#[test]
fn a_mount_namespace() {
    spec!("config-linux/namespaces/mount");
    is_new("mount");
}

#[test]
fn an_ipc_namespace() {
    spec!("config-linux/namespaces/ipc");
    is_new("ipc");
}

#[test]
fn a_uts_namespace() {
    spec!("config-linux/namespaces/uts");
    is_new("uts");
}

#[test]
fn a_user_namespace() {
    spec!("config-linux/namespaces/user");
    is_new("user");
}

#[test]
fn a_cgroup_namespace() {
    spec!("config-linux/namespaces/cgroup");
    is_new("cgroup");
}

#[test]
fn a_time_namespace() {
    spec!("config-linux/namespaces/time");
    needs!(Need::TimeNamespace);
    deviates!("runc" before 1.2, "knows no time namespaces");
    is_new("time");
}

#[test]
fn the_path_of_a_namespace_is_absolute() {
    spec!("config-linux/namespaces/path-absolute");
    // A path that leads to one from where the runtime runs.
    let c = Container::with(["ns"], |config| {
        let namespace = json!({"type": "uts", "path": "../../../proc/self/ns/uts"});
        with_namespace(config, "uts", Some(namespace));
        config.as_object_mut().unwrap().remove("hostname");
    });
    refused(&c.create_cmd().cwd("/usr/bin").run());
}

#[test]
fn a_namespace_is_joined() {
    spec!("config-linux/namespaces/path");
    let first = Container::new(["sleep"]);
    first.started();
    let pid = first.pid();
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        let path = format!("/proc/{pid}/ns/{}", file(kind));
        let c = Container::with(["ns"], |config| {
            with_namespace(config, kind, Some(json!({"type": kind, "path": path})));
        });
        assert_eq!(c.run().ok().value(file(kind)), of(pid, kind), "{kind}");
    }
}

#[test]
fn a_path_of_another_namespace_is_an_error() {
    spec!("config-linux/namespaces/path-type");
    for path in ["/proc/self/ns/ipc", "/no/such/file", "/proc/self/status"] {
        let c = Container::with(["exit", "0"], |config| {
            with_namespace(config, "uts", Some(json!({"type": "uts", "path": path})));
        });
        not_created(&c);
    }
}

#[test]
fn without_a_path_namespaces_are_new() {
    spec!("config-linux/namespaces/new");
    let out = Container::new(["ns"]).run().ok();
    for kind in ["pid", "network", "ipc", "uts", "mount", "cgroup"] {
        assert_ne!(out.value(file(kind)), own(kind), "{out}");
    }
}

#[test]
fn a_namespace_that_is_not_listed_is_inherited() {
    spec!("config-linux/namespaces/inherited");
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        let c = Container::with(["ns"], |config| {
            with_namespace(config, kind, None);
            if kind == "uts" {
                config.as_object_mut().unwrap().remove("hostname");
            }
        });
        let out = c.run().ok();
        assert_eq!(out.value(file(kind)), own(kind), "{kind}: {out}");
        assert_eq!(out.value("user"), own("user"), "{out}");
    }
}

#[test]
fn a_namespace_is_listed_once() {
    spec!("config-linux/namespaces/duplicates");
    not_created(&container(&["exit", "0"], &[("/linux/namespaces/-", json!({"type": "ipc"}))]));
}

#[test]
fn owners_of_files_stay_in_a_user_namespace() {
    spec!("config-linux/mappings/ownership");
    let mut c = Container::with(["exit", "0"], in_a_user_namespace);
    let volume = c.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    fs::create_dir(c.rootfs().join("mnt")).unwrap();
    c.edit(|config| add(config, bind(&volume, &["bind"])));
    c.run().ok();
    for path in [volume.join("file"), volume, c.rootfs().join("etc/passwd"), c.rootfs()] {
        assert_eq!(fs::metadata(&path).unwrap().uid(), 0, "{}", path.display());
    }
}

#[test]
fn devices_are_there() {
    spec!("config-linux/devices");
    let devices = json!([
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/disk", "type": "b", "major": 7, "minor": 3},
        {"path": "/dev/pipe", "type": "p"},
        {"path": "/elsewhere/null", "type": "u", "major": 1, "minor": 3},
    ]);
    let verbs = ["stat", "/dev/mine", "/dev/disk", "/dev/pipe", "/elsewhere/null"];
    let c = container(&verbs, &[("/linux/devices", devices), ("/root/readonly", json!(false))]);
    let out = c.run().ok();
    for words in [
        ["/dev/mine char mode=0640 uid=5 gid=6", "rdev=1:5"],
        ["/dev/disk block", "rdev=7:3"],
        ["/dev/pipe fifo", ""],
        ["/elsewhere/null char", "rdev=1:3"],
    ] {
        assert!(out.stdout.lines().any(|l| words.iter().all(|w| l.contains(w))), "{words:?}: {out}");
    }
}

#[test]
fn something_else_at_the_path_of_a_device_is_an_error() {
    spec!("config-linux/devices/mismatch");
    deviates!("runc", "leaves what is there");
    deviates!("crun", "leaves what is there");
    let devices = json!([{"path": "/node", "type": "c", "major": 1, "minor": 3}]);
    for other in ["file", "device"] {
        let c = container(&["exit", "0"], &[("/linux/devices", devices.clone()), ("/root/readonly", json!(false))]);
        let path = c.rootfs().join("node");
        if other == "file" {
            fs::write(&path, "").unwrap();
        } else {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 5)).unwrap();
        }
        refused(&c.run());
    }
}

/// A test for each of the devices that every container has.
macro_rules! default_devices {
    ($(fn $name:ident { spec!($id:literal) $path:literal => $number:literal })+) => {
        $(
            #[test]
            fn $name() {
                spec!($id);
                let out = Container::new(["stat", $path]).run().ok();
                assert!(out.stdout.contains(concat!(" char mode=0666 uid=0 gid=0 rdev=", $number, " ")), "{out}");
            }
        )+
    };
}

default_devices! {
    fn null { spec!("config-linux/default-devices/null") "/dev/null" => "1:3" }
    fn zero { spec!("config-linux/default-devices/zero") "/dev/zero" => "1:5" }
    fn full { spec!("config-linux/default-devices/full") "/dev/full" => "1:7" }
    fn random { spec!("config-linux/default-devices/random") "/dev/random" => "1:8" }
    fn urandom { spec!("config-linux/default-devices/urandom") "/dev/urandom" => "1:9" }
    fn tty { spec!("config-linux/default-devices/tty") "/dev/tty" => "5:0" }
}

#[test]
fn console() {
    spec!("config-linux/default-devices/console");
    let verbs = ["stat", "/dev/console", "--", "isatty", "--", "readline"];
    let c = container(&verbs, &[("/process/terminal", json!(true))]);
    let socket = ConsoleSocket::new(&c.path("console"));
    let mut create = c.create_cmd_with(&["--console-socket", socket.path.to_str().unwrap()]).spawn();
    let master = fs::File::from(socket.receive().0);
    create.wait().ok();
    c.start().ok();
    let text = read_until(&master, "isatty 2 true");
    assert!(text.contains("stat /dev/console char") && text.contains("rdev=136:"), "{text}");
    (&master).write_all(b"go\n").unwrap();
    c.wait_exit();
}

#[test]
fn ptmx() {
    spec!("config-linux/default-devices/ptmx");
    let out = Container::new(["stat", "/dev/ptmx", "--", "open", "/dev/ptmx", "rw", "--", "ls", "/dev/pts"]).run().ok();
    assert!(out.stdout.contains("stat /dev/ptmx link") || out.stdout.contains("rdev=5:2"), "{out}");
    out.line("open ok 0").line("ptmx");
}

/// Skips the test where no network devices can be moved.
macro_rules! needs_devices {
    () => {
        needs!(Need::Program("unshare"), Need::Program("ip"));
        let made = Cmd::new("unshare").args(["-n", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]).run();
        if made.code != 0 {
            skip!("no veth devices");
        }
        deviates!("runc" before 1.4, "moves none");
        deviates!("crun" before 1.24, "moves none");
    };
}

fn moved(devices: Value) -> Container {
    let args = json!(["/bin/busybox", "ip", "addr"]);
    let c = container(&[], &[("/linux/netDevices", devices), ("/process/args", args)]);
    c.busybox();
    c
}

#[test]
fn network_devices_are_moved() {
    spec!("config-linux/net-devices", "config-linux/net-devices/up");
    needs!(Need::Busybox);
    needs_devices!();
    let out = crate::netdevices::run(&moved(json!({"v0": {"name": "inside"}, "v1": {}})), "", "").ok();
    for name in [" inside@", " v1@"] {
        let line = out.stdout.lines().find(|l| l.contains(name)).unwrap_or_else(|| panic!("no {name}: {out}"));
        assert!(line.contains(",UP"), "{out}");
    }
}

#[test]
fn a_network_device_keeps_its_attributes() {
    spec!("config-linux/net-devices/attributes");
    needs!(Need::Busybox);
    needs_devices!();
    let before = "ip link set v0 mtu 1789 address 02:00:00:00:00:07; ip addr add 192.0.2.7/24 dev v0; \
        ip addr add 2001:db8::7/64 dev v0 nodad 2>/dev/null || ip addr add 198.51.100.7/24 dev v0";
    let out = crate::netdevices::run(&moved(json!({"v0": {}})), before, "").ok();
    for word in ["mtu 1789", "02:00:00:00:00:07", "192.0.2.7/24"] {
        assert!(out.stdout.contains(word), "{word}: {out}");
    }
    assert!(out.stdout.contains("2001:db8::7/64") || out.stdout.contains("198.51.100.7/24"), "{out}");
}

#[test]
fn a_network_device_that_is_not_there_is_an_error() {
    spec!("config-linux/net-devices/check");
    needs!(Need::Busybox);
    needs_devices!();
    refused(&crate::netdevices::run(&moved(json!({"missing": {}})), "", ""));
}

#[test]
fn a_name_of_a_network_device_that_is_used_is_an_error() {
    spec!("config-linux/net-devices/name-used");
    needs!(Need::Busybox);
    needs_devices!();
    refused(&crate::netdevices::run(&moved(json!({"v0": {"name": "lo"}})), "", ""));
}

#[test]
fn a_template_for_a_network_device_leaves_the_number_to_the_kernel() {
    spec!("config-linux/net-devices/template");
    needs!(Need::Busybox);
    needs_devices!();
    deviates!("runc", "looks for the name as it is written");
    let out = crate::netdevices::run(&moved(json!({"v0": {"name": "net%d"}, "v1": {"name": "net%d"}})), "", "").ok();
    assert!(out.stdout.contains(" net0@") && out.stdout.contains(" net1@"), "{out}");
}

/// A network namespace that outlives the container keeps the device, as the container has left it.
#[test]
fn a_network_device_is_left_to_its_namespace() {
    spec!("config-linux/net-devices/unmanaged", "config-linux/net-devices/not-moved-back");
    needs!(Need::Busybox);
    needs_devices!();
    let mut c = moved(json!({"v0": {"name": "inside"}}));
    let held = c.path("net");
    c.edit(|config| {
        config["process"]["args"] = json!(["/bin/busybox", "ip", "link", "set", "inside", "mtu", "1500", "down"]);
        let caps = json!(["CAP_NET_ADMIN"]);
        config["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
        with_namespace(config, "network", Some(json!({"type": "network", "path": held})));
    });
    let hold = format!("mount --bind /proc/self/ns/net {}", held.display());
    fs::write(&held, "").unwrap();
    let script = format!(
        "set -e; mount --make-rprivate /; unshare -n sh -c '{hold}'; ip link add v0 mtu 1789 type veth peer name v1; \
         {runtime} --root {root} run --bundle {bundle} {id}; ip link show; echo held; nsenter --net={net} ip link",
        runtime = suite().runtime.display(),
        root = c.root().display(),
        bundle = c.bundle().display(),
        id = c.id,
        net = held.display(),
    );
    let out =
        Cmd::new("unshare").args(["-m", "-n", "sh", "-c", &script]).env("VESSEL_TEST", c.dir.as_os_str()).run().ok();
    let (outside, inside) = out.stdout.split_once("held\n").unwrap();
    assert!(!outside.contains("v0@") && !outside.contains("inside@"), "{out}");
    let line = inside.lines().find(|l| l.contains(" inside@")).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains("mtu 1500") && !line.contains(",UP"), "{out}");
}

/// A container with a profile of seccomp that makes a call that the rules are about.
fn filtered(profile: Value) -> Container {
    let call = libc::SYS_mkdirat.to_string();
    container(&["syscall", &call, "-100", "/tmp/dir", "493"], &[("/linux/seccomp", profile)])
}

#[test]
fn an_errno_needs_an_action_that_takes_one() {
    spec!("config-linux/seccomp/errno");
    deviates!("runc", "ignores it");
    deviates!("crun", "ignores it");
    let rule = json!({"names": ["mkdirat"], "action": "SCMP_ACT_KILL", "errnoRet": 1});
    not_created(&filtered(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})));
}

#[test]
fn a_default_errno_needs_an_action_that_takes_one() {
    spec!("config-linux/seccomp/default-errno");
    deviates!("runc", "ignores it");
    deviates!("crun", "ignores it");
    not_created(&filtered(json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1})));
}

#[test]
fn metadata_need_a_listener() {
    spec!("config-linux/seccomp/metadata-alone");
    deviates!("runc", "ignores them");
    deviates!("crun", "ignores them");
    not_created(&filtered(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "text"})));
}

#[test]
fn a_listener_that_is_not_there_is_an_error() {
    spec!("config-linux/seccomp/send-fails");
    let rule = json!({"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere/agent", "syscalls": [rule]});
    refused(&filtered(profile).run());
}

/// What an agent gets of one container: the state, what comes after it on the connection, and the container.
fn told() -> (Value, Vec<u8>, Container) {
    let mut c = filtered(json!({}));
    let path = c.path("agent");
    let socket = UnixListener::bind(&path).unwrap();
    c.edit(|config| {
        config["process"]["args"] = json!(["/probe", "echo", "ready", "--", "sleep"]);
        let rule = json!({"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"});
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "text", "syscalls": [rule],
        });
    });
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let (listener, text) = receive_fd(&stream);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        drop(listener);
        (text, rest)
    });
    c.started();
    c.wait_for("ready");
    let (text, rest) = agent.join().unwrap();
    (serde_json::from_str(&text).unwrap(), rest, c)
}

#[test]
fn a_listener_gets_one_state_on_each_connection() {
    spec!(
        "config-linux/seccomp/one-state",
        "config-linux/seccomp/connection-closed",
        "config-linux/process-state/payload",
        "config-linux/process-state/first"
    );
    let (state, rest, _c) = told();
    assert!(state.is_object());
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn a_listener_gets_the_state_of_the_process() {
    spec!(
        "config-linux/seccomp/fd",
        "config-linux/process-state/oci-version",
        "config-linux/process-state/pid",
        "config-linux/process-state/state"
    );
    let (state, _, c) = told();
    assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["pid"], c.pid(), "{state}");
    assert_eq!(state["metadata"], "text", "{state}");
    let inner = &state["state"];
    assert_eq!((&inner["id"], &inner["bundle"]), (&json!(c.id), &json!(c.bundle())), "{state}");
    assert!(inner["status"].is_string() && inner["ociVersion"].is_string(), "{state}");
}

#[test]
fn masked_paths_are_absolute() {
    spec!("config-linux/masked-paths");
    deviates!("runc", "takes it for a path below the root");
    deviates!("crun", "takes it for a path below the root");
    let mut c = container(&["try-read", "/secret"], &[("/linux/maskedPaths", json!(["/secret"]))]);
    fs::write(c.rootfs().join("secret"), "secret").unwrap();
    c.run().ok().line("read ok 0");
    c.edit(|config| config["linux"]["maskedPaths"] = json!(["secret"]));
    refused(&c.run());
}

#[test]
fn read_only_paths_are_absolute() {
    spec!("config-linux/readonly-paths");
    deviates!("runc", "takes it for a path below the root");
    deviates!("crun", "takes it for a path below the root");
    let mut c = container(
        &["try-write", "/fixed/f", "x"],
        &[("/linux/readonlyPaths", json!(["/fixed"])), ("/root/readonly", json!(false))],
    );
    fs::create_dir(c.rootfs().join("fixed")).unwrap();
    c.run().ok().line("write EROFS");
    c.edit(|config| config["linux"]["readonlyPaths"] = json!(["fixed"]));
    refused(&c.run());
}
