//! `exec`: another process in a running container.

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Capability, Linux, LinuxCapabilities, Process, UserBuilder};
use rustix::fs::{Mode, OFlags};

use super::inherited::{listen_env, preserved};
use super::parent::{filter_order, gone_is_no_fault, limits};
use super::state::{State, Status, wrong};
use super::{ExecRequest, Host, start, store, wait};
use crate::cgroups;
use crate::error::{Cause, Context, Error, Result};
use crate::foreground::{self, Signals};
use crate::init::channel::{self, Order, Report, RuntimeEnd};
use crate::init::{Place, Program, join};
use crate::security::{capabilities, seccomp};
use crate::spec::{self, Config};
use crate::sys::clone::{Clone, clone3};
use crate::sys::proc::Proc;
use crate::{console, log, namespaces, sys, timings};

/// A process that was made.
struct Made {
    pid: i32,
    pidfd: OwnedFd,
    channel: RuntimeEnd,
    terminal: Option<OwnedFd>,
    /// Whether it was told to execute the program already.
    started: bool,
}

pub(super) fn exec(host: &Host, request: &ExecRequest) -> Result<i32> {
    let entry = store::open(host, &request.id)?;
    let state = entry.state()?;
    let (status, init) = state.status_and_init(&entry)?;
    match status {
        Status::Running | Status::Created => {}
        Status::Paused if request.ignore_paused => {}
        Status::Paused => {
            return Err(Error::of(Cause::State, "cannot exec in a paused container (use --ignore-paused to override)"));
        }
        Status::Stopped => return Err(Error::of(Cause::State, "cannot exec in a stopped container")),
        status => return Err(wrong(status, "cannot exec in a container that is not running")),
    }
    let init = init.ok_or_else(|| Error::of(Cause::State, "cannot exec in a stopped container"))?;
    // To give its memory back piece by piece would touch all of it once more.
    let config = ManuallyDrop::new(spec::parse(entry.config()?)?);
    let process = process(request, &config)?;
    check_terminal(&process, request)?;
    timings::phase("state and config.json");
    let signals = if request.detach { None } else { Some(Signals::block(true)?) };
    let made = make(request, &entry, &state, &config, &process, &init)?;
    if let Some(path) = &request.pid_file {
        store::write_pid_file(path, made.pid)?;
    }
    if let Some(path) = &request.pidfd_socket {
        console::send_pidfd(path, &made.pidfd)?;
    }
    if let Some(master) = &made.terminal {
        foreground::set_up(master)?;
    }
    if let Some(group) = &state.vessel.rdt {
        group.add(made.pid)?;
    }
    if !made.started {
        made.channel.send(&Order::Start)?;
    }
    if let Err(e) = start::watch(&made.channel, &made.pidfd, &state, made.pid, "running") {
        // It may be waiting for our answer.
        let _ = sys::pidfd::send_signal(made.pidfd.as_fd(), libc::SIGKILL);
        wait::reap(&made.pidfd)?;
        store::remove_pid_file(request.pid_file.as_deref());
        return Err(e);
    }
    timings::phase("until the program runs");
    drop(made.channel);
    match signals {
        None => Ok(0),
        Some(signals) => foreground::wait(&signals, made.pid, &made.pidfd, made.terminal),
    }
}

