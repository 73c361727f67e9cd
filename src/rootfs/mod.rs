//! The root filesystem: mounts, devices, pivot_root, masks (config.md, "Mounts"; config-linux.md, "Devices",
//! "Masked Paths", "Readonly Paths", "Rootfs Mount Propagation").
//!
//! The runtime makes a [`Plan`] with every source on the host opened; init carries it out in the new mount namespace, by
//! descriptors only: [`Plan::mount`], then [`Plan::enter`], then [`Plan::protect`].

mod addition;
mod bind;
mod cgroup;
mod devices;
mod enter;
mod external;
mod filesystem;
mod idmap;
mod inroot;
mod limit;
mod mounts;
mod place;
mod protect;
mod resolve;
mod tmpfs;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;

use crate::error::{Context, Error, Result};
use crate::spec::Config;
use crate::sys::proc::Proc;
pub use addition::{Addition, addition, remove};
use devices::Device;
pub use external::{External, binds, externals, is_mounted, locate, mounts_below, places, protect_root};
use mounts::{Common, Kind, Mount};
use place::Inside;
use protect::Masks;

/// What the plan needs beside the configuration.
#[derive(Debug)]
pub struct Input<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The bundle, absolute.
    pub bundle: &'a Path,
    /// The cgroup hierarchies of the host, for mounts of type cgroup.
    pub cgroups: &'a [CgroupMount],
    /// Whether the host has cgroup v2 only.
    pub unified: bool,
    /// Whether init gets a cgroup namespace of its own (new, not joined).
    pub cgroup_namespace: bool,
    /// Whether init is in a user namespace other than the initial one (new, joined, or the runtime's own): device nodes
    /// cannot be made there.
    pub user_namespace: bool,
    /// Whether init gets a mount namespace, new or joined; a joined one is set up as a new one is. If not, or if the
    /// joined one is the runtime's own, init only changes its root: mounts there would be the host's.
    pub mount_namespace: bool,
    /// Whether init has a network namespace of its own (new or joined): only its owner may mount a sysfs.
    pub network_namespace: bool,
    /// MS_MOVE and chroot in place of pivot_root (`--no-pivot`).
    pub no_pivot: bool,
}

/// One cgroup hierarchy of the host and the container's place in it.
#[derive(Clone, Debug)]
pub struct CgroupMount {
    /// The v1 hierarchy's name ("cpu,cpuacct", "name=systemd"); empty for v2.
    pub hierarchy: String,
    /// Where the host has it mounted.
    pub mountpoint: PathBuf,
    /// The container's path in it, from the mount point ("/vessel/abc").
    pub path: PathBuf,
}

/// The work of init on the root filesystem, resolved.
#[derive(Debug)]
pub struct Plan {
    /// root.path, absolute, and a clone of it, once it is there.
    root: (PathBuf, Option<OwnedFd>),
    read_only: bool,
    mount_namespace: bool,
    no_pivot: bool,
    /// linux.rootfsPropagation as flags of mount(2); 0 where it is not set.
    propagation: u64,
    mounts: Vec<Mount>,
    common: Common,
    devices: Vec<Device>,
    /// Whether to make devices and links: not where the configuration brings a /dev of the host.
    set_up_dev: bool,
    masked: Vec<String>,
    readonly_paths: Vec<String>,
    /// What only exists from `mount` on.
    inside: Option<Inside>,
    late: Vec<OwnedFd>,
    masks: Option<Masks>,
    limit: Option<limit::Raised>,
}

/// Resolves the configuration and opens every source on the host that the runtime can open for init: each bind source
/// and the root itself is cloned by open_tree(2), with its attributes and id mappings set. In the runtime, before the
/// fork.
pub fn plan(input: &Input<'_>) -> Result<Plan> {
    resolve::plan(input)
}

