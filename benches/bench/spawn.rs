//! Runs commands, and takes the time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vessel::error::{Context, Error, Result};

/// A command of a runtime, ready to be run again and again.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) args: Vec<String>,
    /// The ordinary user to run it as, and the variables that he has.
    pub(crate) user: Option<u32>,
    pub(crate) env: Vec<(String, String)>,
}

impl Line {
    fn command(&self, errors: &File) -> Result<Command> {
        let program = self.args.first().map(OsStr::new).unwrap_or_default();
        let mut command = Command::new(program);
        let errors = errors.try_clone().context(|| "cannot copy a descriptor")?;
        command.args(self.args.iter().skip(1)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        Ok(command)
    }

    /// Runs it to its end: the milliseconds that it took. A failure has the last line that it printed.
    pub(crate) fn time(&self) -> Result<f64> {
        let mut errors = unnamed()?;
        let mut command = self.command(&errors)?;
        let begin = Instant::now();
        let mut child = command.spawn().context(|| format!("cannot run {}", self.args.join(" ")))?;
        if !ends(&child)? {
            let _ = child.kill();
        }
        let status = child.wait().context(|| "cannot wait")?;
        let took = begin.elapsed();
        if status.success() {
            return Ok(took.as_secs_f64() * 1000.0);
        }
        let mut text = String::new();
        errors.rewind().and_then(|()| errors.read_to_string(&mut text)).context(|| "cannot read the messages")?;
        let last = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
        Err(Error::new(format!("{last} ({status})")))
    }
}

/// Waits for the end of a process, but not forever.
fn ends(child: &Child) -> Result<bool> {
    const LONGEST: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("no pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context(|| "cannot open a process")?;
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&LONGEST)).context(|| "cannot wait")?;
    Ok(ready > 0)
}

/// A file for messages: a pipe would have to be read, and a container may hold it open.
fn unnamed() -> Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("messages", flags).map(File::from).context(|| "cannot make a file for messages")
}
