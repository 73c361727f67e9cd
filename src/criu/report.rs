//! Why CRIU has failed: it tells in its log.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::rpc::Response;
use crate::error::Error;

/// How many lines of the log an error takes: the first says what is wrong, and the rest what came of it.
const LINES: usize = 3;

/// The error of a work that CRIU says has failed.
pub(super) fn failure(words: &str, response: &Response, log: &Path) -> Error {
    let error = match response.errno.filter(|errno| *errno != 0) {
        Some(errno) => Error::from_errno(errno, words),
        None => Error::new(words),
    };
    let told = tail(log);
    match (told.is_empty(), &response.message) {
        (true, Some(message)) => error.hint(format!("it says: {}", message.trim())),
        // What it asks the kernel first.
        _ if told.contains("kerndat") => with(error, &told, log).hint("a newer criu may know this kernel"),
        _ => with(error, &told, log),
    }
}

/// The error with what the log has on it.
pub(super) fn explained(error: Error, log: &Path) -> Error {
    with(error, &tail(log), log)
}

fn with(error: Error, told: &str, log: &Path) -> Error {
    if told.is_empty() { error } else { error.hint(format!("{}: {told}", log.display())) }
}

fn tail(log: &Path) -> String {
    let Ok(file) = File::open(log) else { return String::new() };
    // A line need not be UTF-8: it may have names of files.
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    faults(lines.map(|line| String::from_utf8_lossy(&line).into_owned()))
}

/// The lines with errors, without their times.
fn faults(lines: impl Iterator<Item = String>) -> String {
    let mut faults: Vec<String> = Vec::new();
    let mut more = 0;
    for line in lines {
        let text = line.split_once(") ").filter(|_| line.starts_with('(')).map_or(line.as_str(), |(_, text)| text);
        // It goes on with the limit that it has.
        if !text.contains("Error") || text.contains("RLIMIT_NOFILE for self") {
            continue;
        }
        if faults.len() < LINES { faults.push(text.trim().to_string()) } else { more += 1 }
    }
    let mut text = faults.join("; ");
    if more > 0 {
        text += &format!("; and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_are_told() {
        let log = "(00.001000) Warn  (criu/a.c:1): fine\n(00.002) Error (criu/b.c:2): no such mount\n\
            (00.002) Error (criu/r.c:1): rlimit: Can't setup RLIMIT_NOFILE for self\n\
            (00.003) Error (criu/c.c:3): giving up\n";
        let lines = || log.lines().map(String::from);
        assert_eq!(faults(lines()), "Error (criu/b.c:2): no such mount; Error (criu/c.c:3): giving up");
        let many = faults(lines().chain(lines()));
        assert!(many.ends_with("no such mount; and 1 more"), "{many}");
        assert_eq!(faults(["all is well".to_string()].into_iter()), "");
    }
}
