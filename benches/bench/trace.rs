//! Counts the system calls of a command, and takes the peak memory of its processes, by ptrace: of every process and
//! thread of the runtime, up to where one of them becomes the container's program.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use libseccomp::ScmpSyscall;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use vessel::error::{Context, Error, Result};
use vessel::sys::clone::{Clone, clone3};
use vessel::sys::process::{execve, exit};

use crate::spawn::Line;

/// What a command did.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// How often which system call was made.
    pub(crate) calls: BTreeMap<String, u64>,
    /// The peak resident memory, in KiB, of each process between two executions.
    pub(crate) peaks: Vec<u64>,
}

impl Trace {
    pub(crate) fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peaks.iter().copied().max().unwrap_or_default()
    }
}

/// After that long without a system call, what is left waits: a container for its start.
const QUIET: Duration = Duration::from_millis(60);
const LONGEST: Duration = Duration::from_secs(5);

/// Runs a command to its end. `program` is the file that becomes the container's program. This process must have one
/// thread.
pub(crate) fn trace(args: &[String], program: &Path) -> Result<Trace> {
    let program = identity(program).ok_or_else(|| Error::new("there is no program"))?;
    let strings: Vec<CString> = args.iter().filter_map(|a| CString::new(a.as_str()).ok()).collect();
    let path = strings.first().ok_or_else(|| Error::new("no command"))?;
    let main = match clone3(0, None)? {
        Clone::Child => {
            let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
            if let Ok(null) = null {
                let _ = rustix::stdio::dup2_stdin(&null);
                let _ = rustix::stdio::dup2_stdout(&null);
                let _ = rustix::stdio::dup2_stderr(&null);
            }
            let _ = raise(Signal::SIGSTOP);
            execve(path, &strings, &[c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()]);
            exit(127)
        }
        Clone::Parent(pid, _) => Pid::from_raw(pid),
    };
    let mut tracer =
        Tracer { program, main, status: None, begun: false, images: BTreeMap::new(), trace: Trace::default() };
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).context(|| "cannot wait for a command")?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(main, options).context(|| "cannot trace a command")?;
    kill(main, Signal::SIGCONT).context(|| "cannot continue a command")?;
    let done = tracer.follow();
    if done.is_err() {
        tracer.end();
    }
    done?;
    match tracer.status {
        Some(0) => Ok(tracer.trace),
        status => Err(Error::new(format!("{}: status {status:?} while it was traced", args.join(" ")))),
    }
}

struct Tracer {
    program: (u64, u64),
    main: Pid,
    status: Option<i32>,
    /// Whether the command is executed.
    begun: bool,
    /// By process: the place of the peak of the program that it has executed last.
    images: BTreeMap<i32, usize>,
    trace: Trace,
}

