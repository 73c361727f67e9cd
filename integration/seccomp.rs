//! Seccomp (config-linux.md, "Seccomp"): real filters in real containers.

use std::os::unix::net::UnixListener;

use libseccomp::{ScmpArch, ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, ScmpSyscall};
use serde_json::{Value, json};

use crate::deviates;
use crate::harness::{Container, receive_fd};

/// A container with a profile, whose program makes these calls.
fn with(calls: &[String], seccomp: Value) -> Container {
    let mut args = Vec::new();
    for call in calls {
        args.extend(call.split(' '));
        args.push("--");
    }
    args.pop();
    Container::with(args, |config| config["linux"]["seccomp"] = seccomp)
}

fn mkdirat() -> String {
    format!("syscall {} -100 /tmp/dir 493", libc::SYS_mkdirat)
}

fn rule(names: Value, action: &str) -> Value {
    json!({"names": names, "action": action})
}

/// Everything that the library knows up to `last`, but for the names in `but`.
fn all_names(last: i32, but: &[&str]) -> Vec<String> {
    let name = |number| ScmpSyscall::from_raw_syscall(number).get_name_by_arch(ScmpArch::native()).ok();
    (0..=last).filter_map(name).filter(|name| !but.contains(&name.as_str())).collect()
}

#[test]
fn a_denied_call_fails_with_its_errno() {
    let cases = [
        (json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}), "syscall EPERM"),
        (json!({"names": ["mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}), "syscall ENOSPC"),
        // A tracer that is not there.
        (rule(json!(["mkdirat"]), "SCMP_ACT_TRACE"), "syscall ENOSYS"),
        // Not denied: what is logged goes on, and the root is read-only.
        (rule(json!(["mkdirat"]), "SCMP_ACT_LOG"), "syscall EROFS"),
    ];
    for (rule, line) in cases {
        let c = with(&[mkdirat()], json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
        c.run().ok().line(line);
    }
}

#[test]
fn a_killed_program_is_told_by_its_exit_code() {
    for (action, code) in
        [("SCMP_ACT_KILL_PROCESS", 128 + 31), ("SCMP_ACT_KILL", 128 + 31), ("SCMP_ACT_TRAP", 128 + 31)]
    {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(json!(["mkdirat"]), action)]});
        with(&[mkdirat()], profile).run().exits(code);
    }
}

#[test]
fn the_mode_of_the_program_is_filter() {
    let c = with(&["caps".to_owned()], json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    c.run().ok().line("Seccomp 2");
    Container::new(["caps"]).run().ok().line("Seccomp 0");
}

#[test]
fn conditions_on_arguments() {
    let call = |old: u64| format!("syscall {} {old} 50 0", libc::SYS_dup3);
    let arg = |op: &str, value: u64| json!({"index": 0, "value": value, "op": op});
    let rule = |args: Value| json!({"names": ["dup3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16, "args": args});
    let cases = [
        (rule(json!([arg("SCMP_CMP_EQ", 2)])), ["syscall ok 50", "syscall EBUSY"]),
        (rule(json!([arg("SCMP_CMP_LT", 2)])), ["syscall EBUSY", "syscall ok 50"]),
        (rule(json!([arg("SCMP_CMP_EQ", 2), {"index": 1, "value": 51, "op": "SCMP_CMP_EQ"}])), ["syscall ok 50"; 2]),
        // Several on one argument are alternatives.
        (rule(json!([arg("SCMP_CMP_EQ", 1), arg("SCMP_CMP_EQ", 2)])), ["syscall EBUSY"; 2]),
        (
            rule(json!([{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}])),
            ["syscall EBUSY", "syscall ok 50"],
        ),
    ];
    for (rule, want) in cases {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let out = with(&[call(1), call(2)], profile).run().ok();
        assert_eq!(out.stdout.lines().collect::<Vec<_>>(), want, "{rule}");
    }
}

#[test]
fn a_call_newer_than_the_profile_is_not_there() {
    deviates!("crun", "has no stub");
    let newest = libc::SYS_clone3 as i32;
    let calls = [mkdirat(), "syscall 3000".to_owned(), format!("syscall {}", newest + 1)];
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
        "syscalls": [rule(json!(all_names(newest, &["mkdirat"])), "SCMP_ACT_ALLOW")],
    });
    let out = with(&calls, profile).run().ok();
    assert_eq!(out.stdout.lines().collect::<Vec<_>>(), ["syscall EPERM", "syscall ENOSYS", "syscall ENOSYS"], "{out}");
}

#[test]
fn the_filter_holds_with_and_without_no_new_privileges_and_for_every_user() {
    for privileges in [json!(true), json!(false), Value::Null] {
        for uid in [0, 1000] {
            let profile =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(json!(["mkdirat"]), "SCMP_ACT_ERRNO")]});
            let mut c = with(&[mkdirat(), "caps".to_owned()], profile);
            c.edit(|config| {
                config["process"]["noNewPrivileges"] = privileges.clone();
                if privileges.is_null() {
                    config["process"].as_object_mut().unwrap().remove("noNewPrivileges");
                }
                config["process"]["user"] = json!({"uid": uid, "gid": uid});
            });
            let out = c.run().ok().line("syscall EPERM");
            assert_eq!(out.value("NoNewPrivs"), if privileges == json!(true) { "1" } else { "0" }, "{out}");
            // What the filter's installation needed is not the program's.
            assert_eq!(u64::from_str_radix(&out.value("CapPrm"), 16).unwrap() >> 21 & 1, 0, "{out}");
        }
    }
}

