//! `checkpoint` and `restore`, with CRIU.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::apparmor::{LOADER, Profile};
use crate::harness::{Cmd, ConsoleSocket, Container, Need, Output, Pty, eventually, missing, read_until};
use crate::{deviates, needs};

/// The verbs of a program that says "before", and "after" once the file /tmp/go is there.
const PROGRAM: &str = "echo before -- wait-file /tmp/go -- echo after -- sleep";

fn program(verbs: &str) -> Container {
    Container::new(verbs.split(' '))
}

/// A container of [`PROGRAM`], which runs.
fn started() -> Container {
    let c = program(PROGRAM);
    c.started().wait_for("before");
    c
}

fn mounts(config: &mut Value) -> &mut Vec<Value> {
    config["mounts"].as_array_mut().unwrap()
}

fn checkpoint(c: &Container, flags: &[&str]) -> Output {
    checkpoint_cmd(c, flags).run()
}

/// `checkpoint`, to be run.
fn checkpoint_cmd(c: &Container, flags: &[&str]) -> Cmd {
    with_images(c, c.command("checkpoint", flags)).arg(&c.id)
}

/// `restore`, to be changed and run.
fn restore_cmd(c: &Container, flags: &[&str]) -> Cmd {
    let cmd = with_images(c, c.command("restore", flags)).arg("--bundle").arg(c.bundle());
    cmd.arg("--pid-file").arg(c.path("pid")).arg(&c.id)
}

fn with_images(c: &Container, cmd: Cmd) -> Cmd {
    let cmd = cmd.arg("--image-path").arg(c.path("images")).arg("--work-path").arg(c.path("work"));
    // https://github.com/checkpoint-restore/criu/issues/3029
    cmd.args(["--manage-cgroups-mode", "ignore"]).timeout(180)
}

/// Restores it detached. What it prints from now on is in [`Container::stdout`].
#[track_caller]
fn restore(c: &Container) {
    let _ = fs::remove_file(c.path("pid"));
    c.create_with(restore_cmd(c, &["--detach"])).ok();
}

/// Lets [`PROGRAM`] go on.
#[track_caller]
fn goes_on(c: &Container) {
    fs::write(c.rootfs().join("tmp/go"), "").unwrap();
    c.wait_for("after");
    assert_eq!(c.stdout(), "after\n");
}

#[test]
fn a_container_goes_on_where_it_was() {
    needs!(Need::Criu);
    let c = started();
    let before = c.state();
    checkpoint(&c, &[]).ok();
    c.nothing_left();
    c.command("state", [&c.id]).run().fails("does not exist");
    restore(&c);
    let after = c.state();
    assert_eq!((&after["status"], &after["bundle"]), (&json!("running"), &before["bundle"]));
    assert_eq!(after["pid"], c.pid());
    assert_ne!(after["created"], before["created"]);
    let cgroup = Container::cgroup_of(c.pid(), "pids");
    assert!(cgroup.ends_with(c.cgroups_path().trim_start_matches('/')), "{}", cgroup.display());
    c.exec(["pid", "--", "ns"]).ok();
    goes_on(&c);
    // Again, with what was restored.
    c.command("pause", [&c.id]).run().ok();
    checkpoint(&c, &[]).ok();
    restore(&c);
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    assert_eq!(c.wait_exit(), 137);
    c.delete().ok();
}

#[test]
fn what_is_executed_joins_all_namespaces_of_a_restored_container() {
    needs!(Need::Criu, Need::TimeNamespace);
    let c = started();
    checkpoint(&c, &[]).ok();
    restore(&c);
    let out = c.exec(["ns"]).ok();
    for file in ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"] {
        let init = fs::read_link(format!("/proc/{}/ns/{file}", c.pid())).unwrap();
        assert_eq!(out.value(file), init.display().to_string(), "{file}");
    }
}