/// What [`Plan::mount`] asks the runtime for.
#[derive(Debug)]
pub enum Ask<'a> {
    /// The tree that the mount of this number is to be needs its ids mapped, by [`IdMaps::apply`].
    MapIds(usize, &'a OwnedFd),
    /// Init has to be in its cgroup and its cgroup namespace by now. The path is set where it was not known before.
    Cgroup(&'a mut Option<PathBuf>),
}

/// The id mappings that the runtime may have to apply for init, by the numbers of their mounts.
#[derive(Debug)]
pub struct IdMaps(Vec<(usize, idmap::Mappings)>);

impl IdMaps {
    /// Maps the ids of the tree that mount `number` is to be.
    pub fn apply(&self, number: usize, tree: &OwnedFd) -> Result<()> {
        match self.0.iter().find(|(n, _)| *n == number) {
            Some((_, mappings)) => mappings.apply(tree),
            None => Err(Error::new(format!("mounts[{number}] has no ids to map"))),
        }
    }
}

/// Makes a directory of the root that this process is in, and what is missing above it. Links are followed as the text that
/// they are, so that none of /proc leads out.
pub fn make_directory(path: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    inroot::make(root.as_fd(), path, inroot::Leaf::Directory, true)?;
    Ok(())
}

impl Plan {
    /// What [`Plan::mount`] may ask the runtime for.
    pub fn id_maps(&self) -> IdMaps {
        let mappings = |mount: &Mount| match &mount.kind {
            Kind::Bind(bind) if bind.inside.is_some() => bind.idmap.clone(),
            _ => None,
        };
        IdMaps(self.mounts.iter().enumerate().filter_map(|(i, mount)| Some((i, mappings(mount)?))).collect())
    }

    /// Whether init has a mount namespace to mount in; if not, [`Plan::enter`] is all that there is to do.
    pub fn has_mounts(&self) -> bool {
        self.mount_namespace
    }

    /// Attaches the root, mounts everything on it, makes the devices and links. In init, in the new mount namespace, with
    /// the host's root still being `/`. Changes the current directory.
    ///
    /// A source that lies in the root is opened in its turn. `ask` has the runtime do what init cannot.
    pub fn mount(&mut self, ask: &mut dyn FnMut(Ask<'_>) -> Result<()>) -> Result<()> {
        if !self.mount_namespace {
            return Ok(());
        }
        // Modes of directories and nodes are meant as they are.
        let umask = rustix::process::umask(Mode::empty());
        let done = self.mount_all(ask);
        rustix::process::umask(umask);
        done
    }

    fn mount_all(&mut self, ask: &mut dyn FnMut(Ask<'_>) -> Result<()>) -> Result<()> {
        // Nothing done here may reach the host, not even the unmounting of the old root.
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context(|| "cannot make the mounts of the new namespace slaves of the host's")
            .map_err(|e| match e.errno() {
                libc::EINVAL => e.hint("/ is no mount point here: under chroot(8), bind the directory on itself first"),
                _ => e,
            })?;
        self.open_late()?;
        let inside = self.attach_root().context(|| format!("root.path: cannot mount {}", self.root.0.display()))?;
        for (i, mount) in self.mounts.iter_mut().enumerate() {
            if mount.needs_cgroup() {
                let mut path = None;
                ask(Ask::Cgroup(&mut path))?;
                self.common.cgroups.place(path);
            }
            let (mount, late) = mount.carry_out(&inside, &self.common, |tree| ask(Ask::MapIds(i, tree)))?;
            if late {
                self.late.push(mount);
            }
        }
        if self.set_up_dev {
            devices::make(&mut self.devices, &inside)?;
            devices::link(&inside)?;
        }
        self.inside = Some(inside);
        // Every tree is attached and closed: the limit of open files goes back before a hook inherits it.
        self.limit = None;
        Ok(())
    }

    /// Opens what the runtime could not, while the host's paths are there.
    fn open_late(&mut self) -> Result<()> {
        for mount in &mut self.mounts {
            if let Kind::Bind(bind) = &mut mount.kind {
                bind.open_late().map_err(|e| e.context(format!("{}.source", mount.place)))?;
            }
        }
        if self.set_up_dev {
            devices::open_late(&mut self.devices)?;
        }
        if !self.masked.is_empty() {
            self.masks = Some(Masks::new(self.common.label.clone())?);
        }
        Ok(())
    }

    /// Puts the root's tree on its path, where hooks look for it; or on `/`, if a user namespace may not search the path.
    fn attach_root(&mut self) -> Result<Inside> {
        let tree = match self.root.1.take() {
            Some(tree) => tree,
            None => resolve::clone_root(&self.root.0, self.propagation)?,
        };
        match resolve::open_root(&self.root.0) {
            Err(e) if e.errno() == libc::EACCES => place::attach_on_root(&tree)?,
            directory => place::attach(&tree, directory?)?,
        }
        Inside::new(tree)
    }

    /// Makes the root the current directory, while the host's is still `/`: createContainer hooks find it so.
    pub fn change_into(&self) -> Result<()> {
        let cannot = || "cannot change into the root filesystem";
        match &self.inside {
            Some(inside) => rustix::process::fchdir(&inside.root).context(cannot),
            None => rustix::process::fchdir(resolve::open_root(&self.root.0)?).context(cannot),
        }
    }

    /// Changes into the root (pivot_root, or MS_MOVE, or chroot where the mount namespace is not new) and drops the old one.
    pub fn enter(&mut self) -> Result<()> {
        match &self.inside {
            Some(inside) if self.no_pivot => enter::chroot(&inside.root),
            Some(inside) => enter::pivot(&inside.root),
            None if !self.mount_namespace => {
                let root = resolve::open_root(&self.root.0)?;
                rustix::process::fchdir(&root).context(|| "cannot enter the root filesystem")?;
                rustix::process::chroot(".").context(|| "cannot chroot")?;
                rustix::process::chdir("/").context(|| "cannot change to the root filesystem")
            }
            None => Err(Error::new("the root filesystem is not mounted yet")),
        }
    }

    /// After the root was entered: propagation of the root, read-only root and late read-only mounts, read-only and masked
    /// paths. What is made in /dev later than that must not need a writable one.
    pub fn protect(&mut self, _proc: &Proc) -> Result<()> {
        let Some(inside) = &self.inside else { return Ok(()) };
        let root = &inside.root;
        if self.propagation & (MS_SHARED | MS_SLAVE | MS_UNBINDABLE) != 0 {
            bind::propagate(root, self.propagation).context(|| "linux.rootfsPropagation")?;
        }
        for mount in self.late.drain(..) {
            protect::remount_read_only(&mount).context(|| "cannot make a tmpfs read-only")?;
        }
        if self.read_only {
            protect::remount_read_only(root).context(|| "root.readonly: cannot make the root filesystem read-only")?;
        }
        for (i, path) in self.readonly_paths.iter().enumerate() {
            protect::read_only(root, path)
                .context(|| format!("linux.readonlyPaths[{i}]: cannot make {path} read-only"))?;
        }
        if let Some(masks) = &mut self.masks {
            for (i, path) in self.masked.iter().enumerate() {
                masks.mask(root, path).context(|| format!("linux.maskedPaths[{i}]: cannot mask {path}"))?;
            }
        }
        Ok(())
    }
}
