//! Drives the built binary as an engine or a person would. `RUNTIME=runc` runs the same tests against another runtime,
//! which shows that a test asks for what the field asks for.

// A test that cannot go on says so by a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::{Command, Output};

fn runtime() -> Command {
    Command::new(std::env::var_os("RUNTIME").unwrap_or_else(|| env!("CARGO_BIN_EXE_vessel").into()))
}

/// A directory of one test, gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("vessel-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(args: &[&str]) -> Output {
    runtime().args(args).output().unwrap()
}

#[test]
fn the_version_has_the_lines_that_engines_look_for() {
    let out = run(&["--version"]);
    assert!(out.status.success());
    let text = text(&out.stdout);
    assert!(text.lines().next().unwrap().contains(" version "), "{text}");
    assert!(text.lines().any(|l| l.starts_with("commit: ")), "{text}");
    assert!(text.lines().any(|l| l.starts_with("spec: 1.")), "{text}");
}

#[test]
fn spec_writes_a_config_and_never_overwrites_one() {
    let dir = Dir::new("spec");
    let bundle = dir.0.to_str().unwrap();
    assert!(run(&["spec", "--bundle", bundle]).status.success());
    let path = dir.0.join("config.json");
    let written = std::fs::read_to_string(&path).unwrap();
    let config: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(config["root"]["path"], "rootfs");

    let again = run(&["spec", "--bundle", bundle]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("File config.json exists. Remove it first"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
}

#[test]
fn a_failure_is_one_json_object_in_the_log() {
    let dir = Dir::new("log");
    let log = dir.0.join("log.json");
    let bundle = dir.0.join("missing");
    let args = ["-log", log.to_str().unwrap(), "-log-format", "json", "spec", "-b", bundle.to_str().unwrap()];
    assert_eq!(run(&args).status.code(), Some(1));
    let written = std::fs::read_to_string(&log).unwrap();
    assert_eq!(written.lines().count(), 1, "{written}");
    let line: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("no such file or directory"), "{line}");
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn an_unknown_command_or_flag_is_an_error() {
    let out = run(&["foo"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("No help topic for 'foo'"));
    assert_eq!(run(&["spec", "--no-such-flag"]).status.code(), Some(1));
}
