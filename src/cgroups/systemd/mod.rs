//! The systemd driver: a container's cgroup is a scope, which systemd makes, counts and removes.
//!
//! A scope needs a process from the start. It gets a holder, which does nothing and ends as soon as init is in the scope;
//! so init is made right in its cgroup, as with the other driver, and the files of the cgroup are there for all that
//! systemd has no properties for. It costs one message to systemd and one back.

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
use super::{Cgroup, Dir, limits, make};
use crate::error::{Cause, Context, Error, Result};
use crate::sys;
use crate::sys::clone::{Clone, clone3};
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

/// The process that keeps a scope until init is in it. Ends when this is dropped.
#[derive(Debug)]
pub struct Holder {
    pidfd: OwnedFd,
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

/// Has systemd make the scope, with all limits that it has properties for.
pub(super) fn start(
    cgroup: &mut Cgroup,
    unit: &Unit,
    id: &str,
    resources: Option<&LinuxResources>,
    pids_limit: Option<i64>,
    annotations: Option<&HashMap<String, String>>,
) -> Result<Holder> {
    let writes = limits::plan(resources, pids_limit, true)?;
    let own = properties::annotated(annotations)?;
    // One without a unit systemd would take as it is; a frozen one would hold the holder.
    if let Some(dir) = cgroup.dirs.first().filter(|dir| dir.directory().exists()) {
        make::check_free(cgroup, dir)?;
    }
    let (pid, holder) = hold()?;
    let mut properties = properties::scope(id, &unit.slice, pid);
    properties.extend(properties::limits(&writes));
    properties.extend(own);
    let arguments = [
        Value::text(&unit.name),
        Value::text("replace"),
        Value::Array("(sv)".into(), properties),
        Value::Array("(sa(sv))".into(), Vec::new()),
    ];
    let place = || format!("cannot start the systemd unit {}", unit.name);
    let mut manager = manager(unit)?;
    let mut reply = manager.call("StartTransientUnit", &arguments)?;
    if matches!(&reply, Reply::Fault(name, _) if name.ends_with(".UnitExists")) {
        // It may be one that has failed, which systemd keeps until somebody has taken note.
        manager.call("ResetFailedUnit", &[Value::text(&unit.name)])?;
        reply = manager.call("StartTransientUnit", &arguments)?;
    }
    let job = match reply {
        Reply::Done(job) => job,
        Reply::Fault(name, text) => {
            let e = Error::new(format!("{}: {text} ({name})", place()));
            let exists = name.ends_with(".UnitExists");
            return Err(if exists { e.context("container's cgroup is not empty") } else { e });
        }
    };
    let result = manager.wait(&job).map_err(|e| e.context(place()))?;
    if result != "done" {
        manager.call("ResetFailedUnit", &[Value::text(&unit.name)])?;
        return Err(Error::new(format!("{}: its job ended as {result} (see: systemctl status)", place())));
    }
    if let Some(dir) = cgroup.dirs.first_mut() {
        let table = files::read_path(&format!("/proc/{pid}/cgroup"))?;
        let path = table.lines().find_map(|line| line.strip_prefix("0::"));
        let path = path.filter(|path| path.ends_with(&format!("/{}", unit.name)));
        dir.path = path.ok_or_else(|| Error::new("its process is not in its cgroup").context(place()))?.into();
    }
    Ok(holder)
}

/// Tells systemd of changed limits, which it would undo else when it reloads its units.
pub(super) fn update(unit: &Unit, resources: &LinuxResources, pids_limit: Option<i64>) -> Result<()> {
    let properties = properties::limits(&limits::plan(Some(resources), pids_limit, true)?);
    if properties.is_empty() {
        return Ok(());
    }
    let properties = Value::Array("(sv)".into(), properties);
    let arguments = [Value::text(&unit.name), Value::Bool(true), properties];
    match manager(unit)?.call("SetUnitProperties", &arguments)? {
        Reply::Done(_) => Ok(()),
        Reply::Fault(name, text) => {
            Err(Error::new(format!("cannot set properties of the systemd unit {}: {text} ({name})", unit.name)))
        }
    }
}

/// Has systemd forget the scope, whose processes are gone.
pub(super) fn stop(unit: &Unit) -> Result<()> {
    let place = || format!("cannot stop the systemd unit {}", unit.name);
    let mut manager = manager(unit)?;
    let name = || [Value::text(&unit.name)];
    match manager.call("StopUnit", &[Value::text(&unit.name), Value::text("replace")])? {
        // It has ended with its last process.
        Reply::Fault(name, _) if name.ends_with(".NoSuchUnit") => return Ok(()),
        Reply::Fault(name, text) => return Err(Error::new(format!("{}: {text} ({name})", place()))),
        Reply::Done(job) => manager.wait(&job).map_err(|e| e.context(place()))?,
    };
    // One that has failed stays until somebody has taken note; any other is no longer known, which is no fault.
    manager.call("ResetFailedUnit", &name())?;
    Ok(())
}

/// Has systemd move a process into the scope, where the caller has no right to: from outside of the part of the tree
/// that is the user's.
pub(super) fn attach(unit: &Unit, pid: i32) -> Result<()> {
    let pids = Value::Array("u".into(), vec![Value::U32(pid.unsigned_abs())]);
    let arguments = [Value::text(&unit.name), Value::text(""), pids];
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

/// Makes the holder. It goes away with the runtime.
fn hold() -> Result<(i32, Holder)> {
    let parent = rustix::process::getpid();
    match clone3(0, None).context(|| "cannot make a process for the systemd unit")? {
        Clone::Parent(pid, pidfd) => Ok((pid, Holder { pidfd })),
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
