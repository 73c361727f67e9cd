//! The runtime's ladder: makes a container up to the start gate. Init's side is `init::setup`.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Hooks, Linux, LinuxSeccomp, Process, Spec};

use super::state::{Own, State, Summary};
use super::store::{self, Entry};
use super::{CreateRequest, Host, wait};
use crate::cgroups::{Cgroup, Entry as CgroupEntry, Holder, UnitStart};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Kind};
use crate::init::bootstrap::{self, Forked, Into};
use crate::init::channel::{self, Order, Report, RuntimeEnd};
use crate::init::{Place, Program, gate, setup};
use crate::namespaces::{self, Plan};
use crate::security::{capabilities, seccomp};
use crate::spec::{self, Config};
use crate::sys::proc::Proc;
use crate::{attrs, console, idmap, log, net, rdt, rootfs, sys, timings};

/// A container that was made: init waits at the gate.
#[derive(Debug)]
pub(super) struct Made {
    // Goes first: while the entry, and so the lock, is there.
    pub(super) rollback: Rollback,
    pub(super) entry: Entry,
    pub(super) state: State,
    pub(super) pidfd: OwnedFd,
    pub(super) channel: RuntimeEnd,
    /// The terminal's master, where no console socket has taken it.
    pub(super) terminal: Option<OwnedFd>,
}

/// Undoes a creation unless it is called off: ends init, runs the poststop hooks, removes cgroup and state.
#[derive(Debug)]
pub(super) struct Rollback {
    entry: Option<(PathBuf, Host)>,
    id: String,
    /// systemd's part, as long as it is not known to be done.
    unit: Option<UnitStart>,
    cgroup: Option<Cgroup>,
    rdt: Option<rdt::Group>,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) poststop: Option<(Vec<oci_spec::runtime::Hook>, String)>,
}

impl Rollback {
    /// Everything went well.
    pub(super) fn call_off(&mut self) {
        self.entry = None;
        self.unit = None;
        self.cgroup = None;
        self.rdt = None;
        self.pidfd = None;
        self.poststop = None;
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        // What fails here is not what went wrong, which is on its way to the user.
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
            let _ = wait::reap(pidfd);
        }
        if let Some(unit) = self.unit.take().filter(UnitStart::sent) {
            self.cgroup = unit.finish().ok();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.remove();
        }
        if let Some(group) = &self.rdt {
            let _ = group.remove();
        }
        if let Some((_, host)) = &self.entry
            && let Ok(entry) = store::open(host, &self.id)
        {
            let _ = entry.remove();
        }
        if let Some((hooks, state)) = &self.poststop {
            for failure in hooks::run_all(Kind::Poststop, hooks, state) {
                log::warn(&failure.to_string());
            }
        }
    }
}

/// Who opens the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    /// A later `start`.
    Start,
    /// This process, which goes away afterwards (detached) or stays.
    Run(bool),
}

/// What a container stands on, before there is a process: its name is taken, its state is there and its cgroup, or what
/// systemd needs for that.
pub(super) struct Ground {
    // Goes first: while the entry, and so the lock, is there.
    pub(super) rollback: Rollback,
    pub(super) entry: Entry,
    pub(super) state: State,
    pub(super) config: ManuallyDrop<Config>,
    pub(super) plan: Plan,
    pub(super) root: rootfs::Plan,
    pub(super) cgroup: Cgroup,
}

impl Ground {
    /// Has systemd make the scope before there is a process of the container, with one that holds it meanwhile; where
    /// systemd is the driver.
    pub(super) fn hold(&mut self) -> Result<Option<Holder>> {
        let Some(mut unit) = self.rollback.unit.take() else { return Ok(None) };
        let holder = Holder::new()?;
        unit.send(holder.pid())?;
        self.cgroup = unit.finish()?;
        self.rollback.cgroup = Some(self.cgroup.clone());
        let limits = Limits::new(&self.config, &self.entry, &self.plan);
        limits.set(&mut self.cgroup, &mut self.rollback, &mut self.state)?;
        Ok(Some(holder))
    }
}

