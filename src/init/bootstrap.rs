//! Making init: one clone3(2) where nothing has to be joined before init exists, else an intermediate that joins, makes
//! the user namespace, sets the clocks' offsets, makes init as its sibling, and ends.
//!
//! The intermediate is needed for a joined user namespace (what is made afterwards belongs to it), for namespaces joined
//! beside a new user namespace (they belong to the old one, so they are joined first), for a pid namespace that root of a
//! user namespace joins (the way back to that of the host is not open to it), and for time offsets (they hold for children
//! only, and can be written only while there are none).

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxTimeOffset;

use super::channel::{Order, Report};
use super::{Orders, unexpected};
use crate::error::{Context, Result};
use crate::namespaces::{NEWTIME, Plan};
use crate::sys;
use crate::sys::clone::{Clone, clone3};
use crate::sys::proc::Proc;

/// Where the new process belongs.
#[derive(Debug)]
pub struct Into<'a> {
    /// Its namespaces.
    pub namespaces: &'a Plan,
    /// Offsets of the clocks in a new time namespace.
    pub time_offsets: Option<&'a HashMap<String, LinuxTimeOffset>>,
    /// The cgroup v2 directory to be made in.
    pub clone_into: Option<&'a OwnedFd>,
    /// Files of other hierarchies to which the process writes itself.
    pub procs: &'a [(OwnedFd, PathBuf)],
    /// Whether the process is moved into its cgroup while it works: see [`enter_late`].
    pub late: bool,
}

/// Which process this is after the fork.
#[derive(Debug)]
pub enum Forked {
    /// The runtime: the pid of the child, and whether that is an intermediate which will report init's pid.
    Runtime {
        /// The child's pid as the runtime sees it.
        pid: i32,
        /// A descriptor of it.
        pidfd: OwnedFd,
        /// Whether the child is the intermediate.
        intermediate: bool,
    },
    /// The child: to go on with [`arrive`].
    Child {
        /// Whether it is the intermediate.
        intermediate: bool,
    },
}

/// Forks. In the runtime, which has one thread.
pub fn fork(into: &Into<'_>) -> Result<Forked> {
    let intermediate = needs_intermediate(into);
    let mut flags = CloneFlags::empty();
    if !intermediate {
        flags = at_clone(into.namespaces);
        join_pid(into.namespaces)?;
    }
    let clone = clone3(bits(flags), into.clone_into.map(AsFd::as_fd));
    if !intermediate && into.namespaces.joins(CloneFlags::CLONE_NEWPID) {
        // The runtime's later children (hooks) belong in its own pid namespace.
        if !matches!(clone, Ok(Clone::Child)) {
            restore_pid()?;
        }
    }
    Ok(match clone.map_err(|e| cannot_clone(e, flags))? {
        Clone::Parent(pid, pidfd) => Forked::Runtime { pid, pidfd, intermediate },
        Clone::Child => Forked::Child { intermediate },
    })
}

/// Brings the child to its place: into its namespaces and, where that is not late, its cgroup. Returns in init only.
pub fn arrive(into: &Into<'_>, intermediate: bool, orders: &mut Orders, proc: &Proc) -> Result<()> {
    enter_cgroups(into.procs)?;
    let namespaces = into.namespaces;
    let new_user = namespaces.new.contains(CloneFlags::CLONE_NEWUSER);
    let mut joined_late = Vec::new();
    let guarded = !namespaces.join.is_empty();
    if guarded && !intermediate {
        // Whoever is in a joined pid namespace sees this process.
        sys::process::protect()?;
    }
    if intermediate {
        // A namespace that belongs to a user namespace inside is joined once we are in there; any other, before.
        for join in namespaces.join.iter().filter(|j| j.kind != CloneFlags::CLONE_NEWUSER) {
            match join.enter() {
                Err(e) if e.errno() == libc::EPERM && namespaces.own(CloneFlags::CLONE_NEWUSER) => {
                    joined_late.push(join);
                }
                result => result?,
            }
        }
        if let Some(user) = namespaces.join.iter().find(|j| j.kind == CloneFlags::CLONE_NEWUSER) {
            user.enter()?;
            become_root()?;
            // A pid namespace is for init, which is made next.
            joined_late.drain(..).try_for_each(crate::namespaces::Join::enter)?;
        }
        let mut flags = at_clone(namespaces);
        if let Some(offsets) = into.time_offsets {
            if new_user {
                unshare(CloneFlags::CLONE_NEWUSER)?;
                ask_for_ids(orders)?;
                flags -= CloneFlags::CLONE_NEWUSER;
            }
            unshare(NEWTIME)?;
            flags -= NEWTIME;
            set_offsets(proc, offsets)?;
        }
        // The mappings of a new user namespace are for the runtime to write, which has no right to where we are protected.
        let mapped_late = flags.contains(CloneFlags::CLONE_NEWUSER);
        if guarded && !mapped_late {
            sys::process::protect()?;
        }
        sibling(flags, orders)?;
        if mapped_late {
            ask_for_ids(orders)?;
            if guarded {
                sys::process::protect()?;
            }
        }
    } else if new_user {
        ask_for_ids(orders)?;
    } else {
        for join in namespaces.join.iter().filter(|j| j.kind != CloneFlags::CLONE_NEWPID) {
            join.enter()?;
        }
    }
    joined_late.iter().try_for_each(|join| join.enter())?;
    let mut rest = late(namespaces);
    if into.late {
        rest -= CloneFlags::CLONE_NEWCGROUP;
    }
    rest.iter().try_for_each(unshare)
}

