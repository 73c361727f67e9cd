//! The systemd driver: a container's cgroup is a scope, which systemd makes, counts and removes.
//!
//! A scope needs a process from the start. That is init itself, which systemd moves into it while init already works: a
//! move out of another cgroup makes the kernel wait, and init needs its cgroup only for what shows it. It costs one
//! message to systemd and two back. Then the files of the cgroup are there for all that systemd has no properties for.

mod bus;
mod properties;
mod value;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use super::files::{self, Kind};
use super::limits::Write;
use super::{Cgroup, Dir, limits, make};
use crate::error::{Cause, Context, Error, Result};
use crate::sys::clone::{Clone, clone3};
use crate::{log, sys};
use bus::{Manager, Reply};
pub(super) use properties::round;
use value::Value;

/// Where cgroup v2 is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The scope of a container. It is kept in the container's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name: `PREFIX-NAME.scope`.
    pub name: String,
    /// The slice that it lies in.
    pub slice: String,
    /// The user whose instance has made it; none for the system's.
    pub user: Option<u32>,
}

/// A scope on its way.
#[derive(Debug)]
pub struct UnitStart {
    cgroup: Cgroup,
    unit: Unit,
    manager: Manager,
    /// What the scope cannot be without, and what annotations ask for.
    properties: Vec<Value>,
    /// Limits, which are written to the cgroup's files too.
    limits: Vec<(&'static str, Value)>,
    /// The process to be moved in, and the number of the call.
    sent: Option<(i32, u32)>,
}

/// A process that keeps a scope until the container's are in it, where those are made by others. It does nothing, and
/// ends when this is dropped, or the runtime is gone.
#[derive(Debug)]
pub struct Holder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Holder {
    /// Makes it.
    pub fn new() -> Result<Holder> {
        let parent = rustix::process::getpid();
        match clone3(0, None).context(|| "cannot make a process for the systemd unit")? {
            Clone::Parent(pid, pidfd) => Ok(Holder { pid, pidfd }),
            Clone::Child => {
                let signal = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                if signal.is_err() || rustix::process::getppid() != Some(parent) {
                    sys::process::exit(1);
                }
                loop {
                    rustix::event::pause();
                }
            }
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let wait = || rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
    }
}

/// Decides on the names and fills in the cgroup. `asked` is `linux.cgroupsPath`.
pub(super) fn locate(cgroup: &mut Cgroup, asked: Option<&Path>, id: &str) -> Result<()> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Error::new(
            "systemd is not running on this host: leave out --systemd-cgroup, or use --cgroup-manager cgroupfs",
        ));
    }
    if files::kind(Path::new(ROOT)) != Some(Kind::V2) {
        return Err(Error::new(
            "the systemd cgroup driver needs a host with cgroup v2 alone: use --cgroup-manager cgroupfs here",
        ));
    }
    let uid = outer_uid()?;
    let unit = unit(asked, id, (uid != 0).then_some(uid))?;
    let mut path = PathBuf::from("/");
    if let Some(uid) = unit.user {
        // What the manager's own cgroup is by default; the holder's tells when the scope is there.
        path.push(format!("user.slice/user-{uid}.slice/user@{uid}.service"));
    }
    path.push(expand(&unit.slice)?);
    path.push(&unit.name);
    cgroup.unified = true;
    cgroup.dirs = vec![Dir { hierarchy: String::new(), mountpoint: PathBuf::from(ROOT), path }];
    cgroup.unit = Some(unit);
    Ok(())
}

/// The uid by which systemd knows the caller, who may be root of a user namespace.
fn outer_uid() -> Result<u32> {
    let uid = nix::unistd::geteuid().as_raw();
    if !sys::proc::in_user_namespace() {
        return Ok(uid);
    }
    let table = files::read_path("/proc/self/uid_map")?;
    mapped(&table, uid).ok_or_else(|| Error::new(format!("uid {uid} is not mapped in this user namespace")))
}

/// What a uid is outside, by a table of mappings.
fn mapped(table: &str, uid: u32) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (inside, outside, size) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let offset = uid.checked_sub(inside).filter(|&offset| offset < size)?;
        outside.checked_add(offset)
    })
}

