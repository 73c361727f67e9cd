//! The command line.

use std::fs;

use crate::deviates;
use crate::harness::{Cmd, Container, runtime};

fn bare(args: &[&str]) -> Cmd {
    Cmd::new(runtime()).args(args)
}

#[test]
fn the_version_has_the_lines_that_engines_look_for() {
    let out = bare(&["--version"]).run().ok();
    assert!(out.stdout.lines().next().unwrap().contains("version "), "{out}");
    assert!(out.stdout.lines().any(|l| l.starts_with("commit: ")), "{out}");
    assert!(out.stdout.lines().any(|l| l.starts_with("spec: 1.")), "{out}");
}

#[test]
fn spec_writes_a_config_and_never_overwrites_one() {
    deviates!("crun", "words its error in its own way");
    let c = Container::new(["echo"]);
    fs::create_dir(c.path("empty")).unwrap();
    c.command("spec", ["--bundle"]).arg(c.path("empty")).run().ok();
    let path = c.path("empty/config.json");
    let written = fs::read_to_string(&path).unwrap();
    let config: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(config["root"]["path"], "rootfs");

    let again = c.command("spec", ["--bundle"]).arg(c.path("empty")).run().exits(1);
    again.fails("File config.json exists. Remove it first");
    assert_eq!(fs::read_to_string(&path).unwrap(), written);
}

#[test]
fn a_failure_is_one_json_object_in_the_log() {
    let c = Container::new(["echo"]);
    let log = c.path("log.json");
    // With one dash, as some engines have it.
    let flags = ["-log", log.to_str().unwrap(), "-log-format", "json", "state", "missing"];
    deviates!("crun", "takes no long flag with one dash");
    c.runtime().args(flags).run().exits(1);
    let written = fs::read_to_string(&log).unwrap();
    assert_eq!(written.lines().count(), 1, "{written}");
    let line: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"), "{line}");
    assert!(line["time"].as_str().unwrap().contains('T'));
}

#[test]
fn an_unknown_command_or_flag_is_an_error() {
    deviates!("crun", "words its error in its own way");
    deviates!("runc", "old ones answer 0 or 3 here");
    bare(&["foo"]).run().exits(1).fails("No help topic for 'foo'");
    bare(&["spec", "--no-such-flag"]).run().exits(1);
}
