//! Cgroups: where a container's processes are counted, limited, frozen and ended (config-linux.md, "Control groups").
//!
//! A container has one directory in each hierarchy of a v1 host, or the one directory of a v2 host; a hybrid host has
//! both kinds, and each controller on one of the two sides.

mod apply;
mod devices;
mod entry;
mod files;
mod filter;
mod freezer;
mod hybrid;
mod limits;
mod locate;
mod make;
mod options;
mod processes;
mod stats;
mod systemd;
mod undo;
mod watch;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
pub use options::KeptOptions;
pub use stats::Stats;
pub use systemd::{Holder, Unit, UnitStart};
pub use undo::Undo;
pub use watch::{Seen, Watch};

/// What a rootless caller can do about a controller or a cgroup that is not its own.
const DELEGATION: &str = "to let a user have cgroups, set Delegate=yes in \
    /etc/systemd/system/user@.service.d/delegate.conf, and start from systemd-run --user --scope";
/// The same where the user's systemd could do it.
const SYSTEMD: &str = "use --systemd-cgroup; or, to let a user have cgroups, set Delegate=yes in \
    /etc/systemd/system/user@.service.d/delegate.conf, and start from systemd-run --user --scope";
/// The same where there is no systemd, or no delegation by it.
const CHOWN: &str = "leave out linux.resources; or have root make a cgroup and give it to the user by chown, and set \
    linux.cgroupsPath to one below it";

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
    /// The container's path below the mount point, absolute ("/vessel/abc").
    pub path: PathBuf,
}

impl Dir {
    /// The directory itself.
    pub fn directory(&self) -> PathBuf {
        files::below(&self.mountpoint, &self.path)
    }

    /// Whether it belongs to the v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.hierarchy.is_empty()
    }

    /// Whether it is of the v1 hierarchy with that controller.
    fn has(&self, controller: &str) -> bool {
        !controller.is_empty() && self.hierarchy.split(',').any(|name| name == controller)
    }
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
    /// Whether the caller may lack rights on cgroups, which is forgiven where nothing was asked for.
    pub rootless: bool,
    /// Whether the configuration names the cgroup.
    pub explicit: bool,
    /// What systemd has made, where it is the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// Descriptors by which a process enters a cgroup. They belong to the parent and are inherited by the fork.
#[derive(Debug, Default)]
pub struct Entry {
    /// The v2 directory, for CLONE_INTO_CGROUP, the only way into v2 that takes no lock of the whole system.
    pub clone_into: Option<OwnedFd>,
    /// The `tasks` files of the v1 hierarchies, to which the process itself writes `0` while it has one thread; with the
    /// path of each, for messages.
    pub procs: Vec<(OwnedFd, PathBuf)>,
}

impl Cgroup {
    /// Decides where the container's cgroup is: `cgroupsPath` of the configuration as runc reads it. An absolute one
    /// starts at the mount point of the hierarchy; a relative one at the caller's cgroup (v1) or beside it (v2); none
    /// stands for the relative path `ID`. No `..` leads out. With systemd it is `SLICE:PREFIX:NAME`, by default
    /// `:vessel:ID`; no slice is system.slice, or user.slice of the user's own instance.
    pub fn locate(driver: Driver, cgroups_path: Option<&Path>, id: &str, rootless: bool) -> Result<Cgroup> {
        locate::locate(driver, cgroups_path, id, rootless)
    }

