//! The id mappings of mounts (config.md, `uidMappings` and `gidMappings` of a mount): each is a user namespace.

use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::error::{Context, Error, Result};
use crate::sys::clone::{Clone, clone3};
use crate::sys::mount::{Change, set_attributes};
use crate::sys::proc::Proc;

/// The mappings of a mount: a user namespace that has them.
#[derive(Clone, Debug)]
pub(super) struct Mappings {
    /// The namespace.
    pub(super) namespace: Rc<OwnedFd>,
    /// Whether mounts below get the mappings too.
    pub(super) recursive: bool,
}

impl Mappings {
    /// Maps the ids of a detached tree: with the right to mount its file system only.
    pub(super) fn apply(&self, tree: impl AsFd) -> Result<()> {
        let change = Change { idmap: Some(self.namespace.as_fd()), ..Change::default() };
        set_attributes(tree, self.recursive, &change)
    }
}

/// User namespaces by their mappings.
#[derive(Debug, Default)]
pub(super) struct Namespaces(Vec<(String, String, Rc<OwnedFd>)>);

impl Namespaces {
    /// The user namespace with these mappings, made at the first call.
    pub(super) fn get(&mut self, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<Rc<OwnedFd>> {
        let (uids, gids) = (lines(uids), lines(gids));
        if let Some((.., namespace)) = self.0.iter().find(|(u, g, _)| *u == uids && *g == gids) {
            return Ok(namespace.clone());
        }
        let namespace = Rc::new(make(&uids, &gids).context(|| "cannot make a user namespace for the mappings")?);
        self.0.push((uids, gids, namespace.clone()));
        Ok(namespace)
    }
}

/// Mappings as the kernel reads them.
fn lines(mappings: &[LinuxIdMapping]) -> String {
    let mut text = String::new();
    for m in mappings {
        let _ = writeln!(text, "{} {} {}", m.container_id(), m.host_id(), m.size());
    }
    text
}

/// Makes a user namespace: a child lives in it until the mappings are written and the namespace is held by a descriptor.
fn make(uids: &str, gids: &str) -> Result<OwnedFd> {
    let (end, mine) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    match clone3(libc::CLONE_NEWUSER as u64, None)? {
        Clone::Child => {
            drop(mine);
            // Ends when the runtime closes its side, also by dying.
            let _ = rustix::io::read(end.as_fd(), &mut [0; 1]);
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
        Clone::Parent(pid, pidfd) => {
            let namespace = hold(pid, uids, gids);
            drop(mine);
            while rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
                .is_err_and(|e| e == rustix::io::Errno::INTR)
            {}
            namespace
        }
    }
}

fn hold(pid: i32, uids: &str, gids: &str) -> Result<OwnedFd> {
    let proc = Proc::open()?;
    proc.write(&format!("{pid}/uid_map"), uids.as_bytes())?;
    proc.write(&format!("{pid}/gid_map"), gids.as_bytes())?;
    open(&format!("/proc/{pid}/ns/user"))
}

/// Opens a user namespace by its path on the host.
pub(super) fn open(path: &str) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::from)
        .context(|| format!("cannot open {path}"))
}
