//! What happens inside the new process, in order: [`bootstrap`] makes it in its namespaces, [`setup`] builds the
//! container around it, [`gate`] waits for `start`, [`finish`] gives the process its attributes and executes the program.
//! [`join`] is the beginning for `exec`; [`visit`] is all of a process that changes the mounts of a running container. [`channel`] shows what init and the runtime say to each other.

pub mod bootstrap;
pub mod channel;
pub mod finish;
pub mod gate;
pub mod join;
pub mod program;
pub mod setup;
pub mod visit;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{Hook, Linux, Process};

use crate::error::{Error, Result, Step};
use crate::security::capabilities::Sets;
use crate::security::seccomp::Filter;
use crate::sys;
use crate::sys::proc::Proc;
use channel::{InitEnd, Order, Report};

/// What becomes of the process, the same for `create` and `exec`.
#[derive(Debug)]
pub struct Program<'a> {
    /// The process as the configuration has it.
    pub process: &'a Process,
    /// The Linux part of the configuration.
    pub linux: &'a Linux,
    /// Its capability sets.
    pub capabilities: Sets,
    /// Whether a seccomp filter will come over the channel.
    pub seccomp: bool,
    /// Whether the process is in a user namespace other than the runtime's.
    pub user_namespace: bool,
    /// How many descriptors beyond the standard streams it inherits.
    pub preserve_fds: u32,
    /// Variables that the runtime adds: LISTEN_FDS and LISTEN_PID.
    pub extra_env: Vec<String>,
    /// The name of its session keyring; none where it keeps the caller's.
    pub keyring: Option<String>,
    /// Whether it keeps the caller's supplementary groups, whatever the configuration lists.
    pub keep_groups: bool,
    /// Hooks in the container's namespaces right before the program.
    pub start_container: &'a [Hook],
    /// The state that hooks in the container's namespaces get on their standard input, but for status and pid.
    pub hook_state: serde_json::Value,
}

/// Init's side of the channel: messages that come before they are waited for are kept.
#[derive(Debug)]
pub struct Orders {
    end: InitEnd,
    filter: Option<Filter>,
    start: bool,
}

impl Orders {
    fn new(end: InitEnd) -> Self {
        Orders { end, filter: None, start: false }
    }

    /// Closes all descriptors but the channel, the gate, the standard streams and those that the program inherits: paths
    /// of the container may lead through /proc/self/fd, and must not find the host there (CVE-2024-21626).
    fn keep_only(&mut self, gate: Option<&mut OwnedFd>, preserve_fds: u32) -> Result<()> {
        let mut kept: Vec<_> = gate.into_iter().chain([self.end.socket()]).collect();
        sys::process::keep_only(&mut kept, first_own(preserve_fds)?)
    }

    fn report(&self, report: &Report) -> Result<()> {
        self.end.send(report)
    }

    /// The next order but for a filter and a start that come early.
    fn next(&mut self) -> Result<Order> {
        loop {
            match self.receive()? {
                Order::Start => self.start = true,
                order => return Ok(order),
            }
        }
    }

    /// The next order that is no filter. The runtime being gone ends init: nobody is left to tell.
    fn receive(&mut self) -> Result<Order> {
        loop {
            match self.end.receive()? {
                None => sys::process::exit(1),
                Some((Order::Filter(words, flags, notify), _)) => {
                    let program = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
                    self.filter = Some(Filter { program, flags, notify });
                }
                Some((order, _)) => return Ok(order),
            }
        }
    }

    fn ask(&mut self, report: &Report) -> Result<Order> {
        self.report(report)?;
        self.next()
    }

    /// Reports that this process is ready. Returns what it is to do then.
    fn ready(&mut self) -> Result<Order> {
        self.report(&Report::Ready)?;
        if self.start { Ok(Order::Start) } else { self.receive() }
    }

    /// Reports why this process ends, and ends it.
    fn fail(&self, error: Error) -> ! {
        let step = if error.step() == Step::Program { Step::Program } else { Step::Inside };
        // Where the runtime is gone there is nobody to tell.
        let _ = self.report(&Report::Failed(error.at(step)));
        sys::process::exit(1)
    }
}

/// The number of the first descriptor that the program does not inherit.
fn first_own(preserve_fds: u32) -> Result<i32> {
    i32::try_from(preserve_fds)
        .ok()
        .and_then(|n| n.checked_add(3))
        .ok_or_else(|| Error::new("--preserve-fds: too many"))
}

/// Waits until the runtime has had this process moved into its cgroup, the path of which may be told.
fn attached(orders: &mut Orders) -> Result<Option<PathBuf>> {
    match orders.ask(&Report::Attach)? {
        Order::Attached(path) => Ok(path),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(order: &Order) -> Error {
    Error::new(format!("sync channel: {order:?} came out of order"))
}

/// The state of the container for a hook that runs in its namespaces: the pid is the one in there.
fn state_here(state: &serde_json::Value, status: &str) -> String {
    let mut state = state.clone();
    state["status"] = status.into();
    state["pid"] = std::process::id().into();
    state.to_string()
}

/// What a new process needs to come to its place: used up by the fork's child.
#[derive(Debug)]
pub struct Place {
    /// The host's /proc.
    pub proc: Proc,
    /// The end of the sync channel.
    pub end: InitEnd,
    /// Where the terminal's master goes; to the runtime where there is none.
    pub console: Option<OwnedFd>,
}
