//! The mounts of a container that belong to the host: CRIU does not save them, and is told where they are when it makes the
//! container anew; and the places for all mounts, which must be there by then.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MS_BIND, MS_REC, MS_REMOUNT};
use oci_spec::runtime::{LinuxNamespaceType, Mount as Entry};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::bind::kind;
use super::filesystem::FileSystem;
use super::inroot::{self, Leaf};
use super::mounts::{Kind, Mount, attach_bind};
use super::place::{Inside, attach, clean, host_name};
use super::protect::remount_read_only;
use super::{CgroupMount, Plan, devices, resolve};
use crate::error::{Context, Error, Result};
use crate::spec::Config;
use crate::spec::options::Options;

/// A mount of the host's in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Where the configuration wants it.
    pub place: PathBuf,
    /// What of the host is bound there.
    pub source: PathBuf,
    /// Whether mounts below the source came along.
    pub recursive: bool,
}

/// All of them that the configuration asks for: binds, the host's device nodes (which are bound in user namespaces), the
/// cgroups where no new mount may show them: in a user namespace, and on v1 without a cgroup namespace. Some may not be
/// there.
pub fn externals(config: &Config, bundle: &Path, cgroups: &[CgroupMount], unified: bool) -> Vec<External> {
    let linux = config.linux();
    let listed = |kind| linux.namespaces().iter().flatten().any(|n| n.typ() == kind);
    let user = listed(LinuxNamespaceType::User);
    let bound = user || (!unified && !listed(LinuxNamespaceType::Cgroup));
    let root = config.spec.root().as_ref().map(|root| clean(&bundle.join(root.path())));
    let mut all = Vec::new();
    for entry in config.spec.mounts().iter().flatten() {
        let place = place(entry, root.as_deref());
        let options = Options::parse(entry.options().as_deref().unwrap_or_default());
        let typ = entry.typ().as_deref().unwrap_or_default();
        if options.flags & MS_REMOUNT != 0 {
            continue;
        }
        if let Some(bind) = bound_at(entry, &place, bundle) {
            all.push(bind);
        } else if typ == "cgroup" && bound {
            let v2 = |host: &&CgroupMount| host.hierarchy.is_empty();
            all.extend(cgroups.iter().filter(|host| v2(host) == unified).filter_map(|host| {
                let place = if unified { place.clone() } else { place.join(host.mountpoint.file_name()?) };
                Some(External { place, source: super::cgroup::below(host), recursive: false })
            }));
        }
    }
    let nodes = devices::paths(linux.devices().as_deref().unwrap_or_default());
    all.extend(nodes.map(|path| External { place: clean(&path), source: path, recursive: false }));
    all
}

/// The binds among the mounts of a configuration.
pub fn binds(config: &Config, bundle: &Path) -> Vec<External> {
    let mounts = config.spec.mounts().iter().flatten();
    mounts.zip(places(config, bundle)).filter_map(|(entry, place)| bound_at(entry, &place, bundle)).collect()
}

/// Where a configuration wants its mounts.
pub fn places(config: &Config, bundle: &Path) -> Vec<PathBuf> {
    let root = config.spec.root().as_ref().map(|root| clean(&bundle.join(root.path())));
    config.spec.mounts().iter().flatten().map(|entry| place(entry, root.as_deref())).collect()
}

fn bound_at(entry: &Entry, place: &Path, bundle: &Path) -> Option<External> {
    let flags = Options::parse(entry.options().as_deref().unwrap_or_default()).flags;
    let bind = entry.typ().as_deref() == Some("bind") || flags & MS_BIND != 0;
    let source = bundle.join(entry.source().as_deref().unwrap_or(Path::new("")));
    (bind && flags & MS_REMOUNT == 0).then(|| External {
        place: place.to_path_buf(),
        source,
        recursive: flags & MS_REC != 0,
    })
}

/// The place of a mount in the root. Other runtimes take a destination by its path on the host, too.
fn place(entry: &Entry, root: Option<&Path>) -> PathBuf {
    let destination = clean(entry.destination());
    match root.filter(|root| *root != Path::new("/")).and_then(|root| destination.strip_prefix(root).ok()) {
        Some(inside) => Path::new("/").join(inside),
        None => destination,
    }
}

/// Where in the root of a running container a path leads, and whether that is a directory; none where nothing is there.
pub fn locate(root: BorrowedFd<'_>, path: &Path) -> Result<Option<(PathBuf, bool)>> {
    let file = match inroot::resolve(root, path, OFlags::empty(), ResolveFlags::empty()) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        file => file.context(|| format!("cannot find {} in the container", path.display()))?,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).context(|| "cannot open /proc/self/fd")?;
    Ok(Some((host_name(&names, &file)?, kind(&file)? == FileType::Directory)))
}

/// Makes the root of the mount namespace that this process has joined read-only, which CRIU forgets.
pub fn protect_root() -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).context(|| "cannot open the root filesystem")?;
    remount_read_only(&root).context(|| "root.readonly: cannot make the root filesystem read-only")
}

