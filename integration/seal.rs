//! The runtime's own binary stays out of the reach of containers (CVE-2019-5736).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde_json::json;

use crate::harness::{Cmd, Container, runtime, suite};

/// A handle of the program of a process, as a process of the container could have got it.
fn handle(pid: i32) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(format!("/proc/{pid}/exe")).unwrap()
}

/// Nothing can be written through the handle, by a process with every right.
#[track_caller]
fn cannot_be_written(handle: &File) {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    for truncate in [false, true] {
        if let Ok(mut file) = OpenOptions::new().write(true).truncate(truncate).open(&path) {
            assert!(file.write(b"#!/bin/sh\n").is_err(), "the binary could be written");
            assert!(file.set_len(0).is_err(), "the binary could be cut off");
        }
    }
}

/// It is another file than the host's.
#[track_caller]
fn is_not_the_hosts(handle: &File) {
    let (own, hosts) = (handle.metadata().unwrap(), fs::metadata(runtime()).unwrap());
    assert_ne!((own.dev(), own.ino()), (hosts.dev(), hosts.ino()), "init runs from the host's file");
}

#[test]
fn init_runs_from_a_view_that_cannot_be_written() {
    crate::deviates!("crun", "runs from a read-only mount of the host's file");
    crate::deviates!("runc" before 1.2, "runs from a read-only mount of the host's file");
    let before = fs::read(runtime()).unwrap();
    let c = Container::new(["sleep"]);
    c.create().ok();
    let exe = handle(c.pid());
    is_not_the_hosts(&exe);
    cannot_be_written(&exe);
    // While the binary is executed it could not be written anyway; once init is the program, only the view protects it.
    c.start().ok();
    let program = fs::metadata(c.rootfs().join("probe")).unwrap();
    crate::harness::eventually("the program", || {
        let runs = fs::metadata(format!("/proc/{}/exe", c.pid())).unwrap();
        ((runs.size(), runs.mtime()) == (program.size(), program.mtime())).then_some(())
    });
    cannot_be_written(&exe);
    assert!(fs::read(runtime()).unwrap() == before, "the binary has changed");
}

#[test]
fn so_it_is_without_privileges() {
    crate::deviates!("runc", "needs a login session of the user");
    let before = fs::read(runtime()).unwrap();
    let c = Container::rootless(["sleep"]);
    c.create().ok();
    let exe = handle(c.pid());
    is_not_the_hosts(&exe);
    c.start().ok();
    cannot_be_written(&exe);
    assert!(fs::read(runtime()).unwrap() == before, "the binary has changed");
}

#[test]
fn a_program_that_is_the_runtime_gets_the_view() {
    let before = fs::read(runtime()).unwrap();
    let mut c = Container::new(["unused"]);
    c.edit(|config| config["process"]["args"] = json!(["/proc/self/exe", "--version"]));
    // Whether it runs at all is no matter.
    c.run();
    let c = Container::new(["sleep"]);
    c.started();
    c.command("exec", [c.id.as_str(), "/proc/self/exe", "echo", "the probe"]).run();
    assert!(fs::read(runtime()).unwrap() == before, "the binary has changed");
}

#[test]
fn the_seal_is_found_with_few_descriptors_and_changes_no_argument() {
    let mut c = Container::new(["args", "", "a b", "ü"]);
    c.edit(|config| drop(config["process"].as_object_mut().unwrap().remove("rlimits")));
    let script = "ulimit -n 64; exec \"$@\"";
    let out = Cmd::new("/bin/sh")
        .env("VESSEL_TEST", c.dir.as_os_str())
        .args(["-c", script, "sh"])
        .arg(runtime())
        .arg("--root")
        .arg(c.root())
        .args(["run", "--bundle"])
        .arg(c.bundle())
        .arg(&c.id)
        .run()
        .ok();
    assert_eq!(out.values("arg"), ["", "a b", "ü"], "{out}");
}

#[test]
fn the_binary_may_lie_in_a_directory_with_an_odd_name() {
    let c = Container::new(["echo", "ran"]);
    let dir = c.path("o:d,d \\dir");
    fs::create_dir(&dir).unwrap();
    let binary = dir.join("run:time");
    // A copy could be busy for a moment, as another test's fork has it open for writing.
    fs::hard_link(runtime(), &binary).unwrap();
    let out = run_with(&c, &binary);
    assert!(out.stdout.contains("ran"), "{out}");
    // Also by a link, and where it lies beside files of all kinds.
    let link = suite().dir.join(format!("{}-link", c.id));
    std::os::unix::fs::symlink(&binary, &link).unwrap();
    assert!(run_with(&c, &link).stdout.contains("ran"));
    fs::remove_file(link).unwrap();
}

fn run_with(c: &Container, binary: &Path) -> crate::harness::Output {
    Cmd::new(binary)
        .env("VESSEL_TEST", c.dir.as_os_str())
        .arg("--root")
        .arg(c.root())
        .args(["run", "--bundle"])
        .arg(c.bundle())
        .arg(&c.id)
        .run()
        .ok()
}
