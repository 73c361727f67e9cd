//! Making the directories of a cgroup, so that processes can enter and limits can be set.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::limits::Write;
use super::{Cgroup, Dir, files, hybrid, processes};
use crate::error::{Error, Result};

/// See [`Cgroup::create`].
pub(super) fn create(cgroup: &mut Cgroup, resources: Option<&LinuxResources>, pids_limit: Option<i64>) -> Result<()> {
    let writes = hybrid::plan(cgroup, resources, pids_limit)?;
    let mut made = Made::default();
    let result = match cgroup.dirs.is_empty() {
        true => writes.first().map_or(Ok(()), |write| Err(without_cgroup(cgroup, write))),
        false if cgroup.unified => create_v2(cgroup, &writes, &mut made),
        false => create_v1(cgroup, &writes, &mut made),
    };
    if result.is_err() {
        made.undo();
    }
    result
}

/// The error of a limit that is asked of a container without cgroups.
pub(super) fn without_cgroup(cgroup: &Cgroup, write: &Write) -> Error {
    let text = format!("{}: cannot set limits without cgroups", write.field);
    if cgroup.driver == super::Driver::Disabled {
        return Error::new(text)
            .hint("the cgroup manager is disabled; create it with --cgroup-manager cgroupfs or systemd");
    }
    remedied(cgroup, Error::new(text).hint("the container has none"))
}

/// An error with what a rootless caller can do about it.
fn remedied(cgroup: &Cgroup, e: Error) -> Error {
    match cgroup.remedy() {
        Some(remedy) => e.hint(remedy),
        None => e,
    }
}

/// Directories that were made, parents first.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn undo(&self) {
        for path in self.0.iter().rev() {
            // Parents in which others have made cgroups meanwhile stay.
            let _ = rustix::fs::rmdir(path);
        }
    }

    /// Makes a directory and the missing ones above it up to the mount point. Whether it was not there before.
    fn dir(&mut self, path: &Path, mountpoint: &Path) -> Result<bool> {
        // A parent may vanish while another container that made it fails; it is made again.
        for _ in 0..3 {
            match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    self.0.push(path.to_path_buf());
                    return Ok(true);
                }
                Err(Errno::EXIST) => return Ok(false),
                Err(Errno::NOENT) => match path.parent() {
                    Some(parent) if parent.starts_with(mountpoint) && parent != mountpoint => {
                        self.dir(parent, mountpoint)?;
                    }
                    _ => return Err(cannot_make(Errno::NOENT, path)),
                },
                Err(e) => return Err(cannot_make(e, path)),
            }
        }
        Err(cannot_make(Errno::NOENT, path))
    }
}

fn cannot_make(errno: Errno, path: &Path) -> Error {
    Error::from_errno(errno.raw_os_error(), format!("unable to apply cgroup configuration: mkdir {}", path.display()))
}

/// Whether a rootless caller lacks the right, in which case a container without limits does without the cgroup.
fn forgiven(cgroup: &Cgroup, e: &Error) -> bool {
    !cgroup.explicit && lacks_right(cgroup, e)
}

fn lacks_right(cgroup: &Cgroup, e: &Error) -> bool {
    cgroup.rootless && matches!(e.errno(), libc::EACCES | libc::EPERM | libc::EROFS)
}

/// Refuses a cgroup that exists and is in use: limits and kills would hit what is not the container's.
pub(super) fn check_free(cgroup: &Cgroup, dir: &Dir) -> Result<()> {
    let pids = processes::pids_at(&dir.directory())?;
    if !pids.is_empty() {
        return Err(Error::new(format!(
            "container's cgroup is not empty: {} process(es) found in {}",
            pids.len(),
            dir.directory().display()
        )));
    }
    if (dir.is_v2() || dir.has("freezer")) && cgroup.frozen()? {
        let path = dir.directory();
        return Err(Error::new(format!("container's cgroup unexpectedly frozen: {}", path.display())));
    }
    Ok(())
}

