//! Hearing from the kernel that memory ran out, and that a cgroup is empty. Nothing is asked again and again.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Cgroup, Dir, files};
use crate::error::{Context, Error, Result};
use crate::log;

/// Descriptors that become ready when something has happened to a cgroup.
#[derive(Debug)]
pub struct Watch {
    memory: Option<Memory>,
    /// `cgroup.events` of v2, whose `populated` ends the watch.
    events: Option<OwnedFd>,
}

#[derive(Debug)]
enum Memory {
    /// An event counter that the kernel raises for each time that memory ran out, and once when the cgroup goes.
    V1 { counter: OwnedFd, path: PathBuf },
    /// `memory.events`, and how many processes it told to have been ended.
    V2 { events: OwnedFd, kills: u64 },
}

/// What has happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Memory ran out.
    pub oom: bool,
    /// The cgroup is empty, or gone.
    pub gone: bool,
}

/// See [`Cgroup::watch`].
pub(super) fn watch(cgroup: &Cgroup) -> Result<Watch> {
    let mut watch = Watch { memory: None, events: None };
    if let Some(dir) = cgroup.v2().filter(|_| cgroup.on_v2("memory")) {
        watch.events = Some(open(dir, "cgroup.events")?);
        watch.memory = match open(dir, "memory.events") {
            Ok(events) => {
                let kills = kills(&events).map_err(|e| files::cannot_read(e, &dir.directory(), "memory.events"))?;
                Some(Memory::V2 { events, kills })
            }
            Err(e) if e.errno() == libc::ENOENT => None,
            Err(e) => return Err(e),
        };
    } else if let Some(dir) = cgroup.dir_of("memory") {
        watch.memory = Some(Memory::V1 { counter: counter(dir)?, path: dir.directory() });
    }
    if watch.memory.is_none() {
        log::warn("there will be no events of memory running out: the container has no memory controller");
    }
    Ok(watch)
}

fn open(dir: &Dir, name: &str) -> Result<OwnedFd> {
    let path = dir.directory();
    files::open_dir(&path)
        .and_then(|fd| files::open_file(fd, name, OFlags::RDONLY))
        .map_err(|e| files::cannot_read(e, &path, name))
}

/// Registers an event counter (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control").
fn counter(dir: &Dir) -> Result<OwnedFd> {
    let counter = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .context(|| "cannot make an event counter")?;
    let control = open(dir, "memory.oom_control")?;
    let order = format!("{} {}", counter.as_raw_fd(), control.as_raw_fd());
    let path = dir.directory();
    files::open_dir(&path)
        .and_then(|fd| files::write(fd, "cgroup.event_control", &order))
        .map_err(|e| files::cannot_write(e, &path, "cgroup.event_control", &order))?;
    Ok(counter)
}

fn kills(events: &OwnedFd) -> Result<u64, Errno> {
    let text = files::read_fd(events.as_fd())?;
    Ok(files::value(&text, "oom_kill").and_then(|count| count.trim().parse().ok()).unwrap_or_default())
}

impl Watch {
    /// What to poll.
    pub fn descriptors(&self) -> Vec<PollFd<'_>> {
        let memory = self.memory.as_ref().map(|memory| match memory {
            Memory::V1 { counter, .. } => PollFd::new(counter, PollFlags::IN),
            Memory::V2 { events, .. } => PollFd::new(events, PollFlags::PRI),
        });
        memory.into_iter().chain(self.events.as_ref().map(|events| PollFd::new(events, PollFlags::PRI))).collect()
    }

    /// Looks at what has happened; the descriptors are not ready then until there is more.
    pub fn look(&mut self) -> Result<Seen> {
        let mut seen = Seen::default();
        match &mut self.memory {
            Some(Memory::V1 { counter, path }) => match rustix::io::read(&*counter, &mut [0_u8; 8]) {
                Ok(_) if path.exists() => seen.oom = true,
                Ok(_) => seen.gone = true,
                Err(Errno::AGAIN) => {}
                Err(e) => return Err(Error::from(e).context("cannot read an event counter")),
            },
            Some(Memory::V2 { events, kills: known }) => match kills(events) {
                Ok(now) => {
                    seen.oom = now > *known;
                    *known = now;
                }
                Err(Errno::NODEV) => seen.gone = true,
                Err(e) => return Err(Error::from(e).context("cannot read memory.events")),
            },
            None => {}
        }
        if let Some(events) = &self.events {
            match files::read_fd(events.as_fd()) {
                Ok(text) => seen.gone |= files::value(&text, "populated") == Some("0"),
                Err(Errno::NODEV) => seen.gone = true,
                Err(e) => return Err(Error::from(e).context("cannot read cgroup.events")),
            }
        }
        Ok(seen)
    }
}