/// Reads the bundle, takes the container's name and makes its cgroup. On failure nothing of it is left.
pub(super) fn lay(host: &Host, request: &CreateRequest, opener: Opener) -> Result<Ground> {
    let here = Path::new(".");
    let bundle = if request.bundle.as_os_str().is_empty() { here } else { &request.bundle };
    let bundle = bundle.canonicalize().context(|| format!("cannot find the bundle {}", bundle.display()))?;
    let path = bundle.join(request.config.as_deref().unwrap_or(Path::new("config.json")));
    let config = spec::load(&path)?;
    spec::validate(&config).context(|| path.display())?;
    for warning in &config.warnings {
        log::warn(warning);
    }
    timings::phase("config.json");
    if config.spec.process().is_none() && opener != Opener::Start {
        return Err(Error::new("config.json has no process to run"));
    }
    check_terminal(config.spec.process().as_ref(), request, opener)?;

    let entry = store::reserve(host, &request.id)?;
    let mut rollback = Rollback {
        entry: Some((entry.path.clone(), host.clone())),
        id: request.id.clone(),
        unit: None,
        cgroup: None,
        rdt: None,
        pidfd: None,
        poststop: None,
    };
    let no_linux;
    let linux = match config.spec.linux() {
        Some(linux) => linux,
        None => {
            no_linux = Linux::default();
            &no_linux
        }
    };
    let rootless = host.rootless.unwrap_or_else(|| !nix::unistd::geteuid().is_root() || sys::proc::in_user_namespace());
    let mut cgroup = Cgroup::locate(host.driver, linux.cgroups_path().as_deref(), &request.id, rootless)?;
    let mut state = first_state(&config.spec, &bundle, request, &cgroup, rootless)?;
    // Before anything is made: whatever kills this process now, `delete --force` finds what to remove.
    entry.write_config(&config.text)?;
    entry.write_state(&state)?;
    timings::phase("name and state");

    if let Some(config) = linux.intel_rdt() {
        let group = rdt::mountpoint().and_then(|root| rdt::Group::make(&root, &request.id, config));
        state.vessel.rdt = Some(group.context(|| "linux.intelRdt")?);
        rollback.rdt = state.vessel.rdt.clone();
        entry.write_state(&state)?;
    }
    let plan = namespaces::plan(linux)?;
    state.vessel.pid_namespace = plan.new.contains(CloneFlags::CLONE_NEWPID);
    let resources = linux.resources().as_ref();
    rollback.unit = cgroup.start_unit(&request.id, resources, config.pids_limit, config.spec.annotations().as_ref())?;
    let root = plan_rootfs(&config, &bundle, &cgroup, &plan, request)?;
    timings::phase("mounts planned");
    if rollback.unit.is_none() {
        Limits::new(&config, &entry, &plan).set(&mut cgroup, &mut rollback, &mut state)?;
        timings::phase("cgroup");
    }
    for warning in resources.map(|resources| cgroup.ignored(resources)).unwrap_or_default() {
        if super::strict() {
            return Err(Error::new(warning));
        }
        log::warn(&warning);
    }
    // To give its memory back piece by piece would touch all of it once more, just before this process ends.
    let config = ManuallyDrop::new(config);
    Ok(Ground { rollback, entry, state, config, plan, root, cgroup })
}

