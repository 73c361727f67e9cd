//! The beginning of a process for `exec`: joins the namespaces of a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::CloneFlags;

use super::{Orders, Place, Program, finish, gate, setup};
use crate::error::{Context, Result};
use crate::security;
use crate::sys;
use crate::sys::proc::Proc;
use crate::timings;

/// What `exec` has resolved for the new process.
#[derive(Debug)]
pub struct Join<'a> {
    /// The container's init.
    pub init: &'a OwnedFd,
    /// The namespaces to join, all of them init's.
    pub kinds: CloneFlags,
    /// The container's root, where the mount namespace is not its own.
    pub root: Option<OwnedFd>,
    /// Files of cgroups to which the process writes itself.
    pub procs: &'a [(OwnedFd, PathBuf)],
    /// Whether the runtime has to have the process moved into its cgroup.
    pub attach: bool,
    /// CPUs for the time before the cgroup is entered, and for the program (`execCPUAffinity`).
    pub affinity: (Option<&'a str>, Option<&'a str>),
    /// The program and its attributes.
    pub program: Program<'a>,
}

/// Whether the process is made by an intermediate: in a user namespace the runtime has no right to enter the pid
/// namespace first, which holds for children only.
pub fn needs_intermediate(kinds: CloneFlags) -> bool {
    kinds.contains(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)
}

/// Goes through the whole of the new process. Does not return.
pub fn run(join: &Join<'_>, place: Place) -> ! {
    let mut orders = Orders::new(place.end);
    match ladder(join, &mut orders, &place.proc, place.console) {
        Ok(never) => match never {},
        Err(e) => orders.fail(e),
    }
}

fn ladder(
    join: &Join<'_>,
    orders: &mut Orders,
    proc: &Proc,
    console: Option<OwnedFd>,
) -> Result<std::convert::Infallible> {
    if let Some(score) = join.program.process.oom_score_adj() {
        // Of a protected process only root may set it. What fails here is tried again later, and told there.
        let _ = crate::attrs::oom::apply(proc, score);
    }
    // In the container's pid namespace its processes see this one: they must not get at what it holds (CVE-2016-9962).
    sys::process::protect()?;
    timings::inside();
    if let Some(cpus) = join.affinity.0 {
        crate::attrs::affinity::apply(cpus).context(|| "process.execCPUAffinity.initial")?;
    }
    for (fd, path) in join.procs {
        rustix::io::write(fd, b"0").context(|| format!("cannot enter the cgroup: {}", path.display()))?;
    }
    if join.attach {
        super::attached(orders)?;
    }
    if join.affinity.0.is_none() {
        crate::attrs::affinity::reset();
    }
    let mut kinds = join.kinds;
    if !needs_intermediate(kinds) {
        // The runtime has entered it around the fork.
        kinds -= CloneFlags::CLONE_NEWPID;
    }
    if !kinds.is_empty() {
        nix::sched::setns(join.init.as_fd(), kinds)
            .context(|| format!("cannot join the container's namespaces ({})", crate::namespaces::names(kinds)))?;
    }
    if kinds.contains(CloneFlags::CLONE_NEWUSER) {
        super::bootstrap::become_root()?;
    }
    if needs_intermediate(kinds) {
        super::bootstrap::sibling(CloneFlags::empty(), orders)
            .context(|| "cannot make the process in the container's pid namespace")?;
    }
    if let Some(root) = &join.root {
        rustix::process::fchdir(root).context(|| "cannot enter the container's root")?;
        rustix::process::chroot(".").context(|| "cannot enter the container's root")?;
    }
    timings::phase("cgroup and namespaces");
    rustix::process::setsid().context(|| "cannot make a session")?;
    if let Some(name) = &join.program.keyring {
        security::keyring::join_session(name)?;
    }
    if join.program.process.terminal().unwrap_or(false) {
        setup::terminal(&join.program, orders, console, false)?; // 5
    } else {
        drop(console);
    }
    let in_cwd = finish::enter_cwd(join.program.process, false)?;
    let ready = finish::prepare(&join.program, in_cwd, orders, None, proc)?; // 6
    gate::wait(orders, None, join.program.preserve_fds)?; // 7
    if let Some(cpus) = join.affinity.1 {
        crate::attrs::affinity::apply(cpus).context(|| "process.execCPUAffinity.final")?;
    }
    finish::execute(ready, &join.program, |_| Ok(()), orders) // 8, 9
}
