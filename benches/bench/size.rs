//! What does not depend on the clock: system calls, memory, the size of the program.

use std::path::{Path, PathBuf};

use vessel::error::Result;

use crate::Options;
use crate::bundle::{self, Variant};
use crate::host::Host;
use crate::report::{Report, Size};
use crate::runtime::Runtime;
use crate::trace::{Trace, roughly, trace};

/// How often each is tried: scheduling decides on some calls and pages.
const TRIES: usize = 5;
/// The least and the most memory that is tried as a limit, in KiB.
const LEAST: u64 = 64;
const MOST: u64 = 64 << 10;

/// Fills in a line for each runtime.
pub(crate) fn measure(host: &Host, _: &Options, runtimes: &[Runtime], report: &mut Report<'_>) -> Result<()> {
    let none = Variant::default();
    let seccomp = Variant { seccomp: true, ..none };
    // Not on every kernel.
    let command = ["/bin/true".to_string()];
    let traces = trace(&command, Path::new("/proc/self/exe")).is_ok_and(|t| t.total() > 0);
    if !traces {
        report.note("size: system calls cannot be counted on this kernel".to_string());
    }
    for (number, runtime) in runtimes.iter().enumerate() {
        let mut size =
            Size { bytes: std::fs::metadata(&runtime.program).map(|m| m.len()).unwrap_or_default(), ..Size::default() };
        let filled = if traces { fill(host, runtime, &none, &seccomp, &mut size) } else { Ok(()) };
        if let Err(e) = filled {
            report.note(format!("size: {}: {e}", runtime.name));
            runtime.recover(host, &none, 0);
        }
        size.limit = smallest_limit(host, runtime)?;
        report.size(number, size);
    }
    Ok(())
}

fn fill(host: &Host, runtime: &Runtime, none: &Variant, seccomp: &Variant, size: &mut Size) -> Result<()> {
    for (variant, calls, peak) in
        [(none, &mut size.run, &mut size.peak), (seccomp, &mut size.run_seccomp, &mut size.peak_seccomp)]
    {
        runtime.prepare(host, variant, 0, false, 0)?;
        for _ in 0..TRIES {
            let (total, memory) = numbers(host, runtime, variant, false, "run")?;
            *calls = least(*calls, total);
            *peak = least(*peak, memory);
        }
    }
    runtime.prepare(host, none, 0, true, 0)?;
    for _ in 0..TRIES {
        // None is known where one part is not.
        let mut total = Some(0);
        for verb in ["create", "start", "exec", "delete"] {
            let (calls, memory) = numbers(host, runtime, none, true, verb)?;
            if verb == "exec" {
                size.exec = least(size.exec, calls);
                size.peak_exec = least(size.peak_exec, memory);
            } else {
                total = total.filter(|_| calls > 0).map(|total| total + calls);
            }
        }
        size.life = total.map_or(0, |total| least(size.life, total));
    }
    Ok(())
}

/// How many system calls a command makes, and the peak memory of its largest process in KiB.
fn numbers(host: &Host, runtime: &Runtime, variant: &Variant, sleeps: bool, verb: &str) -> Result<(u64, u64)> {
    match traced(host, runtime, variant, sleeps, verb) {
        Ok(trace) => Ok((trace.total(), trace.peak())),
        Err(_) => {
            runtime.recover(host, variant, 0);
            if verb == "create" {
                // strace would wait for the container.
                return runtime.line(host, variant, 0, sleeps, verb).time().map(|_| (0, 0));
            }
            if ["start", "exec", "delete"].contains(&verb) {
                runtime.line(host, variant, 0, sleeps, "create").time()?;
            }
            if ["exec", "delete"].contains(&verb) {
                runtime.line(host, variant, 0, sleeps, "start").time()?;
            }
            roughly(&runtime.line(host, variant, 0, sleeps, verb))
        }
    }
}

/// The smaller one; 0 is none yet.
fn least(old: u64, new: u64) -> u64 {
    if old == 0 { new } else { old.min(new) }
}

/// Traces one command on a prepared container.
pub(crate) fn traced(host: &Host, runtime: &Runtime, variant: &Variant, sleeps: bool, verb: &str) -> Result<Trace> {
    let program: PathBuf = bundle::rootfs(host, variant)?.join("bin/busybox");
    trace(&runtime.line(host, variant, 0, sleeps, verb).args, &program)
}

/// The smallest memory limit, in KiB, with which `run` of /bin/true succeeds three times; none where memory cannot be
/// limited.
fn smallest_limit(host: &Host, runtime: &Runtime) -> Result<Option<u64>> {
    if runtime.floor || !host.limits {
        return Ok(None);
    }
    let starts = |kib: u64| -> Result<bool> {
        let variant = Variant { memory: Some(kib), ..Variant::default() };
        runtime.prepare(host, &variant, 0, false, 0)?;
        for _ in 0..3 {
            if runtime.line(host, &variant, 0, false, "run").time().is_err() {
                runtime.recover(host, &variant, 0);
                return Ok(false);
            }
        }
        Ok(true)
    };
    let (mut fails, mut works) = (LEAST, MOST);
    if !starts(works)? {
        return Ok(None);
    }
    while works - fails > works / 16 {
        let middle = (fails + works) / 2 / 4 * 4;
        if starts(middle)? { works = middle } else { fails = middle }
    }
    Ok(Some(works))
}
