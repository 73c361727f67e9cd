//! `run` and `exec` without `--detach`: signals are passed on, the terminal is copied, the exit status is the program's.

mod terminal;

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions};

use crate::error::{Context, Error, Result};
use crate::sys;
use terminal::Relay;

pub use terminal::set_up;

/// Signals that are not taken over: those that our own writing and the kernel's scheduling of others may bring. A fault of
/// the runtime itself ends it all the same: the kernel forces its signal, and abort(3) unblocks its own.
const LEFT_ALONE: [Signal; 2] = [Signal::SIGPIPE, Signal::SIGURG];

/// Signals blocked before the fork, so that none is lost between the fork and [`wait`].
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals that are to be passed on, and becomes a subreaper if told to: whoever outlives its parent in the
    /// container without a pid namespace is then reaped here.
    pub fn block(subreaper: bool) -> Result<Signals> {
        let mut set = SigSet::all();
        for signal in LEFT_ALONE {
            set.remove(signal);
        }
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context(|| "cannot make a signalfd")?;
        if subreaper {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .context(|| "cannot become a subreaper")?;
        }
        set.thread_block().context(|| "cannot block signals")?;
        Ok(Signals { fd })
    }

    /// The next signal that has come, if any.
    fn next(&self) -> Result<Option<i32>> {
        let info = self.fd.read_signal().context(|| "cannot read the signalfd")?;
        Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

/// Waits for the process to end, passing signals on to it and, where there is a terminal, copying between its master and
/// our standard streams (put in raw mode meanwhile) and following changes of the window's size. Returns the exit code,
/// 128+n for a signal.
pub fn wait(signals: &Signals, pid: i32, pidfd: &OwnedFd, terminal: Option<OwnedFd>) -> Result<i32> {
    let mut relay = terminal.map(Relay::new).transpose()?;
    loop {
        let mut fds = vec![PollFd::new(&signals.fd, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        let streams = relay.as_ref().map(Relay::watched).unwrap_or_default();
        if let Some(relay) = &relay {
            fds.extend(
                streams.iter().map(|&(stream, events)| PollFd::from_borrowed_fd(relay.descriptor(stream), events)),
            );
        }
        let timeout = relay.as_ref().and_then(Relay::timeout);
        wait_for(&mut fds, timeout.as_ref())?;
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if let Some(relay) = &mut relay {
            for (&(stream, _), &events) in streams.iter().zip(&ready[2..]) {
                relay.copy(stream, events);
            }
            relay.retry();
        }
        while let Some(signal) = signals.next()? {
            handle(signal, pid, pidfd, relay.as_mut());
        }
        if !ready[1].is_empty() {
            break;
        }
    }
    let code = exit_code(pidfd)?;
    if let Some(relay) = &mut relay {
        drain(signals, relay)?;
    }
    Ok(code)
}

fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<()> {
    match poll(fds, timeout) {
        // A stop and SIGCONT interrupt even where every signal is blocked.
        Err(rustix::io::Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        result => result.map(|_| ()).context(|| "cannot wait for the container's process"),
    }
}

fn handle(signal: i32, pid: i32, pidfd: &OwnedFd, relay: Option<&mut Relay>) {
    match signal {
        libc::SIGCHLD => reap_others(pid),
        libc::SIGWINCH => {
            if let Some(relay) = relay {
                relay.resize();
            }
        }
        signal => {
            if let (libc::SIGCONT, Some(relay)) = (signal, relay) {
                relay.resume();
            }
            // A process that has just ended needs no signal, and there is nobody else to tell.
            let _ = sys::pidfd::send_signal(pidfd.as_fd(), signal);
        }
    }
}

/// Reaps what has ended, but for the process that is waited for.
fn reap_others(pid: i32) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = nix::sys::wait::waitid(Id::All, look) {
        match status.pid() {
            Some(ended) if ended.as_raw() != pid => {
                let _ = nix::sys::wait::waitid(Id::Pid(ended), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
            }
            _ => break,
        }
    }
}

/// Reaps the process that has ended.
fn exit_code(pidfd: &OwnedFd) -> Result<i32> {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context(|| "cannot get the exit status of the container's process")?
        .ok_or_else(|| Error::new("the container's process has no exit status"))?;
    let by_signal = status.terminating_signal().map(|n| 128 + n);
    status.exit_status().or(by_signal).ok_or_else(|| Error::new("the container's process ended in an unknown way"))
}

/// More than the kernel keeps of what was written to a terminal and not read: 64 KiB and a page.
const TERMINAL_BUFFER: u64 = 128 * 1024;

/// Copies what the terminal still holds, however slow our output is, until somebody wants us to end. What others go on to
/// write, as processes that a shell has left behind, is not waited for.
fn drain(signals: &Signals, relay: &mut Relay) -> Result<()> {
    let end = relay.copied() + TERMINAL_BUFFER;
    while relay.copied() < end && relay.has_output() {
        let mut fds = [
            PollFd::new(&signals.fd, PollFlags::IN),
            PollFd::from_borrowed_fd(relay.descriptor(terminal::Stream::Output), PollFlags::OUT),
        ];
        wait_for(&mut fds, None)?;
        let events = fds[1].revents();
        relay.copy(terminal::Stream::Output, events);
        while let Some(signal) = signals.next()? {
            if matches!(signal, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM) {
                return Ok(());
            }
        }
    }
    Ok(())
}