#[test]
fn a_container_may_run_on_after_a_checkpoint() {
    needs!(Need::Criu);
    let c = started();
    let pid = c.pid();
    checkpoint(&c, &["--leave-running"]).ok();
    assert_eq!((c.status().as_str(), c.state()["pid"].as_i64()), ("running", Some(pid.into())));
    fs::write(c.rootfs().join("tmp/go"), "").unwrap();
    c.wait_for("after");
    c.command("delete", ["--force", &c.id]).run().ok();
    c.nothing_left();
    fs::remove_file(c.rootfs().join("tmp/go")).unwrap();
    restore(&c);
    goes_on(&c);
}

#[test]
fn memory_is_saved_ahead() {
    needs!(Need::Criu, Need::CriuFeature("mem_dirty_track"));
    let c = started();
    let parent = c.path("parent");
    let pre = c.command("checkpoint", ["--pre-dump", "--image-path"]).arg(&parent);
    pre.args(["--manage-cgroups-mode", "ignore"]).arg(&c.id).run().ok();
    assert_eq!(c.status(), "running");
    checkpoint(&c, &["--parent-path", "../parent"]).ok();
    assert_eq!(fs::canonicalize(c.path("images/parent")).unwrap(), parent);
    restore(&c);
    goes_on(&c);
}

#[test]
fn the_terminal_comes_over_the_console_socket() {
    needs!(Need::Criu);
    let mut c = program("echo before -- readline -- isatty -- sleep");
    c.edit(|config| config["process"]["terminal"] = json!(true));
    let socket = ConsoleSocket::new(&c.path("console"));
    let flag = ["--console-socket", socket.path.to_str().unwrap()];
    c.create_with(c.create_cmd_with(&flag)).ok();
    let (master, _) = socket.receive();
    c.start().ok();
    let master = fs::File::from(master);
    read_until(&master, "before");
    checkpoint(&c, &[]).ok();
    drop(master);
    // Where it is to go must be said.
    restore_cmd(&c, &["--detach"]).run().fails("console socket");
    c.create_with(restore_cmd(&c, &["--detach", flag[0], flag[1]])).ok();
    let (master, name) = socket.receive();
    assert!(!name.is_empty());
    let mut master = fs::File::from(master);
    master.write_all(b"words\n").unwrap();
    let text = read_until(&master, "isatty 2 true");
    assert!(text.contains("line words") && text.contains("isatty 0 true"), "{text}");
}

#[test]
fn in_the_foreground_restore_is_as_run() {
    needs!(Need::Criu);
    let mut c = program("echo before -- readline -- exit 7");
    c.edit(|config| config["process"]["terminal"] = json!(true));
    let socket = ConsoleSocket::new(&c.path("console"));
    c.create_with(c.create_cmd_with(&["--console-socket", socket.path.to_str().unwrap()])).ok();
    let (master, _) = socket.receive();
    let master = fs::File::from(master);
    c.start().ok();
    read_until(&master, "before");
    checkpoint(&c, &[]).ok();
    let mut ours = Pty::new();
    let mut running = restore_cmd(&c, &[]).terminal(ours.take_slave()).spawn();
    eventually("the pid file", || c.path("pid").exists().then_some(()));
    ours.master.write_all(b"words\n").unwrap();
    ours.read_until("line words");
    running.wait().exits(7);
    c.nothing_left();
}

#[test]
fn pipes_and_files_on_the_standard_streams_are_replaced_by_restores_own() {
    needs!(Need::Criu);
    let c = program("readline -- readline -- stderr words -- sleep");
    let pipe = || std::io::pipe().unwrap();
    let ((in_reader, mut input), (mut output, out_writer)) = (pipe(), pipe());
    let stderr = |name: &str| fs::File::create(c.path(name)).unwrap();
    let create = c.create_cmd().streams(OwnedFd::from(in_reader), OwnedFd::from(out_writer), stderr("err1"));
    c.create_with(create).ok();
    c.start().ok();
    input.write_all(b"one\n").unwrap();
    let mut line = [0; 9];
    output.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"line one\n");
    checkpoint(&c, &[]).ok();
    let names: Value = serde_json::from_str(&fs::read_to_string(c.path("images/descriptors.json")).unwrap()).unwrap();
    assert!(names[0].as_str().unwrap().starts_with("pipe:["), "{names}");
    let ((in_reader, mut input), (mut output, out_writer)) = (pipe(), pipe());
    let again = restore_cmd(&c, &["--detach"]);
    c.create_with(again.streams(OwnedFd::from(in_reader), OwnedFd::from(out_writer), stderr("err2"))).ok();
    input.write_all(b"two\n").unwrap();
    output.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"line two\n");
    eventually("words", || (fs::read_to_string(c.path("err2")).unwrap() == "words\n").then_some(()));
    assert_eq!(fs::read_to_string(c.path("err1")).unwrap(), "");
}