    /// Calls systemd, where it is the driver, and prepares the container's scope, with the limits and with the properties
    /// that annotations name. To be sent when there is a process to begin with.
    pub fn start_unit(
        &self,
        id: &str,
        resources: Option<&LinuxResources>,
        pids_limit: Option<i64>,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<Option<UnitStart>> {
        let prepare = |unit| systemd::prepare(self, unit, id, resources, pids_limit, annotations);
        self.unit.as_ref().map(prepare).transpose()
    }

    /// Makes the directories and enables the controllers. A cgroup that exists has to be empty and thawed. Where a
    /// rootless caller may make none and asked for no limits, the cgroup becomes one without directories. A failure
    /// leaves nothing behind.
    pub fn create(&mut self, resources: Option<&LinuxResources>, pids_limit: Option<i64>) -> Result<()> {
        make::create(self, resources, pids_limit)
    }

    /// Sets the limits of `resources`, without the rules for devices. To be done before a process enters: a cpuset
    /// without processors takes none.
    pub fn apply(&self, resources: Option<&LinuxResources>, pids_limit: Option<i64>) -> Result<()> {
        apply::limits(self, resources, pids_limit)
    }

    /// Sets limits of a running container, without the rules for devices. Where one cannot be set, those before it are
    /// put back. What is returned can put them all back.
    pub fn update(&self, resources: &LinuxResources, pids_limit: Option<i64>) -> Result<Undo> {
        let mut undo = apply::update(self, resources, pids_limit)?;
        let told = apply::tell(self, resources, pids_limit, &mut undo);
        if told.is_err() {
            undo.restore();
        }
        told.map(|()| undo)
    }

    /// The quota (-1 for none) and the period that hold now on v2, which the kernel takes together only.
    pub fn cpu_max(&self) -> Option<(i64, u64)> {
        apply::cpu_max(self)
    }

    /// Denies all devices but those that `linux.resources.devices` allows and those that every container gets (null,
    /// zero, full, random, urandom, tty, ptmx, pts, net/tun; making nodes). Where a rootless caller, or one in a user
    /// namespace, has no right to do so, nothing is restricted: such a container has no access to devices by itself.
    pub fn restrict_devices(&self, resources: Option<&LinuxResources>) -> Result<()> {
        devices::restrict(self, resources)
    }

    /// The fields of `resources` that the host's cgroups have nothing for and that are left out, each as a warning.
    pub fn ignored(&self, resources: &LinuxResources) -> Vec<String> {
        limits::ignored(resources, &|controller| self.on_v2(controller))
    }

    /// Opens what a process needs to enter.
    pub fn entry(&self) -> Result<Entry> {
        entry::entry(self)
    }

    /// The same for `exec --cgroup`: sub-cgroups by controller (v1) or one path for all, below the container's.
    pub fn sub_entry(&self, sub: &[String]) -> Result<Entry> {
        entry::sub_entry(self, sub)
    }

    /// The same for the cgroup that the process `pid` of the container has moved to (v2): where that one has enabled
    /// controllers for cgroups of its own, the container's takes no processes (EBUSY).
    pub fn init_entry(&self, pid: i32) -> Result<Entry> {
        entry::init_entry(self, pid)
    }

    /// Whether systemd can move a process into the cgroup that this error has kept it out of: the caller has no rights on
    /// what lies between, as a user outside of the part of the tree that is hers.
    pub fn attaches(&self, refused: &Error) -> bool {
        self.unit.is_some() && refused.errno() == libc::EACCES
    }

    /// Has systemd move a process into the cgroup; or into one below it, by the values of `exec --cgroup`; or to where the
    /// process `init` of the container has moved, if the container's own takes none.
    pub fn attach(&self, pid: i32, sub: &[String], init: i32) -> Result<()> {
        let Some(unit) = &self.unit else { return Err(Error::new("the cgroup is none of systemd's")) };
        let place = entry::sub_path(sub)?;
        let moved = systemd::attach(unit, pid, &place);
        match entry::path_below(self, init).filter(|_| sub.is_empty() && moved.is_err()) {
            Some(place) => systemd::attach(unit, pid, &place),
            None => moved,
        }
    }

    /// Gives a user namespace's root the cgroup that the kernel lets it have (/sys/kernel/cgroup/delegate).
    pub fn delegate(&self, uid: u32) -> Result<()> {
        let Some(dir) = self.v2().filter(|_| self.unified) else { return Ok(()) };
        let path = dir.directory();
        let names = std::fs::read_to_string("/sys/kernel/cgroup/delegate")
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_string());
        let chown = |path: &Path| std::os::unix::fs::lchown(path, Some(uid), None);
        chown(&path).context(|| format!("cannot give the cgroup {} to uid {uid}", path.display()))?;
        for name in names.lines() {
            let file = path.join(name);
            match chown(&file) {
                // The list has files of controllers too, which may not be enabled here.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.context(|| format!("cannot give {} to uid {uid}", file.display()))?,
            }
        }
        Ok(())
    }

