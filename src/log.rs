//! Messages to people and engines, in the shape of logrus: podman, containerd and CRI-O parse what a runtime writes to
//! its `--log` file, and show its `msg` to the user.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::error::{Context, Error, Result};

/// How the lines of a log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time="..." level=error msg="..."`
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(Error::new(format!("invalid log-format: {other} (text and json are known)"))),
        }
    }
}

/// Where messages go.
#[derive(Debug)]
struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

/// The log of this process: every layer may have something to say, and there is one place for it.
static LOG: OnceLock<Log> = OnceLock::new();

/// What is used before the flags are read.
static PLAIN: Log = Log { file: None, format: Format::Text, debug: false };

/// Sends messages to `path`, appended to and made with mode 0644 where it is missing; without a path, to standard error.
/// With `debug`, what [`debug`] says is written too.
pub fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<()> {
    let open = |path: &Path| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .context(|| format!("cannot open the log file {} (--log)", path.display()))
    };
    // A second log would be a mistake of ours, and the first one still takes every message.
    let _ = LOG.set(Log { file: path.map(open).transpose()?, format, debug });
    Ok(())
}

fn log() -> &'static Log {
    LOG.get().unwrap_or(&PLAIN)
}

/// Says what is being done, where `--debug` asks for it.
pub fn debug<D: std::fmt::Display>(text: impl FnOnce() -> D) {
    if log().debug {
        log().write(&log().line("debug", &text().to_string(), None));
    }
}

/// Says that something was left out or passed over, and the command goes on.
pub fn warn(text: &str) {
    log().write(&log().line("warning", text, None));
}

/// Reports the failure of a command: one line in the log, and one on standard error for whoever ran it by hand.
pub fn failure(error: &Error) {
    let text = error.to_string();
    log().write(&log().line("error", &text, Some(&error.code())));
    if log().file.is_some() {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl Log {
    /// Writes a line at once, so that lines of several processes do not mix. There is nowhere left to report that it
    /// cannot be written.
    fn write(&self, line: &str) {
        let _ = match self.file.as_ref() {
            Some(mut file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }

    fn line(&self, level: &str, msg: &str, code: Option<&str>) -> String {
        let time = rfc3339(SystemTime::now());
        match (self.format, code) {
            (Format::Text, _) => format!("time=\"{time}\" level={level} msg={}\n", serde_json::Value::from(msg)),
            (Format::Json, None) => format!("{}\n", json!({"level": level, "msg": msg, "time": time})),
            (Format::Json, Some(code)) => {
                format!("{}\n", json!({"code": code, "level": level, "msg": msg, "time": time}))
            }
        }
    }
}

/// A point in time as RFC 3339 in UTC, to the nanosecond: what Go's `time.Time` reads and runc's state.json holds.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (day, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from a day count: years begin in March, so that the leap day is the last day of a year.
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}.{:09}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_civil_dates_in_utc() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (951_868_800, "2000-03-01T00:00:00.000000007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, 7)), want);
        }
    }

    #[test]
    fn json_lines_have_the_keys_that_engines_read() {
        let log = Log { file: None, format: Format::Json, debug: false };
        let mut value: serde_json::Value =
            serde_json::from_str(&log.line("error", "say \"no\"", Some("EPERM"))).unwrap();
        assert!(value["time"].take().as_str().unwrap().ends_with('Z'));
        assert_eq!(value, json!({"code": "EPERM", "level": "error", "msg": "say \"no\"", "time": null}));
    }
}