/// The mount points of a process, with what of the file system is mounted there and the options, sorted.
fn mount_table(pid: i32) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mut lines: Vec<_> = table
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .map(|fields| format!("{} {}", fields[4], fields[5]))
        .collect();
    lines.sort();
    lines
}

#[test]
fn mounts_of_the_host_are_there_again() {
    needs!(Need::Criu);
    let mut c = program(PROGRAM);
    for dir in ["one", "two", "tree", "tree/below", "real"] {
        fs::create_dir(c.path(dir)).unwrap();
    }
    fs::write(c.path("file"), "text").unwrap();
    std::os::unix::fs::symlink("/real/conf", c.rootfs().join("conf")).unwrap();
    let below = c.path("tree/below");
    let none = None::<&str>;
    nix::mount::mount(Some("none"), &below, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
    fs::write(below.join("deep"), "in the tree").unwrap();
    let path = |name: &str| c.path(name).display().to_string();
    let (one, two, tree, file) = (path("one"), path("two"), path("tree"), path("file"));
    c.edit(|config| {
        config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/keys", "/proc/scsi", "/etc/passwd"]);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/bus"]);
        mounts(config).extend([
            json!({"destination": "/bind", "type": "bind", "source": one, "options": ["bind", "rw"]}),
            // The place lies in the mount before.
            json!({"destination": "/bind/nested", "type": "bind", "source": two, "options": ["bind", "ro"]}),
            json!({"destination": "/tree", "source": tree, "options": ["rbind"]}),
            json!({"destination": "/conf", "source": ".", "options": ["bind"]}),
            json!({"destination": "/etc/config", "source": file, "options": ["bind", "ro"]}),
            json!({"destination": "/tmp/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700"]}),
            json!({"destination": "/tmp/t/inside", "source": two, "options": ["bind"]}),
        ]);
    });
    c.started().wait_for("before");
    let before = mount_table(c.pid());
    c.exec(["write", "/tmp/t/saved", "with the container"]).ok();
    checkpoint(&c, &[]).ok();
    // Places in the host's files are made again.
    fs::remove_dir(c.path("one/nested")).unwrap();
    restore(&c);
    assert_eq!(mount_table(c.pid()), before);
    let verbs = "cat /tmp/t/saved -- cat /tree/below/deep -- cat /etc/config -- ls /real/conf -- cat /etc/passwd -- \
        try-write /bind/nested/x -- try-write /bind/x -- stat /proc/keys";
    let out = c.exec(verbs.split(' ')).ok();
    let (host, null) = ("with the containerin the treetext", "char");
    assert!(out.stdout.starts_with(host), "{out}");
    assert!(out.stdout.contains("config.json") && out.value("stat").contains(null), "{out}");
    assert_eq!(out.values("write"), ["EROFS", "ok 0"], "{out}");
    goes_on(&c);
    nix::mount::umount2(&below, nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn namespaces_that_were_joined_are_joined_again() {
    needs!(Need::Criu);
    for (kind, file) in [("network", "net"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts")] {
        let holder = Container::new(["sleep"]);
        holder.started();
        let mut c = program(PROGRAM);
        let path = format!("/proc/{}/ns/{file}", holder.pid());
        c.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.iter_mut().find(|n| n["type"] == kind).unwrap()["path"] = json!(path);
            config.as_object_mut().unwrap().remove("hostname");
        });
        c.started().wait_for("before");
        checkpoint(&c, &[]).ok();
        // Until it is reaped, the old init has its pid.
        c.nothing_left();
        restore(&c);
        let inode = |path: String| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(format!("/proc/{}/ns/{file}", c.pid())), inode(path), "{kind}");
        goes_on(&c);
    }
}

