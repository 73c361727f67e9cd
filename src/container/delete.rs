//! `delete`: ends what is left of a container, removes its cgroup and state, runs the poststop hooks.

use super::state::{State, Status};
use super::store::{self, Entry};
use super::{Host, wait};
use crate::error::{Cause, Error, Result};
use crate::hooks::{self, Kind};
use crate::{log, sys, timings};

/// How long a process may take to die of SIGKILL, in seconds.
const PATIENCE: i64 = 10;

pub(super) fn delete(host: &Host, id: &str, force: bool) -> Result<()> {
    let entry = match if force { store::seize(host, id) } else { store::open_locked(host, id) } {
        Err(e) if force && e.cause() == Cause::NotFound => return Ok(()),
        entry => entry?,
    };
    let state = match entry.state_with_init() {
        Ok(state) => state,
        // A creation that was cut off before it had made anything.
        Err(e) if e.cause() == Cause::NotFound => {
            entry.remove()?;
            return if force { Ok(()) } else { Err(e) };
        }
        Err(e) if force => {
            log::warn(&e.to_string());
            return entry.remove();
        }
        Err(e) => return Err(e),
    };
    let mut kill = true;
    match state.status(&entry)? {
        Status::Stopped => kill = !state.vessel.pid_namespace,
        // The field's runtimes delete what was never started, and engines count on it; the specification does not.
        Status::Created | Status::Creating if !super::strict() => end(&state)?,
        _ if force => end(&state)?,
        status => {
            return Err(Error::of(
                Cause::State,
                format!("cannot delete container {id} that is not stopped: {}", status.word()),
            ));
        }
    }
    destroy(&entry, &state, kill)
}

/// Ends init, and with it all processes of its pid namespace.
pub(super) fn end(state: &State) -> Result<()> {
    let cgroup = &state.vessel.cgroup;
    let Some(init) = state.init()? else { return Ok(()) };
    use std::os::fd::AsFd;
    match sys::pidfd::send_signal(init.as_fd(), libc::SIGKILL) {
        Err(e) if e.errno() == libc::ESRCH => {}
        done => done.map_err(|e| e.context("cannot end the container's init"))?,
    }
    if !cgroup.unified && cgroup.frozen()? {
        // A v1 freezer holds even SIGKILL back.
        cgroup.thaw()?;
    }
    if wait::ended_within(&init, PATIENCE)? {
        timings::phase("until the processes have ended");
        return Ok(());
    }
    Err(Error::new(format!(
        "container init still running: process {} does not end after SIGKILL",
        state.init_process_pid
    )))
}

/// Removes the cgroup and the state of a container whose init has ended; then runs the poststop hooks, whose failures are
/// no reason to stop (runtime.md, "Lifecycle"). Processes that are left in the cgroup are ended with `kill`: not to be used
/// where all of the container's have ended with its pid namespace a while ago, as another may have the cgroup since.
pub(super) fn destroy(entry: &Entry, state: &State, kill: bool) -> Result<()> {
    if entry.owns_cgroup() {
        state.vessel.cgroup.remove(kill)?;
    } else {
        // A creation that was cut off before the cgroup was known to be nobody else's.
        state.vessel.cgroup.remove_unused();
    }
    if let Some(group) = &state.vessel.rdt {
        group.remove()?;
    }
    timings::phase("cgroup");
    entry.remove()?;
    let oci = state.oci("stopped").to_string();
    for failure in hooks::run_all(Kind::Poststop, &state.vessel.poststop, &oci) {
        log::warn(&failure.to_string());
    }
    Ok(())
}
