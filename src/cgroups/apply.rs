//! Setting limits: the thin part that writes what `limits` has planned, and explains what the kernel refuses.
//!
//! Where limits of a running container change, the files are read before they are written, so that a failure halfway
//! can put back what was there.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;

use super::limits::{self, Missing, Write};
use super::{Cgroup, Dir, Undo, files, hybrid, make, systemd};
use crate::error::{Error, Result};

/// Sets the limits of `resources`.
pub(super) fn limits(cgroup: &Cgroup, resources: Option<&LinuxResources>, pids_limit: Option<i64>) -> Result<()> {
    carry_out(cgroup, resources, pids_limit, None)
}

/// See [`Cgroup::update`].
pub(super) fn update(cgroup: &Cgroup, resources: &LinuxResources, pids_limit: Option<i64>) -> Result<Undo> {
    let mut undo = Undo::default();
    match carry_out(cgroup, Some(resources), pids_limit, Some(&mut undo)) {
        Ok(()) => Ok(undo),
        Err(e) => {
            undo.restore();
            Err(e)
        }
    }
}

/// See [`Cgroup::cpu_max`].
pub(super) fn cpu_max(cgroup: &Cgroup) -> Option<(i64, u64)> {
    let dir = cgroup.v2().filter(|_| cgroup.on_v2("cpu"))?;
    let text = files::read(files::open_dir(&dir.directory()).ok()?, "cpu.max").ok()?;
    let (quota, period) = text.trim_end().split_once(' ')?;
    let quota = if quota == "max" { -1 } else { quota.parse().ok()? };
    Some((quota, period.parse().ok()?))
}

/// Tells systemd, where it is the driver, of limits that were changed.
pub(super) fn tell(
    cgroup: &Cgroup,
    resources: &LinuxResources,
    pids_limit: Option<i64>,
    undo: &mut Undo,
) -> Result<()> {
    let Some((unit, dir)) = cgroup.unit.as_ref().zip(cgroup.v2()) else { return Ok(()) };
    let mut writes = limits::plan(Some(resources), pids_limit, true)?;
    let has = |file: &str, value: Option<&str>| {
        writes.iter().any(|write| write.file == file && value.is_none_or(|value| write.value == value))
    };
    if has("cpu.idle", Some("0")) && !has("cpu.weight", None) {
        // For systemd idle is a weight, which only another one ends.
        let weight = files::open_dir(&dir.directory()).and_then(|fd| files::read(fd, "cpu.weight"));
        writes.extend(weight.ok().map(|weight| Write::new("cpu.idle", "cpu", "cpu.weight", weight.trim_end())));
    }
    undo.tells(cgroup);
    systemd::update(unit, cgroup, &writes)?;
    // The period of a quota that is no limit is none to systemd, which sets the default.
    writes.retain(|write| write.file == "cpu.max");
    systemd::round(&mut writes);
    if writes.is_empty() { Ok(()) } else { Target::open(dir.directory(), cgroup.remedy(), None)?.write_group(&writes) }
}

fn carry_out(
    cgroup: &Cgroup,
    resources: Option<&LinuxResources>,
    pids_limit: Option<i64>,
    mut undo: Option<&mut Undo>,
) -> Result<()> {
    let mut writes = hybrid::plan(cgroup, resources, pids_limit)?;
    if cgroup.unit.is_some() {
        systemd::round(&mut writes);
        if undo.is_some() {
            end_idle(cgroup, &mut writes);
        }
    }
    if let Some(resources) = resources.filter(|_| cgroup.on_v2("memory")) {
        check_usage(cgroup, resources)?;
    }
    if let Some(first) = writes.first().filter(|_| cgroup.dirs.is_empty()) {
        return Err(make::without_cgroup(cgroup, first));
    }
    let mut rest = writes.as_slice();
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|write| write.controller == first.controller).count();
        let (group, others) = rest.split_at(same);
        rest = others;
        let path = cgroup.home(&first.controller).ok_or_else(|| first.no_hierarchy())?.directory();
        Target::open(path, cgroup.remedy(), undo.as_deref_mut())?.write_group(group)?;
    }
    Ok(())
}

/// For systemd idle is a weight, so another one takes its place; the kernel wants to be told before.
fn end_idle(cgroup: &Cgroup, writes: &mut Vec<Write>) {
    let idle = |dir: &Dir| files::read(files::open_dir(&dir.directory())?, "cpu.idle");
    let Some(at) = writes.iter().position(|write| write.file == "cpu.weight") else { return };
    let told = writes.iter().any(|write| write.file == "cpu.idle");
    if !told && cgroup.v2().is_some_and(|dir| idle(dir).is_ok_and(|idle| idle.trim_end() == "1")) {
        let end = Write { file: "cpu.idle".into(), value: "0".into(), ..writes[at].clone() };
        writes.insert(at, end);
    }
}

/// A directory that is being written to.
struct Target<'a> {
    path: PathBuf,
    fd: OwnedFd,
    remedy: Option<&'static str>,
    undo: Option<&'a mut Undo>,
}

