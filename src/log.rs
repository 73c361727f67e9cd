//! Messages to people and engines. In a file they have the shape of logrus: podman, containerd and CRI-O parse what a
//! runtime writes to its `--log` file, and show its `msg` to the user.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
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
enum Sink {
    Stderr,
    File(File),
    /// systemd's journal, in its native protocol.
    Journal(UnixDatagram, String),
    /// The local syslog daemon (RFC 3164), facility daemon.
    Syslog(UnixDatagram, String),
}

/// How urgent a message is, in syslog's numbers.
#[derive(Clone, Copy, Debug)]
enum Level {
    Error = 3,
    Warning = 4,
    Debug = 7,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Debug => "debug",
        }
    }
}

#[derive(Debug)]
struct Log {
    sink: Sink,
    format: Format,
    debug: bool,
}

/// The log of this process: every layer may have something to say, and there is one place for it.
static LOG: OnceLock<Log> = OnceLock::new();

/// What is used before the flags are read.
static PLAIN: Log = Log { sink: Sink::Stderr, format: Format::Text, debug: false };

/// Sends messages to `target`; without one, to standard error. A target is `journald:NAME` or `syslog:NAME`, whose
/// messages carry NAME, or a path (also as `file:PATH`) that is appended to, and made with mode 0644 where it is missing.
/// With `debug`, what [`debug`] says is written too.
pub fn open(target: Option<&OsStr>, format: Format, debug: bool) -> Result<()> {
    let sink = target.map_or(Ok(Sink::Stderr), Sink::open)?;
    // A second log would be a mistake of ours, and the first one still takes every message.
    let _ = LOG.set(Log { sink, format, debug });
    Ok(())
}

fn log() -> &'static Log {
    LOG.get().unwrap_or(&PLAIN)
}

/// Says what is being done, where `--debug` asks for it.
pub fn debug<D: std::fmt::Display>(text: impl FnOnce() -> D) {
    if log().debug {
        log().write(Level::Debug, &text().to_string(), None);
    }
}

/// Says that something was left out or passed over, and the command goes on.
pub fn warn(text: &str) {
    log().write(Level::Warning, text, None);
}

/// Reports the failure of a command as its bare text, where it would go to standard error in the shape of a log. Returns
/// whether it does.
pub fn bare_failure(error: &Error) -> bool {
    matches!(log().sink, Sink::Stderr) && writeln!(std::io::stderr(), "{error}").is_ok()
}

/// Reports the failure of a command: one line in the log, and one on standard error for whoever ran it by hand.
pub fn failure(error: &Error) {
    let text = error.to_string();
    log().write(Level::Error, &text, Some(&error.code()));
    if !matches!(log().sink, Sink::Stderr) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl Sink {
    fn open(target: &OsStr) -> Result<Sink> {
        let (kind, rest) = match target.as_bytes().iter().position(|b| *b == b':') {
            Some(at) => (&target.as_bytes()[..at], OsStr::from_bytes(&target.as_bytes()[at + 1..])),
            None => (&[][..], target),
        };
        match kind {
            b"journald" => Ok(Sink::Journal(connect("/run/systemd/journal/socket")?, tag(rest)?)),
            b"syslog" => Ok(Sink::Syslog(connect("/dev/log")?, tag(rest)?)),
            b"file" => Sink::file(rest),
            _ => Sink::file(target),
        }
    }

    fn file(path: &OsStr) -> Result<Sink> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .map(Sink::File)
            .context(|| format!("cannot open the log file {} (--log)", path.display()))
    }
}

/// A daemon that hangs must not hang us: messages that it does not take are lost.
fn connect(path: &str) -> Result<UnixDatagram> {
    let socket = UnixDatagram::unbound().and_then(|s| s.connect(path).and(s.set_nonblocking(true)).map(|()| s));
    socket.context(|| format!("cannot reach the log daemon at {path} (--log; is it running?)"))
}

/// What messages are marked with.
fn tag(name: &OsStr) -> Result<String> {
    match name.to_str() {
        Some(name) if !name.is_empty() && !name.contains(|c: char| c.is_control() || c == ' ') => Ok(name.to_string()),
        _ => Err(Error::new(format!("--log: {name:?} is no name that a log daemon takes"))),
    }
}

impl Log {
    /// Writes a line at once, so that lines of several processes do not mix. There is nowhere left to report that it
    /// cannot be written.
    fn write(&self, level: Level, msg: &str, code: Option<&str>) {
        let _ = match &self.sink {
            Sink::Stderr => std::io::stderr().write_all(self.line(level, msg, code).as_bytes()),
            Sink::File(file) => (&*file).write_all(self.line(level, msg, code).as_bytes()),
            Sink::Journal(socket, tag) => socket.send(journal(level, tag, msg).as_bytes()).map(drop),
            Sink::Syslog(socket, tag) => socket.send(syslog(level, tag, msg).as_bytes()).map(drop),
        };
    }

    fn line(&self, level: Level, msg: &str, code: Option<&str>) -> String {
        let (time, level) = (rfc3339(SystemTime::now()), level.name());
        match (self.format, code) {
            (Format::Text, _) => format!("time=\"{time}\" level={level} msg={}\n", serde_json::Value::from(msg)),
            (Format::Json, None) => format!("{}\n", json!({"level": level, "msg": msg, "time": time})),
            (Format::Json, Some(code)) => {
                format!("{}\n", json!({"code": code, "level": level, "msg": msg, "time": time}))
            }
        }
    }
}

/// A newline ends a field.
fn journal(level: Level, tag: &str, msg: &str) -> String {
    format!("MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER={tag}\n", msg.replace('\n', " "), level as u8)
}

/// The daemon sets the time. A newline could pass for the end of a message.
fn syslog(level: Level, tag: &str, msg: &str) -> String {
    const DAEMON: u8 = 3 << 3;
    format!("<{}>{tag}[{}]: {}", DAEMON | level as u8, std::process::id(), msg.replace('\n', " "))
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
        let log = Log { sink: Sink::Stderr, format: Format::Json, debug: false };
        let mut value: serde_json::Value =
            serde_json::from_str(&log.line(Level::Error, "say \"no\"", Some("EPERM"))).unwrap();
        assert!(value["time"].take().as_str().unwrap().ends_with('Z'));
        assert_eq!(value, json!({"code": "EPERM", "level": "error", "msg": "say \"no\"", "time": null}));
    }

    #[test]
    fn daemons_get_name_and_priority() {
        assert_eq!(
            journal(Level::Warning, "c1", "a\nPRIORITY=0"),
            "MESSAGE=a PRIORITY=0\nPRIORITY=4\nSYSLOG_IDENTIFIER=c1\n"
        );
        assert_eq!(syslog(Level::Error, "c1", "n\no"), format!("<27>c1[{}]: n o", std::process::id()));
        for bad in ["", "a b", "a\nb"] {
            assert!(tag(OsStr::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_daemon_that_hangs_does_not_hang_us() {
        let path = std::env::temp_dir().join(format!("vessel-log-{}", std::process::id()));
        let _daemon = UnixDatagram::bind(&path).unwrap();
        let socket = connect(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        let socket = socket.unwrap();
        let error = std::iter::repeat_with(|| socket.send(b"x")).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}
