//! What a container is: its id, state, store and lifecycle (runtime.md).

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod ground;
mod inherited;
mod lock;
mod mounts;
mod parent;
mod restore;
mod start;
mod state;
mod store;
mod update;
mod wait;

use std::cell::LazyCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use crate::cgroups::{Driver, Stats};
use crate::criu::CgroupMode;
use crate::error::{Cause, Context, Error, Result};
use crate::foreground::{self, Signals};
use crate::init::channel::Order;
use crate::{seal, sys, timings};
pub use mounts::MountsChange;
use state::{State, Status, wrong};

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
}

/// Arguments of `create`, and of `run`.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// The container's name.
    pub id: String,
    /// The bundle; the current directory where empty.
    pub bundle: PathBuf,
    /// The configuration, from the bundle where relative; config.json where none.
    pub config: Option<PathBuf>,
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

/// What `checkpoint` and `restore` are told alike.
#[derive(Clone, Debug, Default)]
pub struct CriuRequest {
    /// `--image-path`, absolute: the directory of the images.
    pub images: PathBuf,
    /// `--work-path`, absolute: the directory for logs; that of the images where there is none.
    pub work: Option<PathBuf>,
    /// `--tcp-established`.
    pub tcp_established: bool,
    /// `--ext-unix-sk`.
    pub ext_unix_sk: bool,
    /// `--shell-job`.
    pub shell_job: bool,
    /// `--lazy-pages`.
    pub lazy_pages: bool,
    /// `--file-locks`.
    pub file_locks: bool,
    /// `--auto-dedup`.
    pub auto_dedup: bool,
    /// `--manage-cgroups-mode`.
    pub cgroups: Option<CgroupMode>,
}

/// Arguments of `checkpoint`.
#[derive(Clone, Debug, Default)]
pub struct CheckpointRequest {
    /// The container's name.
    pub id: String,
    /// What `restore` takes too.
    pub criu: CriuRequest,
    /// `--parent-path`: the images of a pre-dump, relative to `images`.
    pub parent: Option<PathBuf>,
    /// `--leave-running`.
    pub leave_running: bool,
    /// `--tcp-skip-in-flight`.
    pub tcp_skip_in_flight: bool,
    /// `--link-remap`.
    pub link_remap: bool,
    /// `--pre-dump`.
    pub pre_dump: bool,
    /// `--page-server`: address and port.
    pub page_server: Option<(String, u16)>,
    /// `--status-fd`.
    pub status_fd: Option<i32>,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, Default)]
pub struct RestoreRequest {
    /// What the container is made of; terminal, bundle and pid file as with `run`.
    pub run: RunRequest,
    /// What `checkpoint` takes too.
    pub criu: CriuRequest,
    /// `--tcp-close`.
    pub tcp_close: bool,
    /// `--lsm-profile`: `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// `--lsm-mount-context`.
    pub lsm_mount_context: Option<String>,
}

/// Arguments of `update`.
#[derive(Clone, Debug)]
pub struct UpdateRequest {
    /// The container's name.
    pub id: String,
    /// What is to change, in the shape of `linux.resources`; rules of devices are passed over.
    pub resources: serde_json::Value,
    /// Lines for the schemata file of its group in resctrl.
    pub schemata: Vec<String>,
}

/// What `events` tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// What was used up to now.
    Stats(Box<Stats>),
    /// Memory ran out.
    Oom,
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
pub fn create(host: &Host, request: &CreateRequest) -> Result<()> {
    protect(request.preserve_fds)?;
    let mut made = create::make(host, request, ground::Opener::Start)?;
    made.channel.send(&Order::Created)?;
    made.rollback.call_off();
    Ok(())
}

/// The beginning of every command that makes a process in a container: the runtime's binary is out of its reach, as is the
/// process itself before it is confined, and no descriptor of the caller goes on but those that are meant to.
fn protect(preserve_fds: u32) -> Result<()> {
    seal::ensure()?;
    if caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_PTRACE).unwrap_or(false) {
        // Init inherits it. Else who made its user namespace could look through it at the host's root (CVE-2016-9962).
        // Without that capability the runtime itself has no right to what is protected so.
        sys::process::protect()?;
    }
    let first = inherited::preserved(preserve_fds, &inherited::listen_env())?;
    sys::fd::cloexec_from(3 + first.cast_signed())
}

