//! From the configuration to a plan: in the runtime, before the fork.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use libc::{MS_BIND, MS_PRIVATE, MS_REC, MS_REMOUNT, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount as Entry};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::bind::{Bind, clone_fd, propagate};
use super::cgroup::Cgroups;
use super::idmap::{self, Mappings, Namespaces};
use super::mounts::{Common, Kind, Mount};
use super::place::clean;
use super::{Addition, Input, Plan, devices, limit};
use crate::error::{Cause, Context, Error, Result};
use crate::log;
use crate::spec::options::Options;

pub(super) fn plan(input: &Input<'_>) -> Result<Plan> {
    let spec = &input.config.spec;
    let root = spec.root().as_ref().ok_or_else(|| Error::of(Cause::Config, "root: it is missing"))?;
    let linux = input.config.linux();
    let entries = spec.mounts().as_deref().unwrap_or_default();
    let mount_namespace = input.mount_namespace && !joins_own_namespace(linux);
    if !mount_namespace {
        check_without_namespace(linux, entries, root.readonly() == Some(true))?;
    }
    let path = input.bundle.join(root.path());
    let limit = limit::raise(entries.len() + linux.devices().as_ref().map_or(0, Vec::len));
    let opened = open_root(&path)?;
    let propagation = root_propagation(linux.rootfs_propagation().as_deref())?;
    let mounts = mounts(input, linux, &path, mount_namespace)?;
    let set_up_dev = mount_namespace
        && !mounts.iter().any(|m| matches!(m.kind, Kind::Bind(_)) && clean(&m.destination) == Path::new("/dev"));
    let devices = if set_up_dev {
        devices::resolve(linux.devices().as_deref().unwrap_or_default(), input.user_namespace)?
    } else {
        Vec::new()
    };
    let tree = if mount_namespace { clone_root_early(&opened, &path, propagation)? } else { None };
    Ok(Plan {
        root: (path, tree),
        read_only: root.readonly() == Some(true),
        mount_namespace,
        no_pivot: input.no_pivot,
        propagation,
        mounts,
        common: common(input, linux),
        devices,
        set_up_dev,
        masked: linux.masked_paths().clone().unwrap_or_default(),
        readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
        inside: None,
        late: Vec::new(),
        masks: None,
        limit,
    })
}

/// Resolves the mounts of the configuration, to be made in a container that runs.
pub(super) fn addition(input: &Input<'_>) -> Result<Addition> {
    let spec = &input.config.spec;
    let linux = input.config.linux();
    let path = input.bundle.join(spec.root().as_ref().map(|r| r.path().as_path()).unwrap_or(Path::new("")));
    let limit = limit::raise(spec.mounts().as_ref().map_or(0, Vec::len));
    let mounts = mounts(input, linux, &path, true)?;
    for mount in &mounts {
        let refused = match &mount.kind {
            Kind::New(kind, _) if kind == "proc" => "a procfs shows the processes of whoever mounts it",
            Kind::Remount => "`mounts add` adds mounts, and changes none",
            Kind::Bind(bind) if bind.inside.is_some() => "its source lies in the root filesystem of the container",
            _ => continue,
        };
        let text = format!("{}: it cannot be added to a container that runs: {refused}", mount.place);
        return Err(Error::of(Cause::Config, text));
    }
    Ok(Addition { mounts, common: common(input, linux), _limit: limit })
}

fn mounts(input: &Input<'_>, linux: &Linux, root: &Path, mount_namespace: bool) -> Result<Vec<Mount>> {
    let mut resolver = Resolver {
        input,
        linux,
        mount_namespace,
        propagation: root_propagation(linux.rootfs_propagation().as_deref())?,
        namespaces: Namespaces::default(),
        root: Some(clean(root)).filter(|path| path != Path::new("/")),
    };
    let entries = input.config.spec.mounts().as_deref().unwrap_or_default();
    entries.iter().enumerate().map(|(i, entry)| resolver.mount(entry, format!("mounts[{i}]"))).collect()
}

fn common(input: &Input<'_>, linux: &Linux) -> Common {
    Common {
        label: linux.mount_label().clone().filter(|label| !label.is_empty()),
        cgroups: Cgroups { mounts: input.cgroups.to_vec(), unified: input.unified, namespace: input.cgroup_namespace },
    }
}

/// Whether linux.namespaces names the mount namespace that the runtime is in.
fn joins_own_namespace(linux: &Linux) -> bool {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let joined = namespaces.iter().find(|n| n.typ() == LinuxNamespaceType::Mount).and_then(|n| n.path().as_ref());
    let Some(path) = joined else { return false };
    match (rustix::fs::stat(path), rustix::fs::stat("/proc/self/ns/mnt")) {
        (Ok(one), Ok(own)) => (one.st_dev, one.st_ino) == (own.st_dev, own.st_ino),
        // Joining tells what is wrong with the path.
        _ => false,
    }
}

