//! A process that works in the namespaces of a running container for the runtime, and ends: `mounts`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use rustix::process::Pid;

use super::{Orders, bootstrap};
use crate::error::{Context, Result};
use crate::init::channel::InitEnd;
use crate::{namespaces, net, rootfs, sys};

/// What is to be done there.
#[derive(Debug)]
pub enum Work {
    /// Makes mounts.
    Add(rootfs::Addition),
    /// Unmounts what is mounted at these places.
    Remove(Vec<PathBuf>),
    /// Sets the loopback interface up.
    Loopback,
    /// Makes the root read-only.
    ProtectRoot,
}

/// Does it in these namespaces of the process behind `init`, and reports a failure. Does not return. It ends with `parent`:
/// it has a copy of the container's lock.
///
/// It stays out of the pid namespace, so that no process of the container can see it, let alone trace it.
pub fn run(init: &OwnedFd, kinds: CloneFlags, work: Work, end: InitEnd, parent: Pid) -> ! {
    let orders = Orders::new(end);
    let done = end_with(parent).and_then(|()| ladder(init, kinds, work, parent));
    match done {
        Ok(()) => sys::process::exit(0),
        Err(e) => orders.fail(e),
    }
}

/// Lets this process be killed where `parent` ends; to be said again after a change of ids.
fn end_with(parent: Pid) -> Result<()> {
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal).context(|| "cannot follow the runtime")?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { sys::process::exit(1) }
}

fn ladder(init: &OwnedFd, mut kinds: CloneFlags, mut work: Work, parent: Pid) -> Result<()> {
    sys::process::protect()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).context(|| "cannot open /proc/self/fd")?;
    if let Work::Add(addition) = &mut work
        && addition.is_incomplete()
    {
        // Without rights on the host's mounts, a copy of them that the user namespace owns.
        join(init, kinds & CloneFlags::CLONE_NEWUSER)?;
        kinds -= CloneFlags::CLONE_NEWUSER;
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).context(|| "cannot copy the mounts of the host")?;
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context(|| "cannot separate the copy of the host's mounts")?;
        addition.complete()?;
    }
    join(init, kinds)?;
    end_with(parent)?;
    // Modes of directories are meant as they are.
    rustix::process::umask(Mode::empty());
    match work {
        Work::Add(addition) => addition.mount(names),
        Work::Remove(places) => rootfs::remove(&places, names),
        Work::Loopback => net::loopback_up(),
        Work::ProtectRoot => rootfs::protect_root(),
    }
}

fn join(init: &OwnedFd, kinds: CloneFlags) -> Result<()> {
    if kinds.is_empty() {
        return Ok(());
    }
    nix::sched::setns(init.as_fd(), kinds)
        .context(|| format!("cannot join the container's namespaces ({})", namespaces::names(kinds)))?;
    if kinds.contains(CloneFlags::CLONE_NEWUSER) { bootstrap::become_root() } else { Ok(()) }
}
