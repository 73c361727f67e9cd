//! Init's ladder: builds the container around this process. The runtime's side is `container::create`.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Hooks, Spec};

use super::bootstrap::{Into, arrive, enter_late};
use super::channel::{Order, Report};
use super::{Orders, Place, Program, finish, gate, state_here, unexpected};
use crate::error::{Context, Error, Result};
use crate::hooks::{self, Kind};
use crate::rootfs::{self, Ask};
use crate::sys::proc::Proc;
use crate::{attrs, console, net, security, timings};

/// What `create` has resolved for init.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The configuration.
    pub spec: &'a Spec,
    /// Where the process belongs.
    pub into: Into<'a>,
    /// The root filesystem.
    pub rootfs: rootfs::Plan,
    /// The program and its attributes.
    pub program: Program<'a>,
    /// The listening socket on which `start` calls; none for `run`, which opens the gate itself.
    pub gate: Option<OwnedFd>,
}

/// Goes through the whole of init, in the child of the fork. Does not return.
pub fn run(mut setup: Setup<'_>, place: Place, intermediate: bool) -> ! {
    let mut orders = Orders::new(place.end);
    match ladder(&mut setup, &mut orders, &place.proc, place.console, intermediate) {
        Ok(never) => match never {},
        Err(e) => orders.fail(e),
    }
}

fn ladder(
    setup: &mut Setup<'_>,
    orders: &mut Orders,
    proc: &Proc,
    mut console: Option<OwnedFd>,
    intermediate: bool,
) -> Result<std::convert::Infallible> {
    if let Some(score) = setup.program.process.oom_score_adj().filter(|_| !setup.into.namespaces.join.is_empty()) {
        // Among joined processes this one is protected, and root alone may set it then. What fails here is tried again
        // later, and told there.
        let _ = attrs::oom::apply(proc, score);
    }
    timings::inside();
    arrive(&setup.into, intermediate, orders, proc)?; // 1, 2
    timings::phase("namespaces");
    attrs::affinity::reset();
    rustix::process::setsid().context(|| "cannot make a session")?;
    if let Some(name) = &setup.program.keyring {
        let label = setup.program.process.selinux_label().as_deref().unwrap_or_default();
        if !label.is_empty() {
            security::selinux::set_key_label(proc, label)?;
        }
        security::keyring::join_session(name)?;
    }
    if setup.into.namespaces.new.contains(CloneFlags::CLONE_NEWNET) {
        net::loopback_up()?;
    }
    names(setup.spec)?;
    timings::phase("session, network, names");
    let mut late = setup.into.late;
    setup.rootfs.mount(&mut |ask| match ask {
        Ask::MapIds(number, tree) => {
            orders.end.send_with(&Report::MapMount(number), tree)?;
            match orders.next()? {
                Order::MountMapped(None) => Ok(()),
                Order::MountMapped(Some(e)) => Err(e),
                other => Err(unexpected(&other)),
            }
        }
        Ask::Cgroup(place) => {
            if std::mem::take(&mut late) {
                *place = enter_late(&setup.into, orders)?;
            }
            Ok(())
        }
    })?;
    timings::phase("mounts");
    if late {
        // Hooks find it in its cgroup, and what they start counts there.
        enter_late(&setup.into, orders)?;
    }
    run_hooks(setup, orders)?; // 4
    timings::phase("hooks");
    let terminals = setup.spec.process().is_some() && setup.program.process.terminal().unwrap_or(false);
    let has_mounts = setup.rootfs.has_mounts();
    if terminals && !has_mounts {
        // The devpts of the mount namespace is the host's, which the root does not have.
        terminal(&setup.program, orders, console.take(), false)?; // 5
    }
    setup.rootfs.enter()?;
    if terminals && has_mounts {
        terminal(&setup.program, orders, console.take(), true)?; // 5
    }
    drop(console);
    timings::phase("root");
    sysctls(setup.spec, proc)?;
    // A container may be created without a process; only `start` needs one. A missing working directory is made before
    // the root becomes read-only.
    let has_process = setup.spec.process().is_some();
    let in_cwd = has_process && finish::enter_cwd(setup.program.process, true)?;
    setup.rootfs.protect(proc)?;
    timings::phase("sysctls and masks");
    let ready = if has_process {
        Some(finish::prepare(&setup.program, in_cwd, orders, setup.gate.as_mut(), proc)?) // 6
    } else {
        None
    };
    let starter = gate::wait(orders, setup.gate.take(), setup.program.preserve_fds)?; // 7
    if let Some(starter) = starter {
        // The gate has closed the old end.
        std::mem::forget(std::mem::replace(&mut orders.end, starter));
    }
    let ready = ready.ok_or_else(|| Error::new("config.json has no process to start"))?;
    finish::execute(ready, &setup.program, |ready| start_hooks(&setup.program, ready), orders) // 8, 9
}

