//! The runtime's ladder: makes a container up to the start gate. Init's side is `init::setup`.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, Process};

use super::ground::{Ground, Limits, Opener, Rollback, lay};
use super::inherited::{listen_env, preserved};
use super::parent::Parent;
use super::state::State;
use super::store::{self, Entry};
use super::{CreateRequest, Host};
use crate::cgroups::Entry as CgroupEntry;
use crate::error::{Context, Error, Result};
use crate::init::bootstrap::{self, Forked, Into};
use crate::init::channel::{self, RuntimeEnd};
use crate::init::{Place, Program, gate, setup};
use crate::security::capabilities;
use crate::sys::proc::Proc;
use crate::{console, log, namespaces, sys, timings};

/// A container that was made: init is at the gate.
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
    /// Whether init was told to execute the program already.
    pub(super) started: bool,
}

/// Makes a container. On failure nothing of it is left.
pub(super) fn make(host: &Host, request: &CreateRequest, opener: Opener) -> Result<Made> {
    // In this order, as the last goes first.
    let Ground { config, entry, mut rollback, cgroup, mut state, plan, root } = lay(host, request, opener)?;
    // Never executed: `start` refuses a container without a process.
    let empty = Process::default();
    let process = config.spec.process().as_ref().unwrap_or(&empty);
    let linux = config.linux();
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
    // Nothing that the program or a hook could ask for comes after it then but the state's new name. Who is killed before
    // that leaves a staged state, in which `kill` and `delete` find init.
    let start_early = staged
        && config.spec.hooks().as_ref().is_none_or(|hooks| hooks.start_container().is_none())
        && matches!(opener, Opener::Run(_))
        && !process.terminal().unwrap_or(false)
        && state.vessel.rdt.is_none()
        && request.pid_file.is_none()
        && request.pidfd_socket.is_none();
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
        entry: &entry,
        filter: linux.seccomp().as_ref(),
        id_maps,
        limits: Limits::new(&config, &entry, &plan),
        rollback: &mut rollback,
        start_early,
    };
    parent.serve()?;
    timings::phase("until init is ready");
    if let Some(group) = &parent.state.vessel.rdt {
        group.add(parent.state.init_process_pid).context(|| "linux.intelRdt")?;
    }
    let Parent { channel, pidfd, terminal, .. } = parent;

    log::debug(|| format!("init is process {} and ready to start", state.init_process_pid));
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
    Ok(Made { entry, state, pidfd, channel, terminal, started: start_early, rollback })
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
