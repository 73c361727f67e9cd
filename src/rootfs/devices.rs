//! Device nodes and the links of /dev (config-linux.md, "Devices", "Default Devices", "Dev symbolic links").

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, makedev};
use rustix::io::Errno;

use super::bind::Bind;
use super::inroot::{self, Leaf};
use super::place::{Inside, attach, clean};
use crate::error::{Context, Error, Result};

/// The default devices that are nodes; /dev/console is made with the terminal, /dev/ptmx is a link.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// A node to make.
#[derive(Debug)]
pub(super) struct Device {
    place: String,
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    /// The host's node, where init has no right to make one.
    bind: Option<Bind>,
}

/// The nodes of a configuration: the default ones, and its own, which go before a default one at the same path. With
/// `bind`, the host's nodes are bound.
pub(super) fn resolve(devices: &[LinuxDevice], bind: bool) -> Result<Vec<Device>> {
    let mut all = Vec::new();
    for (i, device) in devices.iter().enumerate() {
        // Without a path it is only for the cgroup's rules.
        if device.path().as_os_str().is_empty() {
            continue;
        }
        let place = format!("linux.devices[{i}]");
        let device = own(device).map_err(|e| e.context(place.clone()))?;
        // /dev/ptmx is the link to that of the container's devpts.
        if device.path != Path::new("/dev/ptmx") {
            all.push(Device { place, ..device });
        }
    }
    for (path, major, minor) in DEFAULT {
        if !all.iter().any(|d| d.path == Path::new(path)) {
            all.push(Device {
                place: "default device".to_string(),
                path: path.into(),
                kind: FileType::CharacterDevice,
                number: makedev(major, minor),
                mode: 0o666,
                uid: 0,
                gid: 0,
                bind: None,
            });
        }
    }
    // Anybody may make a fifo.
    for device in all.iter_mut().filter(|d| bind && d.kind != FileType::Fifo) {
        let mut node = host_node(&device.path);
        node.open_early().map_err(|e| e.context(&device.place))?;
        device.bind = Some(node);
    }
    Ok(all)
}

/// The paths of all nodes of a configuration.
pub(super) fn paths(devices: &[LinuxDevice]) -> impl Iterator<Item = PathBuf> {
    let own = devices.iter().map(|device| device.path()).filter(|path| !path.as_os_str().is_empty());
    own.cloned().chain(DEFAULT.iter().map(|(path, ..)| PathBuf::from(path)))
}

fn host_node(path: &Path) -> Bind {
    Bind { source: path.to_path_buf(), propagation: libc::MS_PRIVATE, ..Bind::default() }
}

fn own(device: &LinuxDevice) -> Result<Device> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Error::new("type: \"a\" is not the type of a node: use c, b, u or p")),
    };
    let part = |name, number: i64| {
        u32::try_from(number).map_err(|_| Error::new(format!("{name}: {number} is not a device number")))
    };
    let number = if kind == FileType::Fifo {
        0
    } else {
        makedev(part("major", device.major())?, part("minor", device.minor())?)
    };
    Ok(Device {
        place: String::new(),
        path: clean(device.path()),
        kind,
        number,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        bind: None,
    })
}

/// Opens the host's nodes that the runtime could not open. In init, with the host's root still being `/`.
pub(super) fn open_late(devices: &mut [Device]) -> Result<()> {
    for device in devices {
        if let Some(bind) = &mut device.bind {
            bind.open_late().map_err(|e| e.context(&device.place))?;
        }
    }
    Ok(())
}

/// Makes the nodes. The umask must be 0.
pub(super) fn make(devices: &mut [Device], inside: &Inside) -> Result<()> {
    let mut last: Option<(PathBuf, OwnedFd)> = None;
    for device in devices {
        let (parent, name) = match (device.path.parent(), device.path.file_name()) {
            (Some(parent), Some(name)) => (parent.to_path_buf(), name.to_os_string()),
            _ => return Err(Error::new(format!("{}: {} is no place for a node", device.place, device.path.display()))),
        };
        let what = format!("{}: cannot make {}", device.place, device.path.display());
        if last.as_ref().is_none_or(|(path, _)| *path != parent) {
            let (fd, _) = inroot::ensure(inside.fd(), &parent, Leaf::Directory, true).context(|| &what)?;
            last = Some((parent, fd));
        }
        if let Some((_, directory)) = &last {
            let made =
                if device.bind.is_some() { device.bind_in(directory, &name) } else { device.make_in(directory, &name) };
            made.map_err(|e| e.context(&what))?;
        }
    }
    Ok(())
}