#[test]
fn flags() {
    deviates!("runc" before 1.2, "does not know them");
    deviates!("crun", "old versions do not know all");
    let profile = |flags: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags});
    let known = json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    with(&["caps".to_owned()], profile(known)).run().ok().line("Seccomp 2");
    with(&["caps".to_owned()], profile(json!([]))).run().ok().line("Seccomp 2");
    with(&["caps".to_owned()], profile(json!(["SECCOMP_FILTER_FLAG_OF_TOMORROW"])))
        .run()
        .fails("SECCOMP_FILTER_FLAG_OF_TOMORROW");
}

#[test]
fn an_exec_has_the_filter() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(json!(["mkdirat"]), "SCMP_ACT_ERRNO")]});
    let c = with(&["sleep".to_owned()], profile);
    c.started();
    let call = mkdirat();
    c.exec(call.split(' ')).ok().line("syscall EPERM");
}

#[test]
fn an_exec_has_the_filter_also_where_none_was_kept() {
    crate::deviates!("runc", "keeps no compiled filter");
    crate::deviates!("crun", "keeps no compiled filter with the container");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(json!(["mkdirat"]), "SCMP_ACT_ERRNO")]});
    let c = with(&["sleep".to_owned()], profile);
    c.started();
    let kept = c.root().join(&c.id).join("seccomp.bpf");
    let whole = std::fs::read(&kept).unwrap();
    let call = mkdirat();
    for length in [whole.len() - 8, 12, 0] {
        std::fs::write(&kept, &whole[..length]).unwrap();
        c.exec(call.split(' ')).ok().line("syscall EPERM");
    }
    std::fs::remove_file(&kept).unwrap();
    c.exec(call.split(' ')).ok().line("syscall EPERM");
}

#[test]
fn profiles_that_the_specification_forbids_are_refused() {
    let write = rule(json!(["write"]), "SCMP_ACT_NOTIFY");
    let cases = [
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "syscalls": [write]}),
            "cannot be used for the write syscall",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/a"}),
            "SCMP_ACT_NOTIFY cannot be used as default action",
        ),
    ];
    deviates!("crun", "tells other texts");
    for (profile, text) in cases {
        let c = with(&["caps".to_owned()], profile);
        c.run().fails(text);
        c.nothing_left();
    }
    deviates!("runc", "takes them");
    let cases = [
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "linux.seccomp: defaultErrnoRet"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]}),
            "linux.seccomp.syscalls[0]: errnoRet",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "text"}), "listenerMetadata"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(json!(["dup"]), "SCMP_ACT_NOTIFY")]}),
            "listenerPath",
        ),
    ];
    for (profile, text) in cases {
        let c = with(&["caps".to_owned()], profile);
        c.run().fails(text);
        c.nothing_left();
    }
}

/// An agent that answers every notification of one listener with an errno.
fn agent(socket: &UnixListener, errno: i32, calls: usize) -> Value {
    let (stream, _) = socket.accept().unwrap();
    let (listener, state) = receive_fd(&stream);
    for _ in 0..calls {
        let request = ScmpNotifReq::receive(std::os::fd::AsRawFd::as_raw_fd(&listener)).unwrap();
        let answer = ScmpNotifResp::new_error(request.id, -errno, ScmpNotifRespFlags::empty());
        answer.respond(std::os::fd::AsRawFd::as_raw_fd(&listener)).unwrap();
    }
    serde_json::from_str(&state).unwrap()
}

#[test]
fn an_agent_answers_for_the_kernel() {
    deviates!("crun", "sends another state");
    let mut c = with(&[mkdirat()], json!({}));
    let path = c.path("agent");
    let socket = UnixListener::bind(&path).unwrap();
    c.edit(|config| {
        config["annotations"] = json!({"org.example.key": "value"});
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path.to_str(), "listenerMetadata": "some text", "flags": [],
            "syscalls": [rule(json!(["mkdirat"]), "SCMP_ACT_NOTIFY")],
        });
    });
    c.global(&["--debug"]);
    let served = std::thread::spawn(move || agent(&socket, libc::EBUSY, 1));
    let out = c.run().ok().line("syscall EBUSY");
    // The log has the flag that asked for the listener.
    assert!(out.stderr.contains("msg=\"seccomp filter flags: 8\""), "{out}");
    let state = served.join().unwrap();
    assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
    assert_eq!(state["metadata"], "some text", "{state}");
    assert!(state["pid"].as_i64().unwrap() > 1, "{state}");
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["state"]["id"], c.id.as_str(), "{state}");
    assert_eq!(state["state"]["bundle"], c.bundle().to_str().unwrap(), "{state}");
    assert_eq!(state["state"]["annotations"]["org.example.key"], "value", "{state}");
}

#[test]
fn an_agent_that_is_not_there_is_told() {
    deviates!("crun", "tells another text");
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere/agent",
        "syscalls": [rule(json!(["mkdirat"]), "SCMP_ACT_NOTIFY")],
    });
    let c = with(&[mkdirat()], profile);
    c.run().fails("failed to connect with seccomp agent");
    c.nothing_left();
}
