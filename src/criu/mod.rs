//! CRIU, which saves processes to files and makes them anew from there. vessel runs `criu swrk`, a worker that takes
//! requests over a socket, and answers what it reports on the way ([`Event`]).

mod report;
mod rpc;

use std::ffi::CString;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send, socketpair,
};
use prost::Message;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

use crate::error::{Context, Error, Result};
use crate::sys;
use crate::sys::clone::{Clone, clone3};
pub use rpc::{CgroupMode, CgroupRoot, ExternalMount, Features, InheritFd, JoinNamespace, Options, PageServer};
use rpc::{Kind, Request, Response};

/// The oldest version that vessel works with: 3.16, which knows every option that is used.
const OLDEST: (i32, i32) = (3, 16);
/// What to do where it is missing or too old.
const REMEDY: &str = "install the package criu, version 3.16 or newer";
/// CRIU's descriptor of the socket; those that it inherits follow.
const SOCKET: i32 = 3;
/// CRIU's number for the first descriptor of [`Launch::inherit`].
pub const FIRST_INHERITED: i32 = SOCKET + 1;

/// How CRIU is run.
#[derive(Debug, Default)]
pub struct Launch<'a> {
    /// Namespaces of its own (CLONE_NEW*).
    pub namespaces: u64,
    /// The cgroup v2 directory to be made in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it gets our standard streams, for the container; else /dev/null.
    pub streams: bool,
    /// More descriptors, which get the numbers from [`FIRST_INHERITED`] on.
    pub inherit: Vec<BorrowedFd<'a>>,
}

/// A CRIU that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Criu {
    socket: OwnedFd,
    pidfd: OwnedFd,
    /// Its pid.
    pub pid: i32,
    ended: bool,
}

/// What CRIU tells while it works; it goes on when that was seen to.
#[derive(Debug)]
pub enum Event {
    /// The first process is there in its namespaces, and nothing else yet: its pid.
    Namespaces(i32),
    /// The master of the container's terminal.
    Terminal(OwnedFd),
    /// All processes are there and stand still: the pid of the first one.
    Restored(i32),
    /// Pages can be fetched now.
    PagesReady,
    /// Anything else, by CRIU's name.
    Other(String),
}

/// What is asked of CRIU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// To save all of it.
    Dump,
    /// To save memory only, while the processes go on.
    PreDump,
    /// To make the processes anew.
    Restore,
}

impl Criu {
    /// Runs CRIU, and makes sure that it is new enough. `enter` is done in the new process first.
    pub fn start(launch: Launch<'_>, enter: &mut dyn FnMut() -> Result<()>) -> Result<Criu> {
        let program = find()?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .context(|| "cannot make a socket for criu")?;
        let (pid, pidfd) =
            match clone3(launch.namespaces, launch.cgroup).context(|| "cannot make a process for criu")? {
                Clone::Child => {
                    let error = become_criu(&program, launch, enter, &theirs);
                    // Where it cannot be told either, the end of the socket tells.
                    let text = serde_json::to_vec(&error).unwrap_or_default();
                    let _ = send(theirs.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL);
                    sys::process::exit(1)
                }
                Clone::Parent(pid, pidfd) => (pid, pidfd),
            };
        let mut criu = Criu { socket: ours, pidfd, pid, ended: false };
        drop(theirs);
        criu.check_version()?;
        Ok(criu)
    }

    fn check_version(&mut self) -> Result<()> {
        let request = Request { kind: Kind::Version.into(), keep_open: Some(true), ..Request::default() };
        let response = self.ask(&request, &mut |_| Ok(()))?;
        let version = response.version.ok_or_else(|| Error::new("criu does not tell its version").hint(REMEDY))?;
        if (version.major, version.minor) < OLDEST {
            let (major, minor) = (version.major, version.minor);
            return Err(Error::new(format!("criu {major}.{minor} is too old")).hint(REMEDY));
        }
        Ok(())
    }

    /// What it and the kernel are able to, of the features asked for.
    pub fn features(&mut self, asked: Features) -> Result<Features> {
        let request = Request {
            kind: Kind::FeatureCheck.into(),
            keep_open: Some(true),
            features: Some(asked),
            ..Request::default()
        };
        let response = self.ask(&request, &mut |_| Ok(()))?;
        response.features.filter(|_| response.success).ok_or_else(|| Error::new("criu cannot tell what the kernel has"))
    }