/// The names in a `cgroupsPath`, which is `SLICE:PREFIX:NAME`.
fn unit(asked: Option<&Path>, id: &str, user: Option<u32>) -> Result<Unit> {
    let asked = asked.map(Path::to_string_lossy);
    let text = asked.as_deref();
    let fault = |why: &str| Error::of(Cause::Config, format!("linux.cgroupsPath: {why}"));
    let (slice, prefix, name) = match text {
        None => ("", "vessel", id),
        Some(text) => {
            let parts: Vec<_> = text.split(':').collect();
            let &[slice, prefix, name] = parts.as_slice() else {
                let form = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups";
                return Err(fault(&format!("{form}, got {text:?} instead")));
            };
            (slice, prefix, name)
        }
    };
    if name.is_empty() || name.contains('/') || prefix.contains('/') {
        return Err(fault(&format!("{prefix:?}, {name:?}: not the parts of a unit's name")));
    }
    if name.ends_with(".slice") {
        return Err(fault(&format!("{name} is a slice, and no process can be in one: name a scope")));
    }
    let default = if user.is_some() { "user.slice" } else { "system.slice" };
    // As for systemd, "-" is the root slice.
    let slice = match slice {
        "" => default,
        "-" => "-.slice",
        slice => slice,
    };
    expand(slice)?;
    Ok(Unit { name: format!("{prefix}-{name}.scope"), slice: slice.to_string(), user })
}

