//! The tail that `create` and `exec` share: gives the process its attributes and executes the program.
//!
//! The order: what needs privilege comes before the change of user; what the kernel undoes at a change of user comes
//! after it; the seccomp filter comes last of all, so that it need not allow anything of ours but execve(2).

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::unistd::{Gid, Uid};
use oci_spec::runtime::Process;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::channel::{Order, Report};
use super::{Orders, Program, program, unexpected};
use crate::error::{Context, Error, Result, Step};
use crate::security::{apparmor, capabilities, seccomp, selinux};
use crate::sys::{self, proc::Proc};
use crate::{attrs, console, rootfs, timings};

/// What execve(2) takes.
#[derive(Debug)]
pub struct Ready {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Ready {
    /// The environment of the program.
    pub fn env(&self) -> Vec<String> {
        self.env.iter().map(|v| v.to_string_lossy().into_owned()).collect()
    }
}

/// CAP_SYS_ADMIN as a bit: without no_new_privs, installing a filter needs it.
const SYS_ADMIN: u64 = 1 << 21;

/// Changes into `process.cwd`, with `make` also where it is missing, with the rights of root; where those do not suffice
/// (root may be nobody on a network file system), the process's user tries again later. Whether it is entered.
pub fn enter_cwd(process: &Process, make: bool) -> Result<bool> {
    match change_dir(process) {
        Err(e) if make && e.errno() == libc::ENOENT => {
            let cwd = process.cwd();
            rootfs::make_directory(cwd).context(|| format!("process.cwd: cannot make {}", cwd.display()))?;
            change_dir(process).map(|()| true)
        }
        Err(e) if e.errno() == libc::EACCES => Ok(false),
        result => result.map(|()| true),
    }
}

/// No magic link of /proc leads out of the container here, and the kernel confirms where we are (CVE-2024-21626).
fn change_dir(process: &Process) -> Result<()> {
    let cwd = process.cwd();
    let place = || format!("process.cwd: cannot change into {}", cwd.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat2(CWD, cwd, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Err(rustix::io::Errno::LOOP) => {
            return Err(Error::new(format!(
                "{}: it leads through a link of /proc, possible container breakout detected",
                place()
            )));
        }
        dir => dir.context(place)?,
    };
    rustix::process::fchdir(&dir).context(place)?;
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(rustix::io::Errno::NOENT) => Err(Error::new(format!(
            "{}: it is outside of the container's root, possible container breakout detected (or the directory was \
             removed or unmounted after the container started)",
            place()
        ))),
        Err(e) => Err(Error::from(e).context(place())),
    }
}

/// Everything up to the gate; `in_cwd` says that the working directory is entered already: limits, labels, capabilities,
/// user, environment; finds the program. Of all descriptors, only those of [`Orders::keep_only`] are open afterwards.
pub fn prepare(
    program: &Program<'_>,
    in_cwd: bool,
    orders: &mut Orders,
    gate: Option<&mut OwnedFd>,
    proc: &Proc,
) -> Result<Ready> {
    let process = program.process;
    attributes(program)?;
    limits(program, orders, proc)?; // 6
    labels(process, proc)?;
    let no_new_privs = process.no_new_privileges().unwrap_or(false);
    capabilities::limit_bounding(&program.capabilities)?;
    become_user(program, proc)?;
    let keep = if program.seccomp && !no_new_privs { SYS_ADMIN } else { 0 };
    for warning in capabilities::apply(&program.capabilities, keep)? {
        orders.report(&Report::Warning(warning))?;
    }
    if no_new_privs {
        prctl::set_no_new_privileges(true)
            .map_err(|e| Error::from_errno(e, "process.noNewPrivileges: cannot set it"))?;
    }
    timings::phase("limits, user, capabilities");
    // From here on paths of the container are looked up without a guard against links of /proc.
    orders.keep_only(gate, program.preserve_fds)?;
    if !in_cwd {
        change_dir(process)?;
    }
    let env = environment(program)?;
    let path = env.iter().rev().find_map(|v| v.strip_prefix("PATH="));
    let args = process.args().as_deref().unwrap_or_default();
    let name = args.first().ok_or_else(|| Error::new("process.args: it must not be empty"))?;
    let file = program::find(name, path)?;
    Ok(Ready { path: file, args: strings(args, "process.args")?, env: strings(&env, "process.env")? })
}

/// From the gate on: what the program inherits, seccomp, hooks, execve(2). Returns only where that fails.
///
/// The startContainer hooks run under the filter, as they do under the field's other runtimes.
pub fn execute(
    ready: Ready,
    program: &Program<'_>,
    hooks: impl FnOnce(&Ready) -> Result<()>,
    orders: &mut Orders,
) -> Result<std::convert::Infallible> {
    attrs::rlimits::finish(program.process.rlimits().as_deref().unwrap_or_default())?;
    for number in 3..super::first_own(program.preserve_fds)? {
        sys::process::inherit(number).context(|| format!("--preserve-fds: cannot pass descriptor {number} on"))?;
    }
    let has_hooks = !program.start_container.is_empty();
    if !has_hooks {
        sys::process::default_signals()?;
    }
    if program.seccomp {
        restrict(orders)?;
    }
    if has_hooks {
        hooks(&ready)?;
        // Only here: a hook that does not read its input must not end us by SIGPIPE.
        sys::process::default_signals()?;
    }
    let error = sys::process::execve(&ready.path, &ready.args, &ready.env);
    let why = program::explain(&ready.path, error.errno());
    let error = error.context(format!("exec {}", ready.path.to_string_lossy())).at(Step::Program);
    Err(if why.is_empty() { error } else { error.hint(why) })
}

/// Installs the filter; where it has a listener, waits until the runtime has fetched it.
fn restrict(orders: &mut Orders) -> Result<()> {
    let filter = orders.filter.take().ok_or_else(|| Error::new("the seccomp filter did not come"))?;
    let Some(listener) = seccomp::install(&filter)? else { return Ok(()) };
    orders.report(&Report::Listener(listener.as_raw_fd()))?;
    match orders.end.receive_short()? {
        Some(Order::Listened) => Ok(()),
        _ => sys::process::exit(1),
    }
}

fn attributes(program: &Program<'_>) -> Result<()> {
    let process = program.process;
    if let Some(personality) = program.linux.personality() {
        attrs::personality::apply(personality)?;
    }
    if let Some(policy) = program.linux.memory_policy() {
        attrs::mempolicy::apply(policy)?;
    }
    if let Some(scheduler) = process.scheduler() {
        attrs::scheduler::apply(scheduler)?;
    }
    if let Some(priority) = process.io_priority() {
        attrs::ioprio::apply(priority)?;
    }
    Ok(())
}

/// In a user namespace the limits and the OOM score may need rights of the outer one, which the runtime has.
fn limits(program: &Program<'_>, orders: &mut Orders, proc: &Proc) -> Result<()> {
    let process = program.process;
    let rlimits = process.rlimits().as_deref().unwrap_or_default();
    if rlimits.is_empty() && process.oom_score_adj().is_none() {
        return Ok(());
    }
    if program.user_namespace {
        match orders.ask(&Report::Limits)? {
            Order::Limited(true) => return Ok(()),
            Order::Limited(false) => {}
            other => return Err(unexpected(&other)),
        }
    }
    if let Some(score) = process.oom_score_adj() {
        attrs::oom::apply(proc, score)?;
    }
    attrs::rlimits::apply(rlimits)
}

fn labels(process: &Process, proc: &Proc) -> Result<()> {
    if let Some(profile) = process.apparmor_profile().as_deref().filter(|p| !p.is_empty()) {
        apparmor::set_exec_profile(proc, profile)?;
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|l| !l.is_empty()) {
        selinux::set_exec_label(proc, label)?;
    }
    Ok(())
}

/// The files of a user: umask, groups, gid, uid; capabilities are kept over the change and set afterwards.
fn become_user(program: &Program<'_>, proc: &Proc) -> Result<()> {
    let user = program.process.user();
    let (uid, gid) = (user.uid(), user.gid());
    // The field's runtimes take 0022 where nothing is said, and images count on it.
    rustix::process::umask(Mode::from_raw_mode(user.umask().unwrap_or(0o022)));
    console::own_streams(uid, program.process.terminal() == Some(true))?;
    if !program.keep_groups {
        set_groups(user.additional_gids().as_deref().unwrap_or_default(), proc)?;
    }
    prctl::set_keep_capabilities(true).map_err(|e| Error::from_errno(e, "cannot keep capabilities"))?;
    let (u, g) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let hint = || if program.user_namespace { " (is it in linux.gidMappings?)" } else { "" };
    nix::unistd::setresgid(g, g, g).context(|| format!("process.user.gid: cannot become group {gid}{}", hint()))?;
    let hint = || if program.user_namespace { " (is it in linux.uidMappings?)" } else { "" };
    nix::unistd::setresuid(u, u, u).context(|| format!("process.user.uid: cannot become user {uid}{}", hint()))?;
    Ok(())
}

/// A user namespace made without privilege forbids setgroups(2), so that nobody gets rid of a group that takes rights
/// away (CVE-2014-8989). There only the absence of groups can be had.
fn set_groups(groups: &[u32], proc: &Proc) -> Result<()> {
    let gids: Vec<_> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
    match nix::unistd::setgroups(&gids) {
        Err(nix::errno::Errno::EPERM) if proc.read("self/setgroups").is_ok_and(|s| s.trim() == "deny") => {
            if groups.is_empty() {
                return Ok(());
            }
            Err(Error::new(
                "process.user.additionalGids: cannot set groups in a user namespace that was made without privilege",
            ))
        }
        done => done.context(|| "process.user.additionalGids: cannot set the groups"),
    }
}

/// The variables of the process: of a name that comes twice the last one holds; HOME comes from /etc/passwd where it is
/// not set.
fn environment(program: &Program<'_>) -> Result<Vec<String>> {
    let mut env: Vec<String> = Vec::new();
    let given = program.process.env().as_deref().unwrap_or_default();
    for variable in given.iter().chain(&program.extra_env) {
        let Some((name, _)) = variable.split_once('=') else {
            return Err(Error::new(format!("process.env: invalid environment variable: missing '=' in {variable:?}")));
        };
        let same = |v: &String| v.split_once('=').is_some_and(|(n, _)| n == name);
        match env.iter_mut().find(|v| same(v)) {
            Some(old) => old.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    if !env.iter().any(|v| v.strip_prefix("HOME=").is_some_and(|h| !h.is_empty())) {
        env.retain(|v| !v.starts_with("HOME="));
        env.push(format!("HOME={}", home(program.process.user().uid())));
    }
    Ok(env)
}

/// The home directory of a user by the container's /etc/passwd; `/` where there is none.
fn home(uid: u32) -> String {
    const MOST: u64 = 16 << 20;
    let passwd = program::read_regular(Path::new("/etc/passwd"), MOST);
    let passwd = String::from_utf8_lossy(&passwd);
    let of_line = |line: &str| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2).map(str::to_string))?
    };
    passwd.lines().find_map(of_line).filter(|h| !h.is_empty()).unwrap_or_else(|| "/".to_string())
}

fn strings(list: &[String], place: &str) -> Result<Vec<CString>> {
    list.iter()
        .enumerate()
        .map(|(i, s)| {
            CString::new(s.as_str()).map_err(|_| Error::new(format!("{place}[{i}]: it has a zero byte in it")))
        })
        .collect()
}
