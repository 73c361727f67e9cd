//! Mounts of type cgroup: v2 is one mount, v1 a tmpfs with a mount for each hierarchy.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libc::{MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;

use super::CgroupMount;
use super::bind::{attributes, clone_path, finish_recursively};
use super::filesystem::FileSystem;
use super::inroot::Leaf;
use super::mounts::{Common, add_option};
use super::place::{Inside, Place, check_proc};
use crate::error::{Context, Error, Result};
use crate::spec::options::Options;
use crate::sys::mount::{Change, set_attributes};

/// What mounts of type cgroup need to know.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// The hierarchies of the host.
    pub(super) mounts: Vec<CgroupMount>,
    /// Whether the host has v2 only.
    pub(super) unified: bool,
    /// Whether init has a cgroup namespace of its own.
    pub(super) namespace: bool,
}

impl Cgroups {
    /// Sets the container's place in v2, where that is known only late.
    pub(super) fn place(&mut self, path: Option<PathBuf>) {
        let v2 = self.mounts.iter_mut().find(|m| m.hierarchy.is_empty());
        if let Some((v2, path)) = v2.zip(path) {
            v2.path = path;
        }
    }

    pub(super) fn mount(
        &self,
        destination: &Path,
        options: &Options,
        common: &Common,
        inside: &Inside,
    ) -> Result<OwnedFd> {
        let place = inside.open(destination, || Ok(Leaf::Directory), true)?;
        if place.path == Path::new("/") {
            return Err(Error::new("the destination is on the top of rootfs"));
        }
        check_proc(&place.path)?;
        let mount =
            if self.unified { self.v2(&place, options, inside)? } else { self.v1(&place, options, common, inside)? };
        finish_recursively(&mount, options)?;
        Ok(mount)
    }

    fn v2(&self, place: &Place, options: &Options, inside: &Inside) -> Result<OwnedFd> {
        let host = self.mounts.iter().find(|m| m.hierarchy.is_empty());
        // A new mount shows the namespace's root; without a namespace that is the host's, which a bind has for less.
        let mount = if self.namespace {
            let fs =
                FileSystem { kind: "cgroup2", source: OsStr::new("cgroup"), flags: options.flags, data: &options.data };
            match fs.open() {
                Err(e) if matches!(e.errno(), libc::EPERM | libc::EBUSY) => match host {
                    Some(host) => bind_own(host, options)?,
                    None => return Err(e),
                },
                result => result?,
            }
        } else {
            let mountpoint = host.map_or(Path::new("/sys/fs/cgroup"), |m| m.mountpoint.as_path());
            bind(mountpoint, options)?
        };
        inside.attach(&mount, place)?;
        Ok(mount)
    }

    /// A tmpfs with a directory for each hierarchy, named as on the host; links for the single controllers of one that has
    /// several. v2 beside v1 (hybrid) is left out: programs look for v1 there.
    fn v1(&self, place: &Place, options: &Options, common: &Common, inside: &Inside) -> Result<OwnedFd> {
        let mut data = "mode=755".to_string();
        if let Some(label) = &common.label {
            add_option(&mut data, &format!("context=\"{label}\""));
        }
        let flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
        let top = FileSystem { kind: "tmpfs", source: OsStr::new("tmpfs"), flags, data: &data }.open()?;
        inside.attach(&top, place)?;
        let hierarchies = self.mounts.iter().filter(|m| !m.hierarchy.is_empty());
        for host in hierarchies {
            self.v1_hierarchy(host, &top, options).map_err(|e| e.context(format!("hierarchy {}", host.hierarchy)))?;
        }
        if options.flags & MS_RDONLY != 0 {
            set_attributes(&top, false, &Change { set: attributes(MS_RDONLY), ..Change::default() })?;
        }
        Ok(top)
    }

    fn v1_hierarchy(&self, host: &CgroupMount, top: &OwnedFd, options: &Options) -> Result<()> {
        let name = host.mountpoint.file_name().ok_or_else(|| Error::new("it is mounted on /"))?;
        let tree = self.v1_tree(host, options)?;
        rustix::fs::mkdirat(top, name, 0o755.into())?;
        // Nobody else is in the new tmpfs yet.
        rustix::mount::move_mount(&tree, "", top, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        if host.hierarchy.contains(',') {
            for controller in host.hierarchy.split(',').filter(|c| OsStr::new(c) != name) {
                match rustix::fs::symlinkat(name, top, controller) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    fn v1_tree(&self, host: &CgroupMount, options: &Options) -> Result<OwnedFd> {
        if !self.namespace {
            return bind_own(host, options);
        }
        let fs = FileSystem {
            kind: "cgroup",
            source: OsStr::new("cgroup"),
            flags: MS_NOSUID | MS_NODEV | MS_NOEXEC | (options.flags & MS_RDONLY),
            data: &host.hierarchy,
        };
        match fs.open() {
            Err(e) if matches!(e.errno(), libc::EPERM | libc::EBUSY) => bind_own(host, options),
            result => result,
        }
    }
}

/// The container's own directory of a hierarchy. Where an ordinary user could not make one, init stays in the one above.
pub(super) fn below(host: &CgroupMount) -> PathBuf {
    let own = own(host);
    let there = own.ancestors().take_while(|dir| dir.starts_with(&host.mountpoint)).find(|dir| dir.exists());
    there.unwrap_or(&host.mountpoint).to_path_buf()
}

fn own(host: &CgroupMount) -> PathBuf {
    host.mountpoint.join(host.path.strip_prefix("/").unwrap_or(&host.path))
}

fn bind_own(host: &CgroupMount, options: &Options) -> Result<OwnedFd> {
    match bind(&own(host), options) {
        Err(e) if e.errno() == libc::ENOENT => bind(&below(host), options),
        bound => bound,
    }
}

/// A part of the host's cgroup file systems, with the options on every mount of it: what may be written there reaches
/// other containers.
fn bind(source: &Path, options: &Options) -> Result<OwnedFd> {
    let tree = clone_path(source, true).context(|| format!("cannot open {}", source.display()))?;
    let change = Change { set: attributes(options.flags), propagation: libc::MS_PRIVATE, ..Change::default() };
    set_attributes(&tree, true, &change).context(|| "cannot set the options of the mount")?;
    Ok(tree)
}