impl<'a> Target<'a> {
    fn open(path: PathBuf, remedy: Option<&'static str>, undo: Option<&'a mut Undo>) -> Result<Target<'a>> {
        let fd = files::open_dir(&path)
            .map_err(|e| Error::from_errno(e.raw_os_error(), format!("cannot open the cgroup {}", path.display())))?;
        Ok(Target { path, fd, remedy, undo })
    }

    /// Writes the values of one controller. One that is refused may fit after another has been set, so it gets a second
    /// turn at the end: a limit that grows beyond the old bound, or one that shrinks below.
    fn write_group(&mut self, writes: &[Write]) -> Result<()> {
        let mut later = Vec::new();
        for write in writes {
            match self.write(write) {
                Ok(()) => {}
                Err(Errno::INVAL) if write.ordered && writes.len() > 1 => later.push(write),
                Err(e) => return Err(self.explain(write, e)),
            }
        }
        later.into_iter().try_for_each(|write| self.write(write).map_err(|e| self.explain(write, e)))
    }

    fn write(&mut self, write: &Write) -> Result<(), Errno> {
        match (self.put(&write.file, &write.value), &write.missing) {
            (Err(Errno::NOENT), Missing::Skip) => Ok(()),
            (Err(Errno::NOENT), Missing::Or(file, value)) => self.put(file, value),
            (result, _) => result,
        }
    }

    fn put(&mut self, file: &str, value: &str) -> Result<(), Errno> {
        // What cannot be read cannot be put back either.
        let before = self.undo.as_ref().and_then(|_| files::read(&self.fd, file).ok());
        files::write(&self.fd, file, value)?;
        if let (Some(undo), Some(before)) = (&mut self.undo, before) {
            undo.add(&self.path, file, value, &before);
        }
        Ok(())
    }

    fn explain(&self, write: &Write, errno: Errno) -> Error {
        let e = match &write.missing {
            Missing::Or(file, value)
                if rustix::fs::accessat(&self.fd, &*write.file, Access::EXISTS, AtFlags::empty()).is_err() =>
            {
                files::cannot_write(errno, &self.path, file, value)
            }
            _ => files::cannot_write(errno, &self.path, &write.file, &write.value),
        };
        let e = match errno {
            Errno::NOENT | Errno::ACCESS | Errno::PERM => self.explain_missing(write, e),
            // The kernel of v1 does not go below what is in use.
            Errno::BUSY if write.file == "memory.limit_in_bytes" => Error::new(format!(
                "unable to set memory limit to {} (current usage: {}, peak usage: {})",
                write.value,
                self.number("memory.usage_in_bytes"),
                self.number("memory.max_usage_in_bytes")
            )),
            Errno::NODEV | Errno::OPNOTSUPP if matches!(&*write.controller, "io" | "blkio") => {
                e.hint("there is no such block device, or the scheduler of it knows no weights")
            }
            Errno::INVAL if write.controller == "cpuset" => e.hint("the parent cgroup does not have all of these"),
            _ => e,
        };
        e.context(&write.field)
    }

    fn explain_missing(&self, write: &Write, e: Error) -> Error {
        let name = &write.controller;
        let enabled = files::read(&self.fd, "cgroup.controllers");
        let lacks = enabled.is_ok_and(|names| !names.split_whitespace().any(|word| word == &**name));
        if write.file == "memory.memsw.limit_in_bytes" {
            e.hint("the kernel does not count swap: boot with swapaccount=1")
        } else if !lacks && e.errno() == libc::ENOENT && matches!(&write.missing, Missing::Or(..)) {
            e.hint("the kernel has no weights of disks, which a scheduler brings: load the module bfq")
        } else if !lacks || name == "cgroup" {
            e
        } else {
            let text = format!("can't be set: controller {name:?} not available in {}", self.path.display());
            match self.remedy {
                Some(remedy) => Error::new(text).hint(remedy),
                None => Error::new(text),
            }
        }
    }

    fn number(&self, file: &str) -> String {
        files::read(&self.fd, file).map_or("unknown".into(), |text| text.trim().to_string())
    }
}

/// `memory.checkBeforeUpdate`: refuses a limit below the usage, where v2 would end processes until it fits.
fn check_usage(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true)) else {
        return Ok(());
    };
    let Some(usage) = cgroup.v2().and_then(|dir| usage(&dir.directory())) else { return Ok(()) };
    for (field, name, limit) in [("swap", "memory+swap", memory.swap()), ("limit", "memory", memory.limit())] {
        if let Some(limit) = limit.filter(|&limit| limit > 0 && limit.unsigned_abs() <= usage) {
            let text = format!("rejecting {name} limit {limit} <= usage {usage}");
            return Err(Error::new(text).context(format!("linux.resources.memory.{field}")));
        }
    }
    Ok(())
}

fn usage(path: &Path) -> Option<u64> {
    let fd = files::open_dir(path).ok()?;
    files::read(fd, "memory.current").ok()?.trim().parse().ok()
}
