//! Cgroups: where a container's processes are counted, limited, frozen and ended (config-linux.md, "Control groups").

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The runtime itself, in the file system of the cgroups.
    Cgroupfs,
    /// systemd, over D-Bus.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}

/// One directory of a container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    /// The v1 hierarchy's name as in /proc/self/cgroup ("cpu,cpuacct", "name=systemd"); empty for v2.
    pub hierarchy: String,
    /// Where the hierarchy is mounted on the host.
    pub mountpoint: PathBuf,
    /// The container's path in the hierarchy, absolute ("/vessel/abc").
    pub path: PathBuf,
}

/// The cgroup of a container: a directory in each hierarchy. It is kept in the container's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Who made it; later commands come without the flag.
    pub driver: Driver,
    /// The v1 hierarchies, and v2 last where it is there too (hybrid); one v2 directory on a unified host; empty where
    /// the driver is disabled, or where a rootless caller may make none and asked for no limits.
    pub dirs: Vec<Dir>,
    /// Whether the host has v2 only.
    pub unified: bool,
}

/// Descriptors by which a process enters a cgroup. They belong to the parent and are inherited by the fork.
#[derive(Debug, Default)]
pub struct Entry {
    /// The v2 directory, for CLONE_INTO_CGROUP; only on a unified host, where controllers make migration slow.
    pub clone_into: Option<OwnedFd>,
    /// The `tasks`/`cgroup.procs` files of all other hierarchies, to which the process itself writes `0` while it has
    /// one thread; with the path of each, for messages.
    pub procs: Vec<(OwnedFd, PathBuf)>,
}

impl Cgroup {
    /// Decides where the container's cgroup is: `cgroupsPath` of the configuration as runc reads it (absolute from the
    /// mount point of the hierarchy and its own root, relative to the caller's cgroup; none: `/ID`).
    pub fn locate(_driver: Driver, _cgroups_path: Option<&Path>, _id: &str, _rootless: bool) -> Result<Cgroup> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Makes the directories and enables the controllers that `resources` need.
    pub fn create(&self, _resources: Option<&LinuxResources>, _pids_limit: Option<i64>) -> Result<()> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Sets the limits of `resources`, the rules for devices among them.
    pub fn apply(&self, _resources: &LinuxResources, _pids_limit: Option<i64>) -> Result<()> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Opens what a process needs to enter.
    pub fn entry(&self) -> Result<Entry> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// The same for `exec --cgroup`: sub-cgroups by controller (v1) or one path (v2, key empty), below the container's.
    pub fn sub_entry(&self, _sub: &[String]) -> Result<Entry> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Opens what a process needs to enter the cgroup that init `pid` is in, which may be below the container's own.
    pub fn init_entry(&self, _pid: i32) -> Result<Entry> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Gives a user namespace's root the cgroup that the kernel lets it have (/sys/kernel/cgroup/delegate).
    pub fn delegate(&self, _uid: u32) -> Result<()> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Stops all processes (`pause`) and waits until they stand.
    pub fn freeze(&self) -> Result<()> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Lets them go on (`resume`).
    pub fn thaw(&self) -> Result<()> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Whether the processes are stopped by the freezer.
    pub fn frozen(&self) -> Result<bool> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// The pids of all processes in the cgroup and below it, as the caller sees them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Sends a signal to every process in the cgroup and below; SIGKILL at once by `cgroup.kill` where it is there.
    pub fn kill(&self, _signal: i32) -> Result<()> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Removes the directories, deepest first; those already gone are no error. Ends processes that are left.
    pub fn remove(&self) -> Result<()> {
        Err(Error::new("cgroups are not built yet"))
    }

    /// Whether any directory of it exists.
    pub fn exists(&self) -> bool {
        false
    }

    /// Whether the cgroup has processes in it, or below.
    pub fn populated(&self) -> Result<bool> {
        Err(Error::new("cgroups are not built yet"))
    }
}