/// Makes a container. On failure nothing of it is left.
pub(super) fn make(host: &Host, request: &CreateRequest, opener: Opener) -> Result<Made> {
    // In this order, as the last goes first.
    let Ground { config, entry, mut rollback, cgroup, mut state, plan, root } = lay(host, request, opener)?;
    // Never executed: `start` refuses a container without a process.
    let empty = Process::default();
    let process = config.spec.process().as_ref().unwrap_or(&empty);
    let no_linux;
    let linux = match config.spec.linux() {
        Some(linux) => linux,
        None => {
            no_linux = Linux::default();
            &no_linux
        }
    };
    // systemd moves init into the cgroup while that already works.
    let late = rollback.unit.is_some();
    let restrict_devices = || cgroup.restrict_devices(linux.resources().as_ref());
    // v1 takes the rules one by one: init could make no node between the first and the last. Else a hook that init runs is
    // the first that could use a device.
    let devices_first =
        !cgroup.unified || config.spec.hooks().as_ref().is_some_and(|hooks| hooks.create_container().is_some());
    if devices_first && !late {
        restrict_devices()?;
    }
    let cgroup_entry = if late { CgroupEntry::default() } else { cgroup.entry()? };
    let proc = Proc::open()?;
    let console = request.console_socket.as_deref().map(console::connect).transpose()?;
    let gate = (opener == Opener::Start).then(|| gate::make(entry.dir())).transpose()?;
    let extra_env = listen_env();
    let (capability_sets, warnings) = capabilities::plan(process.capabilities().as_ref())?;
    for warning in &warnings {
        log::warn(warning);
    }
    let program = Program {
        process,
        linux,
        capabilities: capability_sets,
        seccomp: linux.seccomp().is_some(),
        user_namespace: plan.own(CloneFlags::CLONE_NEWUSER),
        preserve_fds: preserved(request.preserve_fds, &extra_env)?,
        extra_env,
        keyring: state.vessel.keyring.then(|| format!("_ses.{}", request.id)),
        keep_groups: config.keeps_groups(),
        start_container: config.spec.hooks().as_ref().and_then(|h| h.start_container().as_deref()).unwrap_or_default(),
        hook_state: state.oci(""),
    };
    let (channel, end) = channel::pair()?;
    let into = Into {
        namespaces: &plan,
        time_offsets: linux.time_offsets().as_ref().filter(|o| !o.is_empty()),
        clone_into: cgroup_entry.clone_into.as_ref(),
        procs: &cgroup_entry.procs,
        late,
    };
    let (pid, pidfd, intermediate) = match bootstrap::fork(&into)? {
        Forked::Child { intermediate } => {
            // Else init would never see that the runtime is gone, and would keep the container locked.
            drop((channel, entry, rollback.unit.take()));
            let setup = setup::Setup { spec: &config.spec, into, rootfs: root, program, gate };
            setup::run(setup, Place { proc, end, console }, intermediate)
        }
        Forked::Runtime { pid, pidfd, intermediate } => (pid, pidfd, intermediate),
    };
    timings::phase("fork");
    // Init has its own copies; an end that stays open here would hide init's death.
    let id_maps = root.id_maps();
    drop((end, root, gate, console));
    state.init_process_pid = pid;
    rollback.pidfd = Some(pidfd.try_clone().context(|| "cannot copy a descriptor")?);
    rollback.poststop = Some((state.vessel.poststop.clone(), state.oci("stopped").to_string()));

    // While init works.
    if !devices_first && !late {
        restrict_devices()?;
    }
    // Where that fails init may have ended, and have said why.
    let staged =
        !intermediate && !late && note_init(&mut state, linux).and_then(|()| entry.stage_state(&state)).is_ok();
    timings::phase("devices and state");
    let mut parent = Parent {
        channel,
        pidfd,
        intermediate,
        terminal: None,
        proc: &proc,
        process,
        keep_groups: config.keeps_groups(),
        spec: &config.spec,
        state: &mut state,
        filter: linux.seccomp().as_ref(),
        id_maps,
        limits: Limits::new(&config, &entry, &plan),
        rollback: &mut rollback,
    };
    parent.serve()?;
    timings::phase("until init is ready");
    if let Some(group) = &parent.state.vessel.rdt {
        group.add(parent.state.init_process_pid).context(|| "linux.intelRdt")?;
    }
    let Parent { channel, pidfd, terminal, .. } = parent;

    log::debug(|| format!("init is process {} and waits for its start", state.init_process_pid));
    if !staged {
        note_init(&mut state, linux)?;
        entry.stage_state(&state)?;
    }
    entry.commit_state()?;
    if let Some(path) = &request.pid_file {
        store::write_pid_file(path, state.init_process_pid)?;
    }
    if let Some(path) = &request.pidfd_socket {
        console::send_pidfd(path, &pidfd)?;
    }
    timings::phase("pid file");
    Ok(Made { entry, state, pidfd, channel, terminal, rollback })
}