impl Plan {
    /// Makes the places that mounts need in the root and in each other, as creation does; what is mounted for that is gone
    /// afterwards. Then mounts the root on the directory `at`, where CRIU wants it: by itself, with nothing on top of it.
    /// In a process of its own, in a new mount namespace.
    pub fn make_places(&mut self, at: &Path) -> Result<()> {
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context(|| "cannot make the mounts of the new namespace slaves of the host's")?;
        let umask = rustix::process::umask(Mode::empty());
        if self.mount_namespace {
            let inside = self.attach_root().context(|| format!("root.path: cannot mount {}", self.root.0.display()))?;
            for mount in &mut self.mounts {
                mount.make_place(&inside)?;
            }
            rustix::mount::unmount(Inside::proc_path(&inside.root), UnmountFlags::DETACH)
                .context(|| "cannot unmount the root filesystem")?;
        }
        rustix::process::umask(umask);
        let tree = resolve::clone_root(&self.root.0, self.propagation)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let cannot = || format!("cannot mount the root filesystem on {}", at.display());
        let directory = rustix::fs::open(at, flags, Mode::empty()).context(cannot)?;
        attach(&tree, &directory).context(cannot)
    }
}

impl Mount {
    /// Makes its place, and mounts something there: what belongs to the host as it is, so that places in it are made there;
    /// what CRIU has saved with all its files is stood in for.
    fn make_place(&mut self, inside: &Inside) -> Result<()> {
        let done = match &mut self.kind {
            Kind::Remount | Kind::Cgroup => return Ok(()),
            Kind::Bind(bind) => match bind.open_inside(inside, |_| Ok(())) {
                // It lies in what CRIU has saved.
                Err(e) if bind.inside.is_some() && e.errno() == libc::ENOENT => return Ok(()),
                opened => {
                    opened.and_then(|()| bind.open_late()).and_then(|()| attach_bind(bind, &self.destination, inside))
                }
            },
            Kind::New(..) => stand_in(&self.destination, inside),
        };
        done.map(drop).map_err(|e| {
            let destination = Path::new("/").join(&self.destination);
            e.context(format!("{}: cannot make a place for it at {}", self.place, destination.display()))
        })
    }
}

fn stand_in(destination: &Path, inside: &Inside) -> Result<OwnedFd> {
    let place = inside.open(destination, || Ok(Leaf::Directory), true)?;
    if place.path == Path::new("/") {
        return Err(Error::new("the destination is on the top of rootfs"));
    }
    let fs = FileSystem { kind: "tmpfs", source: OsStr::new("tmpfs"), flags: 0, data: "mode=755" };
    let mount = fs.open()?;
    inside.attach(&mount, &place)?;
    Ok(mount)
}

/// The mount points below a directory, of a table as /proc/PID/mountinfo.
pub fn mounts_below(mountinfo: &str, directory: &Path) -> Vec<PathBuf> {
    mount_points(mountinfo).filter(|place| place.starts_with(directory) && place != directory).collect()
}

/// Whether a place is a mount point in such a table.
pub fn is_mounted(mountinfo: &str, place: &Path) -> bool {
    mount_points(mountinfo).any(|point| point == place)
}

fn mount_points(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape)
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let (mut bytes, mut rest) = (Vec::new(), field.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => (bytes.push(byte), rest = &after[3..]).0,
            None => (bytes.push(first), rest = after).0,
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mounts: &str) -> Config {
        let text =
            format!(r#"{{"ociVersion": "1.0.0", "root": {{"path": "rootfs"}}, "mounts": [{mounts}], "linux": {{}}}}"#);
        crate::spec::parse(text).unwrap()
    }

    #[test]
    fn what_belongs_to_the_host_is_found() {
        let config = config(
            r#"{"destination": "/data/", "source": "d", "options": ["rbind", "ro"]},
            {"destination": "/b/rootfs/host", "source": "/h", "type": "bind"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/data", "type": "none", "options": ["remount", "bind"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}"#,
        );
        let host = CgroupMount { hierarchy: "pids".into(), mountpoint: "/none/pids".into(), path: "/c".into() };
        let found = externals(&config, Path::new("/b"), &[host], false);
        let of =
            |place: &str, source: &str, recursive| External { place: place.into(), source: source.into(), recursive };
        assert_eq!(
            found[..3],
            [of("/data", "/b/d", true), of("/host", "/h", false), of("/sys/fs/cgroup/pids", "/none/pids", false),]
        );
        assert!(found[3..].iter().all(|e| e.place.starts_with("/dev") && e.place == e.source));
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:1 / /a rw - ext4 a rw\n3 2 8:1 / /a/b\\040c rw - ext4 a rw\n\
            4 2 8:1 / /ab rw - ext4 a rw\n";
        assert_eq!(mounts_below(table, Path::new("/a")), [PathBuf::from("/a/b c")]);
        assert_eq!(unescape("/x\\134\\0"), PathBuf::from("/x\\\\0"));
    }
}