fn create_v1(cgroup: &mut Cgroup, writes: &[Write], made: &mut Made) -> Result<()> {
    if let Some(write) = writes.iter().find(|write| cgroup.home(&write.controller).is_none()) {
        return Err(write.no_hierarchy());
    }
    let mut kept = Vec::new();
    for dir in cgroup.dirs.clone() {
        let before = made.0.len();
        match made.dir(&dir.directory(), &dir.mountpoint) {
            Ok(true) => {}
            Ok(false) => check_free(cgroup, &dir)?,
            Err(e) if forgiven(cgroup, &e) => continue,
            // Whoever gives a user cgroups of v1 leaves out the v2 side of a hybrid host, which has few controllers.
            Err(e) if dir.is_v2() && lacks_right(cgroup, &e) => continue,
            Err(e) if lacks_right(cgroup, &e) => return Err(remedied(cgroup, e)),
            Err(e) => return Err(e),
        }
        if dir.has("cpuset") {
            let wanted = |file: &str| writes.iter().any(|write| write.controller == "cpuset" && write.file == file);
            let leaf = dir.directory();
            // One that was there already may never have been filled.
            let paths = if made.0.len() == before { std::slice::from_ref(&leaf) } else { &made.0[before..] };
            for path in paths {
                fill_cpuset(path, &dir, &|file| *path == leaf && wanted(file))?;
            }
        }
        kept.push(dir);
    }
    cgroup.dirs = kept;
    if let Some(write) = writes.iter().find(|write| cgroup.home(&write.controller).is_none()) {
        return Err(remedied(cgroup, write.no_hierarchy()));
    }
    let Some(dir) = cgroup.v2() else { return Ok(()) };
    let beside: Vec<_> = writes.iter().filter(|write| hybrid::beside(cgroup, &write.controller)).cloned().collect();
    if !beside.is_empty() {
        check_type(dir, &beside)?;
    }
    enable(cgroup, dir, &beside)
}

/// Gives a cpuset the processors and memory nodes of its parent: no process can enter one that has none. `skip` names
/// the files that limits will fill.
fn fill_cpuset(path: &Path, dir: &Dir, skip: &dyn Fn(&str) -> bool) -> Result<()> {
    let Some(parent) = path.parent().filter(|parent| parent.starts_with(&dir.mountpoint)) else { return Ok(()) };
    let open = |path: &Path| files::open_dir(path).map_err(|e| files::cannot_read(e, path, ""));
    let (here, above) = (open(path)?, open(parent)?);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if skip(file) {
            continue;
        }
        let read = |fd: &OwnedFd, path| files::read(fd, file).map_err(|e| files::cannot_read(e, path, file));
        let mut value = read(&above, parent)?;
        if value.trim().is_empty() {
            fill_cpuset(parent, dir, &|_| false)?;
            value = read(&above, parent)?;
        }
        // Writing what is there already would fail under a parent that is exclusive.
        if read(&here, path)?.trim().is_empty() {
            files::write(&here, file, &value).map_err(|e| files::cannot_write(e, path, file, &value))?;
        }
    }
    Ok(())
}

fn create_v2(cgroup: &mut Cgroup, writes: &[Write], made: &mut Made) -> Result<()> {
    let Some(dir) = cgroup.dirs.first().cloned() else { return Ok(()) };
    match made.dir(&dir.directory(), &dir.mountpoint) {
        // systemd has made it, and made sure that the name was free.
        Ok(_) if cgroup.unit.is_some() => {}
        Ok(true) => {}
        Ok(false) => check_free(cgroup, &dir)?,
        Err(e) if forgiven(cgroup, &e) => {
            let Some(write) = writes.first() else {
                cgroup.dirs.clear();
                return Ok(());
            };
            let text = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
            return Err(remedied(cgroup, e.context(format!("{}: {text}", write.field))));
        }
        Err(e) if lacks_right(cgroup, &e) => return Err(remedied(cgroup, e)),
        Err(e) => return Err(e),
    }
    check_type(&dir, writes)?;
    enable(cgroup, &dir, writes)
}

