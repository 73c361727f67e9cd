//! `start`: opens the gate and learns what became of the program.

use std::os::fd::{AsFd, OwnedFd};

use super::state::{State, Status, wrong};
use super::store::{self, Entry};
use super::{Host, delete};
use crate::error::{Cause, Error, Result};
use crate::hooks::{self, Kind};
use crate::init::channel::{Order, Report, RuntimeEnd};
use crate::init::gate;
use crate::security::seccomp;
use crate::{sys, timings};

pub(super) fn start(host: &Host, id: &str) -> Result<()> {
    let entry = store::open_locked(host, id)?;
    let state = entry.state()?;
    let (status, init) = state.status_and_init(&entry)?;
    match status {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::of(Cause::State, format!("cannot start a container that has stopped: {id}")));
        }
        Status::Running => {
            return Err(Error::of(Cause::State, format!("cannot start an already running container: {id}")));
        }
        Status::Paused => {
            return Err(Error::of(Cause::State, format!("cannot start a container in the paused state: {id}")));
        }
        status => return Err(wrong(status, &format!("cannot start container {id}"))),
    }
    if !state.vessel.process {
        return Err(Error::new(format!("cannot start container {id}: its config.json has no process")));
    }
    let init =
        init.ok_or_else(|| Error::of(Cause::State, format!("cannot start a container that has stopped: {id}")))?;
    let channel = gate::call(entry.dir())?;
    // Before the program can run: who is killed between the two leaves nothing that looks as if it had not started.
    entry.remove_gate()?;
    channel.send(&Order::Start)?;
    if let Err(e) = watch(&channel, &init, &state, state.init_process_pid, "creating") {
        // runtime.md, "Lifecycle": the container is stopped, and goes through deletion.
        delete::end(&state)?;
        delete::destroy(&entry, &state, true)?;
        return Err(e);
    }
    timings::phase("until the program runs");
    poststart(&entry, &state)
}

/// Follows a process (init, or that of exec) from the gate to the program: the end of the channel means that it runs.
/// `status` is the container's, for a seccomp agent.
pub(super) fn watch(channel: &RuntimeEnd, pidfd: &OwnedFd, state: &State, pid: i32, status: &str) -> Result<()> {
    loop {
        match channel.receive()? {
            None => return Ok(()),
            Some((Report::Failed(e), _)) => return Err(e),
            Some((Report::Listener(number), _)) => {
                let listener = sys::pidfd::get_fd(pidfd.as_fd(), number)
                    .map_err(|e| e.context("linux.seccomp: cannot fetch the listener from the process"))?;
                notify_agent(listener, state, pid, status)?;
                channel.send(&Order::Listened)?;
            }
            Some((other, _)) => return Err(Error::new(format!("sync channel: {other:?} came out of order"))),
        }
    }
}

/// Hands a seccomp listener to the agent (config-linux.md, "The Container Process State").
fn notify_agent(listener: OwnedFd, state: &State, pid: i32, status: &str) -> Result<()> {
    let Some((path, metadata)) = &state.vessel.seccomp_agent else {
        return Err(Error::new("linux.seccomp: a listener came, but there is no listenerPath"));
    };
    let mut message = serde_json::json!({
        "ociVersion": state.vessel.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state.oci(status),
    });
    if !metadata.is_empty() {
        message["metadata"] = metadata.as_str().into();
    }
    seccomp::send_listener(path, listener, &message.to_string())
}

/// Runs the poststart hooks; where one fails the container is stopped and deleted (runtime.md, "Lifecycle").
pub(super) fn poststart(entry: &Entry, state: &State) -> Result<()> {
    if state.vessel.poststart.is_empty() {
        return Ok(());
    }
    let done = hooks::run(Kind::Poststart, &state.vessel.poststart, &state.oci("running").to_string());
    if done.is_err() {
        delete::end(state)?;
        delete::destroy(entry, state, true)?;
    }
    done
}
