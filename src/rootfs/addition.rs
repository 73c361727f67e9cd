//! Mounts that come to a container that runs, and go: `mounts add` and `mounts remove`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::mounts::{Common, Kind, Mount};
use super::place::Inside;
use super::{Input, limit, protect, resolve};
use crate::error::{Context, Error, Result};

/// Mounts to add, with every source opened that the runtime can open.
#[derive(Debug)]
pub struct Addition {
    pub(super) mounts: Vec<Mount>,
    pub(super) common: Common,
    pub(super) _limit: Option<limit::Raised>,
}

/// Resolves the mounts of the configuration. In the runtime, before the fork.
pub fn addition(input: &Input<'_>) -> Result<Addition> {
    resolve::addition(input)
}

impl Addition {
    /// Whether sources are left that only a process in the container's user namespace can open.
    pub fn is_incomplete(&self) -> bool {
        self.mounts.iter().any(|m| matches!(&m.kind, Kind::Bind(bind) if bind.tree.is_none()))
    }

    /// Opens them, in a mount namespace that belongs to the user namespace and shows the host's files.
    pub fn complete(&mut self) -> Result<()> {
        for mount in &mut self.mounts {
            if let Kind::Bind(bind) = &mut mount.kind {
                bind.open_late().map_err(|e| e.context(format!("{}.source", mount.place)))?;
            }
        }
        Ok(())
    }

    /// Makes the mounts in the mount namespace that was joined; where one fails, none of them stays. `names` is the host's
    /// /proc/self/fd. Changes the current directory.
    pub fn mount(mut self, names: OwnedFd) -> Result<()> {
        let inside = joined_root(names)?;
        let mut done = Vec::new();
        for mount in &mut self.mounts {
            let result = mount.carry_out(&inside, &self.common, |_| Err(Error::from_errno(libc::EPERM, "not here")));
            let result =
                result.and_then(
                    |(mount, late)| {
                        if late { protect::remount_read_only(&mount).map(|()| mount) } else { Ok(mount) }
                    },
                );
            match result {
                Ok(mount) => done.push(mount),
                Err(e) => {
                    // What fails here is not what went wrong, which is on its way to the user.
                    done.iter().rev().for_each(|mount| drop(unmount(&inside, mount)));
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

/// Unmounts what is mounted at places in the root of the mount namespace that was joined; the last first.
pub fn remove(destinations: &[PathBuf], names: OwnedFd) -> Result<()> {
    let inside = joined_root(names)?;
    for destination in destinations.iter().rev() {
        let what = || format!("cannot unmount {}", destination.display());
        let place = inside.open_existing(destination).context(what)?;
        if place.path == Path::new("/") {
            return Err(Error::new("the root filesystem stays").context(what()));
        }
        unmount(&inside, &place.fd).context(what).map_err(|e| match e.errno() {
            libc::EINVAL => e.hint("nothing is mounted there, or it came with a mount that the host owns"),
            _ => e,
        })?;
    }
    Ok(())
}

fn joined_root(names: OwnedFd) -> Result<Inside> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty()).context(|| "cannot open the container's root")?;
    Inside::with_names(root, names)
}

fn unmount(inside: &Inside, mount: &OwnedFd) -> Result<()> {
    // There is no umountat(2): the name of the descriptor in the host's /proc stands for it.
    rustix::process::fchdir(inside.names())?;
    Ok(rustix::mount::unmount(mount.as_raw_fd().to_string(), UnmountFlags::DETACH)?)
}