/// Notes what is to be known of init once its pid is.
fn note_init(state: &mut State, linux: &Linux) -> Result<()> {
    let pid = state.init_process_pid;
    state.init_process_start =
        sys::process::stat(pid).ok_or_else(|| Error::new("the container's init ended while it was created"))?.start;
    state.namespace_paths =
        namespaces::listed(linux).map(|(_, name, file)| (name.to_string(), format!("/proc/{pid}/ns/{file}"))).collect();
    Ok(())
}

/// The runtime's side of the conversation until init is ready.
struct Parent<'a> {
    channel: RuntimeEnd,
    pidfd: OwnedFd,
    intermediate: bool,
    terminal: Option<OwnedFd>,
    proc: &'a Proc,
    process: &'a Process,
    keep_groups: bool,
    spec: &'a Spec,
    state: &'a mut State,
    filter: Option<&'a LinuxSeccomp>,
    id_maps: rootfs::IdMaps,
    limits: Limits<'a>,
    rollback: &'a mut Rollback,
}

/// The limits of the container, and who gets its cgroup.
#[derive(Clone, Copy)]
struct Limits<'a> {
    config: &'a Config,
    entry: &'a Entry,
    owner: Option<u32>,
}

impl<'a> Limits<'a> {
    fn new(config: &'a Config, entry: &'a Entry, plan: &Plan) -> Limits<'a> {
        Limits { config, entry, owner: cgroup_owner(&config.spec, plan) }
    }

    /// Makes the cgroup, where systemd has not, and sets all limits.
    fn set(&self, cgroup: &mut Cgroup, rollback: &mut Rollback, state: &mut State) -> Result<()> {
        let (linux, pids_limit) = (self.config.spec.linux().as_ref(), self.config.pids_limit);
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        cgroup.create(resources, pids_limit)?;
        // Not before: a cgroup that was there already belongs to others.
        self.entry.claim_cgroup()?;
        rollback.cgroup = Some(cgroup.clone());
        cgroup.apply(resources, pids_limit)?;
        if let Some(uid) = self.owner {
            cgroup.delegate(uid)?;
        }
        state.cgroup_paths = cgroup_paths(cgroup);
        log::debug(|| format!("cgroup: {:?}", state.cgroup_paths));
        state.vessel.cgroup = cgroup.clone();
        Ok(())
    }
}

