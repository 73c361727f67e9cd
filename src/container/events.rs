//! `events`: what a container uses, from time to time, and when it runs out of memory.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::state::{State, Status};
use super::{Event, Host, store};
use crate::cgroups::{Stats, Watch};
use crate::error::{Cause, Context, Error, Result};
use crate::log;

/// The state of a container that is not stopped.
fn living(host: &Host, id: &str) -> Result<State> {
    let entry = store::open(host, id)?;
    let state = entry.state()?;
    match state.status(&entry)? {
        Status::Stopped => Err(Error::of(Cause::State, format!("container with id {id} is not running"))),
        _ => Ok(state),
    }
}

pub(super) fn stats(host: &Host, id: &str) -> Result<Stats> {
    living(host, id)?.vessel.cgroup.stats()
}

pub(super) fn events(
    host: &Host,
    id: &str,
    interval: Duration,
    report: &mut dyn FnMut(Event) -> Result<bool>,
) -> Result<()> {
    let state = living(host, id)?;
    let cgroup = &state.vessel.cgroup;
    let mut watch = cgroup.watch()?;
    let mut init = state.init()?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(&watch, init.as_ref(), next)?;
        // Looked at after the end of init, as that may have been for want of memory.
        let seen = watch.look()?;
        if seen.oom && !report(Event::Oom)? {
            return Ok(());
        }
        if ended {
            init = None;
        }
        // The other processes of a pid namespace end with its first; those of a shared one live on.
        let over = init.is_none() && (state.vessel.pid_namespace || !cgroup.populated()?);
        if seen.gone || over {
            return Ok(());
        }
        if Instant::now() < next {
            continue;
        }
        match cgroup.stats() {
            Ok(stats) => {
                if !report(Event::Stats(Box::new(stats)))? {
                    return Ok(());
                }
            }
            // It was removed a moment ago.
            Err(_) if !cgroup.exists() => return Ok(()),
            Err(e) => log::warn(&e.to_string()),
        }
        // Where reports take longer than the interval, some are left out.
        let now = Instant::now();
        if next + interval > now {
            next += interval;
        } else {
            next = now + interval;
        }
    }
}

/// Waits until something has happened, or the time has come; whether init has ended.
fn wait(watch: &Watch, init: Option<&OwnedFd>, until: Instant) -> Result<bool> {
    let mut descriptors = watch.descriptors();
    descriptors.extend(init.map(|init| PollFd::new(init, PollFlags::IN)));
    let left = until.saturating_duration_since(Instant::now());
    match poll(&mut descriptors, Timespec::try_from(left).ok().as_ref()) {
        Err(rustix::io::Errno::INTR) => {}
        done => _ = done.context(|| "cannot wait for events of the container")?,
    }
    Ok(init.is_some() && descriptors.last().is_some_and(|last| !last.revents().is_empty()))
}
