//! config.md, but for hooks, the options of mounts and what is merely REQUIRED.

use serde_json::{Value, json};

use super::{container, not_created, refused};
use crate::harness::{Container, Need};
use crate::{deviates, needs, spec};

#[test]
fn the_version_is_a_semantic_one() {
    spec!("config/oci-version-format");
    deviates!("runc", "takes any text");
    for version in ["invalid", "1", "1.0.x", ""] {
        refused(&container(&["exit", "0"], &[("/ociVersion", json!(version))]).run());
    }
    container(&["exit", "0"], &[("/ociVersion", json!("1.0.0"))]).run().ok();
}

#[test]
fn the_root_is_a_directory() {
    spec!("config/root/directory");
    for path in ["missing", "config.json"] {
        not_created(&container(&["exit", "0"], &[("/root/path", json!(path))]));
    }
}

#[test]
fn a_read_only_root_cannot_be_written() {
    spec!("config/root/readonly");
    for (readonly, answer) in [(true, "write EROFS"), (false, "write ok 0")] {
        let c = container(&["try-write", "/f", "x"], &[("/root/readonly", json!(readonly))]);
        c.run().ok().line(answer);
    }
}

#[test]
fn a_console_size_without_a_terminal_is_ignored() {
    spec!("config/process/console-size-ignored");
    let size = json!({"height": 25, "width": 80});
    container(&["echo", "ran"], &[("/process/consoleSize", size)]).run().ok().line("ran");
}

#[test]
fn the_working_directory_is_absolute() {
    spec!("config/process/cwd-absolute");
    for path in ["tmp", "./tmp"] {
        refused(&container(&["exit", "0"], &[("/process/cwd", json!(path))]).run());
    }
}

#[test]
fn a_limit_that_nobody_knows_is_an_error() {
    spec!("config/process/rlimits/unknown");
    let limits = json!([{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}]);
    not_created(&container(&["exit", "0"], &[("/process/rlimits", limits)]));
}

#[test]
fn limits_are_those_that_are_set() {
    spec!("config/process/rlimits/getrlimit", "config/process/rlimits/soft-value", "config/process/rlimits/hard-value");
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096},
    ]);
    let out = container(&["rlimit", "NOFILE", "--", "rlimit", "CORE"], &[("/process/rlimits", limits)]).run().ok();
    out.line("rlimit NOFILE soft=100 hard=200").line("rlimit CORE soft=0 hard=4096");
}

#[test]
fn a_limit_is_set_once() {
    spec!("config/process/rlimits/duplicates");
    deviates!("runc", "takes duplicates");
    let one = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0});
    not_created(&container(&["exit", "0"], &[("/process/rlimits", json!([one, one]))]));
}

#[test]
fn a_capability_that_cannot_be_given_is_a_warning() {
    spec!("config/process/capabilities/warning", "config/process/capabilities/no-failure");
    deviates!("crun", "says nothing");
    let some = json!(["CAP_KILL", "CAP_OF_TOMORROW"]);
    let sets = json!({"bounding": some, "effective": some, "permitted": some});
    let out = container(&["caps"], &[("/process/capabilities", sets)]).run().ok();
    assert_eq!(u64::from_str_radix(&out.value("CapEff"), 16).unwrap(), 1 << 5);
    assert!(out.stderr.contains("CAP_OF_TOMORROW"), "{out}");
}

#[test]
fn the_oom_score_is_set() {
    spec!("config/process/oom-score");
    container(&["oom"], &[("/process/oomScoreAdj", json!(321))]).run().ok().line("oom 321");
}

#[test]
fn the_oom_score_stays() {
    spec!("config/process/oom-score-unset");
    let c = Container::new(["oom"]);
    let script = "echo 123 >/proc/$$/oom_score_adj; exec \"$@\"";
    let runtime = crate::harness::runtime();
    let cmd = crate::harness::Cmd::new("sh").args(["-c", script, "sh"]).arg(runtime).arg("--root").arg(c.root());
    let cmd = cmd.args(["run", "--bundle"]).arg(c.bundle()).arg(&c.id).env("VESSEL_TEST", c.dir.as_os_str());
    cmd.run().ok().line("oom 123");
}

#[test]
fn an_exec_may_run_where_its_cgroup_does() {
    spec!("config/process/exec-affinity");
    deviates!("runc" before 1.3, "does not know execCPUAffinity");
    needs!(Need::TwoCpus, Need::Controller("cpuset"), Need::Kernel(6, 2));
    let parts =
        [("/process/execCPUAffinity", json!({"initial": "0"})), ("/linux/resources/cpu", json!({"cpus": "0-1"}))];
    let c = container(&["sleep"], &parts);
    c.started();
    // The kernel leaves the smaller set as it is.
    c.exec(["affinity"]).ok().line("affinity 0");
}

#[test]
fn annotations_are_a_map_of_texts() {
    spec!("config/annotations/map");
    for annotations in [json!(["a"]), json!({"org.example.key": 1}), json!({"org.example.key": {"a": "b"}})] {
        not_created(&container(&["exit", "0"], &[("/annotations", annotations)]));
    }
}

#[test]
fn the_key_of_an_annotation_is_not_empty() {
    spec!("config/annotations/empty-key");
    not_created(&container(&["exit", "0"], &[("/annotations", json!({"": "value"}))]));
}

#[test]
fn an_unknown_annotation_is_ignored() {
    spec!("config/annotations/unknown");
    let annotations = json!({"org.example.unknown": "value", "org.opencontainers.unknown": "", "plain": "x"});
    container(&["echo", "ran"], &[("/annotations", annotations)]).run().ok().line("ran");
}

#[test]
fn an_annotation_tells_the_signal_that_ends_the_container() {
    spec!("config/annotations/stop-signal");
    deviates!("runc", "does not know it");
    deviates!("crun", "does not know it");
    let c = container(
        &["trap", "TERM", "USR1"],
        &[("/annotations", json!({"org.opencontainers.image.stopSignal": "SIGUSR1"}))],
    );
    c.started();
    c.wait_for("ready");
    c.command("kill", [&c.id]).run().ok();
    assert_eq!(c.wait_exit(), 0);
    assert!(!c.stdout().contains("signal TERM"), "{}", c.stdout());
}

#[test]
fn unknown_properties_are_ignored() {
    spec!("config/unknown-property");
    let mut c = Container::new(["echo", "ran"]);
    c.edit(|config| {
        for parent in ["", "/root", "/process", "/process/user", "/linux", "/linux/resources", "/mounts/0"] {
            config.pointer_mut(parent).unwrap()["noSuchProperty"] = json!({"a": [1]});
        }
    });
    c.run().ok().line("ran");
}

#[test]
fn invalid_values_are_errors() {
    spec!("config/invalid-value");
    let cases: [(&str, Value); 9] = [
        ("/root", json!("rootfs")),
        ("/process/user/uid", json!(-1)),
        ("/process/env", json!("A=B")),
        ("/mounts/-", json!({"destination": "/mnt", "type": "nosuchfs", "source": "x"})),
        ("/linux/rootfsPropagation", json!("everywhere")),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTHING"})),
        ("/linux/resources/memory", json!({"limit": "much"})),
        ("/linux/personality", json!({"domain": "NOTHING"})),
        ("/linux/sysctl", json!({"kernel.no_such": "1"})),
    ];
    for (pointer, part) in cases {
        not_created(&container(&["exit", "0"], &[(pointer, part)]));
    }
}