/// Runs the startContainer hooks. One without an environment gets the program's, as under the field's other runtimes.
fn start_hooks(program: &Program<'_>, ready: &finish::Ready) -> Result<()> {
    let mut hooks = program.start_container.to_vec();
    for hook in hooks.iter_mut().filter(|hook| hook.env().is_none()) {
        hook.set_env(Some(ready.env()));
    }
    hooks::run(Kind::StartContainer, &hooks, &state_here(&program.hook_state, "created"))
}

fn names(spec: &Spec) -> Result<()> {
    if let Some(name) = spec.hostname().as_deref().filter(|n| !n.is_empty()) {
        nix::unistd::sethostname(name).context(|| format!("hostname: cannot set {name:?}"))?;
    }
    if let Some(name) = spec.domainname().as_deref().filter(|n| !n.is_empty()) {
        rustix::system::setdomainname(name.as_bytes()).context(|| format!("domainname: cannot set {name:?}"))?;
    }
    Ok(())
}

fn run_hooks(setup: &Setup<'_>, orders: &mut Orders) -> Result<()> {
    let devices = setup.spec.linux().as_ref().and_then(|l| l.net_devices().as_ref()).is_some_and(|d| !d.is_empty());
    if devices || setup.spec.hooks().as_ref().is_some_and(runtime_hooks_due) {
        match orders.ask(&Report::Hooks)? {
            Order::HooksDone => {}
            other => return Err(unexpected(&other)),
        }
    }
    match setup.spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_deref()) {
        None | Some([]) => Ok(()),
        Some(hooks) => {
            setup.rootfs.change_into()?;
            hooks::run(Kind::CreateContainer, hooks, &state_here(&setup.program.hook_state, "creating"))
        }
    }
}

/// Whether the runtime has hooks to run while init waits.
pub fn runtime_hooks_due(hooks: &Hooks) -> bool {
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    [prestart, hooks.create_runtime()].iter().any(|h| h.as_ref().is_some_and(|h| !h.is_empty()))
}

/// Makes the terminal, binds it on /dev/console, hands its master over and takes its other end.
pub(super) fn terminal(
    program: &Program<'_>,
    orders: &Orders,
    console: Option<OwnedFd>,
    bind_console: bool,
) -> Result<()> {
    let process = program.process;
    let side = |n: u64| u16::try_from(n).map_err(|_| Error::new(format!("process.consoleSize: {n} is above 65535")));
    let size = match process.console_size() {
        Some(size) => Some((side(size.height())?, side(size.width())?)),
        None => None,
    };
    let terminal = console::open(size)?;
    if bind_console {
        console::bind_console(&terminal)?;
    }
    match console {
        Some(socket) => {
            use std::os::fd::AsFd;
            console::send_master(socket.as_fd(), &terminal.master)?;
        }
        None => orders.end.send_with(&Report::Terminal, &terminal.master)?,
    }
    console::adopt(terminal.slave)
}

fn sysctls(spec: &Spec, proc: &Proc) -> Result<()> {
    let Some(sysctls) = spec.linux().as_ref().and_then(|l| l.sysctl().as_ref()) else { return Ok(()) };
    for (name, value) in sysctls {
        // A name with slashes may have dots inside its parts, as interfaces' names have.
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Error::new(format!("linux.sysctl: {name:?} is not a name of a sysctl")));
        }
        proc.write(&format!("sys/{path}"), value.as_bytes()).context(|| format!("linux.sysctl: {name}"))?;
    }
    Ok(())
}