    /// Does the work, and waits for its end. `log` is where CRIU writes what it does. What `seen` does with an event that
    /// fails ends the work. Returns the pid of the first process that was made.
    pub fn work(
        mut self,
        work: Work,
        options: Options,
        log: &Path,
        seen: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<Option<i32>> {
        let kind = match work {
            Work::Dump => Kind::Dump,
            Work::PreDump => Kind::PreDump,
            Work::Restore => Kind::Restore,
        };
        let request = Request { kind: kind.into(), opts: Some(options), ..Request::default() };
        let response = self.ask(&request, seen).map_err(|e| report::explained(e, log))?;
        if !response.success {
            let words = match work {
                Work::Restore => "criu cannot restore the container",
                _ => "criu cannot checkpoint the container",
            };
            return Err(report::failure(words, &response, log));
        }
        let status = self.end()?;
        // After a pre-dump it waits for the next one, and fails as none comes.
        if work != Work::PreDump && status.and_then(|s| s.exit_status()) != Some(0) {
            return Err(report::explained(Error::new("criu has failed after its work"), log));
        }
        Ok(response.restore.map(|restored| restored.pid))
    }

    /// Sends a request; answers what comes until the last answer.
    fn ask(&mut self, request: &Request, seen: &mut dyn FnMut(Event) -> Result<()>) -> Result<Response> {
        match self.send(request) {
            // A process that could not become CRIU has said why.
            Err(e) if e.errno() == libc::EPIPE => {}
            sent => sent?,
        }
        let mut fault = None;
        loop {
            let (response, fd) = self.receive()?;
            if response.kind() != Kind::Notify {
                return fault.map_or(Ok(response), Err);
            }
            let done = match event(&response, fd) {
                Ok(event) => seen(event),
                Err(e) => Err(e),
            };
            let request =
                Request { kind: Kind::Notify.into(), notify_success: Some(done.is_ok()), ..Request::default() };
            fault = fault.or(done.err());
            self.send(&request)?;
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        send(self.socket.as_raw_fd(), &request.encode_to_vec(), MsgFlags::MSG_NOSIGNAL)
            .context(|| "cannot write to criu")?;
        Ok(())
    }

    fn receive(&mut self) -> Result<(Response, Option<OwnedFd>)> {
        let fd = self.socket.as_raw_fd();
        let cannot = || "cannot read from criu";
        let size = match retry(|| recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)).context(cannot)? {
            0 => return Err(self.gone()),
            size => size,
        };
        let mut buffer = vec![0; size];
        let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut passed = None;
        retry(|| {
            let mut iov = [IoSliceMut::new(&mut buffer)];
            let message = recvmsg::<()>(fd, &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    passed = fds.first().copied();
                }
            }
            Ok(())
        })
        .context(cannot)?;
        let passed = passed.map(sys::fd::received);
        if let Ok(error) = serde_json::from_slice::<Error>(&buffer) {
            return Err(error);
        }
        let response = Response::decode(&buffer[..]).map_err(|e| Error::new(format!("criu answers nonsense: {e}")))?;
        Ok((response, passed))
    }

    /// Why it does not answer.
    fn gone(&mut self) -> Error {
        let how = match self.end() {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("it exited with code {code}"),
                (_, Some(signal)) => format!("it was killed by signal {signal}"),
                _ => "it ended".to_string(),
            },
            _ => "it ended".to_string(),
        };
        Error::new(format!("criu does not answer: {how}"))
    }

    /// Tells CRIU that nothing more is asked of it, and reaps it.
    fn end(&mut self) -> Result<Option<WaitIdStatus>> {
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        rustix::io::retry_on_intr(wait).context(|| "cannot wait for the end of criu")
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn event(response: &Response, fd: Option<OwnedFd>) -> Result<Event> {
    let notify = response.notify.clone().unwrap_or_default();
    let script = notify.script.unwrap_or_default();
    let pid = || notify.pid.filter(|pid| *pid > 0).ok_or_else(|| Error::new("criu names no process"));
    Ok(match script.as_str() {
        "setup-namespaces" => Event::Namespaces(pid()?),
        "post-restore" => Event::Restored(pid()?),
        "orphan-pts-master" => {
            Event::Terminal(fd.ok_or_else(|| Error::new("criu has sent no descriptor of the terminal"))?)
        }
        "status-ready" => Event::PagesReady,
        _ => Event::Other(script),
    })
}

/// The program. The directories for the administrator's programs need not be in an engine's PATH.
fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join("criu"))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file());
    found.ok_or_else(|| Error::new("criu is not there").hint(REMEDY))
}

/// In the new process. Returns only where that fails.
fn become_criu(program: &Path, launch: Launch<'_>, enter: &mut dyn FnMut() -> Result<()>, socket: &OwnedFd) -> Error {
    let become_it = || -> Result<std::convert::Infallible> {
        enter()?;
        if !launch.streams {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
            let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty());
            let null = null.context(|| "cannot open /dev/null")?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
        }
        let path = CString::new(program.as_os_str().as_bytes()).map_err(|e| Error::new(e.to_string()))?;
        let args = [c"criu", c"swrk", c"3"].map(CString::from);
        let env: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
            .collect();
        sys::process::default_signals()?;
        let fds: Vec<_> = std::iter::once(socket.as_fd()).chain(launch.inherit).collect();
        sys::fd::hand_over(&fds, SOCKET)?;
        Err(sys::process::execve(&path, &args, &env).context(format!("cannot run {}", program.display())))
    };
    match become_it() {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            // One who has gone without reading all; what it has sent is still there.
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => {}
            result => return result,
        }
    }
}
