//! The mounts of the configuration (config.md, "Mounts"), one after the other.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MS_BIND, MS_RDONLY, MS_REMOUNT};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, XattrFlags};

use super::bind::{self, Bind, attributes, finish_recursively};
use super::cgroup::Cgroups;
use super::filesystem::FileSystem;
use super::inroot::{self, Leaf};
use super::place::{Inside, Place, check_proc, clean};
use super::tmpfs;
use crate::error::{Context, Error, Result};
use crate::spec::options::Options;
use crate::sys::mount::{Change, set_attributes};

/// A mount of the configuration, resolved.
#[derive(Debug)]
pub(super) struct Mount {
    /// Its place in config.json.
    pub(super) place: String,
    /// The destination; a relative one begins at the root.
    pub(super) destination: PathBuf,
    /// What is mounted.
    pub(super) kind: Kind,
    /// With these options.
    pub(super) options: Options,
}

/// What is mounted.
#[derive(Debug)]
pub(super) enum Kind {
    /// A part of the host.
    Bind(Bind),
    /// Nothing new: the mount that is there is changed.
    Remount,
    /// The container's cgroups.
    Cgroup,
    /// A new file system: its type and source.
    New(String, PathBuf),
}

/// What all mounts have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// The SELinux context of new file systems.
    pub(super) label: Option<String>,
    /// The cgroups.
    pub(super) cgroups: Cgroups,
}

impl Mount {
    /// Mounts it. Returns the mount, and whether it is to become read-only at the very end.
    /// `map` maps the ids of a tree where this process may not.
    pub(super) fn carry_out(
        &mut self,
        inside: &Inside,
        common: &Common,
        map: impl FnMut(&OwnedFd) -> Result<()>,
    ) -> Result<(OwnedFd, bool)> {
        let late = self.read_only_late();
        let what = match &self.kind {
            Kind::Bind(bind) => bind.source.display().to_string(),
            Kind::Remount => "again".to_string(),
            Kind::Cgroup => "cgroup".to_string(),
            Kind::New(kind, _) => kind.clone(),
        };
        let mount = match &mut self.kind {
            Kind::Bind(bind) => {
                bind.open_inside(inside, map).and_then(|()| attach_bind(bind, &self.destination, inside))
            }
            Kind::Remount => remount(&self.destination, &self.options, inside),
            Kind::Cgroup => common.cgroups.mount(&self.destination, &self.options, common, inside),
            Kind::New(kind, source) => {
                let mut options = self.options.clone();
                if late {
                    options.flags &= !MS_RDONLY;
                }
                let new = New { kind, source, destination: &self.destination, options: &mut options };
                new.mount(inside, common)
            }
        }
        .map_err(|e| {
            let destination = Path::new("/").join(&self.destination);
            e.context(format!("{}: cannot mount {what} on {}", self.place, destination.display()))
        })?;
        Ok((mount, late))
    }

    /// Whether init has to be in its cgroup: it is seen there, or what is copied counts as its memory.
    pub(super) fn needs_cgroup(&self) -> bool {
        matches!(self.kind, Kind::Cgroup) || self.options.tmpcopyup
    }

    /// /dev and every tmpfs must take files that are made later, so they become read-only last.
    fn read_only_late(&self) -> bool {
        let Kind::New(kind, _) = &self.kind else { return false };
        self.options.flags & MS_RDONLY != 0 && (kind == "tmpfs" || clean(&self.destination) == Path::new("/dev"))
    }
}

pub(super) fn attach_bind(bind: &mut Bind, destination: &Path, inside: &Inside) -> Result<OwnedFd> {
    let tree = bind.take()?;
    let leaf = || Ok(if is_directory(&tree)? { Leaf::Directory } else { Leaf::File });
    let place = inside.open(destination, leaf, true)?;
    check_top(&place)?;
    if place.path != Path::new("/proc") || !is_procfs_root(&tree)? {
        check_proc(&place.path)?;
    }
    inside.attach(&tree, &place).map_err(|e| mismatch(&tree, &place.fd).unwrap_or(e))?;
    Ok(tree)
}