    /// Stops all processes (`pause`) and waits until they stand.
    pub fn freeze(&self) -> Result<()> {
        freezer::freeze(self)
    }

    /// Lets them go on (`resume`).
    pub fn thaw(&self) -> Result<()> {
        freezer::thaw(self)
    }

    /// The directory whose freezer stops the processes.
    pub fn freezer(&self) -> Option<PathBuf> {
        freezer::freezer(self).map(Dir::directory)
    }

    /// Whether the processes are stopped by the freezer.
    pub fn frozen(&self) -> Result<bool> {
        freezer::frozen(self)
    }

    /// The pids of all processes in the cgroup and below it, as the caller sees them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        processes::pids(self)
    }

    /// Sends a signal to every process in the cgroup and below; SIGKILL at once by `cgroup.kill` where it is there.
    pub fn kill(&self, signal: i32) -> Result<()> {
        processes::kill(self, signal)
    }

    /// Removes the directories, deepest first; those already gone are no error. Processes that are left are ended with
    /// `kill`, and else an error. Then systemd forgets the scope.
    pub fn remove(&self, kill: bool) -> Result<()> {
        processes::remove(self, kill)?;
        self.unit.as_ref().map_or(Ok(()), systemd::stop)
    }

    /// Removes the directories that hold neither processes nor cgroups, and touches no other.
    pub fn remove_unused(&self) {
        for dir in &self.dirs {
            let _ = rustix::fs::rmdir(dir.directory());
        }
    }

    /// Whether any directory of it exists.
    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|dir| dir.directory().exists())
    }

    /// Whether the kernel has ended a process of the cgroup for want of memory.
    pub fn oom_killed(&self) -> bool {
        let (dir, file) = if self.on_v2("memory") {
            (self.v2(), "memory.events")
        } else {
            (self.dir_of("memory"), "memory.oom_control")
        };
        let text = dir.and_then(|d| files::read(files::open_dir(&d.directory()).ok()?, file).ok());
        let kills = |text: String| text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
        text.and_then(kills).is_some_and(|n| n > 0)
    }

    /// Whether the cgroup has processes in it, or below.
    pub fn populated(&self) -> Result<bool> {
        processes::populated(self)
    }

    /// What the processes have used up to now; nothing where there is no cgroup to count it.
    pub fn stats(&self) -> Result<Stats> {
        stats::stats(self)
    }

    /// Descriptors that tell when memory runs out, and when the cgroup is left.
    pub fn watch(&self) -> Result<Watch> {
        watch::watch(self)
    }

    /// What a rootless caller can do to have limits; none for any other.
    fn remedy(&self) -> Option<&'static str> {
        let systemd = || self.unified && Path::new("/run/systemd/system").is_dir();
        self.rootless.then(|| match self.driver {
            Driver::Systemd => DELEGATION,
            _ if systemd() => SYSTEMD,
            _ => CHOWN,
        })
    }

    /// The v2 directory.
    fn v2(&self) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.is_v2())
    }

    /// Whether a controller, by its name of v2, is on v2: all are on a unified host, some may be on a hybrid one.
    fn on_v2(&self, controller: &str) -> bool {
        self.unified || hybrid::beside(self, controller)
    }

    /// The directory with the files of a controller, whichever version has it.
    fn home(&self, controller: &str) -> Option<&Dir> {
        if self.on_v2(controller) { self.v2() } else { self.dir_of(controller) }
    }

    /// The v1 directory with a controller.
    fn dir_of(&self, controller: &str) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.has(controller))
    }
}
