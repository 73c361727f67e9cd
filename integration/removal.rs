//! The end of a cgroup: with cgroups that the container has made below, with processes that outlive init, and with one
//! that does not die.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{CGROUP_ROOT, Cmd, Container, Need, eventually, missing, suite};
use crate::{deviates, needs};

/// The directories of a container's cgroup.
fn dirs(c: &Container) -> Vec<PathBuf> {
    let path = c.cgroups_path().trim_start_matches('/');
    if missing(&[Need::CgroupV2]).is_none() {
        return vec![Path::new(CGROUP_ROOT).join(path)];
    }
    let hierarchies = fs::read_dir(CGROUP_ROOT).unwrap().flatten().map(|e| e.path());
    hierarchies.filter(|p| !p.is_symlink()).map(|p| p.join(path)).filter(|p| p.exists()).collect()
}

fn without_pid_namespace(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
}

fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The forks of a container, each moved to a cgroup of its own, one below the other.
fn spread(c: &Container, count: usize) -> Vec<i32> {
    let ready = || Some(c.stdout()).filter(|out| out.matches("fork ok").count() == count);
    let out = eventually("the forks", ready);
    let pids: Vec<i32> = out.lines().filter_map(|l| l.strip_prefix("fork ok ")?.parse().ok()).collect();
    for mut dir in dirs(c) {
        for (n, pid) in pids.iter().enumerate() {
            dir.push(format!("below{n}"));
            fs::create_dir(&dir).unwrap();
            for name in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|name| dir.join(name).exists()) {
                let _ = fs::write(dir.join(name), fs::read(dir.parent().unwrap().join(name)).unwrap());
            }
            fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
    pids
}

/// Kills init, and sees that all of `pids` end with it.
fn kill_ends_all(c: &Container, pids: &[i32]) {
    c.kill("KILL").ok();
    assert_eq!(c.wait_exit(), 137);
    eventually("the end of all", || pids.iter().all(|pid| !alive(*pid)).then_some(()));
    pids.iter().for_each(|pid| _ = waitpid(Pid::from_raw(*pid), None).unwrap());
    c.delete().ok();
    c.nothing_left();
}

#[test]
fn kill_reaches_all_in_cgroups_below() {
    deviates!("runc" before 1.2, "kills init alone");
    deviates!("crun", "kills init alone");
    let c = Container::with(["fork", "3", "--", "sleep"], without_pid_namespace);
    c.started();
    kill_ends_all(&c, &spread(&c, 3));
}

#[test]
fn kill_ends_also_what_stands() {
    deviates!("runc" before 1.2, "kills init alone");
    deviates!("crun", "kills init alone");
    let c = Container::with(["fork", "2", "--", "sleep"], without_pid_namespace);
    c.started();
    let pids = spread(&c, 2);
    c.command("pause", [&c.id]).run().ok();
    kill_ends_all(&c, &pids);
}

#[test]
fn delete_ends_those_that_outlive_init_in_cgroups_below() {
    deviates!("runc", "leaves them where the container has stopped");
    deviates!("crun", "leaves them where the container has stopped");
    let c = Container::with(["fork", "2"], without_pid_namespace);
    c.create().ok();
    c.start().ok();
    let pids = spread(&c, 2);
    c.wait_exit();
    assert!(pids.iter().all(|pid| alive(*pid)));
    c.delete().ok();
    assert!(pids.iter().all(|pid| !alive(*pid)));
    pids.iter().for_each(|pid| _ = waitpid(Pid::from_raw(*pid), None).unwrap());
    c.nothing_left();
}

/// A process of the host's in the container's cgroup, or in one below it.
fn stray(c: &Container, below: &OsStr, command: &mut Command) -> Child {
    let child = command.spawn().unwrap();
    for dir in dirs(c) {
        let place = dir.join(below);
        fs::create_dir_all(&place).unwrap();
        for name in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|name| place != dir && place.join(name).exists())
        {
            let _ = fs::write(place.join(name), fs::read(dir.join(name)).unwrap());
        }
        fs::write(place.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    child
}

#[test]
fn names_of_cgroups_below_need_not_be_utf_8() {
    deviates!("runc", "does not end a process of the host's");
    deviates!("crun", "does not list the processes below");
    let c = Container::new(["sleep"]);
    c.started();
    let mut child = stray(&c, OsStr::from_bytes(b"b\xffl"), Command::new("sleep").arg("1000"));
    let pids = c.command("ps", ["--format", "json", &c.id]).run().ok().json();
    assert!(pids.as_array().unwrap().contains(&json!(child.id())), "{pids}");
    c.command("delete", ["--force", &c.id]).timeout(20).run().ok();
    assert!(!child.wait().unwrap().success());
    c.nothing_left();
}

#[test]
fn cgroups_that_come_and_go_hide_no_processes() {
    let c = Container::new(["sleep"]);
    c.started();
    let mut child = stray(&c, OsStr::new("below"), Command::new("sleep").arg("1000"));
    let all = dirs(&c);
    let dir = all.iter().find(|dir| dir.starts_with(Path::new(CGROUP_ROOT).join("freezer"))).unwrap_or(&all[0]);
    let others: Vec<_> = (0..8).map(|n| dir.join(format!("other{n}"))).collect();
    let end = Instant::now() + Duration::from_secs(2);
    let busy = std::thread::spawn(move || {
        while Instant::now() < end {
            others.iter().for_each(|other| fs::create_dir(other).unwrap());
            others.iter().for_each(|other| fs::remove_dir(other).unwrap());
        }
    });
    let pid = json!(child.id());
    let mut missed = 0;
    while !busy.is_finished() {
        let pids = c.command("ps", ["--format", "json", &c.id]).run().ok().json();
        missed += i32::from(!pids.as_array().unwrap().contains(&pid));
    }
    busy.join().unwrap();
    assert_eq!(missed, 0);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn who_makes_cgroups_below_without_end_is_ended() {
    deviates!("runc", "fails");
    deviates!("crun", "fails");
    let c = Container::new(["sleep"]);
    c.started();
    let all = dirs(&c);
    // The first that is removed.
    let dir = all.iter().find(|dir| dir.starts_with(Path::new(CGROUP_ROOT).join("unified"))).unwrap_or(&all[0]);
    // Together they are faster than whoever removes.
    let maker = |_| stray(&c, OsStr::new(""), Command::new(&suite().probe).arg("mkdirs").arg(dir));
    let mut makers: Vec<Child> = (0..4).map(maker).collect();
    c.command("delete", ["--force", &c.id]).timeout(20).run().ok();
    makers.iter_mut().for_each(|maker| assert_eq!(maker.wait().unwrap().signal(), Some(libc::SIGKILL)));
    c.nothing_left();
}

#[test]
fn a_cgroup_that_another_container_has_now_is_left_alone() {
    deviates!("runc", "has other words");
    deviates!("crun", "ends the other one");
    let first = Container::new(["sleep"]);
    first.started();
    first.kill("KILL").ok();
    first.wait_exit();
    let path = json!(first.cgroups_path());
    let second = Container::with(["sleep"], |config| config["linux"]["cgroupsPath"] = path);
    second.started();
    first.kill("KILL").exits(1).fails("container not running");
    first.command("kill", ["--all", &first.id, "KILL"]).run().ok();
    let pid = second.pid();
    let below = dirs(&first).pop().unwrap().join("below");
    fs::create_dir(&below).unwrap();
    assert_eq!(first.command("ps", ["--format", "json", &first.id]).run().ok().json(), json!([]));
    first.delete().exits(1).fails(&format!("it has processes that are not of this container: {pid}"));
    assert_eq!((first.status(), second.status()), ("stopped".into(), "running".into()));
    assert!(below.exists());
    second.finish();
    first.delete().ok();
    first.nothing_left();
}

#[test]
fn a_creation_that_was_cut_off_has_no_cgroup() {
    needs!(Need::Program("strace"));
    deviates!("runc", "has no state by then");
    deviates!("crun", "has no state by then");
    let first = Container::new(["sleep"]);
    first.started();
    let path = json!(first.cgroups_path());
    let second = Container::with(["sleep"], |config| config["linux"]["cgroupsPath"] = path);
    let create = second.create_cmd();
    let mut strace =
        Cmd::new("strace").args(["-qq", "-o", "/dev/null", "-e", "trace=mkdirat", "-e", "inject=mkdirat:signal=KILL"]);
    for dir in dirs(&first) {
        strace = strace.arg("-P").arg(dir);
    }
    create.under(strace).run().exits(137);
    assert_eq!(second.status(), "creating");
    second.kill("KILL").exits(1).fails("container not running");
    second.command("kill", ["--all", &second.id, "KILL"]).run().exits(1).fails("container not running");
    assert_eq!(second.command("ps", ["--format", "json", &second.id]).run().ok().json(), json!([]));
    second.command("delete", ["--force", &second.id]).run().ok();
    assert_eq!(first.status(), "running");
}

#[test]
fn without_a_process_there_is_none_to_kill() {
    deviates!("runc", "finds no fault with SIGKILL");
    deviates!("crun", "finds no fault with SIGKILL");
    let c = Container::with(["exit", "0"], without_pid_namespace);
    c.started();
    c.wait_exit();
    for signal in ["KILL", "TERM"] {
        c.kill(signal).exits(1).fails("container not running");
    }
    c.command("kill", ["--all", &c.id, "KILL"]).run().ok();
    c.delete().ok();
    c.nothing_left();
}

/// A file system that never answers who looks up a name in it: the kernel lets such a process not die before the
/// connection is cut.
struct Held {
    at: PathBuf,
    asked: Receiver<()>,
    server: Option<JoinHandle<()>>,
}

impl Held {
    fn mount(at: PathBuf) -> Held {
        fs::create_dir(&at).unwrap();
        let fuse = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
        mount(Some("held"), &at, Some("fuse"), MsFlags::empty(), Some(&*data)).unwrap();
        let (tell, asked) = channel();
        let server = std::thread::spawn(move || while serve(&fuse, &|| _ = tell.send(())).is_ok() {});
        Held { at, asked, server: Some(server) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // By force: this cuts the connection, also where the mount is busy.
        let _ = umount2(&self.at, MntFlags::MNT_FORCE);
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        self.server.take().map(JoinHandle::join);
    }
}

/// Takes one request of the kernel. See fuse(4) and linux/fuse.h.
fn serve(mut fuse: &File, asked: &dyn Fn()) -> std::io::Result<()> {
    let mut request = vec![0; 1 << 17];
    let length = fuse.read(&mut request)?;
    assert!(length >= 40, "a request has a head");
    let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let mut body: Vec<u32> = Vec::new();
    let mut error = 0;
    match number(4) {
        // LOOKUP; FORGET, INTERRUPT and BATCH_FORGET want no answer; INIT; GETATTR.
        1 => {
            asked();
            return Ok(());
        }
        2 | 36 | 42 => return Ok(()),
        // Version 7.31, writes of a page, times in nanoseconds.
        26 => body = [&[7, 31, 0, 0, 0, 4096, 1][..], &[0; 9]].concat(),
        // A directory that holds for long.
        3 => {
            body = vec![0; 26];
            (body[0], body[4]) = (1000, 1);
            (body[19], body[20]) = (libc::S_IFDIR | 0o755, 2);
        }
        // STATFS.
        17 => body = vec![0; 20],
        _ => error = -libc::ENOSYS,
    }
    let size = 16 + 4 * body.len() as u32;
    let mut answer = [size.to_ne_bytes(), error.to_ne_bytes()].concat();
    answer.extend(&request[8..16]);
    body.iter().for_each(|word| answer.extend(word.to_ne_bytes()));
    fuse.write_all(&answer)
}

#[test]
fn an_init_that_does_not_die_is_named() {
    needs!(Need::Filesystem("fuse"), Need::File("/dev/fuse"));
    deviates!("runc", "has other words");
    deviates!("crun", "waits for it for ever");
    let mut c = Container::new(["stat", "/run/name"]);
    let held = Held::mount(c.path("held"));
    c.edit(|config| bind(config, &held.at));
    c.started();
    held.asked.recv_timeout(PATIENCE).unwrap();
    c.command("delete", ["--force", &c.id]).run().exits(1).fails(&format!("process {} does not end", c.pid()));
    assert_eq!(c.status(), "running");
    drop(held);
    c.wait_exit();
    c.delete().ok();
    c.nothing_left();
}

#[test]
fn processes_that_do_not_die_are_named() {
    needs!(Need::Filesystem("fuse"), Need::File("/dev/fuse"));
    deviates!("runc", "has other words");
    deviates!("crun", "waits for it for ever");
    let mut c = Container::with(["sleep"], without_pid_namespace);
    let held = Held::mount(c.path("held"));
    c.edit(|config| bind(config, &held.at));
    c.started();
    let file = c.path("exec.pid");
    let flags = ["--detach", "--pid-file", file.to_str().unwrap()];
    c.exec_cmd(&flags, ["stat", "/run/name"]).run().ok();
    held.asked.recv_timeout(PATIENCE).unwrap();
    let pid = fs::read_to_string(&file).unwrap().parse().unwrap();
    c.kill("KILL").ok();
    c.wait_exit();
    c.delete().exits(1).fails(&format!("processes left: {pid}"));
    assert_eq!(c.status(), "stopped");
    drop(held);
    waitpid(Pid::from_raw(pid), None).unwrap();
    c.delete().ok();
    c.nothing_left();
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Puts a directory of the host at /run.
fn bind(config: &mut Value, source: &Path) {
    let mount = json!({"destination": "/run", "type": "bind", "source": source, "options": ["bind"]});
    config["mounts"].as_array_mut().unwrap().push(mount);
}