#[test]
fn limits_hold_in_the_restored_container() {
    needs!(Need::Criu, Need::Controller("pids"), Need::Controller("memory"));
    let mut c = program(PROGRAM);
    c.edit(|config| {
        let resources = &mut config["linux"]["resources"];
        resources["pids"] = json!({"limit": 40});
        resources["memory"] = json!({"limit": 100 << 20});
    });
    c.started().wait_for("before");
    checkpoint(&c, &[]).ok();
    // config.json counts, as with every new container.
    c.edit(|config| config["linux"]["resources"]["pids"]["limit"] = json!(41));
    restore(&c);
    assert_eq!(c.cgroup_file("pids", "pids.max"), "41");
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(c.cgroup_file("memory", file), (100 << 20).to_string());
}

/// What a process in the container sees of its cgroup: the root, where it has a namespace of its own.
fn sees_the_root_of_its_cgroup(c: &Container) -> bool {
    let out = c.exec(["cgroup"]).ok();
    // The v2 hierarchy beside v1 has no controllers.
    out.stdout
        .lines()
        .filter(|line| !line.starts_with("0::") || out.stdout.lines().count() == 1)
        .all(|l| l.ends_with(":/"))
}

#[test]
fn the_cgroup_namespace_is_made_again_whatever_is_done_about_cgroups() {
    needs!(Need::Criu);
    deviates!("runc", "leaves the container in the host's with --manage-cgroups-mode ignore");
    for mode in ["ignore", "soft"] {
        let mut c = program(PROGRAM);
        c.edit(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|n| n["type"] != "cgroup");
            namespaces.push(json!({"type": "cgroup"}));
        });
        c.started().wait_for("before");
        assert!(sees_the_root_of_its_cgroup(&c));
        let mode = ["--manage-cgroups-mode", mode];
        with_images(&c, c.command("checkpoint", [&c.id])).args(mode).run().ok();
        let _ = fs::remove_file(c.path("pid"));
        c.create_with(restore_cmd(&c, &["--detach"]).args(mode)).ok();
        assert!(sees_the_root_of_its_cgroup(&c), "{mode:?}");
        let out = c.exec(["ls", "/sys/fs/cgroup"]).ok();
        assert_eq!(c.status(), "running", "{out}");
    }
}

#[test]
fn hooks_run_on_restore_and_at_the_end() {
    needs!(Need::Criu);
    deviates!("crun", "runs others");
    let mut c = program(PROGRAM);
    let log = c.path("log");
    c.edit(|config| {
        for kind in ["prestart", "createRuntime", "poststop"] {
            let script = format!("cat >{}.{kind}; echo {kind} >>{}", log.display(), log.display());
            let env = json!(["PATH=/usr/bin:/bin"]);
            config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": env}]);
        }
    });
    c.started().wait_for("before");
    checkpoint(&c, &[]).ok();
    assert_eq!(fs::read_to_string(&log).unwrap(), "prestart\ncreateRuntime\npoststop\n");
    fs::remove_file(&log).unwrap();
    restore(&c);
    assert_eq!(fs::read_to_string(&log).unwrap(), "prestart\ncreateRuntime\n");
    let state: Value = serde_json::from_str(&fs::read_to_string(c.path("log.createRuntime")).unwrap()).unwrap();
    assert_eq!((&state["id"], &state["pid"]), (&json!(c.id), &json!(c.pid())));
    goes_on(&c);
    c.finish();
    // One that fails undoes it all.
    c.edit(|config| config["hooks"]["prestart"] = json!([{"path": "/bin/false"}]));
    restore_cmd(&c, &["--detach"]).run().fails("error running prestart hook #0: /bin/false: exit status 1");
    c.nothing_left();
}