impl Tracer {
    fn follow(&mut self) -> Result<()> {
        let begin = Instant::now();
        let mut quiet = Instant::now();
        loop {
            if begin.elapsed() > LONGEST {
                return Err(Error::new("a traced command did not come to its end"));
            }
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if self.status.is_some() && quiet.elapsed() > QUIET => return self.let_go(),
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(50)),
                Ok(event) => {
                    quiet = Instant::now();
                    self.event(event);
                }
                Err(Errno::ECHILD) => return Ok(()),
                Err(e) => return Err(Error::from(e).context("cannot wait for a command")),
            }
        }
    }

    fn event(&mut self, event: WaitStatus) {
        // A process may be gone before it is told to go on; its end is the next event.
        let _ = match event {
            WaitStatus::Exited(pid, status) => {
                if pid == self.main {
                    self.status = Some(status);
                }
                Ok(())
            }
            WaitStatus::Signaled(pid, signal, _) => {
                if pid == self.main {
                    self.status = Some(128 + signal as i32);
                }
                Ok(())
            }
            WaitStatus::PtraceSyscall(pid) => {
                self.syscall(pid);
                ptrace::syscall(pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                if identity(Path::new(&format!("/proc/{pid}/exe"))) == Some(self.program) {
                    ptrace::detach(pid, None)
                } else {
                    self.begun = true;
                    self.images.remove(&pid.as_raw());
                    ptrace::syscall(pid, None)
                }
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXIT) => {
                self.memory(pid);
                ptrace::cont(pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) => ptrace::syscall(pid, None),
            WaitStatus::Stopped(pid, signal) => ptrace::syscall(pid, signal),
            _ => Ok(()),
        };
    }

    /// Called at the begin and at the end of each call.
    fn syscall(&mut self, pid: Pid) {
        const ENTRY: u8 = 1;
        if !ptrace::syscall_info(pid).is_ok_and(|info| info.op == ENTRY) {
            return;
        }
        // The number comes first, then the arguments.
        let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        let Some(number) = text.split(' ').next().and_then(|n| n.parse::<i32>().ok()) else { return };
        // The calls before the command itself is executed are ours.
        if !self.begun {
            return;
        }
        if [libc::SYS_execve, libc::SYS_execveat].contains(&i64::from(number)) {
            self.memory(pid);
        }
        let name = ScmpSyscall::from(number).get_name().unwrap_or_else(|_| number.to_string());
        *self.trace.calls.entry(name).or_default() += 1;
    }

    /// Takes the peak of the process that a thread is of.
    fn memory(&mut self, thread: Pid) {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        let (Some(process), Some(peak)) = (field("Tgid:"), field("VmHWM:")) else { return };
        let peaks = &mut self.trace.peaks;
        let place = *self.images.entry(process as i32).or_insert_with(|| {
            peaks.push(0);
            peaks.len() - 1
        });
        peaks[place] = peaks[place].max(peak);
    }

    /// Leaves alone what still runs: it is the container.
    fn let_go(&mut self) -> Result<()> {
        for pid in traced() {
            if ptrace::interrupt(pid).is_ok() && waitpid(pid, Some(WaitPidFlag::__WALL)).is_ok() {
                self.memory(pid);
                let _ = ptrace::detach(pid, None);
            }
        }
        Ok(())
    }

    /// Ends all that is traced.
    fn end(&self) {
        for pid in traced().into_iter().chain([self.main]) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let begin = Instant::now();
        while begin.elapsed() < LONGEST {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
                Ok(WaitStatus::PtraceEvent(pid, ..)) => drop(ptrace::cont(pid, None)),
                Err(Errno::ECHILD) => return,
                _ => {}
            }
        }
    }
}

/// The threads that this process traces.
fn traced() -> Vec<Pid> {
    let tracer = format!("TracerPid:\t{}\n", std::process::id());
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            let pid = thread.file_name().to_str().and_then(|n| n.parse().ok());
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            found.extend(pid.filter(|_| status.contains(&tracer)).map(Pid::from_raw));
        }
    }
    found
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// The same for what cannot be traced here, as it uses signals that nix has no names for: the calls by strace, those of
/// the container's program with them, and the largest process that was waited for.
pub(crate) fn roughly(line: &Line) -> Result<(u64, u64)> {
    let table = std::env::temp_dir().join(format!("vessel-bench-{}.strace", std::process::id()));
    let mut traced = line.clone();
    let strace = ["strace", "-f", "-qq", "-c", "-S", "calls", "-U", "calls", "-o"];
    traced.args =
        strace.iter().map(|a| a.to_string()).chain([table.display().to_string()]).chain(traced.args).collect();
    let counted =
        traced.time().and_then(|_| fs::read_to_string(&table).context(|| "cannot read what strace has counted"));
    let _ = fs::remove_file(&table);
    let first = |l: &str| l.split_whitespace().next().and_then(|n| n.parse().ok());
    let total = counted?.lines().next_back().and_then(first).unwrap_or_default();
    Ok((total, resident(line)?))
}

/// The peak memory of the largest process that a command waited for, itself included, in KiB.
fn resident(line: &Line) -> Result<u64> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context(|| "cannot make a pipe")?;
    // The kernel keeps the largest of all children of a process: this one has no other.
    if let Clone::Child = clone3(0, None)? {
        let done = line.time().is_ok();
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
        let peak = usage.map(|u| u.max_rss()).unwrap_or_default();
        let _ = nix::unistd::write(&writer, if done { peak } else { 0 }.to_string().as_bytes());
        exit(0)
    }
    drop(writer);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut fs::File::from(reader), &mut text).context(|| "cannot read a pipe")?;
    let _ = waitpid(None, Some(WaitPidFlag::__WALL));
    text.parse().map_err(|_| Error::new("a command did not tell its memory"))
}
