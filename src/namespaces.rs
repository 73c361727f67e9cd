//! Namespaces: which are made and which are joined (config-linux.md, "Namespaces").

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::sys;

/// A namespace that is there already.
#[derive(Debug)]
pub struct Join {
    /// Its CLONE_NEW* flag.
    pub kind: CloneFlags,
    /// An open descriptor of it.
    pub fd: OwnedFd,
    /// Where it was found, for messages.
    pub path: PathBuf,
}

impl Join {
    /// Enters it.
    pub fn enter(&self) -> Result<()> {
        nix::sched::setns(self.fd.as_fd(), self.kind)
            .context(|| format!("cannot join the {} namespace {}", name(self.kind), self.path.display()))
    }
}

/// What the configuration asks for; a kind in neither is the runtime's own.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces to make.
    pub new: CloneFlags,
    /// Namespaces to join, in an order in which the kernel allows it: the mount namespace last, as the paths of the
    /// runtime end there.
    pub join: Vec<Join>,
}

impl Plan {
    /// Whether init has its own namespace of this kind, made or joined.
    pub fn own(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind) || self.joins(kind)
    }

    /// Whether a namespace of this kind is joined.
    pub fn joins(&self, kind: CloneFlags) -> bool {
        self.join.iter().any(|j| j.kind == kind)
    }
}

/// CLONE_NEWTIME, which nix does not have.
pub const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

const KINDS: &[(LinuxNamespaceType, CloneFlags, &str, &str)] = &[
    (LinuxNamespaceType::User, CloneFlags::CLONE_NEWUSER, "user", "NEWUSER"),
    (LinuxNamespaceType::Pid, CloneFlags::CLONE_NEWPID, "pid", "NEWPID"),
    (LinuxNamespaceType::Network, CloneFlags::CLONE_NEWNET, "network", "NEWNET"),
    (LinuxNamespaceType::Ipc, CloneFlags::CLONE_NEWIPC, "ipc", "NEWIPC"),
    (LinuxNamespaceType::Uts, CloneFlags::CLONE_NEWUTS, "uts", "NEWUTS"),
    (LinuxNamespaceType::Cgroup, CloneFlags::CLONE_NEWCGROUP, "cgroup", "NEWCGROUP"),
    (LinuxNamespaceType::Time, NEWTIME, "time", "NEWTIME"),
    (LinuxNamespaceType::Mount, CloneFlags::CLONE_NEWNS, "mount", "NEWNS"),
];

/// The word of the specification for a kind of namespace.
pub fn name(kind: CloneFlags) -> &'static str {
    KINDS.iter().find(|k| k.1 == kind).map_or("unknown", |k| k.2)
}

/// The kinds that a configuration lists, with runc's name for each and the file in /proc/PID/ns.
pub fn listed(linux: &Linux) -> impl Iterator<Item = (CloneFlags, &'static str, &'static str)> {
    let types: Vec<_> = linux.namespaces().iter().flatten().map(|n| n.typ()).collect();
    KINDS.iter().filter(move |k| types.contains(&k.0)).map(|k| (k.1, k.3, file(k.1)))
}

/// The file in /proc/PID/ns of a kind.
pub fn file(kind: CloneFlags) -> &'static str {
    match name(kind) {
        "network" => "net",
        "mount" => "mnt",
        name => name,
    }
}

/// Resolves the configuration and opens the namespaces to join. A path that is not a namespace of the kind asked for is
/// an error, as the specification demands.
pub fn plan(linux: &Linux) -> Result<Plan> {
    let mut plan = Plan { new: CloneFlags::empty(), join: Vec::new() };
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (typ, kind, name, _) in KINDS {
        let Some((index, namespace)) = namespaces.iter().enumerate().find(|(_, n)| n.typ() == *typ) else { continue };
        let Some(path) = namespace.path().as_ref().filter(|p| !p.as_os_str().is_empty()) else {
            plan.new |= *kind;
            continue;
        };
        let place = || format!("linux.namespaces[{index}].path: cannot join the {name} namespace {}", path.display());
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(place)?;
        if sys::ns::kind(fd.as_fd()).ok() != Some(kind.bits()) {
            return Err(Error::new(format!("{}: it is not a {name} namespace", place())));
        }
        // Nobody can join the user namespace that they are in.
        if *kind == CloneFlags::CLONE_NEWUSER && is_own_user(&fd)? {
            continue;
        }
        plan.join.push(Join { kind: *kind, fd, path: path.clone() });
    }
    Ok(plan)
}

fn is_own_user(fd: &OwnedFd) -> Result<bool> {
    let own = rustix::fs::stat("/proc/self/ns/user").context(|| "cannot examine /proc/self/ns/user")?;
    let that = rustix::fs::fstat(fd).context(|| "cannot examine a user namespace")?;
    Ok((own.st_dev, own.st_ino) == (that.st_dev, that.st_ino))
}

/// The words for several kinds.
pub fn names(kinds: CloneFlags) -> String {
    KINDS.iter().filter(|k| kinds.contains(k.1)).map(|k| k.2).collect::<Vec<_>>().join(", ")
}