#[test]
fn the_annotation_names_a_configuration_of_crius() {
    needs!(Need::Criu);
    let mut c = program(PROGRAM);
    let conf = c.path("criu.conf");
    fs::write(&conf, "log-file=own.log\n").unwrap();
    c.edit(|config| config["annotations"] = json!({"org.criu.config": conf.display().to_string()}));
    c.started().wait_for("before");
    checkpoint(&c, &[]).ok();
    let log = c.path("work/own.log");
    assert!(log.exists() && !c.path("work/dump.log").exists());
    fs::remove_file(&log).unwrap();
    restore(&c);
    assert!(log.exists() && !c.path("work/restore.log").exists());
    goes_on(&c);
}

#[test]
fn a_failure_quotes_crius_log_and_leaves_the_container_as_it_was() {
    needs!(Need::Criu);
    // A lock is saved only where that is asked for.
    let mut c = program("lock /tmp/lock -- echo before -- sleep");
    c.edit(|config| config["root"]["readonly"] = json!(false));
    c.started().wait_for("before");
    let out = checkpoint(&c, &[]);
    assert!(out.stderr.contains("work/dump.log: Error (criu/"), "{out}");
    out.exits(1).fails("criu cannot checkpoint the container");
    assert_eq!(c.status(), "running");
    checkpoint(&c, &["--file-locks"]).ok();
    fs::remove_file(c.path("images/inventory.img")).unwrap();
    restore_cmd(&c, &["--detach"]).run().exits(1).fails("criu cannot restore the container");
    c.nothing_left();
}

#[test]
fn connections_are_kept_where_that_is_asked_for() {
    // CRIU 4.1 asks newer ones for what sockets of TCP do not have there.
    needs!(Need::Criu, Need::OlderKernel(6, 16));
    let mut c = program("tcp /tmp/go -- sleep");
    c.edit(|config| config["hostname"] = json!("restored"));
    c.started().wait_for("connected");
    checkpoint(&c, &[]).fails("criu cannot checkpoint");
    checkpoint(&c, &["--tcp-established"]).ok();
    c.create_with(restore_cmd(&c, &["--detach", "--tcp-established"])).ok();
    let out = c.exec(["hostname", "--", "interfaces"]).ok();
    assert!(out.stdout.contains("restored"), "{out}");
    fs::write(c.rootfs().join("tmp/go"), "").unwrap();
    c.wait_for("tcp ok 5");
}

#[test]
fn a_container_with_a_user_namespace_is_restored() {
    needs!(Need::Criu);
    let mut c = program("ids -- echo before -- wait-file /tmp/go -- ids -- echo after -- sleep");
    c.edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    });
    c.started().wait_for("before");
    let before = c.stdout();
    checkpoint(&c, &[]).ok();
    restore(&c);
    fs::write(c.rootfs().join("tmp/go"), "").unwrap();
    assert_eq!(c.wait_for("after").replace("after", "before"), before);
    let map = fs::read_to_string(format!("/proc/{}/uid_map", c.pid())).unwrap();
    assert!(map.contains("100000"), "{map}");
}

#[test]
fn a_scope_of_systemds_is_made_again() {
    needs!(Need::Criu, Need::CgroupV2, Need::Systemd);
    let mut c = program(PROGRAM);
    let name = c.id.clone();
    c.global(&["--systemd-cgroup"]);
    c.edit(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("system.slice:vessel:{name}"));
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67_108_864}, "pids": {"limit": 32}, "cpu": {"quota": 50_000, "period": 100_000}
        });
    });
    c.started().wait_for("before");
    let scope = format!("vessel-{name}.scope");
    let look = |c: &Container| {
        assert!(Container::cgroup_of(c.pid(), "").ends_with(&scope));
        for (file, want) in [("memory.max", "67108864"), ("pids.max", "32"), ("cpu.max", "50000 100000")] {
            assert_eq!(c.cgroup_file("", file), want, "{file}");
        }
        let show = |name| Cmd::new("systemctl").args(["show", "--value", "--property", name, &scope]).run().ok().stdout;
        for (name, want) in [("TasksMax", "32"), ("MemoryMax", "67108864"), ("CPUQuotaPerSecUSec", "500ms")] {
            assert_eq!(show(name).trim(), want, "{name}");
        }
        // Nobody but the container's own is in it.
        assert_eq!(c.cgroup_file("", "cgroup.procs"), c.pid().to_string());
        let out = c.exec(["open", "/dev/null", "rw"]);
        assert!(out.stdout.starts_with("open ok"), "{out}");
    };
    look(&c);
    checkpoint(&c, &[]).ok();
    assert_eq!(Cmd::new("systemctl").args(["is-active", &scope]).run().stdout.trim(), "inactive");
    restore(&c);
    look(&c);
    Cmd::new("systemctl").arg("daemon-reload").run().ok();
    look(&c);
    goes_on(&c);
}