impl Device {
    fn make_in(&mut self, directory: &OwnedFd, name: &OsStr) -> Result<()> {
        let mode = Mode::from_raw_mode(self.mode);
        let existed = match rustix::fs::mknodat(directory, name, self.kind, mode, self.number) {
            Ok(()) => false,
            Err(Errno::EXIST) => true,
            // The runtime itself is in a user namespace: as with one of the container.
            Err(Errno::PERM) => {
                let mut node = host_node(&self.path);
                node.open_late()?;
                self.bind = Some(node);
                return self.bind_in(directory, name);
            }
            Err(errno) => return Err(errno.into()),
        };
        if !existed && self.uid == 0 && self.gid == 0 {
            return Ok(());
        }
        // Whoever shares the directory could have replaced it: what is changed is what was opened and looked at.
        let node =
            rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&node)?;
        self.check(&stat)?;
        if stat.st_uid != self.uid || stat.st_gid != self.gid {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::chownat(&node, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .context(|| format!("cannot give it to {}:{}", self.uid, self.gid))?;
        }
        if stat.st_mode & 0o7777 != self.mode {
            rustix::fs::chmod(Inside::proc_path(&node), mode).context(|| format!("cannot set mode {:o}", self.mode))?;
        }
        Ok(())
    }

    fn bind_in(&mut self, directory: &OwnedFd, name: &OsStr) -> Result<()> {
        let Some(bind) = &mut self.bind else { return Ok(()) };
        let tree = bind.take()?;
        let host = rustix::fs::fstat(&tree)?;
        self.check(&host).map_err(|e| e.context("the host's node, which must be bound in a user namespace"))?;
        match rustix::fs::mknodat(directory, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let at = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&at)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            // The node itself, from the image or from a mount of the configuration.
            return self.check(&stat);
        }
        attach(&tree, at.as_fd())
    }

    /// config-linux.md: what exists at the path and does not match the device MUST be an error.
    fn check(&self, stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == self.kind && (kind == FileType::Fifo || stat.st_rdev == self.number) {
            return Ok(());
        }
        Err(Error::from_errno(
            libc::EEXIST,
            format!("{} is there, not {}", describe(kind, stat.st_rdev), describe(self.kind, self.number)),
        ))
    }
}

fn describe(kind: FileType, number: u64) -> String {
    let numbers = || format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    match kind {
        FileType::CharacterDevice => format!("character device {}", numbers()),
        FileType::BlockDevice => format!("block device {}", numbers()),
        FileType::Fifo => "a fifo".to_string(),
        FileType::Directory => "a directory".to_string(),
        FileType::Symlink => "a symbolic link".to_string(),
        FileType::RegularFile => "a regular file".to_string(),
        _ => "a file of another type".to_string(),
    }
}

/// Makes the links of /dev; one that the image has is left as it is.
pub(super) fn link(inside: &Inside) -> Result<()> {
    let (dev, _) =
        inroot::ensure(inside.fd(), Path::new("/dev"), Leaf::Directory, true).context(|| "cannot open /dev")?;
    for (name, target) in LINKS {
        if name == "core" && !Path::new(target).exists() {
            continue;
        }
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::from(errno).context(format!("cannot link /dev/{name}"))),
        }
    }
    link_ptmx(&dev).context(|| "cannot link /dev/ptmx")
}

/// /dev/ptmx must be that of the container's devpts, whatever the image has there.
fn link_ptmx(dev: &OwnedFd) -> rustix::io::Result<()> {
    const TARGET: &str = "pts/ptmx";
    match rustix::fs::symlinkat(TARGET, dev, "ptmx") {
        Err(Errno::EXIST) => {}
        result => return result,
    }
    if rustix::fs::readlinkat(dev, "ptmx", Vec::new()).is_ok_and(|target| target.as_bytes() == TARGET.as_bytes()) {
        return Ok(());
    }
    // The node itself takes the devpts beside it, so it does no harm; it may be that of a /dev shared with the host.
    let stat = rustix::fs::statat(dev, "ptmx", AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(5, 2) {
        return Ok(());
    }
    rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty())?;
    rustix::fs::symlinkat(TARGET, dev, "ptmx")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_devices_go_before_default_ones() {
        let json = r#"[{"path": "/dev/../dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 8582, "uid": 7},
            {"path": "/dev/fuse", "type": "u", "major": 10, "minor": 229}, {"path": "/f", "type": "p"}]"#;
        let devices: Vec<LinuxDevice> = serde_json::from_str(json).unwrap();
        let all = resolve(&devices, false).unwrap();
        assert_eq!(all.len(), DEFAULT.len() + 2);
        assert_eq!((all[0].mode, all[0].uid, all[0].number), (0o606, 7, makedev(1, 3)));
        assert_eq!((all[1].kind, all[1].mode), (FileType::CharacterDevice, 0o666));
        assert_eq!(all[2].kind, FileType::Fifo);
        assert_eq!(all[2].place, "linux.devices[2]");
    }
}
