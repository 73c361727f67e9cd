//! What a container stands on before it has a process: name, state, cgroup and a plan of its root filesystem.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Hooks, Process, Spec};

use super::state::{Own, State, Summary};
use super::store::{self, Entry};
use super::{CreateRequest, Host, wait};
use crate::cgroups::{Cgroup, Holder, UnitStart};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Kind};
use crate::namespaces::{self, Plan};
use crate::spec::{self, Config};
use crate::{idmap, log, rdt, rootfs, sys, timings};

/// Undoes a creation unless it is called off: ends init, runs the poststop hooks, removes cgroup and state.
#[derive(Debug)]
pub(super) struct Rollback {
    entry: Option<(PathBuf, Host)>,
    id: String,
    /// systemd's part, as long as it is not known to be done.
    pub(super) unit: Option<UnitStart>,
    pub(super) cgroup: Option<Cgroup>,
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
            let _ = cgroup.remove(true);
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
    let linux = config.linux();
    let rootless = host.rootless.unwrap_or_else(|| !nix::unistd::geteuid().is_root() || sys::proc::in_user_namespace());
    let mut cgroup = Cgroup::locate(host.driver, linux.cgroups_path().as_deref(), &request.id, rootless)?;
    let mut state = first_state(&config.spec, &bundle, request, &cgroup, rootless)?;
    // Before anything is made: whatever kills this process now, `delete --force` finds what to remove.
    entry.write_config(&config.text)?;
    entry.write_state(&state)?;
    timings::phase("name and state");

    if let Some(config) = linux.intel_rdt() {
        let cannot = || "linux.intelRdt";
        let root = rdt::mountpoint().context(cannot)?;
        let group = rdt::Group::plan(&root, &request.id, config).context(cannot)?;
        state.vessel.rdt = Some(group.clone());
        entry.write_state(&state)?;
        group.make(&root, config).context(cannot)?;
        rollback.rdt = Some(group);
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

/// What an ordinary user is told of a container whose processes nothing holds together.
const UNTRACKED: &str = "the container has neither a cgroup nor a pid namespace of its own, so that only its init can be \
    killed. Such configuration is strongly discouraged: give it a pid namespace, or a cgroup that you may write to";

/// The limits of the container, and who gets its cgroup.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    config: &'a Config,
    entry: &'a Entry,
    owner: Option<u32>,
}

impl<'a> Limits<'a> {
    pub(super) fn new(config: &'a Config, entry: &'a Entry, plan: &Plan) -> Limits<'a> {
        Limits { config, entry, owner: cgroup_owner(&config.spec, plan) }
    }

    /// Makes the cgroup, where systemd has not, and sets all limits.
    pub(super) fn set(&self, cgroup: &mut Cgroup, rollback: &mut Rollback, state: &mut State) -> Result<()> {
        let (linux, pids_limit) = (self.config.spec.linux().as_ref(), self.config.pids_limit);
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        cgroup.create(resources, pids_limit)?;
        // Not before: a cgroup that was there already belongs to others.
        self.entry.claim_cgroup()?;
        rollback.cgroup = Some(cgroup.clone());
        cgroup.apply(resources, pids_limit)?;
        if cgroup.rootless && cgroup.dirs.is_empty() && !state.vessel.pid_namespace {
            log::warn(UNTRACKED);
        }
        if let Some(uid) = self.owner {
            cgroup.delegate(uid)?;
        }
        state.cgroup_paths = cgroup_paths(cgroup);
        log::debug(|| format!("cgroup: {:?}", state.cgroup_paths));
        state.vessel.cgroup = cgroup.clone();
        Ok(())
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
            added: Vec::new(),
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
/// can make use of it by a cgroup namespace of its own and a writable mount. None where a user namespace is joined without
/// a word of how its ids are mapped.
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
    if !plan.own(CloneFlags::CLONE_NEWUSER) {
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
