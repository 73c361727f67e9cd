//! The root filesystem: mounts, devices, pivot_root, masks (config.md, "Mounts"; config-linux.md, "Devices",
//! "Masked Paths", "Readonly Paths", "Rootfs Mount Propagation").
//!
//! The runtime makes a [`Plan`] with every source on the host opened; init carries it out in the new mount namespace, by
//! descriptors only.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::spec::Config;
use crate::sys::proc::Proc;

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
    /// Whether init is in a user namespace other than the runtime's (new or joined): device nodes cannot be made there.
    pub user_namespace: bool,
    /// The mount namespace is new; where it is joined or the host's, nothing is mounted or pivoted.
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
    /// The container's path in it.
    pub path: PathBuf,
}

/// The work of init on the root filesystem, resolved.
#[derive(Debug)]
pub struct Plan {}

/// Resolves the configuration and opens every source on the host that the runtime can open for init: each bind source
/// and the root itself is cloned by open_tree(2), with its attributes and id mappings set. In the runtime, before the
/// fork.
pub fn plan(_input: &Input<'_>) -> Result<Plan> {
    Err(Error::new("root filesystems are not built yet"))
}

impl Plan {
    /// Attaches the root, mounts everything on it, makes the devices and links. In init, in the new mount namespace, with
    /// the host's root still being `/`.
    pub fn mount(&mut self) -> Result<()> {
        Err(Error::new("root filesystems are not built yet"))
    }

    /// Changes into the root (pivot_root, or MS_MOVE, or chroot where the mount namespace is not new) and drops the old one.
    pub fn enter(&mut self) -> Result<()> {
        Err(Error::new("root filesystems are not built yet"))
    }

    /// After the root was entered: propagation of the root, read-only root and late read-only mounts, read-only and masked paths.
    pub fn protect(&mut self, _proc: &Proc) -> Result<()> {
        Err(Error::new("root filesystems are not built yet"))
    }
}
