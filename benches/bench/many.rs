//! The long cases: many containers at once, and commands where many are there.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use vessel::error::{Context, Result};

use crate::Options;
use crate::bundle::Variant;
use crate::host::Host;
use crate::report::{Report, Row};
use crate::runtime::Runtime;
use crate::stats::Random;

const COUNT: usize = 100;
const LOOPS: [usize; 2] = [2, 8];
/// Enough for a median, of what takes seconds.
const FEW: usize = 5;
const NONE: Variant =
    Variant { seccomp: false, limits: false, systemd: false, user: false, rootless: false, mounts: 0, memory: None };
/// The commands that should cost the same whatever else is there, and what they are called in tables.
const COMMANDS: [(&str, &str); 6] = [
    ("run -d", "run --detach"),
    ("state", "state"),
    ("ps", "ps"),
    ("list", "list"),
    ("kill", "kill"),
    ("delete stopped", "delete"),
];

pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = LOOPS.iter().flat_map(|loops| [name("up", *loops), name("down", *loops)]).collect();
    names.extend(COMMANDS.iter().map(|(_, name)| format!("scale {name}")));
    names
}

fn name(way: &str, loops: usize) -> String {
    format!("{COUNT} containers {way}, {loops} loops")
}

/// 100 containers up (create and start) and down (delete), by loops side by side.
pub(crate) fn measure(host: &Host, options: &Options, runtimes: &[Runtime], report: &mut Report<'_>) -> Result<()> {
    let mut random = Random::new();
    for loops in LOOPS {
        let names = [name("up", loops), name("down", loops)];
        if !names.iter().any(|name| options.wants(name)) {
            continue;
        }
        let mut rows = names.map(|name| Row::new(&name, &["all"], runtimes.len()));
        for _ in 0..FEW.min(options.rounds) {
            for number in random.order(runtimes.len()) {
                let runtime = &runtimes[number];
                for slot in 0..COUNT {
                    runtime.prepare(host, &NONE, slot, true, 0)?;
                }
                for (verbs, row) in [&["create", "start"][..], &["delete"]].iter().zip(&mut rows) {
                    match parallel(host, runtime, loops, verbs) {
                        Ok(took) => row.add(number, &[took]),
                        Err(e) => report.note(format!("{}: {}: {e}", row.name, runtime.name)),
                    }
                }
            }
        }
        rows.into_iter().for_each(|row| report.row(row));
    }
    Ok(())
}

/// The milliseconds until the last loop is done.
fn parallel(host: &Host, runtime: &Runtime, loops: usize, verbs: &[&str]) -> Result<f64> {
    let one = |first: usize| -> Result<()> {
        for slot in (first..COUNT).step_by(loops) {
            for verb in verbs {
                runtime.line(host, &NONE, slot, true, verb).time()?;
            }
        }
        Ok(())
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..loops).map(|first| scope.spawn(move || one(first))).collect();
        handles.into_iter().try_for_each(|handle| {
            handle.join().unwrap_or_else(|_| Err(vessel::error::Error::new("a loop broke down")))
        })
    })?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}

/// Commands on one container where many others are there. The others are copies of the state of one that runs, and so
/// share its process: every command reads the same files as if they were their own, and thousands of them can be had.
pub(crate) fn scale(host: &Host, options: &Options, runtimes: &[Runtime], report: &mut Report<'_>) -> Result<()> {
    let wanted: Vec<_> = COMMANDS.iter().filter(|(_, name)| options.wants(&format!("scale {name}"))).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let runtimes: Vec<&Runtime> = runtimes.iter().filter(|r| !r.floor).collect();
    for runtime in &runtimes {
        runtime.prepare(host, &NONE, 1, true, 0)?;
        runtime.prepare(host, &NONE, 0, true, 0)?;
        runtime.line(host, &NONE, 1, true, "run -d").time()?;
    }
    let mut random = Random::new();
    for count in &options.scale {
        for runtime in &runtimes {
            // The measured one and the original are there, too.
            for slot in 2..*count {
                copy(&runtime.root(host, &NONE), &runtime.id(1), &runtime.id(slot))?;
            }
        }
        let mut rows: Vec<Row> = COMMANDS
            .iter()
            .map(|(_, name)| Row::new(&format!("{name}, {count} there"), &["all"], runtimes.len()))
            .collect();
        let rounds = if *count >= 1000 { FEW } else { FEW * 2 };
        for _ in 0..rounds.min(options.rounds) {
            for number in random.order(runtimes.len()) {
                let runtime = runtimes[number];
                for ((verb, _), row) in COMMANDS.iter().zip(&mut rows) {
                    if *verb == "delete stopped" {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    match runtime.line(host, &NONE, 0, true, verb).time() {
                        Ok(took) => row.add(number, &[took]),
                        Err(e) => report.note(format!("{}: {}: {e}", row.name, runtime.name)),
                    }
                }
            }
        }
        for (row, (_, name)) in rows.into_iter().zip(COMMANDS) {
            if options.wants(&format!("scale {name}")) {
                report.scale(*count, name, row);
            }
        }
    }
    for runtime in &runtimes {
        runtime.recover(host, &NONE, 1);
        let _ = fs::remove_dir_all(runtime.root(host, &NONE));
    }
    Ok(())
}

/// Copies the state of a container, with its name changed.
fn copy(root: &Path, from: &str, to: &str) -> Result<()> {
    let target = root.join(to);
    if target.exists() {
        return Ok(());
    }
    let what = || format!("cannot copy the state of {from}");
    fs::create_dir(&target).context(what)?;
    for entry in fs::read_dir(root.join(from)).context(what)? {
        let entry = entry.context(what)?;
        if entry.file_type().context(what)?.is_file() {
            let text = fs::read(entry.path()).context(what)?;
            let text = String::from_utf8_lossy(&text).replace(from, to);
            fs::write(target.join(entry.file_name()), text).context(what)?;
        }
    }
    Ok(())
}