/// A file does not go on a directory, nor a directory on a file.
fn mismatch(tree: &OwnedFd, place: &OwnedFd) -> Option<Error> {
    let (source, destination) = (is_directory(tree).ok()?, is_directory(place).ok()?);
    let name = |directory| if directory { "a directory" } else { "a file" };
    let text = || format!("the source is {}, the destination is {}", name(source), name(destination));
    (source != destination).then(|| Error::from_errno(libc::ENOTDIR, text()))
}

fn is_directory(fd: &OwnedFd) -> Result<bool> {
    Ok(bind::kind(fd)? == FileType::Directory)
}

fn remount(destination: &Path, options: &Options, inside: &Inside) -> Result<OwnedFd> {
    let place = inside.open_existing(destination)?;
    if options.flags & MS_BIND != 0 {
        let (set, clear) = bind::remount_attributes(options);
        set_attributes(&place.fd, false, &Change { set, clear, ..Change::default() })?;
    } else {
        let fs = FileSystem { kind: "", source: OsStr::new(""), flags: options.flags, data: &options.data };
        if bind::kind(&place.fd)? != FileType::Directory {
            return Err(Error::from_errno(libc::ENOTDIR, "only a directory's file system can be mounted again"));
        }
        fs.mount_at(place.fd.as_fd(), MS_REMOUNT)?;
    }
    finish_recursively(&place.fd, options)?;
    Ok(place.fd)
}

/// A new file system on its way.
struct New<'a> {
    kind: &'a str,
    source: &'a Path,
    destination: &'a Path,
    options: &'a mut Options,
}

impl New<'_> {
    fn mount(self, inside: &Inside, common: &Common) -> Result<OwnedFd> {
        let pseudo = matches!(self.kind, "proc" | "sysfs");
        let place = if pseudo {
            open_ordinary(self.kind, self.destination, inside)?
        } else {
            inside.open(self.destination, || Ok(Leaf::Directory), true)?
        };
        check_top(&place)?;
        if self.kind != "proc" || place.path != Path::new("/proc") {
            check_proc(&place.path)?;
        }
        if self.kind == "tmpfs" {
            tmpfs::inherit_mode(&place, self.options)?;
        }
        if let Some(label) = common.label.as_ref().filter(|_| !pseudo && self.kind != "mqueue") {
            add_option(&mut self.options.data, &format!("context=\"{label}\""));
        }
        let mount = self.make(&place, inside)?;
        if self.kind == "mqueue"
            && let Some(label) = &common.label
        {
            set_label(&mount, label)?;
        }
        finish_recursively(&mount, self.options)?;
        Ok(mount)
    }

    fn make(&self, place: &Place, inside: &Inside) -> Result<OwnedFd> {
        let fs = FileSystem {
            kind: self.kind,
            source: self.source.as_os_str(),
            flags: self.options.flags,
            data: &self.options.data,
        };
        if fs.needs_mount2() {
            if self.options.tmpcopyup {
                return Err(Error::new("tmpcopyup goes with neither iversion nor silent"));
            }
            fs.mount_at(place.fd.as_fd(), 0)?;
            let mount = inside.open_existing(self.destination)?;
            inside.check(&mount.fd, place)?;
            return Ok(mount.fd);
        }
        let mount = match fs.open() {
            Err(e) if self.kind == "sysfs" && e.errno() == libc::EPERM => host_sys(self.options)?,
            Err(e) if self.kind == "proc" && e.errno() == libc::EPERM => {
                let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
                return Err(match covered_proc(&mounts) {
                    Some(path) => e.hint(format!(
                        "it needs a whole procfs outside, where {path} is mounted on: unmask that there"
                    )),
                    None => e.hint("it needs a new pid namespace, and a whole procfs outside"),
                });
            }
            result => result?,
        };
        if self.options.tmpcopyup {
            tmpfs::copy_up(&place.fd, &mount)?;
        }
        inside.attach(&mount, place)?;
        Ok(mount)
    }
}

