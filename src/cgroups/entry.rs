//! How a process enters: descriptors that it inherits.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Cgroup, Dir, Entry, files};
use crate::error::{Context, Error, Result};

/// See [`Cgroup::entry`].
pub(super) fn entry(cgroup: &Cgroup) -> Result<Entry> {
    open(cgroup.dirs.iter().map(|dir| (dir, dir.directory())))
}

/// See [`Cgroup::sub_entry`].
pub(super) fn sub_entry(cgroup: &Cgroup, sub: &[String]) -> Result<Entry> {
    let subs = parse(sub)?;
    let known = |name: &str| name.is_empty() || cgroup.dirs.iter().any(|dir| dir.has(name));
    if let Some(name) = subs.keys().find(|name| !known(name)) {
        return Err(Error::new(format!("unknown controller {name} in --cgroup")));
    }
    let mut places = Vec::new();
    for dir in &cgroup.dirs {
        let sub = subs.iter().find(|(name, _)| name.is_empty() || dir.has(name)).map(|(_, sub)| sub.as_str());
        places.push((dir, inside(&dir.directory(), sub.unwrap_or_default())?));
    }
    open(places.into_iter()).map_err(|e| e.context("error adding pid of the process to cgroups"))
}

/// The place of `--cgroup` in the container's cgroup of v2, from `/` on.
pub(super) fn sub_path(sub: &[String]) -> Result<PathBuf> {
    let subs = parse(sub)?;
    if let Some(name) = subs.keys().find(|name| !name.is_empty()) {
        return Err(Error::new(format!("unknown controller {name} in --cgroup")));
    }
    inside(Path::new("/"), subs.get("").map_or("", String::as_str))
}

/// Where a process is below the container's cgroup of v2, from `/` on.
pub(super) fn path_below(cgroup: &Cgroup, pid: i32) -> Option<PathBuf> {
    let table = files::read_path(&format!("/proc/{pid}/cgroup")).ok()?;
    let own = Path::new(table.lines().find_map(|line| line.strip_prefix("0::"))?);
    let below = own.strip_prefix(&cgroup.v2()?.path).ok()?;
    (below != Path::new("")).then(|| Path::new("/").join(below))
}

/// See [`Cgroup::init_entry`].
pub(super) fn init_entry(cgroup: &Cgroup, pid: i32) -> Result<Entry> {
    let Some(dir) = cgroup.v2().filter(|_| cgroup.unified) else { return entry(cgroup) };
    let table = files::read_path(&format!("/proc/{pid}/cgroup"))?;
    let own = table.lines().find_map(|line| line.strip_prefix("0::"));
    let own = own.ok_or_else(|| Error::new(format!("process {pid} has no cgroup of version 2")))?;
    open(std::iter::once((dir, files::below(&dir.mountpoint, Path::new(own)))))
}

/// Opens each directory (v2) or its `tasks` (v1). Only the latter takes a `0` without a lock of the whole system.
fn open<'a>(places: impl Iterator<Item = (&'a Dir, PathBuf)>) -> Result<Entry> {
    let mut entry = Entry::default();
    for (dir, path) in places {
        let (path, flags) =
            if dir.is_v2() { (path, OFlags::PATH | OFlags::DIRECTORY) } else { (path.join("tasks"), OFlags::WRONLY) };
        let fd = rustix::fs::open(&path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("cannot open the cgroup {}", path.display()))?;
        if dir.is_v2() { entry.clone_into = Some(fd) } else { entry.procs.push((fd, path)) }
    }
    Ok(entry)
}

/// The values of `--cgroup`: `PATH` for all hierarchies, or `CONTROLLER[,CONTROLLER]:PATH` for some.
fn parse(values: &[String]) -> Result<BTreeMap<String, String>> {
    let mut subs = BTreeMap::new();
    for value in values {
        let fault = |why: &str| Error::new(format!("invalid --cgroup argument: {value} ({why})"));
        let Some((names, path)) = value.split_once(':') else {
            if values.len() > 1 {
                return Err(fault("missing <controller>: prefix"));
            }
            subs.insert(String::new(), value.clone());
            continue;
        };
        for name in names.split(',') {
            if name.is_empty() {
                return Err(fault("empty <controller> prefix"));
            }
            if subs.insert(name.to_string(), path.to_string()).is_some() {
                return Err(fault(&format!("controller {name} specified multiple times")));
            }
        }
    }
    Ok(subs)
}

/// `sub` below `base`; a `..` may not lead above it.
fn inside(base: &Path, sub: &str) -> Result<PathBuf> {
    let mut path = base.to_path_buf();
    let mut depth = 0;
    for component in Path::new(sub).components() {
        match component {
            Component::Normal(name) => {
                path.push(name);
                depth += 1;
            }
            Component::ParentDir if depth == 0 => return Err(Error::new(format!("bad sub cgroup path: {sub}"))),
            Component::ParentDir => {
                path.pop();
                depth -= 1;
            }
            _ => {}
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_cgroups_are_read_as_runc_reads_them() {
        let read = |values: &[&str]| parse(&values.iter().map(|value| value.to_string()).collect::<Vec<_>>());
        let error = |values: &[&str]| read(values).unwrap_err().to_string();
        assert_eq!(read(&["a/b"]).unwrap().get("").map(String::as_str), Some("a/b"));
        let subs = read(&["memory:m", "cpu,cpuacct:c"]).unwrap();
        assert_eq!(subs.into_iter().map(|(k, v)| k + "=" + &v).collect::<Vec<_>>(), ["cpu=c", "cpuacct=c", "memory=m"]);
        assert_eq!(error(&[":x"]), "invalid --cgroup argument: :x (empty <controller> prefix)");
        assert_eq!(error(&["cpu:x", "y"]), "invalid --cgroup argument: y (missing <controller>: prefix)");
        assert!(error(&["cpu:x", "cpu:y"]).contains("controller cpu specified multiple times"));
    }

    #[test]
    fn sub_cgroups_stay_inside() {
        let base = Path::new("/m/c");
        for (sub, want) in [("", Some("/m/c")), ("/", Some("/m/c")), ("a/../b", Some("/m/c/b")), ("..", None)] {
            assert_eq!(inside(base, sub).ok().as_deref(), want.map(Path::new), "{sub}");
        }
        let sub = |value: &str| sub_path(&[value.to_string()]).map_err(|e| e.to_string());
        assert_eq!(sub("a/b").as_deref(), Ok(Path::new("/a/b")));
        assert_eq!(sub("../b"), Err("bad sub cgroup path: ../b".to_string()));
        assert_eq!(sub("cpu:b"), Err("unknown controller cpu in --cgroup".to_string()));
        assert_eq!(sub_path(&[]).unwrap(), Path::new("/"));
        assert_eq!(inside(base, "a/../../x").unwrap_err().to_string(), "bad sub cgroup path: a/../../x");
    }
}
