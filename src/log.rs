//! Messages to people and engines, in the shape of logrus: podman, containerd and CRI-O parse what a runtime writes to
//! its `--log` file, and show its `msg` to the user.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

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
pub struct Log {
    file: Option<File>,
    format: Format,
}

impl Log {
    /// A log to `path`, appended to and made with mode 0644 where it is missing; without a path, to standard error.
    pub fn open(path: Option<&str>, format: Format) -> Result<Log> {
        let file = match path {
            None | Some("") => None,
            Some(path) => Some(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o644)
                    .custom_flags(libc::O_CLOEXEC)
                    .open(path)
                    .context(|| format!("cannot open the log file {path} (--log)"))?,
            ),
        };
        Ok(Log { file, format })
    }

    /// Reports the failure of a command: one line in the log, and one on standard error for whoever ran it by hand.
    pub fn failure(&self, error: &Error) {
        let text = error.to_string();
        let line = self.line("error", &text, &rfc3339(SystemTime::now()));
        match &self.file {
            Some(file) => {
                let mut file = file;
                // There is nowhere left to report that the report cannot be written.
                let _ = file.write_all(line.as_bytes());
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            None => {
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
        }
    }

    fn line(&self, level: &str, msg: &str, time: &str) -> String {
        match self.format {
            Format::Text => format!("time=\"{time}\" level={level} msg={}\n", serde_json::Value::from(msg)),
            Format::Json => {
                format!("{}\n", serde_json::json!({"level": level, "msg": msg, "time": time}))
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
        let log = Log { file: None, format: Format::Json };
        let line = log.line("error", "say \"no\"", "2026-01-02T03:04:05Z");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value, serde_json::json!({"level": "error", "msg": "say \"no\"", "time": "2026-01-02T03:04:05Z"}));
    }
}
