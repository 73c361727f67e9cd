//! Hooks (config.md, "POSIX-platform Hooks").

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, Error, Result};
use crate::sys;

/// The six kinds, in the order of a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deprecated; before createRuntime, at the same point.
    Prestart,
    /// In the runtime's namespaces, after the namespaces are made, before pivot_root.
    CreateRuntime,
    /// In the container's namespaces, before pivot_root.
    CreateContainer,
    /// In the container's namespaces, before the program is executed.
    StartContainer,
    /// In the runtime's namespaces, after the program was executed.
    Poststart,
    /// In the runtime's namespaces, after the container is deleted.
    Poststop,
}

impl Kind {
    /// The name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Prestart => "prestart",
            Kind::CreateRuntime => "createRuntime",
            Kind::CreateContainer => "createContainer",
            Kind::StartContainer => "startContainer",
            Kind::Poststart => "poststart",
            Kind::Poststop => "poststop",
        }
    }
}

/// Runs the hooks of one kind in order, each with `state` (JSON) on its standard input; stops at the first failure, which
/// names kind, number, path, exit status and what the hook printed.
pub fn run(kind: Kind, hooks: &[Hook], state: &str) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(number, hook)| run_one(kind, number, hook, state))
}

/// Runs all hooks of one kind, also where one fails, as poststop asks for; what failed is for the caller to warn of.
pub fn run_all(kind: Kind, hooks: &[Hook], state: &str) -> Vec<Error> {
    hooks.iter().enumerate().filter_map(|(number, hook)| run_one(kind, number, hook, state).err()).collect()
}

/// The form of this text is what people and tests look for; the path is what they need.
fn run_one(kind: Kind, number: usize, hook: &Hook, state: &str) -> Result<()> {
    execute(hook, state)
        .map_err(|e| e.context(format!("error running {} hook #{number}: {}", kind.name(), hook.path().display())))
}

fn execute(hook: &Hook, state: &str) -> Result<()> {
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Some(Duration::from_secs(seconds)),
            _ => return Err(Error::new(format!("timeout: {seconds} is not greater than zero"))),
        },
    };
    let mut child = command(hook)?.spawn().context(|| "cannot run it")?;
    let mut streams = Streams::of(&mut child)?;
    let ended = streams.talk(&child, state.as_bytes(), timeout);
    if !matches!(ended, Ok(true)) {
        // It may have ended meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().context(|| "cannot wait for it")?;
    match (ended?, timeout) {
        (false, Some(timeout)) => Err(Error::new(format!(
            "hook ran past specified timeout of {:.1}s{}",
            timeout.as_secs_f64(),
            streams.told()
        ))),
        _ if status.success() => Ok(()),
        _ => Err(Error::new(format!("{}{}", how(status), streams.told()))),
    }
}

fn command(hook: &Hook) -> Result<Command> {
    if !hook.path().is_absolute() {
        return Err(Error::new("path: it is not absolute"));
    }
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for (i, entry) in hook.env().iter().flatten().enumerate() {
        let (key, value) = entry
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Error::new(format!("env[{i}]: {entry:?} is not of the form NAME=VALUE")))?;
        command.env(key, value);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::spawn::isolate(&mut command);
    Ok(command)
}

