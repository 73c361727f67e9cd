//! The runtime's side of the conversation with init, until that is ready.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxSeccomp, Process, Spec};

use super::ground::{Limits, Rollback};
use super::state::State;
use super::store::Entry;
use super::wait;
use crate::cgroups::UnitStart;
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Kind};
use crate::init::channel::{Order, Report, RuntimeEnd};
use crate::security::seccomp;
use crate::sys::proc::Proc;
use crate::{attrs, idmap, log, net, rootfs, timings};

/// The runtime's side of the conversation until init is ready.
pub(super) struct Parent<'a> {
    pub(super) channel: RuntimeEnd,
    pub(super) pidfd: OwnedFd,
    pub(super) intermediate: bool,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) proc: &'a Proc,
    pub(super) process: &'a Process,
    pub(super) keep_groups: bool,
    pub(super) spec: &'a Spec,
    pub(super) state: &'a mut State,
    pub(super) entry: &'a Entry,
    pub(super) filter: Option<&'a LinuxSeccomp>,
    pub(super) id_maps: rootfs::IdMaps,
    pub(super) limits: Limits<'a>,
    pub(super) rollback: &'a mut Rollback,
    /// Whether init may execute the program as soon as it is ready. False once it has been told.
    pub(super) start_early: bool,
}

impl Parent<'_> {
    /// Answers init until it is ready.
    pub(super) fn serve(&mut self) -> Result<()> {
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
            self.open_gate()?;
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
                        self.open_gate()?;
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
        // The scope goes with init. Why that has ended, if it has, says more than what fails without it.
        self.enter_scope(unit).map_err(|e| self.last_words(e))
    }

    fn enter_scope(&mut self, unit: UnitStart) -> Result<()> {
        let mut cgroup = unit.finish()?;
        self.rollback.cgroup = Some(cgroup.clone());
        timings::phase("systemd's scope");
        self.limits.set(&mut cgroup, self.rollback, self.state)?;
        cgroup.restrict_devices(self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()))
    }

    /// Why init has ended or is about to, where it has said so or its channel is closed; else `error`.
    fn last_words(&mut self, error: Error) -> Error {
        while self.channel.ready() {
            match self.channel.receive() {
                Ok(Some((Report::Failed(e), _))) => return e,
                Ok(Some(_)) => {}
                Ok(None) => return self.died().hint(error.to_string()),
                Err(_) => break,
            }
        }
        error
    }

    /// Compiles the filter while init works, once.
    fn send_filter(&mut self) -> Result<()> {
        let Some(profile) = self.filter.take() else { return Ok(()) };
        let filter = seccomp::compile(profile)?;
        log::debug(|| format!("seccomp filter flags: {}", filter.all_flags()));
        timings::phase("seccomp filter");
        self.channel.send(&filter_order(&filter)).or_else(gone_is_no_fault)?;
        self.entry.keep_filter(&filter);
        Ok(())
    }

    /// Opens the gate ahead, so that init does not wait there.
    fn open_gate(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.start_early) {
            return Ok(());
        }
        self.channel.send(&Order::Start).or_else(gone_is_no_fault)
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
    let words = filter
        .program
        .chunks_exact(seccomp::Filter::INSTRUCTION)
        .filter_map(|b| b.try_into().ok())
        .map(u64::from_ne_bytes);
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