fn make(
    request: &ExecRequest,
    stored: &store::Entry,
    state: &State,
    config: &Config,
    process: &Process,
    init: &OwnedFd,
) -> Result<Made> {
    let linux = config.linux();
    let kinds = kinds(linux, state)?;
    let own_cgroup = &state.vessel.cgroup;
    let entry = if request.cgroups.is_empty() {
        match own_cgroup.entry() {
            // The container's processes have left it, and it was removed: the process goes where init is.
            Err(e) if e.errno() == libc::ENOENT => own_cgroup.init_entry(state.init_process_pid)?,
            entry => entry?,
        }
    } else {
        own_cgroup.sub_entry(&request.cgroups)?
    };
    let proc = Proc::open()?;
    let console = request.console_socket.as_deref().map(console::connect).transpose()?;
    let extra_env = listen_env();
    let (sets, warnings) = capabilities::plan(process.capabilities().as_ref())?;
    for warning in config.warnings.iter().chain(&warnings) {
        log::debug(|| warning);
    }
    let program = Program {
        process,
        linux,
        capabilities: sets,
        seccomp: linux.seccomp().is_some(),
        user_namespace: kinds.contains(CloneFlags::CLONE_NEWUSER),
        preserve_fds: preserved(request.preserve_fds, &extra_env)?,
        extra_env,
        keyring: state.vessel.keyring.then(|| format!("_ses.{}", state.id)),
        keep_groups: config.keeps_groups(),
        start_container: &[],
        hook_state: serde_json::Value::Null,
    };
    let affinity = process.exec_cpu_affinity().as_ref();
    if let Some(affinity) = affinity {
        let cpus = |list: &Option<String>| list.clone().unwrap_or_else(|| "any".to_string());
        let (first, last) = (affinity.initial(), affinity.cpu_affinity_final());
        log::debug(|| format!("CPU affinity: {} while joining, then {}", cpus(first), cpus(last)));
    }
    let mut setup = join::Join {
        init,
        kinds,
        root: root(state, kinds)?,
        procs: &entry.procs,
        attach: false,
        affinity: (
            affinity.and_then(|a| a.initial().as_deref()),
            affinity.and_then(|a| a.cpu_affinity_final().as_deref()),
        ),
        program,
    };
    let (channel, end) = channel::pair()?;
    let intermediate = join::needs_intermediate(kinds);
    if !intermediate && kinds.contains(CloneFlags::CLONE_NEWPID) {
        // It holds for children only: the process below.
        nix::sched::setns(init.as_fd(), CloneFlags::CLONE_NEWPID)
            .context(|| "cannot join the container's pid namespace")?;
    }
    let made = match fork(&entry, state, request) {
        Err(e) if own_cgroup.attaches(&e) => {
            setup.attach = true;
            clone3(0, None).context(|| "cannot make a process")
        }
        made => made,
    };
    let (pid, pidfd) = match made? {
        Clone::Child => {
            // Else the process would never see that the runtime is gone.
            drop(channel);
            join::run(&setup, Place { proc, end, console })
        }
        Clone::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop((end, console));
    timings::phase("fork");
    let mut made = Made { pid, pidfd, channel, terminal: None, started: false };
    let filter = |profile| stored.filter().map_or_else(|| seccomp::compile(profile), Ok);
    let filter = || linux.seccomp().as_ref().map(filter).transpose();
    // The steps that need the process at the gate.
    let start_early = !intermediate
        && request.pid_file.is_none()
        && !process.terminal().unwrap_or(false)
        && state.vessel.rdt.is_none()
        && request.pidfd_socket.is_none();
    made.started = start_early;
    serve(&mut made, &proc, process, filter, state, &request.cgroups).inspect_err(|_| {
        let _ = sys::pidfd::send_signal(made.pidfd.as_fd(), libc::SIGKILL);
        let _ = wait::reap(&made.pidfd);
    })?;
    Ok(made)
}

/// Forks into the cgroup. With domain controllers on, the kernel refuses a cgroup that has cgroups below it (a container
/// that runs systemd or containers): the process then goes where init is.
fn fork(entry: &cgroups::Entry, state: &State, request: &ExecRequest) -> Result<Clone> {
    match clone3(0, entry.clone_into.as_ref().map(AsFd::as_fd)) {
        Err(e) if e.errno() == libc::EBUSY && request.cgroups.is_empty() => {
            let init = state.vessel.cgroup.init_entry(state.init_process_pid)?;
            clone3(0, init.clone_into.as_ref().map(AsFd::as_fd))
                .context(|| "cannot make a process in the cgroup of init")
        }
        made => made.context(|| "error adding pid of the process to cgroups"),
    }
}

fn serve(
    made: &mut Made,
    proc: &Proc,
    process: &Process,
    filter: impl FnOnce() -> Result<Option<seccomp::Filter>>,
    state: &State,
    cgroups: &[String],
) -> Result<()> {
    if let Some(filter) = filter()? {
        log::debug(|| format!("seccomp filter flags: {}", filter.all_flags()));
        made.channel.send(&filter_order(&filter)).or_else(gone_is_no_fault)?;
    }
    if made.started {
        made.channel.send(&Order::Start).or_else(gone_is_no_fault)?;
    }
    loop {
        match made.channel.receive()? {
            None => return Err(wait::died(&made.pidfd, &state.vessel.cgroup)),
            Some((Report::Failed(e), _)) => return Err(e),
            Some((Report::Attach, _)) => {
                state.vessel.cgroup.attach(made.pid, cgroups, state.init_process_pid)?;
                made.channel.send(&Order::Attached(None))?;
            }
            Some((Report::Pid(pid), _)) => {
                let pidfd = wait::open(pid)?;
                wait::reap(&made.pidfd)?;
                (made.pid, made.pidfd) = (pid, pidfd);
            }
            Some((Report::Terminal, terminal)) => made.terminal = terminal,
            Some((Report::Limits, _)) => {
                let done = limits(made.pid, process, proc)?;
                made.channel.send(&Order::Limited(done))?;
            }
            Some((Report::Warning(text), _)) => log::warn(&text),
            Some((Report::Ready, _)) => return Ok(()),
            Some((other, _)) => return Err(Error::new(format!("sync channel: {other:?} came out of order"))),
        }
    }
}

/// The namespaces to join: those that the configuration lists and that are not the runtime's own.
pub(super) fn kinds(linux: &Linux, state: &State) -> Result<CloneFlags> {
    let mut kinds = CloneFlags::empty();
    let time = state.vessel.time_namespace.then_some((namespaces::NEWTIME, "NEWTIME", "time"));
    for (kind, _, file) in namespaces::listed(linux).chain(time) {
        let identity = |pid: &str| {
            let path = format!("/proc/{pid}/ns/{file}");
            rustix::fs::stat(&path).map(|s| (s.st_dev, s.st_ino)).context(|| format!("cannot examine {path}"))
        };
        if kind != CloneFlags::CLONE_NEWUSER || identity("self")? != identity(&state.init_process_pid.to_string())? {
            kinds |= kind;
        }
    }
    Ok(kinds)
}

/// Init's root, where the container has no mount namespace whose root would be the container's.
fn root(state: &State, kinds: CloneFlags) -> Result<Option<OwnedFd>> {
    if kinds.contains(CloneFlags::CLONE_NEWNS) {
        return Ok(None);
    }
    let path = format!("/proc/{}/root", state.init_process_pid);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map(Some).context(|| format!("cannot open {path}"))
}

fn check_terminal(process: &Process, request: &ExecRequest) -> Result<()> {
    match (process.terminal().unwrap_or(false), request.detach, &request.console_socket) {
        (true, true, None) => {
            Err(Error::new("cannot allocate tty if vessel will detach without setting console socket"))
        }
        (terminal, detach, Some(_)) if !terminal || !detach => {
            Err(Error::new("cannot use console socket if vessel will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

/// The process: of the file, or the container's own with the changes of the flags.
fn process(request: &ExecRequest, config: &Config) -> Result<Process> {
    if let Some(path) = &request.process {
        let text = std::fs::read_to_string(path).context(|| format!("--process: cannot read {}", path.display()))?;
        let mut process = spec::parse_process(&text).context(|| format!("--process: {}", path.display()))?;
        if let Some(own) = config.spec.process() {
            inherit(&mut process, own);
        }
        return checked(process);
    }
    let mut process = config.spec.process().clone().ok_or_else(|| Error::new("config.json has no process"))?;
    process.set_args(Some(request.args.clone()));
    process.set_terminal(Some(request.tty));
    process.set_console_size(None);
    if let Some(cwd) = &request.cwd {
        process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(request.env.iter().cloned());
    process.set_env(Some(env));
    if request.user.is_some() || !request.additional_gids.is_empty() {
        process.set_user(user(&process, request)?);
    }
    if !request.caps.is_empty() {
        let sets = with_capabilities(process.capabilities().clone().unwrap_or_default(), &request.caps)?;
        process.set_capabilities(Some(sets));
    }
    if request.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(label) = &request.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &request.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    checked(process)
}

/// Takes from the container's process what confines it, its umask and its OOM score, where the file says nothing of them.
fn inherit(process: &mut Process, own: &Process) {
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(own.rlimits().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process.user().umask().is_none() {
        let mut user = process.user().clone();
        user.set_umask(own.user().umask());
        process.set_user(user);
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
}

fn checked(process: Process) -> Result<Process> {
    if process.args().as_deref().unwrap_or_default().is_empty() {
        return Err(Error::new("exec args cannot be empty"));
    }
    spec::validate_process(&process)?;
    Ok(process)
}

fn user(process: &Process, request: &ExecRequest) -> Result<oci_spec::runtime::User> {
    let old = process.user();
    let (uid, gid) = request.user.unwrap_or((old.uid(), None));
    let mut groups = old.additional_gids().clone().unwrap_or_default();
    groups.extend(&request.additional_gids);
    let user = UserBuilder::default().uid(uid).gid(gid.unwrap_or(old.gid())).additional_gids(groups);
    let user = match old.umask() {
        Some(umask) => user.umask(umask),
        None => user,
    };
    user.build().map_err(|e| Error::new(format!("--user: {e}")))
}

/// Adds capabilities to bounding, effective and permitted; never to inheritable, from which a program with file
/// capabilities would gain (CVE-2022-29162), and to ambient only where the configuration has inheritable ones.
fn with_capabilities(mut sets: LinuxCapabilities, names: &[String]) -> Result<LinuxCapabilities> {
    let mut extra = HashSet::new();
    for name in names {
        let short = name.to_ascii_uppercase();
        let short = short.strip_prefix("CAP_").unwrap_or(&short).to_string();
        let capability: Capability = short
            .parse()
            .or_else(|_| format!("CAP_{short}").parse())
            .map_err(|_| Error::new(format!("--cap: {name:?} is no capability")))?;
        extra.insert(capability);
    }
    let grown = |set: &Option<HashSet<Capability>>| Some(set.iter().flatten().chain(&extra).copied().collect());
    sets.set_bounding(grown(sets.bounding()));
    sets.set_effective(grown(sets.effective()));
    sets.set_permitted(grown(sets.permitted()));
    let inheritable = sets.inheritable().clone().unwrap_or_default();
    if !inheritable.is_empty() {
        let ambient = sets.ambient().iter().flatten().chain(extra.intersection(&inheritable)).copied().collect();
        sets.set_ambient(Some(ambient));
    }
    Ok(sets)
}