impl Parent<'_> {
    fn serve(&mut self) -> Result<()> {
        if !self.intermediate {
            self.start_unit()?;
        }
        let new_user = self.spec.linux().as_ref().is_some_and(|l| {
            l.namespaces()
                .iter()
                .flatten()
                .any(|n| n.typ() == oci_spec::runtime::LinuxNamespaceType::User && n.path().is_none())
        });
        if !new_user && !self.intermediate {
            self.send_filter()?;
            self.finish_unit()?;
        }
        loop {
            match self.channel.receive()? {
                None => return Err(self.died()),
                Some((Report::Failed(e), _)) => return Err(e),
                Some((Report::Attach, _)) => {
                    self.finish_unit()?;
                    let path = self.state.vessel.cgroup.dirs.first().map(|dir| dir.path.clone());
                    self.channel.send(&Order::Attached(path))?;
                }
                Some((Report::Pid(pid), _)) => {
                    self.replace_child(pid)?;
                    self.start_unit()?;
                }
                Some((Report::MapIds, _)) => {
                    if self.rollback.unit.as_ref().is_some_and(UnitStart::is_users) {
                        // Afterwards init may have a uid that is not the user's.
                        self.finish_unit()?;
                    }
                    self.map_ids()?;
                    self.channel.send(&Order::Mapped)?;
                    if !self.intermediate {
                        self.send_filter()?;
                        self.finish_unit()?;
                    }
                }
                Some((Report::Hooks, _)) => {
                    self.send_filter()?;
                    self.net_devices()?;
                    self.hooks()?;
                    self.channel.send(&Order::HooksDone)?;
                }
                Some((Report::MapMount(number), Some(tree))) => {
                    let mapped = self.id_maps.apply(number, &tree);
                    self.channel.send(&Order::MountMapped(mapped.err()))?;
                }
                Some((Report::Terminal, terminal)) => self.terminal = terminal,
                Some((Report::Limits, _)) => {
                    self.send_filter()?;
                    let done = limits(self.state.init_process_pid, self.process, self.proc)?;
                    self.channel.send(&Order::Limited(done))?;
                }
                Some((Report::Warning(text), _)) => log::warn(&text),
                Some((Report::Ready, _)) => return self.send_filter(),
                Some((other, _)) => return Err(Error::new(format!("sync channel: {other:?} came out of order"))),
            }
        }
    }

    /// Asks systemd for the scope, with init in it.
    fn start_unit(&mut self) -> Result<()> {
        let pid = self.state.init_process_pid;
        self.rollback.unit.as_mut().map_or(Ok(()), |unit| unit.send(pid))
    }

    /// Waits until systemd has moved init into the scope, and sets the limits.
    fn finish_unit(&mut self) -> Result<()> {
        let Some(unit) = self.rollback.unit.take_if(|unit| unit.sent()) else { return Ok(()) };
        let mut cgroup = match unit.finish() {
            Ok(cgroup) => cgroup,
            // Why init has ended, if that is the cause, says more than what systemd makes of it.
            Err(e) => return Err(self.last_words().unwrap_or(e)),
        };
        self.rollback.cgroup = Some(cgroup.clone());
        timings::phase("systemd's scope");
        self.limits.set(&mut cgroup, self.rollback, self.state)?;
        cgroup.restrict_devices(self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()))
    }

    /// What an init has reported that has ended by itself.
    fn last_words(&mut self) -> Option<Error> {
        if !wait::ended_within(&self.pidfd, 0).is_ok_and(|ended| ended) {
            return None;
        }
        while let Ok(Some((report, _))) = self.channel.receive() {
            if let Report::Failed(e) = report {
                return Some(e);
            }
        }
        None
    }

    /// Compiles the filter while init works, once.
    fn send_filter(&mut self) -> Result<()> {
        let Some(profile) = self.filter.take() else { return Ok(()) };
        let filter = seccomp::compile(profile)?;
        timings::phase("seccomp filter");
        self.channel.send(&filter_order(&filter)).or_else(gone_is_no_fault)
    }

    /// The intermediate has made init and ends.
    fn replace_child(&mut self, pid: i32) -> Result<()> {
        let init = wait::open(pid)?;
        wait::reap(&self.pidfd)?;
        self.rollback.pidfd = Some(init.try_clone().context(|| "cannot copy a descriptor")?);
        self.pidfd = init;
        self.state.init_process_pid = pid;
        self.rollback.poststop = Some((self.state.vessel.poststop.clone(), self.state.oci("stopped").to_string()));
        self.intermediate = false;
        Ok(())
    }

    fn map_ids(&self) -> Result<()> {
        let linux = self.spec.linux().as_ref();
        let uids = linux.and_then(|l| l.uid_mappings().as_deref()).unwrap_or_default();
        let gids = linux.and_then(|l| l.gid_mappings().as_deref()).unwrap_or_default();
        let privileged = nix::unistd::geteuid().is_root();
        if !self.keep_groups {
            let groups = self.process.user().additional_gids().as_deref().unwrap_or_default();
            idmap::check_groups(groups, gids, privileged)?;
        }
        idmap::write(self.proc, self.state.init_process_pid, uids, gids, privileged)
    }

    /// Before the hooks, which may set the devices up.
    fn net_devices(&self) -> Result<()> {
        let devices = self.spec.linux().as_ref().and_then(|l| l.net_devices().as_ref());
        devices.map_or(Ok(()), |devices| net::Devices::new(devices).move_to(self.state.init_process_pid))
    }

    fn hooks(&self) -> Result<()> {
        runtime_hooks(self.spec, self.state)
    }

    /// Why the channel ended without a word.
    fn died(&self) -> Error {
        wait::died(&self.pidfd, &self.state.vessel.cgroup)
    }
}

