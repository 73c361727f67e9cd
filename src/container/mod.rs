//! What a container is: its id, state, store and lifecycle (runtime.md).

use std::path::PathBuf;

use crate::cgroups::Driver;
use crate::error::{Error, Result};

/// What the global flags say.
#[derive(Clone, Debug)]
pub struct Host {
    /// The state root (`--root`), absolute.
    pub root: PathBuf,
    /// Whether the caller named it: a missing default root is an empty one.
    pub root_given: bool,
    /// Who makes cgroups.
    pub driver: Driver,
    /// `--rootless`: whether missing rights on cgroups are passed over; none: decided by who the caller is.
    pub rootless: Option<bool>,
    /// `--debug`.
    pub debug: bool,
}

/// Arguments of `create`, and of `run`.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// The container's name.
    pub id: String,
    /// The bundle; the current directory where empty.
    pub bundle: PathBuf,
    /// Who gets the master of the terminal.
    pub console_socket: Option<PathBuf>,
    /// Who gets a pidfd of init.
    pub pidfd_socket: Option<PathBuf>,
    /// Where init's pid is written: decimal, no newline, by rename.
    pub pid_file: Option<PathBuf>,
    /// MS_MOVE in place of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors beyond the standard streams the program inherits.
    pub preserve_fds: u32,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Default)]
pub struct RunRequest {
    /// What `create` takes too.
    pub create: CreateRequest,
    /// Return as soon as the program runs.
    pub detach: bool,
    /// Do not delete the container when its program ends.
    pub keep: bool,
    /// Do not become a subreaper.
    pub no_subreaper: bool,
}

/// Arguments of `exec`.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// The container's name.
    pub id: String,
    /// `--process`: the file with the whole process; then none of the fields up to `apparmor` is used.
    pub process: Option<PathBuf>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `--cwd`.
    pub cwd: Option<String>,
    /// `--env`, in order.
    pub env: Vec<String>,
    /// `--tty`.
    pub tty: bool,
    /// `--user`: uid and gid.
    pub user: Option<(u32, Option<u32>)>,
    /// `--additional-gids`.
    pub additional_gids: Vec<u32>,
    /// `--cap`.
    pub caps: Vec<String>,
    /// `--no-new-privs`.
    pub no_new_privs: bool,
    /// `--process-label`.
    pub process_label: Option<String>,
    /// `--apparmor`.
    pub apparmor: Option<String>,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--pidfd-socket`.
    pub pidfd_socket: Option<PathBuf>,
    /// `--detach`.
    pub detach: bool,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
    /// `--cgroup`, as given.
    pub cgroups: Vec<String>,
    /// `--ignore-paused`.
    pub ignore_paused: bool,
}

/// What `state` and `list` show (runtime.md, "State"), with runc's keys.
#[derive(Clone, Debug, serde::Serialize)]
pub struct View {
    /// The version of the specification that the state complies with.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// Init's pid; 0 where it is stopped.
    pub pid: i32,
    /// created, running, paused or stopped.
    pub status: String,
    /// The bundle, absolute.
    pub bundle: String,
    /// The root filesystem, absolute.
    pub rootfs: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Annotations of the configuration, sorted.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// The user that owns the container (`list`); empty in `state`.
    pub owner: String,
}

/// Creates a container: it is `created` when this returns.
pub fn create(_host: &Host, _request: &CreateRequest) -> Result<()> {
    Err(Error::new("create is not built yet"))
}

/// Creates and starts a container; in the foreground, waits for it. Returns the exit code.
pub fn run(_host: &Host, _request: &RunRequest) -> Result<i32> {
    Err(Error::new("run is not built yet"))
}

/// Starts a created container.
pub fn start(_host: &Host, _id: &str) -> Result<()> {
    Err(Error::new("start is not built yet"))
}

/// Runs another process in a running container; in the foreground, waits for it. Returns the exit code.
pub fn exec(_host: &Host, _request: &ExecRequest) -> Result<i32> {
    Err(Error::new("exec is not built yet"))
}

/// Sends a signal to init, or (`all`) to every process.
pub fn kill(_host: &Host, _id: &str, _signal: i32, _all: bool) -> Result<()> {
    Err(Error::new("kill is not built yet"))
}

/// Deletes a stopped container; with `force` also a running one, and a missing one is no error.
pub fn delete(_host: &Host, _id: &str, _force: bool) -> Result<()> {
    Err(Error::new("delete is not built yet"))
}

/// The state of one container.
pub fn state(_host: &Host, _id: &str) -> Result<View> {
    Err(Error::new("state is not built yet"))
}

/// The states of all containers, by name. What is broken comes as an error.
pub fn list(_host: &Host) -> Result<Vec<Result<View>>> {
    Err(Error::new("list is not built yet"))
}

/// The pids of all processes of a container.
pub fn pids(_host: &Host, _id: &str) -> Result<Vec<i32>> {
    Err(Error::new("ps is not built yet"))
}

/// Freezes a running container.
pub fn pause(_host: &Host, _id: &str) -> Result<()> {
    Err(Error::new("pause is not built yet"))
}

/// Thaws a paused container.
pub fn resume(_host: &Host, _id: &str) -> Result<()> {
    Err(Error::new("resume is not built yet"))
}
