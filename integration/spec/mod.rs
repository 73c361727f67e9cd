//! The clauses of the runtime-spec (`clauses.txt`), each by a test of its own where no other test of the suite is about it
//! alone. They ask for what the clause says and for nothing else, so that other runtimes can be measured by them.

use serde_json::Value;

use crate::harness::{Container, Output};

mod cgroups;
mod config;
mod features;
mod hooks;
mod life;
mod linux;
mod options;
mod rdt;
mod required;

/// Replaces what a JSON pointer leads to, or adds it to its parent.
fn put(config: &mut Value, pointer: &str, part: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Array(list) if key == "-" => list.push(part),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = part,
        parent => parent[key] = part,
    }
}

/// Takes away what a JSON pointer leads to.
fn take(config: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().remove(key).unwrap();
}

/// A container of the probe with parts of the configuration replaced.
fn container(args: &[&str], parts: &[(&str, Value)]) -> Container {
    Container::with(args, |config| parts.iter().for_each(|(pointer, part)| put(config, pointer, part.clone())))
}

/// The command has failed, in whatever words.
#[track_caller]
fn refused(out: &Output) {
    assert_ne!(out.code, 0, "must be an error: {out}");
}

/// Create has failed, and has made no container.
#[track_caller]
fn not_created(c: &Container) -> Output {
    let out = c.create();
    refused(&out);
    refused(&c.command("state", [&c.id]).run());
    out
}