/// How a process ended, in the words that Go's runtimes have for it.
fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(name) => format!("signal: {} ({name})", crate::sys::process::signal_words(signal)),
            Err(_) => format!("signal: {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// Our ends of a hook's standard streams. All at once, so that no size of state or output makes the two wait for each
/// other.
struct Streams {
    pidfd: OwnedFd,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    error: Option<ChildStderr>,
    output_tail: Tail,
    error_tail: Tail,
}

impl Streams {
    fn of(child: &mut Child) -> Result<Streams> {
        let open = |child: &mut Child| -> Result<Streams> {
            let pid =
                i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Error::new("it has no pid"))?;
            let streams = Streams {
                pidfd: rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
                input: child.stdin.take(),
                output: child.stdout.take(),
                error: child.stderr.take(),
                output_tail: Tail::default(),
                error_tail: Tail::default(),
            };
            let ends = [
                streams.input.as_ref().map(AsFd::as_fd),
                streams.output.as_ref().map(AsFd::as_fd),
                streams.error.as_ref().map(AsFd::as_fd),
            ];
            for fd in ends.into_iter().flatten() {
                rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)?;
            }
            Ok(streams)
        };
        open(child).map_err(|e| {
            let _ = child.kill();
            let _ = child.wait();
            e.context("cannot follow it")
        })
    }

    /// Writes `state` and reads the output until the hook ends. False where it has not within `timeout`. Processes that it
    /// leaves behind may keep the streams open; they are not waited for.
    fn talk(&mut self, child: &Child, state: &[u8], timeout: Option<Duration>) -> Result<bool> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut rest = state;
        loop {
            self.write(&mut rest);
            let left = match end.map(|end| end.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(false),
                left => left.and_then(|left| Timespec::try_from(left).ok()),
            };
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(self.output.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            fds.extend(self.error.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            fds.extend(self.input.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
            match poll(&mut fds, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context(|| format!("cannot wait for process {}", child.id())),
            }
            let ended = fds[0].revents().contains(PollFlags::IN);
            read(&mut self.output, &mut self.output_tail);
            read(&mut self.error, &mut self.error_tail);
            if ended {
                return Ok(true);
            }
        }
    }

    /// Writes what the pipe takes of the state; a hook need not read it.
    fn write(&mut self, rest: &mut &[u8]) {
        let Some(input) = &mut self.input else { return };
        match input.write(rest) {
            Ok(n) if n < rest.len() => *rest = &rest[n..],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // All is written, or nobody reads.
            _ => self.input = None,
        }
    }

    /// What the hook has printed, for one line of text.
    fn told(&self) -> String {
        format!(", stdout: {}, stderr: {}", self.output_tail.text(), self.error_tail.text())
    }
}

/// Reads what a stream has, a full pipe's worth at most, as a hook may print without end; none from its end on.
fn read<T: Read>(stream: &mut Option<T>, tail: &mut Tail) {
    let mut buffer = [0; Tail::SIZE];
    for _ in 0..16 {
        let Some(file) = stream else { return };
        match file.read(&mut buffer) {
            Ok(n @ 1..) => tail.add(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => *stream = None,
        }
    }
}

/// The last bytes of an output.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    const SIZE: usize = 4096;

    fn add(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        let over = self.bytes.len().saturating_sub(Self::SIZE);
        self.cut |= over > 0;
        self.bytes.drain(..over);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        format!("{}{}", if self.cut { "..." } else { "" }, text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn hook(script: &str) -> Hook {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        HookBuilder::default().path("/bin/sh").args(args).env(vec!["A=b=c".to_string()]).build().unwrap()
    }

    fn failure(hooks: &[Hook], state: &str) -> String {
        run(Kind::CreateRuntime, hooks, state).unwrap_err().to_string()
    }

    #[test]
    fn a_failure_says_which_hook_and_what_it_printed() {
        let e = failure(&[hook("true"), hook("echo one; echo two; echo why >&2; exit 3")], "");
        assert_eq!(e, "error running createRuntime hook #1: /bin/sh: exit status 3, stdout: one\\ntwo, stderr: why");
        assert!(failure(&[hook("kill -9 $$")], "").contains("signal: killed (SIGKILL), stdout: , stderr: "));
        let missing = HookBuilder::default().path("/no/such").build().unwrap();
        assert!(failure(&[missing], "").ends_with("/no/such: cannot run it: no such file or directory"));
    }

    #[test]
    fn the_state_comes_whole_or_is_not_read() {
        let state = "x".repeat(1 << 20);
        assert_eq!(
            run(Kind::Prestart, &[hook("exit $(($(wc -c) != 1048576))"), hook("exec <&-; sleep 0.1")], &state),
            Ok(())
        );
        // A hook that prints before it reads.
        let e = failure(&[hook("head -c 300000 /dev/zero | tr '\\0' y; cat >/dev/null; echo end; exit 1")], &state);
        assert!(e.contains("stdout: ...yy") && e.contains("yyend, stderr") && e.len() < 5000, "{e}");
    }

    #[test]
    fn a_hook_gets_the_environment_of_the_configuration_alone() {
        let e = failure(&[hook("cat /proc/self/environ | tr '\\0' ,; ls /proc/self/fd | tr '\\n' ,; exit 1")], "");
        assert!(e.contains("stdout: A=b=c,"), "{e}");
        // The fourth one is that of ls for the directory.
        assert!(e.contains("0,1,2,3,, stderr"), "{e}");
    }

    #[test]
    fn a_timeout_ends_the_hook() {
        let start = Instant::now();
        let mut endless = hook("exec yes");
        endless.set_timeout(Some(1));
        assert!(failure(&[endless], "").contains("hook ran past"));
        let mut slow = hook("echo begun; exec sleep 60");
        slow.set_timeout(Some(1));
        assert!(failure(&[slow.clone()], "").contains("hook ran past specified timeout of 1.0s, stdout: begun"));
        assert!(start.elapsed() < Duration::from_secs(10));
        slow.set_timeout(Some(0));
        assert!(failure(&[slow], "").contains("timeout: 0 is not greater than zero"));
    }

    #[test]
    fn a_process_that_a_hook_leaves_behind_is_not_waited_for() {
        let start = Instant::now();
        run(Kind::Poststart, &[hook("sleep 3 & exit 0")], "").unwrap();
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn all_hooks_run_where_failures_do_not_stop() {
        let failures = run_all(Kind::Poststop, &[hook("exit 1"), hook("exit 0"), hook("exit 2")], "");
        assert_eq!(failures.len(), 2);
        assert!(failures[1].to_string().starts_with("error running poststop hook #2: "));
    }
}
