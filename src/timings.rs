//! How long the parts of a command take, where `--timings FILE` asks for it; else a phase costs one comparison.
//!
//! A phase is written when it ends, by whichever process goes through it, as an event of the trace format that browsers
//! show (about:tracing, Perfetto) or as a line of a table. The file is appended to, so it can take all commands of a
//! container's life. Where init's descriptors are closed at the start gate, its last phase is over.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Context, Result};

#[derive(Debug)]
struct Timings {
    file: File,
    trace: bool,
    /// The runtime's, also in init, which has another one in its namespace.
    pid: u32,
    /// Whether this process is the one in the container.
    inside: AtomicBool,
    /// When the last phase has ended, in microseconds after 1970: a time namespace may change the other clocks.
    last: AtomicU64,
}

static TIMINGS: OnceLock<Timings> = OnceLock::new();

/// Writes phases to `path` from here on: as a trace where its name ends in `.json`, else as a table. `command` is what
/// this process is called.
pub fn open(path: &Path, command: &str) -> Result<()> {
    let cannot = || format!("cannot open {} (--timings)", path.display());
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o644).custom_flags(libc::O_CLOEXEC);
    let mut file = options.open(path).context(cannot)?;
    let trace = path.extension().is_some_and(|e| e == "json");
    let pid = std::process::id();
    let begin = if !trace {
        format!("{:15} {pid:>7} {:7} {:>9}  {command}\n", clock(now()), "runtime", "")
    } else {
        // The closing bracket may be left out, as nobody knows which event is the last.
        let first = if file.metadata().context(cannot)?.len() == 0 { "[\n" } else { "" };
        let name = |kind: &str, thread: u32, name: &str| {
            let args = serde_json::json!({ "name": name });
            let event = serde_json::json!({"name": kind, "ph": "M", "pid": pid, "tid": thread, "args": args});
            format!("{event},\n")
        };
        [
            first,
            &name("process_name", 0, &format!("vessel {command}")),
            &name("thread_name", 0, "runtime"),
            &name("thread_name", 1, "init"),
        ]
        .concat()
    };
    file.write_all(begin.as_bytes()).context(cannot)?;
    // A second one would be a mistake of ours, and the first one still takes every phase.
    let _ = TIMINGS.set(Timings { file, trace, pid, inside: AtomicBool::new(false), last: AtomicU64::new(now()) });
    Ok(())
}

/// Tells that what was done since the last phase of this process was `name`.
pub fn phase(name: &str) {
    let Some(timings) = TIMINGS.get() else { return };
    let now = now();
    let begin = timings.last.swap(now, Ordering::Relaxed);
    // What cannot be written is not worth failing for.
    let _ = (&timings.file).write_all(timings.line(name, begin, now).as_bytes());
}

/// This process is the fork that becomes the container's: its phases are told apart from the runtime's.
pub fn inside() {
    if let Some(timings) = TIMINGS.get() {
        timings.inside.store(true, Ordering::Relaxed);
    }
}

impl Timings {
    fn line(&self, name: &str, begin: u64, end: u64) -> String {
        let inside = self.inside.load(Ordering::Relaxed);
        // A clock that was set back in between.
        let took = end.saturating_sub(begin);
        if self.trace {
            let event = serde_json::json!({
                "name": name, "ph": "X", "ts": begin, "dur": took, "pid": self.pid, "tid": u32::from(inside),
            });
            return format!("{event},\n");
        }
        let process = if inside { "init" } else { "runtime" };
        format!("{:15} {:>7} {process:7} {:>6}.{:03}  {name}\n", clock(end), self.pid, took / 1000, took % 1000)
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// The time of day, UTC.
fn clock(micros: u64) -> String {
    let seconds = micros / 1_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}.{:06}", seconds / 3600, seconds / 60 % 60, seconds % 60, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings(trace: bool) -> Timings {
        let file = File::open("/dev/null").unwrap();
        Timings { file, trace, pid: 7, inside: AtomicBool::new(true), last: AtomicU64::new(0) }
    }

    #[test]
    fn a_phase_is_an_event_or_a_line() {
        let event: serde_json::Value =
            serde_json::from_str(timings(true).line("mounts", 1_000_000, 1_002_345).trim_end_matches(",\n")).unwrap();
        let expected = serde_json::json!({
            "name": "mounts", "ph": "X", "ts": 1_000_000, "dur": 2345, "pid": 7, "tid": 1,
        });
        assert_eq!(event, expected);
        let line = timings(false).line("mounts", 86_399_000_000, 86_399_002_345);
        assert_eq!(line, "23:59:59.002345       7 init         2.345  mounts\n");
    }

    #[test]
    fn a_clock_that_goes_back_is_no_fault() {
        assert!(timings(false).line("mounts", 10, 5).contains(" 0.000  mounts"));
    }
}