/// Binds are the host's: the configuration to restore by must have them. What has files of its own is saved.
#[test]
fn mounts_that_were_added_are_there_again() {
    needs!(Need::Criu);
    deviates!("runc", "has no such command");
    deviates!("crun", "takes no standard input");
    let mut c = program(PROGRAM);
    c.edit(|config| config["root"]["readonly"] = json!(false));
    for dir in ["one", "two"] {
        fs::create_dir(c.path(dir)).unwrap();
        fs::write(c.path(dir).join("file"), dir).unwrap();
    }
    c.started().wait_for("before");
    let bind = |name: &str| json!({"destination": format!("/added/{name}"), "type": "bind", "source": c.path(name), "options": ["rbind"]});
    let change = |how: &str, mounts: Value| {
        c.command("mounts", [how, &c.id, "-"]).stdin(mounts.to_string()).run().ok();
    };
    let scratch = json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]});
    let (one, two) = (bind("one"), bind("two"));
    // One over the other, of which the upper one goes.
    change("add", json!([one, one, two, scratch]));
    change("remove", json!([one]));
    c.exec(["write", "/scratch/saved", "with the container"]).ok();
    change("remove", json!([two]));
    checkpoint(&c, &[]).ok();
    restore_cmd(&c, &["--detach"]).run().fails("/added/one was mounted while the container ran");
    c.nothing_left();
    c.edit(|config| mounts(config).push(one.clone()));
    restore(&c);
    let out = c.exec(["cat", "/added/one/file", "--", "cat", "/scratch/saved"]).ok();
    assert_eq!(out.stdout, "onewith the container");
    c.exec(["cat", "/added/two/file"]).exits(1);
    goes_on(&c);
}

#[test]
fn a_container_is_restored_into_another_profile() {
    needs!(Need::Criu, Need::AppArmor, LOADER);
    let mut c = program(PROGRAM);
    let (first, second) = (Profile::load(&c, "first"), Profile::load(&c, "second"));
    c.edit(|config| config["process"]["apparmorProfile"] = json!(first.name));
    c.started().wait_for("before");
    let profile = |c: &Container| fs::read_to_string(format!("/proc/{}/attr/apparmor/current", c.pid())).unwrap();
    assert_eq!(profile(&c).trim(), format!("{} (enforce)", first.name));
    checkpoint(&c, &[]).ok();
    restore(&c);
    assert_eq!(profile(&c).trim(), format!("{} (enforce)", first.name));
    checkpoint(&c, &[]).ok();
    let _ = fs::remove_file(c.path("pid"));
    c.create_with(restore_cmd(&c, &["--detach", "--lsm-profile", &format!("apparmor:{}", second.name)])).ok();
    assert_eq!(profile(&c).trim(), format!("{} (enforce)", second.name));
    goes_on(&c);
}

#[test]
fn labels_of_modules_that_are_off_are_refused() {
    deviates!("runc", "leaves them out");
    deviates!("crun", "leaves them out");
    let c = program("sleep");
    let refused = |flag: &str, value: &str, words: &str| {
        c.command("restore", ["--detach", flag, value, &c.id]).run().fails(words);
    };
    refused("--lsm-profile", "smack:x", "--lsm-profile must be apparmor:PROFILE or selinux:LABEL");
    refused("--lsm-profile", "apparmor:", "--lsm-profile must be");
    if missing(&[Need::AppArmor]).is_some() {
        refused("--lsm-profile", "apparmor:x", "--lsm-profile: apparmor is not enabled");
    }
    if missing(&[Need::Selinux]).is_some() {
        refused("--lsm-profile", "selinux:system_u:system_r:container_t:s0", "--lsm-profile: selinux is not enabled");
        refused("--lsm-mount-context", "system_u:object_r:container_file_t:s0", "selinux is not enabled");
    }
}

