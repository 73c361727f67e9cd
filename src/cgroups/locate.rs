//! Where a container's cgroup is: the hierarchies of the host, and `linux.cgroupsPath` in each of them.
//!
//! The mount table grows with the number of containers, so it is read only where the usual places do not answer.

use std::path::{Component, Path, PathBuf};

use super::files::{self, Kind};
use super::{Cgroup, Dir, Driver, systemd};
use crate::error::{Error, Result};

/// Where cgroups are mounted by convention; on a unified host this is the one hierarchy.
const ROOT: &str = "/sys/fs/cgroup";

/// See [`Cgroup::locate`].
pub(super) fn locate(driver: Driver, cgroups_path: Option<&Path>, id: &str, rootless: bool) -> Result<Cgroup> {
    let asked = cgroups_path.filter(|path| !path.as_os_str().is_empty());
    let mut cgroup =
        Cgroup { driver, dirs: Vec::new(), unified: false, rootless, explicit: asked.is_some(), unit: None };
    match driver {
        Driver::Disabled => return Ok(cgroup),
        Driver::Systemd => {
            systemd::locate(&mut cgroup, asked, id)?;
            return Ok(cgroup);
        }
        Driver::Cgroupfs => {}
    }
    let place = Place::new(asked.unwrap_or(Path::new(id)));
    if place.rest.as_os_str().is_empty() {
        let path = asked.unwrap_or(Path::new(id)).display();
        return Err(Error::new(format!("linux.cgroupsPath: {path} names no cgroup of the container's own")));
    }
    match files::kind(Path::new(ROOT)) {
        Some(Kind::V2) => {
            cgroup.unified = true;
            cgroup.dirs.push(unified_dir(&place)?);
        }
        Some(_) => cgroup.dirs = v1_dirs(&place)?,
        None if rootless => {}
        None => return Err(Error::new("no cgroup file system is mounted on /sys/fs/cgroup")),
    }
    // Without the devices controller a container could use every device of the host.
    if !cgroup.unified && !rootless && !cgroup.dirs.iter().any(|dir| dir.has("devices")) {
        return Err(Error::new("no cgroup hierarchy with the devices controller is mounted below /sys/fs/cgroup"));
    }
    Ok(cgroup)
}

/// A cgroupsPath without `.` and `..`, and without the leading `/`.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    absolute: bool,
    rest: PathBuf,
}

impl Place {
    fn new(path: &Path) -> Place {
        Place { absolute: path.is_absolute(), rest: normal(path) }
    }

    /// The absolute path in a hierarchy whose own cgroup (of the caller, or the one above) is `own`.
    fn path(&self, own: &Path) -> PathBuf {
        if self.absolute { Path::new("/").join(&self.rest) } else { own.join(&self.rest) }
    }
}

/// Resolves `.` and `..` by the words alone, never above the start, and makes the path relative.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// The directory on a unified host. A relative path goes beside the caller's cgroup, not below it: that one has
/// processes, so no controllers can be enabled for its children.
fn unified_dir(place: &Place) -> Result<Dir> {
    let mountpoint = PathBuf::from(ROOT);
    let mut own = PathBuf::from("/");
    if !place.absolute {
        let table = files::read_path("/proc/self/cgroup")?;
        own = Own::parse(&table).find(|own| own.hierarchy.is_empty()).map(|own| own.path()).unwrap_or(own);
        own.pop();
        if own.as_os_str().is_empty() {
            own.push("/");
        }
        if own != Path::new("/") && files::kind(&files::below(&mountpoint, &own)) != Some(Kind::V2) {
            let mounts = files::read_path("/proc/self/mountinfo")?;
            let root = Mount::parse(&mounts).find(|mount| mount.unified && mount.point == mountpoint);
            own = root.map(|mount| mount.inside(&own)).unwrap_or(own);
        }
    }
    Ok(Dir { hierarchy: String::new(), mountpoint, path: place.path(&own) })
}

/// The directories on a host with v1 hierarchies, v2 last where it is mounted in the usual place.
fn v1_dirs(place: &Place) -> Result<Vec<Dir>> {
    let table = files::read_path("/proc/self/cgroup")?;
    let mut mounts = None;
    let mut dirs = Vec::new();
    let mut unified = None;
    for line in Own::parse(&table) {
        let own = if place.absolute { PathBuf::from("/") } else { line.path() };
        let mountpoint = Path::new(ROOT).join(line.folder());
        let want = if line.hierarchy.is_empty() { Kind::V2 } else { Kind::V1 };
        // One look tells that the hierarchy is mounted there and that the mount shows the caller's cgroup.
        if files::kind(&files::below(&mountpoint, &own)) == Some(want) {
            let dir = Dir { hierarchy: line.hierarchy.to_string(), mountpoint, path: place.path(&own) };
            if want == Kind::V2 {
                unified = Some(dir);
            } else {
                dirs.push(dir);
            }
            continue;
        }
        if want == Kind::V2 {
            continue;
        }
        if mounts.is_none() {
            mounts = Some(files::read_path("/proc/self/mountinfo")?);
        }
        let text = mounts.as_deref().unwrap_or_default();
        if let Some(mount) = Mount::parse(text).find(|mount| mount.carries(line.hierarchy)) {
            let path = place.path(&mount.inside(&own));
            dirs.push(Dir { hierarchy: line.hierarchy.to_string(), mountpoint: mount.point, path });
        }
    }
    dirs.extend(unified);
    Ok(dirs)
}