/// Waits until the runtime has had this process moved into its cgroup and has set the limits. Returns where that is.
pub(super) fn enter_late(into: &Into<'_>, orders: &mut Orders) -> Result<Option<PathBuf>> {
    let path = super::attached(orders)?;
    let new = into.namespaces.new & CloneFlags::CLONE_NEWCGROUP;
    new.iter().try_for_each(unshare)?;
    Ok(path)
}

/// Makes the process that the intermediate is there for as a child of the runtime. Returns in that process, after the
/// runtime was told of it: what the process says may not come before.
pub(super) fn sibling(flags: CloneFlags, orders: &Orders) -> Result<()> {
    let (told, teller) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "cannot make a pipe")?;
    match clone3(bits(flags | CloneFlags::CLONE_PARENT), None).map_err(|e| cannot_clone(e, flags))? {
        Clone::Parent(pid, _) => {
            orders.report(&Report::Pid(pid))?;
            sys::process::exit(0)
        }
        Clone::Child => {
            drop(teller);
            // The intermediate's end closes the pipe.
            let ended = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut [0]));
            ended.map(|_| ()).context(|| "cannot wait for the end of the intermediate process")
        }
    }
}

fn needs_intermediate(into: &Into<'_>) -> bool {
    let namespaces = into.namespaces;
    into.time_offsets.is_some()
        || namespaces.joins(CloneFlags::CLONE_NEWUSER)
        || (namespaces.new.contains(CloneFlags::CLONE_NEWUSER) && !namespaces.join.is_empty())
        || (namespaces.joins(CloneFlags::CLONE_NEWPID) && sys::proc::in_user_namespace())
}

/// The namespaces that clone3(2) makes.
fn at_clone(namespaces: &Plan) -> CloneFlags {
    namespaces.new - late(namespaces)
}

/// The namespaces that have to wait: that of cgroups until the cgroup was entered, which becomes its root; that of IPC
/// until the process is root of a new user namespace, as its mqueue belongs to who makes it.
fn late(namespaces: &Plan) -> CloneFlags {
    let ipc = match namespaces.new.contains(CloneFlags::CLONE_NEWUSER) {
        true => CloneFlags::CLONE_NEWIPC,
        false => CloneFlags::empty(),
    };
    namespaces.new & (CloneFlags::CLONE_NEWCGROUP | ipc)
}

fn bits(flags: CloneFlags) -> u64 {
    u64::from(flags.bits().cast_unsigned())
}

/// A pid namespace holds for children, so the runtime enters it around the fork.
fn join_pid(namespaces: &Plan) -> Result<()> {
    namespaces.join.iter().filter(|j| j.kind == CloneFlags::CLONE_NEWPID).try_for_each(crate::namespaces::Join::enter)
}

fn restore_pid() -> Result<()> {
    let own = File::open("/proc/self/ns/pid").context(|| "cannot open /proc/self/ns/pid")?;
    nix::sched::setns(own.as_fd(), CloneFlags::CLONE_NEWPID).context(|| "cannot go back to the pid namespace")
}

fn cannot_clone(e: crate::error::Error, flags: CloneFlags) -> crate::error::Error {
    let hint = match e.errno() {
        libc::ENOSPC => " (a limit in /proc/sys/user/max_*_namespaces is reached)",
        libc::EAGAIN => " (a limit of processes is reached: RLIMIT_NPROC or pids.max)",
        libc::EPERM => " (new namespaces need root, or a user namespace)",
        libc::EACCES => {
            " (the caller is in no cgroup below the one that is given to the user, and so may not enter that of the container)"
        }
        _ => "",
    };
    e.context(format!("cannot make a process with new namespaces ({}){hint}", crate::namespaces::names(flags)))
}

fn enter_cgroups(procs: &[(OwnedFd, PathBuf)]) -> Result<()> {
    for (fd, path) in procs {
        rustix::io::write(fd, b"0").context(|| format!("cannot enter the cgroup: {}", path.display()))?;
    }
    Ok(())
}

fn unshare(kind: CloneFlags) -> Result<()> {
    nix::sched::unshare(kind).context(|| format!("cannot make a {} namespace", crate::namespaces::name(kind)))
}

fn ask_for_ids(orders: &mut Orders) -> Result<()> {
    match orders.ask(&Report::MapIds)? {
        Order::Mapped => become_root(),
        other => Err(unexpected(&other)),
    }
}

/// Takes the ids of the user namespace's root; files in /proc/self belong to them again afterwards.
pub(super) fn become_root() -> Result<()> {
    let cannot = || "cannot become root of the user namespace (its mappings must map 0)";
    rustix::thread::set_thread_gid(rustix::fs::Gid::ROOT).context(cannot)?;
    rustix::thread::set_thread_uid(rustix::fs::Uid::ROOT).context(cannot)?;
    Ok(())
}

fn set_offsets(proc: &Proc, offsets: &HashMap<String, LinuxTimeOffset>) -> Result<()> {
    let place = || "linux.timeOffsets: cannot set the clocks' offsets";
    // The files of a protected process in /proc belong to the outer root; they have to be ours for this one write.
    let fault = |e| crate::error::Error::from_errno(e, place());
    let traceable = sys::process::is_traceable();
    prctl::set_dumpable(true).map_err(fault)?;
    let mut file = File::from(proc.open_file("self/timens_offsets", rustix::fs::OFlags::WRONLY).context(place)?);
    let mut text = String::new();
    for (clock, offset) in offsets {
        text += &format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
    }
    let written = file.write_all(text.as_bytes()).context(place);
    if !traceable {
        sys::process::protect()?;
    }
    written
}