/// Below a cgroup that has processes and lends its controllers by thread, a new one must be threaded as well, which
/// leaves only the controllers that know threads.
fn check_type(dir: &Dir, writes: &[Write]) -> Result<()> {
    // A child of the root is always a domain.
    if dir.path.components().count() <= 2 {
        return Ok(());
    }
    let path = dir.directory();
    let fd = files::open_dir(&path).map_err(|e| files::cannot_read(e, &path, "cgroup.type"))?;
    let kind = files::read(&fd, "cgroup.type").map_err(|e| files::cannot_read(e, &path, "cgroup.type"))?;
    let kind = kind.trim_end();
    if kind == "domain" {
        return Ok(());
    }
    let domain = |write: &&Write| matches!(&*write.controller, "memory" | "io" | "hugetlb" | "rdma");
    match writes.iter().find(domain) {
        Some(write) => Err(Error::new(format!(
            "{}: cannot enter cgroupv2 {} with domain controllers -- it is in {kind} mode",
            write.field,
            path.display()
        ))),
        None if kind == "domain invalid" => files::write(&fd, "cgroup.type", "threaded")
            .map_err(|e| files::cannot_write(e, &path, "cgroup.type", "threaded")),
        None => Ok(()),
    }
}

/// Enables all controllers that there are, as statistics are asked of containers without limits too, and limits may come
/// later; one that a limit needs has to be there in the end.
fn enable(cgroup: &Cgroup, dir: &Dir, writes: &[Write]) -> Result<()> {
    let path = dir.directory();
    let all = controllers(&dir.mountpoint)?;
    if all.is_empty() && writes.is_empty() {
        return Ok(());
    }
    let mut have = controllers(&path)?;
    let mut causes = BTreeMap::new();
    if !all.iter().all(|name| have.contains(name)) {
        let mut level = dir.mountpoint.clone();
        enable_below(&level, &all, &mut causes);
        let parts: Vec<_> = dir.path.strip_prefix("/").unwrap_or(&dir.path).components().collect();
        for part in &parts[..parts.len().saturating_sub(1)] {
            level.push(part);
            enable_below(&level, &all, &mut causes);
        }
        have = controllers(&path)?;
    }
    let missing = |write: &&Write| write.needs_controller() && !have.iter().any(|name| **name == *write.controller);
    let Some(write) = writes.iter().find(missing) else { return Ok(()) };
    let name = &write.controller;
    let cause = match causes.remove(&**name) {
        Some((level, e)) => blocked(&level, name, e),
        None => Error::new(format!("the cgroup controller {name} is not available in {}", dir.mountpoint.display())),
    };
    Err(remedied(cgroup, cause).context(format!("{}: cannot set {name} limit", write.field)))
}

/// The controllers that a cgroup of v2 has.
pub(super) fn controllers(path: &Path) -> Result<Vec<String>> {
    let text = files::open_dir(path)
        .and_then(|fd| files::read(fd, "cgroup.controllers"))
        .map_err(|e| files::cannot_read(e, path, "cgroup.controllers"))?;
    Ok(text.split_whitespace().map(String::from).collect())
}

/// Enables controllers for the children of a cgroup: all at once, else one by one, keeping the first fault of each.
fn enable_below(level: &Path, all: &[String], causes: &mut BTreeMap<String, (PathBuf, Errno)>) {
    let Ok(fd) = files::open_dir(level) else { return };
    let value = |name: &String| format!("+{name}");
    let whole = all.iter().map(value).collect::<Vec<_>>().join(" ");
    if files::write(&fd, "cgroup.subtree_control", &whole).is_ok() {
        return;
    }
    for name in all {
        if let Err(e) = files::write(&fd, "cgroup.subtree_control", &value(name)) {
            causes.entry(name.clone()).or_insert((level.to_path_buf(), e));
        }
    }
}

/// Why a controller could not be enabled for the children of a cgroup.
fn blocked(level: &Path, name: &str, errno: Errno) -> Error {
    let e = files::cannot_write(errno, level, "cgroup.subtree_control", &format!("+{name}"));
    let own = |fd: OwnedFd| files::read(fd, "cgroup.procs");
    match (errno, files::open_dir(level).and_then(own)) {
        // A cgroup with processes of its own cannot divide its resources among children.
        (Errno::BUSY, Ok(pids)) => {
            let pids: Vec<_> = pids.lines().take(10).collect();
            e.hint(format!("it has processes of its own: {}", pids.join(", ")))
        }
        (Errno::NOENT, _) => e.hint("the controller is not enabled in the cgroup above"),
        _ => e,
    }
}