/// The path of a slice's cgroup: `a-b.slice` lies in `a.slice`.
fn expand(slice: &str) -> Result<PathBuf> {
    let fault = || Error::of(Cause::Config, format!("linux.cgroupsPath: invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty()).ok_or_else(fault)?;
    let mut path = PathBuf::new();
    if name == "-" {
        return Ok(path);
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(fault());
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    path.extend(ends.map(|end| format!("{}.slice", &name[..end])));
    Ok(path)
}

/// See [`Cgroup::start_unit`].
pub(super) fn prepare(
    cgroup: &Cgroup,
    unit: &Unit,
    id: &str,
    resources: Option<&LinuxResources>,
    pids_limit: Option<i64>,
    annotations: Option<&HashMap<String, String>>,
) -> Result<UnitStart> {
    let writes = limits::plan(resources, pids_limit, true)?;
    let mut limits = properties::limits(&writes, has_bfq(cgroup, &writes));
    limits.extend(properties::oom_policy(&writes));
    let mut properties = properties::scope(id, &unit.slice);
    properties.extend(properties::annotated(annotations)?);
    // One without a unit systemd would take as it is; a frozen one would hold init.
    if let Some(dir) = cgroup.dirs.first().filter(|dir| dir.directory().exists()) {
        make::check_free(cgroup, dir)?;
    }
    Ok(UnitStart {
        cgroup: cgroup.clone(),
        unit: unit.clone(),
        manager: manager(unit)?,
        properties,
        limits,
        sent: None,
    })
}

impl UnitStart {
    /// Asks systemd for the scope, with the process `pid` in it, and does not wait.
    pub fn send(&mut self, pid: i32) -> Result<()> {
        let first = self.ask(pid, false).map_err(|e| e.context(self.place()))?;
        self.sent = Some((pid, first));
        Ok(())
    }

    /// Whether systemd was asked.
    pub fn sent(&self) -> bool {
        self.sent.is_some()
    }

    /// Whether the instance is a user's own, which may move only processes that are the user's.
    pub fn is_users(&self) -> bool {
        self.unit.user.is_some()
    }

    /// Waits until the process is in the scope. Returns the cgroup as it is then. A failure leaves no scope.
    pub fn finish(mut self) -> Result<Cgroup> {
        let (pid, job) = self.job().map_err(|e| e.context(self.place()))?;
        let result = self.manager.wait(&job).map_err(|e| e.context(self.place()))?;
        if result != "done" {
            self.manager.call("ResetFailedUnit", &[Value::text(&self.unit.name)])?;
            let text = format!("its job ended as {result} (see: systemctl status)");
            return Err(Error::new(text).context(self.place()));
        }
        // The process may have ended meanwhile. A scope that never had one does not end by itself.
        let Some(path) = within(pid, &self.unit) else {
            stop_by(&mut self.manager, &self.unit)?;
            return Err(Error::new("its process is not in its cgroup").context(self.place()));
        };
        if let Some(dir) = self.cgroup.dirs.first_mut() {
            dir.path = path;
        }
        Ok(self.cgroup)
    }

    fn place(&self) -> String {
        format!("cannot start the systemd unit {}", self.unit.name)
    }

    /// The process, and the job that systemd has taken up. Asks again where a unit is in the way that has failed, which
    /// systemd keeps until somebody has taken note, and without limits that this systemd does not know.
    fn job(&mut self) -> Result<(i32, String)> {
        let (pid, mut call) = self.sent.ok_or_else(|| Error::new("it was not asked for"))?;
        let mut reset = false;
        loop {
            let (name, text) = match self.manager.reply(call)? {
                Reply::Done(job) => return Ok((pid, job)),
                Reply::Fault(name, text) => (name, text),
            };
            let exists = name.ends_with(".UnitExists");
            let unknown = self.limits.iter().position(|(name, _)| properties::names(&text, name));
            match unknown {
                _ if exists && !reset => reset = true,
                Some(at) if !exists => {
                    let (name, _) = self.limits.remove(at);
                    log::debug(|| format!("systemd does not take {name}: {text}"));
                }
                _ => {
                    let e = Error::new(format!("{text} ({name})"));
                    return Err(if exists { e.context("container's cgroup is not empty") } else { e });
                }
            }
            call = self.ask(pid, exists)?;
        }
    }

    /// Sends the call, behind one that makes systemd forget the unit where that has failed.
    fn ask(&mut self, pid: i32, reset: bool) -> Result<u32> {
        let mut all = self.properties.clone();
        all.push(properties::pid(pid));
        all.extend(self.limits.iter().map(|(name, value)| properties::property(name, value.clone())));
        let unit = Value::text(&self.unit.name);
        let arguments = [
            unit.clone(),
            Value::text("replace"),
            Value::Array("(sv)".into(), all),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let start = ("StartTransientUnit", arguments.as_slice());
        if reset {
            return Ok(self.manager.ask(&[("ResetFailedUnit", &[unit]), start])? + 1);
        }
        self.manager.ask(&[start])
    }
}

/// The path of a process's cgroup, where that is the unit's.
fn within(pid: i32, unit: &Unit) -> Option<PathBuf> {
    let table = files::read_path(&format!("/proc/{pid}/cgroup")).ok()?;
    let path = Path::new(table.lines().find_map(|line| line.strip_prefix("0::"))?);
    path.ends_with(&unit.name).then(|| path.to_path_buf())
}

/// Tells systemd of changed limits, which it would undo else when it reloads its units.
pub(super) fn update(unit: &Unit, cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    let mut limits = properties::limits(writes, has_bfq(cgroup, writes));
    let mut manager = None;
    while !limits.is_empty() {
        let all = limits.iter().map(|(name, value)| properties::property(name, value.clone()));
        let arguments = [Value::text(&unit.name), Value::Bool(true), Value::Array("(sv)".into(), all.collect())];
        let manager = match &mut manager {
            Some(manager) => manager,
            none => none.insert(self::manager(unit)?),
        };
        let (name, text) = match manager.call("SetUnitProperties", &arguments)? {
            Reply::Done(_) => return Ok(()),
            Reply::Fault(name, text) => (name, text),
        };
        let Some(at) = limits.iter().position(|(name, _)| properties::names(&text, name)) else {
            let place = format!("cannot set properties of the systemd unit {}", unit.name);
            return Err(Error::new(format!("{place}: {text} ({name})")));
        };
        let (name, _) = limits.remove(at);
        log::debug(|| format!("systemd does not take {name}: {text}"));
    }
    Ok(())
}

/// Whether the kernel has weights of the BFQ scheduler; where they are asked for. Before the scope is there, the cgroups
/// beside it tell.
fn has_bfq(cgroup: &Cgroup, writes: &[Write]) -> bool {
    const FILE: &str = "io.bfq.weight";
    let there = |dir: &Path| dir.join(FILE).exists();
    let of = |dir: &Dir| {
        let own = dir.directory();
        own.ancestors().take_while(|dir| *dir != Path::new(ROOT)).any(there)
            || ["system.slice", "user.slice"].iter().any(|slice| there(&Path::new(ROOT).join(slice)))
    };
    writes.iter().any(|write| write.file == FILE) && cgroup.v2().is_some_and(of)
}

/// Has systemd forget the scope, whose processes are gone.
pub(super) fn stop(unit: &Unit) -> Result<()> {
    if forgotten(unit) {
        return Ok(());
    }
    stop_by(&mut manager(unit)?, unit)
}

fn stop_by(manager: &mut Manager, unit: &Unit) -> Result<()> {
    let fault = |text: String| Err(Error::new(format!("cannot stop the systemd unit {}: {text}", unit.name)));
    let name = Value::text(&unit.name);
    let stop = [name.clone(), Value::text("replace")];
    // One that has failed stays until somebody has taken note, and it has failed before or never.
    let call = manager.ask(&[("StopUnit", &stop), ("ResetFailedUnit", &[name])])?;
    match manager.reply(call)? {
        // It has ended with its last process.
        Reply::Fault(name, _) if name.ends_with(".NoSuchUnit") => Ok(()),
        Reply::Fault(name, text) => fault(format!("{text} ({name})")),
        Reply::Done(job) => manager.wait(&job).map(|_| ()).or_else(|e| fault(e.to_string())),
    }
}

/// Whether systemd knows no such unit: it keeps a file for each that was started by a call as long as it does.
fn forgotten(unit: &Unit) -> bool {
    let dir = unit.user.map_or("/run".into(), bus::runtime_dir).join("systemd/transient");
    dir.is_dir() && !dir.join(&unit.name).exists()
}

/// Has systemd move a process into the scope, or into the cgroup at `place` in it, where the caller has no right to: from
/// outside of the part of the tree that is the user's.
pub(super) fn attach(unit: &Unit, pid: i32, place: &Path) -> Result<()> {
    let pids = Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]);
    // For systemd the scope itself is no path.
    let place = if place == Path::new("/") { "".into() } else { place.to_string_lossy() };
    let arguments = [Value::text(&unit.name), Value::text(&place), pids];
    match manager(unit)?.call("AttachProcessesToUnit", &arguments)? {
        Reply::Done(_) => Ok(()),
        Reply::Fault(name, text) => {
            Err(Error::new(format!("cannot move process {pid} into the systemd unit {}: {text} ({name})", unit.name)))
        }
    }
}

fn manager(unit: &Unit) -> Result<Manager> {
    Manager::connect(unit.user, outer_uid()?, &unit.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_runc_reads_them() {
        for (path, user, want) in [
            (None, None, Some(("vessel-c.scope", "system.slice"))),
            (None, Some(1000), Some(("vessel-c.scope", "user.slice"))),
            (Some("machine.slice:libpod:abc"), None, Some(("libpod-abc.scope", "machine.slice"))),
            (Some(":runc:abc"), None, Some(("runc-abc.scope", "system.slice"))),
            (Some("-.slice:p:n"), None, Some(("p-n.scope", "-.slice"))),
            (Some("-:p:n"), None, Some(("p-n.scope", "-.slice"))),
            (Some("/a/b"), None, None),
            (Some("a:b:c:d"), None, None),
            (Some("a:b:c"), None, None),
            (Some("x.slice:p:"), None, None),
            (Some("x.slice:p:../n"), None, None),
            (Some("x.slice::y.slice"), None, None),
        ] {
            let unit = unit(path.map(Path::new), "c", user).ok();
            assert_eq!(unit.as_ref().map(|unit| (&*unit.name, &*unit.slice)), want, "{path:?}");
        }
    }

    #[test]
    fn slices_lie_in_slices() {
        for (slice, want) in [
            ("a.slice", Some("a.slice")),
            ("a-b-c.slice", Some("a.slice/a-b.slice/a-b-c.slice")),
            ("-.slice", Some("")),
            (".slice", None),
            ("a--b.slice", None),
            ("-a.slice", None),
            ("a/b.slice", None),
            ("a", None),
        ] {
            assert_eq!(expand(slice).ok(), want.map(PathBuf::from), "{slice}");
        }
    }

    #[test]
    fn the_callers_uid_is_known_outside() {
        let table = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(mapped(table, 0), Some(1000));
        assert_eq!(mapped(table, 2), Some(100_001));
        assert_eq!(mapped(table, 70_000), None);
    }
}