/// Creates and starts a container; in the foreground, waits for it. Returns the exit code.
pub fn run(host: &Host, request: &RunRequest) -> Result<i32> {
    protect(request.create.preserve_fds)?;
    let signals = if request.detach { None } else { Some(Signals::block(!request.no_subreaper)?) };
    let mut made = create::make(host, &request.create, ground::Opener::Run(request.detach))?;
    if let Some(master) = &made.terminal {
        foreground::set_up(master)?;
    }
    if !made.started {
        made.channel.send(&Order::Start)?;
    }
    start::watch(&made.channel, &made.pidfd, &made.state, made.state.init_process_pid, "creating")
        .inspect_err(|_| store::remove_pid_file(request.create.pid_file.as_deref()))?;
    timings::phase("until the program runs");
    made.rollback.call_off();
    drop(made.channel);
    start::poststart(&made.entry, &made.state)?;
    let Some(signals) = signals else { return Ok(0) };
    // Others may pause or delete it while it runs.
    made.entry.unlock()?;
    let status = foreground::wait(&signals, made.state.init_process_pid, &made.pidfd, made.terminal);
    timings::phase("the program");
    if !request.keep && made.entry.lock_again()? {
        delete::destroy(&made.entry, &made.state, !made.state.vessel.pid_namespace)?;
    }
    status
}

/// Saves a running container to files, and ends it unless told otherwise.
pub fn checkpoint(host: &Host, request: &CheckpointRequest) -> Result<()> {
    checkpoint::checkpoint(host, request)
}

/// Makes a container anew from files that `checkpoint` has written; in the foreground, waits for it. Returns the exit code.
pub fn restore(host: &Host, request: &RestoreRequest) -> Result<i32> {
    sys::fd::cloexec_from(3)?;
    let run = &request.run;
    // What CRIU leaves behind where it fails is ours to reap.
    let subreaper = |on: bool| {
        let pid = on.then(rustix::process::getpid);
        rustix::process::set_child_subreaper(pid).context(|| "cannot become a subreaper")
    };
    subreaper(true)?;
    let signals = if run.detach { None } else { Some(Signals::block(false)?) };
    let made = restore::make(host, request).inspect_err(|_| wait::reap_all())?;
    subreaper(!run.detach && !run.no_subreaper)?;
    match signals {
        Some(signals) => made.wait(&signals, run.keep),
        None => Ok(0),
    }
}

/// Starts a created container.
pub fn start(host: &Host, id: &str) -> Result<()> {
    start::start(host, id)
}

/// Runs another process in a running container; in the foreground, waits for it. Returns the exit code.
pub fn exec(host: &Host, request: &ExecRequest) -> Result<i32> {
    protect(request.preserve_fds)?;
    exec::exec(host, request)
}

/// Sends a signal to init, or (`all`) to every process.
pub fn kill(host: &Host, id: &str, signal: i32, all: bool) -> Result<()> {
    let entry = store::open(host, id)?;
    let state = entry.state_with_init()?;
    let cgroup = &state.vessel.cgroup;
    let init = state.init()?;
    let own = has_cgroup(&entry, &state, init.is_some());
    // A container that shares its pid namespace lives on without init: its processes are only in the cgroup.
    if own
        && !cgroup.dirs.is_empty()
        && (all || (signal == libc::SIGKILL && !state.vessel.pid_namespace))
        && (all || init.is_some() || cgroup.populated()?)
    {
        return match cgroup.kill(signal) {
            Err(e) if e.errno() == libc::ENOENT => Ok(()),
            done => done,
        };
    }
    let sent = match init {
        Some(init) => send(&init, signal),
        None => Err(Error::of(Cause::State, format!("container not running: {id}"))),
    };
    match sent {
        // Every process that is left, which are none, has it. Without a pid namespace there may be some.
        Err(e) if all && state.vessel.pid_namespace && e.cause() == Cause::State => return Ok(()),
        sent => sent?,
    }
    if own && signal == libc::SIGKILL && !cgroup.unified && cgroup.frozen()? {
        // A v1 freezer holds even SIGKILL back.
        cgroup.thaw()?;
    }
    Ok(())
}

/// Whether the processes in the cgroup are the container's. In that of a creation that was cut off, or of a container all
/// processes of which have ended with its pid namespace, there may be those of another.
fn has_cgroup(entry: &store::Entry, state: &State, init_lives: bool) -> bool {
    entry.owns_cgroup() && (init_lives || !state.vessel.pid_namespace)
}

fn send(init: &OwnedFd, signal: i32) -> Result<()> {
    match sys::pidfd::send_signal(init.as_fd(), signal) {
        Err(e) if e.errno() == libc::ESRCH => Err(Error::of(Cause::State, "container not running")),
        done => done.context(|| format!("cannot send signal {signal} to the container's init")),
    }
}

