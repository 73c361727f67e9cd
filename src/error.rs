//! The one error type that crosses module and process borders.
//!
//! An error is an errno (0 where no system call is at fault) and a line of text that says what was being done, on what,
//! and why it failed. Context is put in front of the text as the error travels up, so the line reads from the outside
//! in, and it is never logged on the way. Because it is a number and a string, it crosses the sync pipe whole.

use std::fmt;

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is, where no system call is at fault and callers may want to tell it from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cause {
    /// None of the others.
    #[default]
    Other,
    /// The command was called wrongly.
    Usage,
    /// The configuration breaks a rule.
    Config,
    /// There is no such container.
    NotFound,
    /// There is such a container already.
    Exists,
    /// The container is not in the state that the operation needs.
    State,
}

/// Which step it was that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Step {
    /// What the runtime does outside of the container.
    #[default]
    Outside,
    /// What init, or the process of exec, does before its program.
    Inside,
    /// execve(2) of the program.
    Program,
}

/// A failure, told in one line.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Error {
    errno: i32,
    cause: Cause,
    step: Step,
    /// How much of the end of the text is remedies; 0 too where it does not fit. (A number, as the size of an error adds
    /// to the code of every function that may fail.)
    hint: u16,
    text: String,
}

impl Error {
    /// A failure that no system call caused: a bad value, a broken rule.
    pub fn new(text: impl Into<String>) -> Self {
        Error::of(Cause::Other, text)
    }

    /// The same, with its cause.
    pub fn of(cause: Cause, text: impl Into<String>) -> Self {
        Error { errno: 0, cause, step: Step::Outside, hint: 0, text: text.into() }
    }

    /// A failed system call: `what` says what was being done and on what.
    pub fn from_errno(errno: i32, what: impl fmt::Display) -> Self {
        Error::from_kernel(errno, format!("{what}: {}", strerror(errno)))
    }

    fn from_kernel(errno: i32, text: String) -> Self {
        Error { errno, ..Error::new(text) }
    }

    /// The errno of the system call at fault, 0 if there is none.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// What sort of failure it is.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Which step it was that failed.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The same, as the failure of this step.
    #[must_use]
    pub fn at(self, step: Step) -> Self {
        Error { step, ..self }
    }

    /// The same without the remedies.
    #[must_use]
    pub fn without_hint(mut self) -> Self {
        // The number may have come over the channel.
        if let Some(text) = self.text.get(..self.text.len().saturating_sub(self.hint.into())) {
            self.text = text.to_string();
        }
        self.hint = 0;
        self
    }

    /// The text begins with this.
    pub fn begins_with(&self, start: &str) -> bool {
        self.text.starts_with(start)
    }

    /// A name that does not change with the words: that of the errno, or else of the cause.
    pub fn code(&self) -> String {
        match (self.errno, self.cause) {
            (0, Cause::Other) => "FAILED".to_string(),
            (0, Cause::Usage) => "USAGE".to_string(),
            (0, Cause::Config) => "CONFIG".to_string(),
            (0, Cause::NotFound) => "NOT_FOUND".to_string(),
            (0, Cause::Exists) => "EXISTS".to_string(),
            (0, Cause::State) => "STATE".to_string(),
            (errno, _) => format!("{:?}", nix::errno::Errno::from_raw(errno)),
        }
    }

    /// Puts what was being done in front of the text.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// Puts a remedy behind the text, in parentheses.
    #[must_use]
    pub fn hint(mut self, remedy: impl fmt::Display) -> Self {
        let before = self.text.len().saturating_sub(self.hint.into());
        self.text = format!("{} ({remedy})", self.text);
        self.hint = u16::try_from(self.text.len() - before).unwrap_or(0);
        self
    }
}

impl fmt::Display for Error {
    /// Prints exactly one line: engines read the error of a runtime line by line, and a path of the container must not
    /// be able to add lines of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.text.split_inclusive(|c: char| c.is_control()) {
            match part.chars().last() {
                Some(c) if c.is_control() => {
                    f.write_str(&part[..part.len() - c.len_utf8()])?;
                    write!(f, "{}", c.escape_default())?;
                }
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.raw_os_error() {
            Some(errno) => Error::from_kernel(errno, strerror(errno)),
            None => Error::new(e.to_string()),
        }
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(e: nix::errno::Errno) -> Self {
        Error::from_kernel(e as i32, strerror(e as i32))
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Self {
        Error::from_kernel(e.raw_os_error(), strerror(e.raw_os_error()))
    }
}

/// Adds context to a failed result.
pub trait Context<T> {
    /// Says what was being done; the text is made only where there is an error.
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context(what()))
    }
}

/// The kernel's words for an errno, in lower case as engines match them.
fn strerror(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut chars = words.chars();
    match (chars.next(), chars.next()) {
        // "No such file" but not "RFS specific error": an acronym stays as it is.
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(words.chars().skip(1)).collect()
        }
        _ => words.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_reads_from_the_outside_in() {
        let e = Error::from_errno(libc::ENOSPC, "mount tmpfs on /data").context("cannot create container");
        assert_eq!(e.to_string(), "cannot create container: mount tmpfs on /data: no space left on device");
        assert_eq!(e.errno(), libc::ENOSPC);
    }

    #[test]
    fn remedies_stay_behind_the_text() {
        let e = Error::new("cannot do it").hint("try\nthis").context("create").hint("or that");
        assert_eq!(e.to_string(), "create: cannot do it (try\\nthis) (or that)");
        assert_eq!(e.without_hint().to_string(), "create: cannot do it");
    }

    #[test]
    fn the_code_names_the_cause() {
        assert_eq!(Error::from_errno(libc::ENOENT, "open x").context("create").code(), "ENOENT");
        assert_eq!(Error::of(Cause::Config, "hostname: x").context("/b/config.json").code(), "CONFIG");
        assert_eq!(Error::new("wrong").code(), "FAILED");
    }

    #[test]
    fn a_line_stays_one_line() {
        let e = Error::new("bad path \"a\nb\u{1b}[31m\"");
        assert_eq!(e.to_string(), "bad path \"a\\nb\\u{1b}[31m\"");
    }
}