/// A line of /proc/self/cgroup.
#[derive(Debug)]
struct Own<'a> {
    hierarchy: &'a str,
    path: &'a str,
}

impl<'a> Own<'a> {
    fn parse(table: &'a str) -> impl Iterator<Item = Own<'a>> {
        table.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some(Own { hierarchy: fields.next()?, path: fields.next()? })
        })
    }

    /// The path in the hierarchy; "/" for a caller outside the root of its cgroup namespace, which shows as "/..".
    fn path(&self) -> PathBuf {
        let path = Path::new(self.path);
        if path.components().any(|component| component == Component::ParentDir) {
            return PathBuf::from("/");
        }
        path.to_path_buf()
    }

    /// The name of the mount point below /sys/fs/cgroup by convention.
    fn folder(&self) -> &'a str {
        match self.hierarchy {
            "" => "unified",
            name => name.strip_prefix("name=").unwrap_or(name),
        }
    }
}

/// A cgroup mount in /proc/self/mountinfo.
#[derive(Debug)]
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    unified: bool,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(table: &'a str) -> impl Iterator<Item = Mount<'a>> {
        table.lines().filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut filesystem = filesystem.split(' ');
            let unified = match filesystem.next()? {
                "cgroup" => false,
                "cgroup2" => true,
                _ => return None,
            };
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
            Some(Mount { root, point, unified, options: filesystem.nth(1).unwrap_or_default() })
        })
    }

    /// Whether this is the v1 hierarchy of that name.
    fn carries(&self, hierarchy: &str) -> bool {
        let named = |name: &str| self.options.split(',').any(|option| option == name);
        !self.unified && hierarchy.split(',').all(named)
    }

    /// A cgroup's path as this mount shows it.
    fn inside(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(rest) => Path::new("/").join(rest),
            // Outside of what is mounted: the top is the nearest that there is.
            Err(_) => PathBuf::from("/"),
        }
    }
}

/// Decodes the octal escapes of mountinfo.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out() {
        for (path, absolute, rest) in [
            ("/a/b", true, "a/b"),
            ("/../../a", true, "a"),
            ("../../../etc", false, "etc"),
            ("a/../b/./c", false, "b/c"),
            ("/", true, ""),
            ("a/..", false, ""),
        ] {
            assert_eq!(Place::new(Path::new(path)), Place { absolute, rest: rest.into() }, "{path}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_callers_cgroup() {
        let own = Path::new("/user.slice/x");
        assert_eq!(Place::new(Path::new("a/b")).path(own), Path::new("/user.slice/x/a/b"));
        assert_eq!(Place::new(Path::new("/a/b")).path(own), Path::new("/a/b"));
    }

    #[test]
    fn the_callers_cgroups_are_read() {
        let table = "12:cpu,cpuacct:/a:b\n3:name=systemd:/s\n0::/../x\n";
        let lines: Vec<_> = Own::parse(table).map(|own| (own.hierarchy, own.folder(), own.path())).collect();
        let want = [("cpu,cpuacct", "cpu,cpuacct", "/a:b"), ("name=systemd", "systemd", "/s"), ("", "unified", "/")];
        assert_eq!(lines, want.map(|(hierarchy, folder, path)| (hierarchy, folder, PathBuf::from(path))));
    }

    #[test]
    fn mounts_of_a_part_are_seen_as_such() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                     32 31 0:29 /docker/x /sys/fs/cgroup/cpu\\040x rw,relatime master:4 - cgroup cgroup rw,cpu,cpuacct\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let mounts: Vec<_> = Mount::parse(table).collect();
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/sys/fs/cgroup/cpu x"));
        assert!(mounts[0].carries("cpu,cpuacct") && mounts[0].carries("cpuacct") && !mounts[0].carries("cpuset"));
        assert_eq!(mounts[0].inside(Path::new("/docker/x/y")), Path::new("/y"));
        assert_eq!(mounts[0].inside(Path::new("/docker/x")), Path::new("/"));
        assert_eq!(mounts[0].inside(Path::new("/other")), Path::new("/"));
        assert!(mounts[1].unified && !mounts[1].carries("cpu"));
    }
}