/// Whether VESSEL_STRICT=1 in the environment asks for the letter of the specification where the field's runtimes, and so
/// this one, are more lenient: a created container is none that can be deleted, and a limit that has nothing like it on
/// cgroup v2 is an error.
fn strict() -> bool {
    std::env::var_os("VESSEL_STRICT").is_some_and(|value| value == "1")
}

/// Deletes a container that is stopped, or, unless [`strict`], was never started; with `force` also one that runs, and a
/// missing one is no error.
pub fn delete(host: &Host, id: &str, force: bool) -> Result<()> {
    delete::delete(host, id, force)
}

/// The state of one container.
pub fn state(host: &Host, id: &str) -> Result<View> {
    let entry = store::open(host, id)?;
    let state = entry.state()?;
    Ok(state.view(state.status(&entry)?))
}

/// The states of all containers, by name. What is broken comes as an error.
pub fn list(host: &Host) -> Result<Vec<Result<View>>> {
    let passwd = LazyCell::new(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    let mut views = Vec::new();
    for id in store::names(host)? {
        let view = store::open(host, &id).and_then(|entry| {
            let state = entry.state()?;
            let mut view = state.view(state.status(&entry)?);
            view.owner = owner(&passwd, state.vessel.owner);
            Ok(view)
        });
        match view {
            // It was deleted, or is not there yet.
            Err(e) if e.cause() == Cause::NotFound => {}
            view => views.push(view),
        }
    }
    Ok(views)
}

/// The names of the containers that match a regular expression, sorted.
pub fn matching(host: &Host, pattern: &str) -> Result<Vec<String>> {
    let pattern = regex_lite::Regex::new(pattern).map_err(|e| Error::new(format!("--regex {pattern:?}: {e}")))?;
    Ok(store::names(host)?.into_iter().filter(|id| pattern.is_match(id)).collect())
}

/// The name of a user by the text of the host's /etc/passwd, else `#UID`.
fn owner(passwd: &str, uid: u32) -> String {
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// The pids of all processes of a container, which its cgroup knows.
pub fn pids(host: &Host, id: &str) -> Result<Vec<i32>> {
    let entry = store::open(host, id)?;
    let state = entry.state()?;
    if state.vessel.cgroup.dirs.is_empty() {
        return Err(Error::of(Cause::State, format!("cannot tell the processes of container {id}: it has no cgroup")));
    }
    if !has_cgroup(&entry, &state, state.alive()) {
        return Ok(Vec::new());
    }
    match state.vessel.cgroup.pids() {
        Err(e) if e.errno() == libc::ENOENT => Ok(Vec::new()),
        pids => pids,
    }
}

/// Freezes a running container.
pub fn pause(host: &Host, id: &str) -> Result<()> {
    let entry = store::open_locked(host, id)?;
    let state = entry.state()?;
    match state.status(&entry)? {
        Status::Running | Status::Created => state.vessel.cgroup.freeze(),
        Status::Stopped => Err(Error::of(Cause::State, format!("container not running: {id}"))),
        status => Err(wrong(status, &format!("cannot pause container {id}, which is not running"))),
    }
}

/// Thaws a paused container.
pub fn resume(host: &Host, id: &str) -> Result<()> {
    let entry = store::open_locked(host, id)?;
    let state = entry.state()?;
    match state.status(&entry)? {
        Status::Paused => state.vessel.cgroup.thaw(),
        status => Err(wrong(status, &format!("cannot resume container {id}, which is not paused"))),
    }
}

/// Whether caches can be limited here; if not, the error says why.
pub fn can_limit_caches() -> Result<()> {
    crate::rdt::mountpoint().map(drop)
}

/// Changes limits of a container that is not stopped. Where one cannot be set, all stay as they are.
pub fn update(host: &Host, request: &UpdateRequest) -> Result<()> {
    update::update(host, request)
}

/// Makes mounts in a container that is not stopped, or takes them away; `mounts` is JSON in the shape of `mounts` in
/// config.json. Where one cannot be made, none of them stays.
pub fn mounts(host: &Host, id: &str, change: MountsChange, mounts: &str) -> Result<()> {
    mounts::mounts(host, id, change, mounts)
}

/// What a container has used up to now.
pub fn stats(host: &Host, id: &str) -> Result<Stats> {
    events::stats(host, id)
}

/// Reports each time that the container runs out of memory, and its statistics in intervals; to the end of the container,
/// or until `report` says that nobody listens.
pub fn events(
    host: &Host,
    id: &str,
    interval: std::time::Duration,
    report: &mut dyn FnMut(Event) -> Result<bool>,
) -> Result<()> {
    events::events(host, id, interval, report)
}