#[test]
fn the_mount_options_of_the_hosts_cgroups_stay() {
    needs!(Need::Criu, Need::CgroupV2);
    let options = || {
        let table = fs::read_to_string("/proc/mounts").unwrap();
        table.lines().find(|l| l.contains(" cgroup2 ")).unwrap().to_owned()
    };
    let before = options();
    let c = started();
    let flags = ["--image-path", c.path("images").to_str().unwrap().to_owned().leak()];
    c.command("checkpoint", [flags[0], flags[1], &c.id]).run().ok();
    assert_eq!(options(), before);
    let bundle = c.bundle();
    let cmd =
        c.command("restore", ["--detach", flags[0], flags[1], "--bundle", bundle.to_str().unwrap(), "--pid-file"]);
    c.create_with(cmd.arg(c.path("pid")).arg(&c.id)).ok();
    assert_eq!(options(), before);
    goes_on(&c);
}

#[test]
fn pages_come_when_they_are_used() {
    // CRIU 4.1 cannot send pages on newer ones.
    needs!(Need::Criu, Need::CriuFeature("uffd-noncoop"), Need::OlderKernel(6, 16));
    let c = started();
    // The old container is there until its last page has gone.
    let mut other = program(PROGRAM);
    other.edit(|config| config["root"]["path"] = json!(c.rootfs().display().to_string()));
    let (mut ready, teller) = std::io::pipe().unwrap();
    let port = 20000 + std::process::id() % 10000;
    let server = format!("127.0.0.1:{port}");
    let flags = ["--lazy-pages", "--page-server", &server, "--status-fd", "3"];
    let mut dump = checkpoint_cmd(&c, &flags).fds(vec![teller.into()]).spawn();
    let mut byte = [7];
    ready.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0]);
    // The pipe's end shows that nothing more comes.
    let port = port.to_string();
    let daemon = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "-D"];
    let mut daemon = Cmd::new("criu").args(daemon).arg(c.path("images")).timeout(180).spawn();
    let images = c.path("images");
    let cmd = other.command("restore", ["--detach", "--lazy-pages", "--manage-cgroups-mode", "ignore", "--image-path"]);
    let cmd = cmd.arg(&images).arg("--bundle").arg(other.bundle()).arg("--pid-file").arg(other.path("pid"));
    other.create_with(cmd.arg(&other.id).timeout(180)).ok();
    dump.wait().ok();
    daemon.wait().ok();
    c.command("state", [&c.id]).run().fails("does not exist");
    fs::write(c.rootfs().join("tmp/go"), "").unwrap();
    other.wait_for("after");
}

#[test]
fn what_cannot_be_done_is_told_before_anything_is_done() {
    let c = program(PROGRAM);
    c.create().ok();
    checkpoint(&c, &[]).fails(if crate::harness::runtime_kind() == "runc" { "state" } else { ": created" });
    c.command("checkpoint", ["--manage-cgroups-mode", "none", &c.id]).run().fails("manage-cgroups-mode");
    checkpoint(&c, &["--empty-ns", "pid"]).fails("is not supported");
    checkpoint(&c, &["--page-server", "host"]).fails("Use --page-server ADDRESS:PORT");
    c.command("checkpoint", ["no-such"]).run().fails("does not exist");
    c.start().ok();
    c.wait_for("before");
    checkpoint(&c, &["--parent-path", "/absolute"]).fails("--parent-path must be relative");
    checkpoint(&c, &["--parent-path", "missing"]).fails("invalid --parent-path");
    c.command("restore", ["--detach", "--image-path", "/no/such", "other"]).run().fails("/no/such");
    assert_eq!(c.status(), "running");
}