/// Without a mount namespace of its own, whatever the container mounts would be the host's. The mounts and a read-only
/// root are left out, as a container that shares the host's mounts on purpose still has a use without them; what would
/// protect the host is never left out.
fn check_without_namespace(linux: &Linux, entries: &[Entry], read_only: bool) -> Result<()> {
    fn some<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    let field = match () {
        () if some(linux.masked_paths()) => "linux.maskedPaths",
        () if some(linux.readonly_paths()) => "linux.readonlyPaths",
        () if some(linux.devices()) => "linux.devices",
        () if linux.rootfs_propagation().as_ref().is_some_and(|p| !p.is_empty()) => "linux.rootfsPropagation",
        () => {
            for (asked, field) in [(!entries.is_empty(), "mounts"), (read_only, "root.readonly")] {
                if asked {
                    log::warn(&format!("{field}: ignored without a private mount namespace"));
                }
            }
            return Ok(());
        }
    };
    Err(Error::of(
        Cause::Config,
        format!("{field}: it needs a private mount namespace: add {{\"type\": \"mount\"}} to linux.namespaces"),
    ))
}

/// linux.rootfsPropagation as flags of mount(2).
fn root_propagation(name: Option<&str>) -> Result<u64> {
    Ok(match name.unwrap_or_default() {
        "" => 0,
        "shared" => MS_SHARED,
        "rshared" => MS_SHARED | MS_REC,
        "slave" => MS_SLAVE,
        "rslave" => MS_SLAVE | MS_REC,
        "private" => MS_PRIVATE,
        "rprivate" => MS_PRIVATE | MS_REC,
        "unbindable" => MS_UNBINDABLE,
        "runbindable" => MS_UNBINDABLE | MS_REC,
        other => {
            return Err(Error::of(
                Cause::Config,
                format!("linux.rootfsPropagation: {other:?} is no kind of propagation"),
            ));
        }
    })
}

/// Opens the root filesystem; no part of the path may be a link, as whoever can change one could put another root there.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let what = || format!("root.path: cannot open {}", path.display());
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::LOOP) => Err(Error::of(
            Cause::Config,
            format!("root.path: invalid rootfs: not an absolute path, or a symlink: {}", path.display()),
        )),
        result => result.context(what),
    }
}

fn clone_root_early(opened: &OwnedFd, path: &Path, propagation: u64) -> Result<Option<OwnedFd>> {
    let tree = match clone_fd(opened, true) {
        // Only init has the right, in its own namespaces.
        Err(Errno::PERM) => return Ok(None),
        result => result.context(|| format!("root.path: cannot clone the mounts at {}", path.display()))?,
    };
    detach_root(&tree, propagation).context(|| "root.path")?;
    Ok(Some(tree))
}

/// Clones the root filesystem in init.
pub(super) fn clone_root(path: &Path, propagation: u64) -> Result<OwnedFd> {
    let tree = clone_fd(open_root(path)?, true)?;
    detach_root(&tree, propagation)?;
    Ok(tree)
}

/// Takes the root out of the host's peer groups: what is mounted on it must not appear on the host. What the host mounts
/// below it later still appears there, where the configuration does not ask for a private root; and what it mounts on the
/// root itself, where it asks for a slave.
fn detach_root(tree: &OwnedFd, propagation: u64) -> Result<()> {
    propagate(tree, base(propagation) | MS_REC)?;
    if propagation & MS_SLAVE != 0 {
        return Ok(());
    }
    propagate(tree, MS_PRIVATE)
}

/// What clones of host mounts become: slaves, but where the root is to be private, private.
fn base(propagation: u64) -> u64 {
    if propagation & (MS_PRIVATE | MS_UNBINDABLE) != 0 { MS_PRIVATE } else { MS_SLAVE }
}

struct Resolver<'a> {
    input: &'a Input<'a>,
    linux: &'a Linux,
    mount_namespace: bool,
    propagation: u64,
    namespaces: Namespaces,
    /// The root's path on the host, where it is not the host's own.
    root: Option<PathBuf>,
}