/// Runs the prestart and createRuntime hooks.
pub(super) fn runtime_hooks(spec: &Spec, state: &State) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    let state = state.oci("creating").to_string();
    hooks::run(Kind::Prestart, prestart.as_deref().unwrap_or_default(), &state)?;
    hooks::run(Kind::CreateRuntime, hooks.create_runtime().as_deref().unwrap_or_default(), &state)
}

/// An init that has failed says so in its last message, which is read next.
pub(super) fn gone_is_no_fault(e: Error) -> Result<()> {
    if e.errno() == libc::EPIPE || e.errno() == libc::ECONNRESET { Ok(()) } else { Err(e) }
}

/// A filter as it crosses the channel.
pub(super) fn filter_order(filter: &seccomp::Filter) -> Order {
    let words = filter.program.chunks_exact(8).filter_map(|b| b.try_into().ok()).map(u64::from_ne_bytes);
    Order::Filter(words.collect(), filter.flags, filter.notify)
}

/// Sets the limits and the OOM score of a process in a user namespace with the rights that the runtime has outside.
/// False where it has none that suffice.
pub(super) fn limits(pid: i32, process: &Process, proc: &Proc) -> Result<bool> {
    let set = || {
        if let Some(score) = process.oom_score_adj() {
            attrs::oom::apply_to(proc, pid, score)?;
        }
        attrs::rlimits::apply_to(pid, process.rlimits().as_deref().unwrap_or_default())
    };
    match set() {
        Err(e) if e.errno() == libc::EPERM || e.errno() == libc::EACCES => Ok(false),
        done => done.map(|()| true),
    }
}

