//! `mounts add` and `mounts remove`: mounts of a container that runs.

use std::path::Path;

use nix::sched::CloneFlags;
use serde_json::Value;

use super::ground::cgroup_mounts;
use super::state::{State, Status};
use super::{Host, exec, store, wait};
use crate::error::{Cause, Context, Error, Result};
use crate::init::channel::{self, Report};
use crate::init::visit::{self, Work};
use crate::sys::clone::{Clone, clone3};
use crate::{log, rootfs, spec, sys};

/// What becomes of the mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountsChange {
    /// They are made.
    Add,
    /// What is mounted at their destinations is unmounted.
    Remove,
}

/// Changes the mounts of a container; `mounts` is JSON, in the shape of `mounts` in config.json.
pub(super) fn mounts(host: &Host, id: &str, change: MountsChange, mounts: &str) -> Result<()> {
    let entry = store::open_locked(host, id)?;
    let mut state = entry.state()?;
    if matches!(state.status(&entry)?, Status::Stopped | Status::Creating) {
        return Err(Error::of(Cause::State, format!("container not running: {id}")));
    }
    let init = state.init()?.ok_or_else(|| Error::of(Cause::State, format!("container not running: {id}")))?;
    let mounts: Value = serde_json::from_str(mounts).map_err(|e| Error::of(Cause::Config, e.to_string()))?;
    if !mounts.is_array() {
        return Err(Error::of(Cause::Config, "it is no array of mounts, as `mounts` in config.json is"));
    }
    let mut config: Value = serde_json::from_str(&entry.config()?)
        .map_err(|e| Error::new(format!("the kept config.json is broken: {e}")))?;
    config["mounts"] = mounts;
    let config = spec::parse(config.to_string())?;
    spec::validate(&config)?;
    for warning in config.warnings.iter().filter(|w| w.starts_with("mounts")) {
        log::warn(warning);
    }
    let linux = config.linux();
    let kinds = exec::kinds(linux, &state)? - CloneFlags::CLONE_NEWPID;
    if !kinds.contains(CloneFlags::CLONE_NEWNS) {
        return Err(Error::new(format!("container {id} has no mount namespace of its own: its mounts are the host's")));
    }
    let work = match change {
        MountsChange::Add => Work::Add(rootfs::addition(&rootfs::Input {
            config: &config,
            bundle: Path::new(&state.vessel.bundle),
            cgroups: &cgroup_mounts(&state.vessel.cgroup),
            unified: state.vessel.cgroup.unified,
            cgroup_namespace: kinds.contains(CloneFlags::CLONE_NEWCGROUP),
            user_namespace: kinds.contains(CloneFlags::CLONE_NEWUSER) || sys::proc::in_user_namespace(),
            mount_namespace: true,
            network_namespace: kinds.contains(CloneFlags::CLONE_NEWNET),
            no_pivot: false,
        })?),
        MountsChange::Remove => {
            Work::Remove(config.spec.mounts().iter().flatten().map(|m| m.destination().clone()).collect())
        }
    };
    visit(&init, kinds, work, &state)?;
    // For a checkpoint, which is to leave them out.
    let bundle = Path::new(&state.vessel.bundle);
    let added = &mut state.vessel.added;
    let before = added.len();
    match change {
        MountsChange::Add => added.extend(rootfs::binds(&config, bundle)),
        MountsChange::Remove => {
            for place in rootfs::places(&config, bundle) {
                // The one on top.
                if let Some(last) = added.iter().rposition(|bind| bind.place == place) {
                    added.remove(last);
                }
            }
        }
    }
    if added.len() == before { Ok(()) } else { entry.write_state(&state) }
}

/// Has a process do something in the container's namespaces.
pub(super) fn visit(init: &std::os::fd::OwnedFd, kinds: CloneFlags, work: Work, state: &State) -> Result<()> {
    let (channel, end) = channel::pair()?;
    let parent = rustix::process::getpid();
    let pidfd = match clone3(0, None).context(|| "cannot make a process")? {
        Clone::Child => {
            drop(channel);
            visit::run(init, kinds, work, end, parent)
        }
        Clone::Parent(_, pidfd) => pidfd,
    };
    drop((end, work));
    let answer = channel.receive();
    let status = wait::reap(&pidfd)?;
    match answer? {
        Some((Report::Failed(e), _)) => Err(e),
        _ if status.and_then(|s| s.exit_status()) == Some(0) => Ok(()),
        _ => Err(Error::new(format!("the process that was to work in container {} was ended", state.id))),
    }
}