/// Opens the place of a procfs or sysfs: it may be no link, or what init and programs trust at that path could be
/// something else.
fn open_ordinary(kind: &str, destination: &Path, inside: &Inside) -> Result<Place> {
    // A slash at the end would have the kernel follow a link before it.
    let place = inside.open(&clean(destination), || Ok(Leaf::Directory), false)?;
    match bind::kind(&place.fd)? {
        FileType::Directory => Ok(place),
        _ => Err(Error::new(format!("filesystem {kind:?} must be mounted on ordinary directory"))),
    }
}

/// A path of a procfs that something is mounted on, as the masks of an outer container are: the kernel makes a new procfs in
/// a user namespace only where a whole one is to be seen.
fn covered_proc(mountinfo: &str) -> Option<&str> {
    let field = |line: &'_ str, i| line.split(' ').nth(i).map(str::to_owned);
    let procs: Vec<String> = mountinfo.lines().filter(|l| l.contains(" - proc ")).filter_map(|l| field(l, 0)).collect();
    let below = |line: &&str| field(line, 1).is_some_and(|parent| procs.contains(&parent));
    // Directories that are made to be mounted on hide nothing.
    let matters = |path: &&str| !path.ends_with("/sys/fs/binfmt_misc") && !path.ends_with("/fs/nfsd");
    mountinfo.lines().filter(below).filter_map(|l| l.split(' ').nth(4)).find(matters)
}

/// A sysfs belongs to a network namespace: who does not own that gets the host's, with everything below it.
fn host_sys(options: &Options) -> Result<OwnedFd> {
    let tree =
        bind::clone_path(Path::new("/sys"), true).context(|| "cannot bind the host's /sys in place of a sysfs")?;
    let change = Change { set: attributes(options.flags), propagation: libc::MS_PRIVATE, ..Change::default() };
    set_attributes(&tree, true, &change)?;
    Ok(tree)
}

/// A mount on the root itself would hide all of it.
fn check_top(place: &Place) -> Result<()> {
    if place.path == Path::new("/") {
        return Err(Error::new("the destination is on the top of rootfs"));
    }
    Ok(())
}

fn is_procfs_root(tree: &OwnedFd) -> Result<bool> {
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    let magic = rustix::fs::fstatfs(tree)?.f_type as i64;
    Ok(magic == PROC_SUPER_MAGIC && rustix::fs::fstat(tree)?.st_ino == 1)
}

/// Adds an option to a mount's data.
pub(super) fn add_option(data: &mut String, option: &str) {
    if !data.is_empty() {
        data.push(',');
    }
    data.push_str(option);
}

fn set_label(mount: &OwnedFd, label: &str) -> Result<()> {
    let dir = rustix::fs::openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fsetxattr(&dir, "security.selinux", label.as_bytes(), XattrFlags::empty())
        .context(|| format!("cannot label it {label}"))
}

/// Opens what is at a path of the root for protection: missing is none.
pub(super) fn open_if_there(root: impl AsFd, path: &Path) -> Result<Option<OwnedFd>> {
    match inroot::resolve(root.as_fd(), path, OFlags::empty(), ResolveFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        result => Ok(Some(result?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_covers_a_procfs_is_found() {
        let whole = "20 1 8:1 / / rw - ext4 /dev/vda rw\n21 20 0:5 / /proc rw - proc proc rw\n\
            24 21 0:8 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n";
        assert_eq!(covered_proc(whole), None);
        let masked =
            format!("{whole}22 20 0:6 / /sys rw - sysfs sysfs rw\n23 21 0:7 /null /proc/keys rw - tmpfs tmpfs rw\n");
        assert_eq!(covered_proc(&masked), Some("/proc/keys"));
    }
}