impl Resolver<'_> {
    fn mount(&mut self, entry: &Entry, place: String) -> Result<Mount> {
        let options = Options::of(entry);
        let kind = self.kind(entry, &options).map_err(|e| match e {
            ("", error) => error.context(&place),
            (field, error) => error.context(format!("{place}.{field}")),
        })?;
        // Other runtimes take a destination by its path on the host, too.
        let destination = entry.destination();
        let destination = self.in_root(destination).unwrap_or_else(|| destination.clone());
        Ok(Mount { place, destination, kind, options })
    }

    fn kind(&mut self, entry: &Entry, options: &Options) -> Result<Kind, (&'static str, Error)> {
        let kind = entry.typ().as_deref().unwrap_or_default();
        let bind = options.flags & MS_BIND != 0;
        if options.tmpcopyup && (bind || kind != "tmpfs") {
            return Err(("options", Error::of(Cause::Config, "tmpcopyup is only for tmpfs")));
        }
        let idmap = self.idmap(entry, options, bind).map_err(|e| ("", e))?;
        if options.flags & MS_REMOUNT != 0 {
            return Ok(Kind::Remount);
        }
        if bind {
            return self.bind(entry, options, idmap).map(Kind::Bind).map_err(|e| ("source", e));
        }
        match kind {
            "" => Err(("type", Error::of(Cause::Config, "it is missing, and the options have neither bind nor rbind"))),
            "cgroup" => Ok(Kind::Cgroup),
            kind => Ok(Kind::New(kind.to_string(), entry.source().clone().unwrap_or_default())),
        }
    }

    fn bind(&self, entry: &Entry, options: &Options, idmap: Option<Mappings>) -> Result<Bind> {
        let source = entry.source().as_deref().filter(|s| !s.as_os_str().is_empty());
        let source = source.ok_or_else(|| Error::of(Cause::Config, "a bind mount needs one"))?;
        let source = self.input.bundle.join(source);
        let mut bind = Bind {
            inside: self.in_root(&source),
            source,
            recursive: options.flags & MS_REC != 0,
            options: options.clone(),
            propagation: self.bind_propagation(options),
            locked: self.input.user_namespace,
            idmap,
            ..Bind::default()
        };
        if self.mount_namespace {
            bind.open_early()?;
        }
        Ok(bind)
    }

    /// A path in the root, if the path of the host lies there; what a `..` leads to is not known by the text alone.
    fn in_root(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix(self.root.as_ref()?).ok()?;
        (!path.components().any(|part| part == Component::ParentDir)).then(|| path.to_path_buf())
    }

    /// A bind mount stays a peer of its source only where both it and the root ask for sharing, and never in another user
    /// namespace, whose root must not mount on the host.
    fn bind_propagation(&self, options: &Options) -> u64 {
        let asks = |kind| options.propagation.iter().any(|flags| flags & kind != 0);
        if asks(MS_SHARED) && self.propagation & MS_SHARED != 0 && !self.input.user_namespace {
            0
        } else if asks(MS_SLAVE) {
            MS_SLAVE
        } else {
            base(self.propagation)
        }
    }

    /// The user namespace that maps the ids of a mount: by its own mappings, or else by the container's.
    fn idmap(&mut self, entry: &Entry, options: &Options, bind: bool) -> Result<Option<Mappings>> {
        let uids = entry.uid_mappings().as_deref().unwrap_or_default();
        let gids = entry.gid_mappings().as_deref().unwrap_or_default();
        if uids.is_empty() != gids.is_empty() {
            return Err(Error::of(Cause::Config, "uidMappings and gidMappings go only together"));
        }
        if uids.is_empty() && options.idmap.is_none() {
            return Ok(None);
        }
        if !bind {
            return Err(Error::of(Cause::Config, "only the ids of bind mounts can be mapped"));
        }
        let recursive = options.idmap == Some(true);
        if !uids.is_empty() {
            return Ok(Some(Mappings { namespace: self.namespaces.get(uids, gids)?, recursive }));
        }
        let uids = self.linux.uid_mappings().as_deref().unwrap_or_default();
        let gids = self.linux.gid_mappings().as_deref().unwrap_or_default();
        if !uids.is_empty() && !gids.is_empty() {
            return Ok(Some(Mappings { namespace: self.namespaces.get(uids, gids)?, recursive }));
        }
        let namespaces = self.linux.namespaces().as_deref().unwrap_or_default();
        let joined = namespaces.iter().find(|n| n.typ() == LinuxNamespaceType::User).and_then(|n| n.path().as_ref());
        match joined {
            Some(path) => {
                let namespace = Rc::new(idmap::open(&path.to_string_lossy())?);
                Ok(Some(Mappings { namespace, recursive }))
            }
            None => Err(Error::of(
                Cause::Config,
                "idmap and ridmap need uidMappings and gidMappings, or a user namespace of the container with some",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_propagation_is_known() {
        assert_eq!(root_propagation(None).unwrap(), 0);
        assert_eq!(root_propagation(Some("rshared")).unwrap(), MS_SHARED | MS_REC);
        assert_eq!(root_propagation(Some("unbindable")).unwrap(), MS_UNBINDABLE);
        let error = root_propagation(Some("none")).unwrap_err().to_string();
        assert!(error.starts_with("linux.rootfsPropagation:"), "{error}");
    }
}