fn check_terminal(process: Option<&Process>, request: &CreateRequest, opener: Opener) -> Result<()> {
    let terminal = process.and_then(Process::terminal).unwrap_or(false);
    match (terminal, &request.console_socket) {
        (true, None) if opener != Opener::Run(false) => {
            Err(Error::new("cannot allocate tty if vessel will detach without setting console socket"))
        }
        (_, Some(_)) if !terminal || opener == Opener::Run(false) => {
            Err(Error::new("cannot use console socket if vessel will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

fn plan_rootfs(
    config: &Config,
    bundle: &Path,
    cgroup: &Cgroup,
    plan: &Plan,
    request: &CreateRequest,
) -> Result<rootfs::Plan> {
    rootfs::plan(&rootfs::Input {
        config,
        bundle,
        cgroups: &cgroup_mounts(cgroup),
        unified: cgroup.unified,
        cgroup_namespace: plan.new.contains(CloneFlags::CLONE_NEWCGROUP),
        user_namespace: plan.own(CloneFlags::CLONE_NEWUSER) || sys::proc::in_user_namespace(),
        mount_namespace: plan.own(CloneFlags::CLONE_NEWNS),
        network_namespace: plan.own(CloneFlags::CLONE_NEWNET),
        no_pivot: request.no_pivot,
    })
}

/// The cgroups for mounts of type cgroup.
pub(super) fn cgroup_mounts(cgroup: &Cgroup) -> Vec<rootfs::CgroupMount> {
    let mounts = cgroup.dirs.iter().map(|d| rootfs::CgroupMount {
        hierarchy: d.hierarchy.clone(),
        mountpoint: d.mountpoint.clone(),
        path: d.path.clone(),
    });
    mounts.collect()
}

fn first_state(spec: &Spec, bundle: &Path, request: &CreateRequest, cgroup: &Cgroup, rootless: bool) -> Result<State> {
    let annotations: BTreeMap<_, _> =
        spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let root = spec.root().as_ref().map(|r| bundle.join(r.path())).unwrap_or_default();
    let hooks = spec.hooks().clone().unwrap_or_default();
    let of = |h: &Option<Vec<_>>| h.clone().unwrap_or_default();
    let labels = std::iter::once(format!("bundle={}", bundle.display()))
        .chain(annotations.iter().map(|(k, v)| format!("{k}={v}")))
        .collect();
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let agent = seccomp.and_then(|s| {
        let path = s.listener_path().as_ref()?.to_string_lossy().into_owned();
        Some((path, s.listener_metadata().clone().unwrap_or_default()))
    });
    let hooks: &Hooks = &hooks;
    let terminal = spec.process().as_ref().and_then(Process::terminal).unwrap_or(false);
    Ok(State {
        id: request.id.clone(),
        init_process_pid: 0,
        init_process_start: 0,
        created: log::rfc3339(std::time::SystemTime::now()),
        config: Summary { rootfs: root.to_string_lossy().into_owned(), labels },
        rootless,
        cgroup_paths: cgroup_paths(cgroup),
        namespace_paths: BTreeMap::new(),
        external_descriptors: if terminal { Vec::new() } else { standard_streams() },
        vessel: Own {
            oci_version: spec.version().clone(),
            bundle: bundle.to_string_lossy().into_owned(),
            annotations,
            cgroup: cgroup.clone(),
            resources: None,
            rdt: None,
            pid_namespace: false,
            process: spec.process().is_some(),
            keyring: !request.no_new_keyring,
            owner: nix::unistd::geteuid().as_raw(),
            poststart: of(hooks.poststart()),
            poststop: of(hooks.poststop()),
            seccomp_agent: agent,
            time_namespace: false,
        },
    })
}

/// What is behind our standard streams, which become the container's, as /proc names it.
fn standard_streams() -> Vec<String> {
    let name = |number| std::fs::read_link(format!("/proc/self/fd/{number}"));
    (0..3).map(|number| name(number).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()).collect()
}

/// The host's uid that gets the container's cgroup (config-linux.md, "Cgroup ownership"): that of the process, where it
/// can make use of it by a cgroup namespace of its own and a writable mount.
fn cgroup_owner(spec: &Spec, plan: &Plan) -> Option<u32> {
    let read_only = |o: &Vec<String>| o.iter().rfind(|o| *o == "ro" || *o == "rw").is_some_and(|o| o == "ro");
    let writable = spec.mounts().iter().flatten().any(|m| {
        m.typ().as_deref().is_some_and(|t| t == "cgroup" || t == "cgroup2")
            && m.destination() == Path::new("/sys/fs/cgroup")
            && !m.options().as_ref().is_some_and(read_only)
    });
    if !writable || !plan.new.contains(CloneFlags::CLONE_NEWCGROUP) {
        return None;
    }
    let uid = spec.process().as_ref().map_or(0, |p| p.user().uid());
    if !plan.new.contains(CloneFlags::CLONE_NEWUSER) {
        return Some(uid);
    }
    let mappings = spec.linux().as_ref()?.uid_mappings().as_deref()?;
    idmap::host_id(mappings, uid)
}

fn cgroup_paths(cgroup: &Cgroup) -> BTreeMap<String, String> {
    let mut paths = BTreeMap::new();
    for dir in &cgroup.dirs {
        let path = dir.mountpoint.join(dir.path.strip_prefix("/").unwrap_or(&dir.path));
        let path = path.to_string_lossy().into_owned();
        for name in dir.hierarchy.split(',') {
            paths.insert(name.to_string(), path.clone());
        }
    }
    paths
}

/// The variables for sockets that a service manager passes on (sd_listen_fds); only where they are meant for us.
pub(super) fn listen_env() -> Vec<String> {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(fds)) if pid == std::process::id() && fds > 0 => {
            vec![format!("LISTEN_FDS={fds}"), "LISTEN_PID=1".to_string()]
        }
        _ => Vec::new(),
    }
}

/// How many descriptors beyond the standard streams the program inherits; each has to have been passed on to us.
pub(super) fn preserved(preserve_fds: u32, listen_env: &[String]) -> Result<u32> {
    let listen = listen_env.iter().find_map(|v| v.strip_prefix("LISTEN_FDS=")?.parse().ok()).unwrap_or(0);
    let total = preserve_fds
        .checked_add(listen)
        .filter(|n| *n < 1 << 20)
        .ok_or_else(|| Error::new("--preserve-fds: too many descriptors"))?;
    for number in 3..3 + total.cast_signed() {
        if !sys::fd::is_inherited(number) {
            return Err(Error::new(format!("unable to stat preserved-fd {} (of {total}): it is not open", number - 3)));
        }
    }
    Ok(total)
}
