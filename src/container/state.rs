//! What is kept of a container (runtime.md, "State"), in the shape of runc's state.json, which others read too.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use oci_spec::runtime::Hook;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::View;
use super::store::Entry;
use crate::cgroups::Cgroup;
use crate::error::{Cause, Context, Error, Result};
use crate::rootfs::External;
use crate::{rdt, sys};

/// state.json. The first group of keys is runc's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) id: String,
    /// Init's pid; 0 while `create` is under way.
    pub(super) init_process_pid: i32,
    /// When it started, in clock ticks after boot.
    pub(super) init_process_start: u64,
    /// RFC 3339.
    pub(super) created: String,
    pub(super) config: Summary,
    pub(super) rootless: bool,
    /// Path by v1 controller; the key is empty for v2.
    pub(super) cgroup_paths: BTreeMap<String, String>,
    /// Path by kind, as `NEWNET`.
    pub(super) namespace_paths: BTreeMap<String, String>,
    /// What the standard streams were at create, as /proc names it (`pipe:[123]`); empty where there is a terminal.
    #[serde(default)]
    pub(super) external_descriptors: Vec<String>,
    /// What the commands of vessel need.
    pub(super) vessel: Own,
}

/// The part of runc's `config` that others look for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) rootfs: String,
    /// `KEY=VALUE`: the bundle and the annotations.
    pub(super) labels: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Own {
    pub(super) oci_version: String,
    pub(super) bundle: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) cgroup: Cgroup,
    /// The resources in effect, as JSON; none while they are those of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resources: Option<serde_json::Value>,
    /// The binds that `mounts add` has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) added: Vec<External>,
    /// Its group in resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rdt: Option<rdt::Group>,
    /// Whether init is the first of a pid namespace, so that all others end with it.
    pub(super) pid_namespace: bool,
    /// Whether the config has a process: only then it can be started.
    #[serde(default)]
    pub(super) process: bool,
    pub(super) keyring: bool,
    pub(super) owner: u32,
    pub(super) poststart: Vec<Hook>,
    pub(super) poststop: Vec<Hook>,
    /// Where a seccomp listener goes, and what with.
    pub(super) seccomp_agent: Option<(String, String)>,
    /// Whether init has a time namespace that the configuration does not list: CRIU makes one.
    #[serde(default)]
    pub(super) time_namespace: bool,
}

/// Where a container stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl State {
    /// Whether init lives. A pid alone says nothing: it may have been given to another process since.
    pub(super) fn alive(&self) -> bool {
        let start = self.init_process_start;
        self.init_process_pid > 0
            && sys::process::stat(self.init_process_pid).is_some_and(|s| s.start == start && !s.ended)
    }

    pub(super) fn status(&self, entry: &Entry) -> Result<Status> {
        Ok(if self.init_process_pid == 0 {
            Status::Creating
        } else if !self.alive() {
            Status::Stopped
        } else if self.vessel.cgroup.frozen()? {
            Status::Paused
        } else if entry.has_gate() {
            Status::Created
        } else {
            Status::Running
        })
    }

    /// A descriptor of init; none where it is gone.
    pub(super) fn init(&self) -> Result<Option<OwnedFd>> {
        let fd = self.open_init()?;
        // Looked at after opening: the descriptor is of the process that the reading is of.
        Ok(fd.filter(|_| self.alive()))
    }

    /// The status with a descriptor of init, which is looked at once for both.
    pub(super) fn status_and_init(&self, entry: &Entry) -> Result<(Status, Option<OwnedFd>)> {
        let fd = self.open_init()?;
        let status = self.status(entry)?;
        Ok((status, fd.filter(|_| status != Status::Stopped)))
    }

    fn open_init(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.init_process_pid) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => Ok(None),
            fd => fd.map(Some).context(|| "cannot open the container's init"),
        }
    }

    /// The state as the specification shows it, for hooks and agents.
    pub(super) fn oci(&self, status: &str) -> serde_json::Value {
        oci(&self.vessel, &self.id, status, self.init_process_pid)
    }

    pub(super) fn view(&self, status: Status) -> View {
        View {
            oci_version: self.vessel.oci_version.clone(),
            id: self.id.clone(),
            pid: if status == Status::Stopped { 0 } else { self.init_process_pid },
            status: status.word().to_string(),
            bundle: self.vessel.bundle.clone(),
            rootfs: self.config.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.vessel.annotations.clone(),
            owner: String::new(),
        }
    }
}

fn oci(own: &Own, id: &str, status: &str, pid: i32) -> serde_json::Value {
    let mut state = serde_json::json!({
        "ociVersion": own.oci_version,
        "id": id,
        "status": status,
        "bundle": own.bundle,
    });
    // Of a stopped one it may be another process's by now.
    if status != "stopped" {
        state["pid"] = pid.into();
    }
    if !own.annotations.is_empty() {
        state["annotations"] = serde_json::json!(own.annotations);
    }
    state
}

/// The error of a command that needs another status.
pub(super) fn wrong(status: Status, what: &str) -> Error {
    Error::of(Cause::State, format!("{what}: {}", status.word()))
}
