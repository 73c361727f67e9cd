//! A command with a time limit, whose output goes to files: a container that outlives the runtime keeps the streams open,
//! so the end of a pipe would tell nothing.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::suite::{User, suite};

/// A command to be run.
pub struct Cmd {
    command: Command,
    timeout: Duration,
    stdin: Option<Vec<u8>>,
    streams: bool,
    fds: Vec<OwnedFd>,
    terminal: Option<OwnedFd>,
    shown: String,
}

/// What came of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; 128+n where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    shown: String,
}

/// A command that runs.
pub struct Running {
    child: Child,
    timeout: Duration,
    out: PathBuf,
    err: PathBuf,
    shown: String,
    waited: bool,
}

impl Cmd {
    /// A command with an environment of its own, as engines give it: only PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        let mut command = Command::new(&program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let shown = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Cmd {
            command,
            timeout: Duration::from_secs(60),
            stdin: None,
            streams: false,
            fds: Vec::new(),
            terminal: None,
            shown,
        }
    }

    /// Calls the program by another name.
    pub fn called(mut self, name: &str) -> Cmd {
        std::os::unix::process::CommandExt::arg0(&mut self.command, name);
        self
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Cmd {
        args.into_iter().fold(self, Cmd::arg)
    }

    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Cmd {
        self.command.env(key, value.into());
        self
    }

    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Cmd {
        self.command.current_dir(dir);
        self
    }

    /// What the command reads.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Cmd {
        self.stdin = Some(bytes.into());
        self
    }

    /// Its own streams in place of files, for one who wants to give it pipes.
    pub fn streams(mut self, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Cmd {
        self.command.stdin(stdin).stdout(stdout).stderr(stderr);
        self.streams = true;
        self
    }

    /// Descriptors that the command gets as 3, 4, ...
    pub fn fds(mut self, fds: Vec<OwnedFd>) -> Cmd {
        self.fds = fds;
        self
    }

    /// The slave of a terminal: all three streams, in a session of its own that it controls.
    pub fn terminal(mut self, slave: OwnedFd) -> Cmd {
        self.terminal = Some(slave);
        self
    }

    /// Has another program run it: one whose arguments end with a command, such as strace.
    pub fn under(self, mut by: Cmd) -> Cmd {
        by.command.arg(self.command.get_program()).args(self.command.get_args());
        by.command.envs(self.command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        self.command.get_current_dir().map(|dir| by.command.current_dir(dir));
        by
    }

    pub fn timeout(mut self, seconds: u64) -> Cmd {
        self.timeout = Duration::from_secs(seconds);
        self
    }

    /// Runs it as that user, without supplementary groups.
    pub fn user(mut self, user: &User) -> Cmd {
        self.command.gid(user.gid).uid(user.uid);
        self
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let number = suite().number();
        let path = |what: &str| suite().dir.join(format!("{number}.{what}"));
        let (out, err) = (path("out"), path("err"));
        if let Some(slave) = &self.terminal {
            let stream = || Stdio::from(slave.try_clone().unwrap());
            self.command.stdin(stream()).stdout(stream()).stderr(stream());
        } else if !self.streams {
            let append = |path: &Path| fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            self.command.stdout(append(&out)).stderr(append(&err));
            let stdin = match &self.stdin {
                None => Stdio::null(),
                Some(bytes) => {
                    let file = path("in");
                    File::create(&file).unwrap().write_all(bytes).unwrap();
                    let open = File::open(&file).unwrap();
                    fs::remove_file(&file).unwrap();
                    open.into()
                }
            };
            self.command.stdin(stdin);
        }
        let fds: Vec<i32> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let terminal = self.terminal.is_some();
        if terminal || !fds.is_empty() {
            // SAFETY: only system calls that are safe between fork and exec, on descriptors that are open then.
            unsafe {
                self.command.pre_exec(move || {
                    if terminal {
                        libc::setsid();
                        libc::ioctl(0, libc::TIOCSCTTY, 0);
                    }
                    // First out of the way of each other, then to their places.
                    let mut high = [0; 16];
                    for (to, fd) in high.iter_mut().zip(&fds) {
                        *to = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 200);
                    }
                    for (place, from) in (3..).zip(&high[..fds.len()]) {
                        if libc::dup2(*from, place) < 0 {
                            return Err(std::io::Error::last_os_error());
                        }
                    }
                    Ok(())
                });
            }
        }
        let child = self.command.spawn().unwrap_or_else(|e| panic!("cannot run {}: {e}", self.shown));
        Running { child, timeout: self.timeout, out, err, shown: self.shown, waited: false }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        self.spawn().wait()
    }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has printed so far; also when it has ended and a container still prints.
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    pub fn stderr(&self) -> String {
        read(&self.err)
    }

    /// Waits until its standard output has a text, and returns all of it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        super::eventually(&format!("{text:?} from {}", self.shown), || {
            let ended = self.ended();
            let found = Some(self.stdout()).filter(|s| s.contains(text));
            assert!(found.is_some() || !ended, "{} ended without {text:?}: {}", self.shown, self.stderr());
            found
        })
    }

    /// Whether it has ended; its status stays for [`Running::wait`].
    pub fn ended(&self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !matches!(waitid(Id::Pid(nix::unistd::Pid::from_raw(self.pid())), flags), Ok(WaitStatus::StillAlive))
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end. It is killed, and the test fails, when its time is over.
    #[track_caller]
    pub fn wait(&mut self) -> Output {
        let end = Instant::now() + self.timeout;
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                self.waited = true;
                panic!(
                    "{} did not end in {:?}\nstdout: {}\nstderr: {}",
                    self.shown,
                    self.timeout,
                    self.stdout(),
                    self.stderr()
                );
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        self.waited = true;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Output { code, stdout: self.stdout(), stderr: self.stderr(), shown: self.shown.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.out);
        let _ = fs::remove_file(&self.err);
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

impl Output {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.exits(0)
    }

    /// Fails the test unless the exit code is that.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Fails the test unless the command failed with these words in its error.
    #[track_caller]
    pub fn fails(self, words: &str) -> Output {
        assert_ne!(self.code, 0, "{self}");
        assert!(self.stderr.contains(words), "no {words:?} in: {self}");
        self
    }

    /// Fails the test unless the output has that line.
    #[track_caller]
    pub fn line(self, line: &str) -> Output {
        assert!(self.stdout.lines().any(|l| l == line), "no line {line:?} in: {self}");
        self
    }

    /// The lines of the output that begin with a word: what is behind it.
    pub fn values(&self, word: &str) -> Vec<String> {
        self.stdout.lines().filter_map(|l| l.strip_prefix(word)?.strip_prefix(' ')).map(str::to_owned).collect()
    }

    /// The only line of the output that begins with a word: what is behind it.
    #[track_caller]
    pub fn value(&self, word: &str) -> String {
        let values = self.values(word);
        assert_eq!(values.len(), 1, "one line that begins with {word:?} is expected in: {self}");
        values[0].clone()
    }

    /// The output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in: {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit code {}\nstdout: {}\nstderr: {}", self.shown, self.code, self.stdout, self.stderr)
    }
}
