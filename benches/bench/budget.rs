//! Keeps vessel's paths short: the system calls of its commands are counted and compared with what they were.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use vessel::error::{Context, Error, Result};

use crate::Options;
use crate::bundle::Variant;
use crate::host::Host;
use crate::runtime::{self, Runtime};
use crate::size::traced;
use crate::trace::Trace;

/// By how much a number may grow before that is a fault, in percent.
const SHARE: u64 = 5;
/// How often each command is traced; the least counts, as waiting for each other takes a call more or less.
const TRIES: usize = 5;

/// By command: how often which call is made, with the peak memory in KiB as another "call".
type Counts = BTreeMap<String, BTreeMap<String, u64>>;
const MEMORY: &str = "peak KiB";

/// Counts, and compares with the file or writes it. 1 where something grew too much.
pub(crate) fn run(host: &Host, options: &Options, renew: bool, file: &Path) -> Result<i32> {
    let runtimes = runtime::all(host, options)?;
    let vessel = runtimes.first().ok_or_else(|| Error::new("no runtime is given"))?;
    let size = fs::metadata(&vessel.program).context(|| "cannot examine the program")?.len();
    let counts = count(host, vessel)?;
    let view = host.name();
    let mut all: BTreeMap<String, Counts> = match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| Error::new(format!("{}: {e}", file.display())))?,
        Err(_) => BTreeMap::new(),
    };
    let program = Counts::from([("vessel".to_string(), BTreeMap::from([("bytes".to_string(), size)]))]);
    if renew {
        all.insert(view.to_string(), counts);
        all.insert("program".to_string(), program);
        fs::write(file, lines(&all)).context(|| format!("cannot write {}", file.display()))?;
        return Ok(0);
    }
    let Some(budget) = all.get(view) else {
        println!("budget: there are no numbers for {view} in {}", file.display());
        return Ok(0);
    };
    let mut faults = 0;
    for (command, now) in counts.iter().chain(&program) {
        let Some(was) = budget.get(command).or_else(|| all.get("program")?.get(command)) else { continue };
        faults += compare(view, command, was, now);
    }
    let summary: Vec<String> = counts.iter().map(|(command, calls)| format!("{command} {}", total(calls))).collect();
    println!("budget: system calls with {view}: {}", summary.join(", "));
    if faults > 0 {
        eprintln!("budget: if that is worth it, accept the new numbers with `make budget`, and say why in the commit");
    }
    Ok(i32::from(faults > 0))
}

fn count(host: &Host, vessel: &Runtime) -> Result<Counts> {
    let none = Variant::default();
    let seccomp = Variant { seccomp: true, ..none };
    let mut counts = Counts::new();
    for _ in 0..TRIES {
        for (variant, name) in [(&none, "run"), (&seccomp, "run with seccomp")] {
            vessel.prepare(host, variant, 0, false, 0)?;
            keep(&mut counts, name, traced(host, vessel, variant, false, "run")?);
        }
        vessel.prepare(host, &none, 0, true, 0)?;
        for verb in ["create", "start", "state", "exec", "kill", "delete"] {
            keep(&mut counts, verb, traced(host, vessel, &none, true, verb)?);
        }
    }
    Ok(counts)
}

fn total(calls: &BTreeMap<String, u64>) -> u64 {
    calls.iter().filter(|(name, _)| *name != MEMORY).map(|(_, count)| count).sum()
}

/// Keeps the run with the fewest calls, and the smallest peak.
fn keep(counts: &mut Counts, command: &str, trace: Trace) {
    let peak = trace.peak();
    let mut calls = trace.calls;
    let old = counts.entry(command.to_string()).or_default();
    let peak = old.get(MEMORY).map_or(peak, |old| peak.min(*old));
    if !old.is_empty() && total(old) <= total(&calls) {
        calls = std::mem::take(old);
    }
    calls.insert(MEMORY.to_string(), peak);
    *old = calls;
}

/// Prints what grew; how many of the two numbers did by too much.
fn compare(view: &str, command: &str, was: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> usize {
    let too_much = |was: u64, now: u64| now * 100 > was * (100 + SHARE);
    let mut faults = 0;
    let (old, new) = (total(was), total(now));
    if too_much(old, new) {
        let mut grown = String::new();
        for (name, count) in now.iter().filter(|(name, _)| *name != MEMORY) {
            let before = was.get(name).copied().unwrap_or_default();
            if *count > before {
                let _ = write!(grown, " {name} {before} -> {count}");
            }
        }
        eprintln!("budget: {view}, {command}: {new} instead of {old}, more than {SHARE} % more:{grown}");
        faults += 1;
    }
    let memory = |counts: &BTreeMap<String, u64>| counts.get(MEMORY).copied().unwrap_or_default();
    if too_much(memory(was), memory(now)) {
        eprintln!("budget: {view}, {command}: {} KiB of memory instead of {}", memory(now), memory(was));
        faults += 1;
    }
    faults
}

/// JSON with a line for each command, so that a change is a line.
fn lines(all: &BTreeMap<String, Counts>) -> String {
    let mut text = String::from("{");
    for (number, (view, counts)) in all.iter().enumerate() {
        let _ = write!(text, "{}\n\"{view}\": {{", if number > 0 { "," } else { "" });
        for (number, (command, calls)) in counts.iter().enumerate() {
            let calls: Vec<String> = calls.iter().map(|(name, count)| format!("\"{name}\": {count}")).collect();
            let _ = write!(text, "{}\n\t\"{command}\": {{{}}}", if number > 0 { "," } else { "" }, calls.join(", "));
        }
        text.push_str("\n}");
    }
    text.push_str("\n}\n");
    text
}
