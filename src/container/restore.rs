//! `restore`: makes a container anew from the files of a checkpoint, by CRIU.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxNamespaceType;

use super::checkpoint::{
    ADDED, DESCRIPTORS, NULL, common, directory, external, joined_name, log_file, open_directory, warn_rootless,
};
use super::ground::{Ground, Opener, Rollback, cgroup_mounts, lay};
use super::mounts::visit;
use super::parent;
use super::state::State;
use super::store::{self, Entry};
use super::{Host, RestoreRequest, delete, wait};
use crate::cgroups::{Cgroup, KeptOptions};
use crate::console;
use crate::criu::{
    CgroupMode, CgroupRoot, Criu, Event, FIRST_INHERITED, InheritFd, JoinNamespace, Launch, Options, Work as CriuWork,
};
use crate::error::{Cause, Context, Error, Result};
use crate::foreground::{self, Signals};
use crate::init::visit::Work;
use crate::namespaces::{self, Plan};
use crate::rootfs::{self, External};
use crate::security::{apparmor, selinux};
use crate::spec::Config;
use crate::{idmap, log, sys};

/// A container that was restored, and runs.
#[derive(Debug)]
pub(super) struct Restored {
    entry: Entry,
    state: State,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

impl Restored {
    /// Waits for its end in the foreground, and deletes it then unless told to `keep` it. Returns the exit code.
    pub(super) fn wait(self, signals: &Signals, keep: bool) -> Result<i32> {
        // Others may pause or delete it while it runs.
        self.entry.unlock()?;
        let status = foreground::wait(signals, self.state.init_process_pid, &self.pidfd, self.terminal);
        if !keep && self.entry.lock_again()? {
            delete::destroy(&self.entry, &self.state, !self.state.vessel.pid_namespace)?;
        }
        status
    }
}

/// Restores a container. On failure nothing of it is left.
pub(super) fn make(host: &Host, request: &RestoreRequest) -> Result<Restored> {
    warn_rootless();
    check_labels(request)?;
    let create = &request.run.create;
    let images = request.criu.images.canonicalize().context(|| cannot_find(&request.criu.images))?;
    let streams = streams(&images)?;
    let work = match &request.criu.work {
        Some(path) => Some(directory(path, 0o700).and(path.canonicalize().context(|| path.display()))?),
        None => None,
    };
    let mut ground = lay(host, create, Opener::Run(request.run.detach))?;
    let holder = ground.hold()?;
    // In this order, as the last goes first.
    let Ground { config, entry, mut rollback, cgroup, mut state, plan, mut root } = ground;
    cgroup.restrict_devices(config.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()))?;
    let console = create.console_socket.as_deref().map(console::connect).transpose()?;

    let mut options = Options {
        evasive_devices: Some(true),
        rst_sibling: Some(true),
        tcp_close: request.tcp_close.then_some(true),
        lsm_profile: request.lsm_profile.clone(),
        lsm_mount_context: request.lsm_mount_context.clone(),
        ..common(&request.criu, "restore.log", &config)
    };
    mounts(&state, &config, &images, &mut options)?;
    for (number, key) in (0..).zip(streams).filter(|(_, key)| key.starts_with("pipe:") || key.starts_with("file[")) {
        options.inherit_fd.push(InheritFd { key, fd: number });
    }
    let inherit = joined(&plan, &mut options)?;
    let log = log_file(&request.criu, &options);

    let kept = KeptOptions::note();
    let at = entry.make_root()?;
    options.root = Some(external(&at, &at)?.val);
    own_streams(&config)?;
    // What CRIU does not do when it is to ignore cgroups.
    let unshare = request.criu.cgroups == Some(CgroupMode::Ignore) && plan.new.contains(CloneFlags::CLONE_NEWCGROUP);
    let criu = launch(&cgroup, unshare, inherit, &mut root, &at)?;
    options.cg_root = cgroup_roots(criu.pid)?;
    let images = seen_by(&criu, &images)?;
    let work = work.map(|path| seen_by(&criu, &path)).transpose()?;
    options.images_dir_fd = images.as_raw_fd();
    options.work_dir_fd = work.as_ref().map(AsRawFd::as_raw_fd);
    drop(root);

    if request.criu.lazy_pages {
        wait_for_pages(log.parent().unwrap_or(&request.criu.images));
    }
    let mut pidfd = None;
    let mut terminal = None;
    criu.work(CriuWork::Restore, options, &log, &mut |event| {
        log::debug(|| format!("criu: {event:?}"));
        match event {
            Event::Namespaces(pid) => {
                let init = note(&mut state, pid, &mut rollback)?;
                if plan.new.contains(CloneFlags::CLONE_NEWNET) {
                    // CRIU leaves the namespace as it makes it.
                    visit(&init, CloneFlags::CLONE_NEWNET, Work::Loopback, &state)?;
                }
                parent::runtime_hooks(&config.spec, &state)
            }
            Event::Terminal(master) => {
                match &console {
                    Some(socket) => console::send_master(socket.as_fd(), &master)?,
                    None => {
                        foreground::set_up(&master)?;
                        terminal = Some(master);
                    }
                }
                Ok(())
            }
            Event::Restored(pid) => {
                let init = note(&mut state, pid, &mut rollback)?;
                arrived(&entry, &mut state, &config, &init)?;
                pidfd = Some(init);
                create.pid_file.as_deref().map_or(Ok(()), |path| store::write_pid_file(path, pid))
            }
            Event::PagesReady | Event::Other(_) => Ok(()),
        }
    })?;
    drop((images, work, kept, holder));
    entry.remove_root()?;
    let pidfd = pidfd.ok_or_else(|| Error::new("criu has restored no process"))?;
    rollback.call_off();
    Ok(Restored { entry, state, pidfd, terminal })
}

/// CRIU says nothing of labels for a security module that is off, and leaves them out.
fn check_labels(request: &RestoreRequest) -> Result<()> {
    let profile = request.lsm_profile.as_deref().map(|profile| profile.split_once(':').unwrap_or_default());
    let enabled = match profile {
        None => true,
        Some(("apparmor", name)) if !name.is_empty() => apparmor::is_enabled(),
        Some(("selinux", label)) if !label.is_empty() => selinux::is_enabled(),
        Some(_) => return Err(Error::of(Cause::Usage, "--lsm-profile must be apparmor:PROFILE or selinux:LABEL")),
    };
    if !enabled {
        let kind = profile.unwrap_or_default().0;
        return Err(Error::new(format!("--lsm-profile: {kind} is not enabled in this kernel")));
    }
    if request.lsm_mount_context.is_some() && !selinux::is_enabled() {
        return Err(Error::new("--lsm-mount-context: selinux is not enabled in this kernel"));
    }
    Ok(())
}

fn cannot_find(images: &Path) -> String {
    format!("cannot find the checkpoint {}", images.display())
}

/// Opens a directory, whose path has no links, in CRIU's mount namespace: it mounts things there.
fn seen_by(criu: &Criu, path: &Path) -> Result<OwnedFd> {
    let root = format!("/proc/{}/root", criu.pid);
    open_directory(&Path::new(&root).join(path.strip_prefix("/").unwrap_or(path)))
}

/// Waits a while for the daemon that sends the pages (`criu lazy-pages`), which people start at the same time; without it
/// CRIU fails at once.
fn wait_for_pages(directory: &Path) {
    let socket = directory.join("lazy-pages.socket");
    for _ in 0..300 {
        if socket.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// The standard streams that the container had.
fn streams(images: &Path) -> Result<Vec<String>> {
    let path = images.join(DESCRIPTORS);
    let text = std::fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
    let streams: Option<Vec<String>> =
        serde_json::from_str(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
    let streams = streams.unwrap_or_default();
    if streams.len() > 3 {
        // The number of an entry is that of a descriptor of ours, and CRIU would hand any to the container.
        return Err(Error::new(format!("{}: there are three standard streams, not {}", path.display(), streams.len())));
    }
    Ok(streams)
}

/// Runs CRIU in the container's cgroup, where the processes that it makes are from the start, and in a mount namespace of
/// its own with the root filesystem on `at`: what is mounted for it is gone with it. With `unshare`, in a cgroup namespace
/// that the processes inherit.
fn launch(
    cgroup: &Cgroup,
    unshare: bool,
    inherit: Vec<BorrowedFd<'_>>,
    root: &mut rootfs::Plan,
    at: &Path,
) -> Result<Criu> {
    let entry = cgroup.entry()?;
    let mut enter = || {
        for (fd, path) in &entry.procs {
            rustix::io::write(fd, b"0").context(|| format!("cannot enter the cgroup: {}", path.display()))?;
        }
        root.make_places(at)?;
        if unshare {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).context(|| "cannot make a cgroup namespace")?;
        }
        Ok(())
    };
    let namespaces = u64::from(CloneFlags::CLONE_NEWNS.bits().cast_unsigned());
    let mut launch = |cgroup| {
        let launch = Launch { namespaces, cgroup, streams: true, inherit: inherit.clone() };
        Criu::start(launch, &mut enter)
    };
    match launch(entry.clone_into.as_ref().map(AsFd::as_fd)) {
        Err(e) if cgroup.attaches(&e) => {
            let criu = launch(None)?;
            cgroup.attach(criu.pid, &[], criu.pid)?;
            Ok(criu)
        }
        criu => criu,
    }
}

/// Gives our standard streams to the user of a container with a user namespace, who opens them again.
fn own_streams(config: &Config) -> Result<()> {
    let (Some(process), Some(linux)) = (config.spec.process(), config.spec.linux()) else { return Ok(()) };
    let uid = idmap::host_id(linux.uid_mappings().as_deref().unwrap_or_default(), process.user().uid());
    if process.terminal() == Some(true) { Ok(()) } else { uid.map_or(Ok(()), |uid| console::own_streams(uid, false)) }
}

/// The cgroups that CRIU is in: the container's are below them.
fn cgroup_roots(pid: i32) -> Result<Vec<CgroupRoot>> {
    let path = format!("/proc/{pid}/cgroup");
    let table = std::fs::read_to_string(&path).context(|| format!("cannot read {path}"))?;
    let mut roots = Vec::new();
    for line in table.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        roots.extend(
            controllers.split(',').map(|name| CgroupRoot { ctrl: Some(name.to_string()), path: path.to_string() }),
        );
    }
    Ok(roots)
}

/// Tells CRIU of the namespaces that are there already. Returns what it inherits for that.
fn joined<'a>(plan: &'a Plan, options: &mut Options) -> Result<Vec<BorrowedFd<'a>>> {
    let mut inherit = Vec::new();
    for join in &plan.join {
        let kind = match join.kind {
            CloneFlags::CLONE_NEWNET => Some(LinuxNamespaceType::Network),
            CloneFlags::CLONE_NEWPID => Some(LinuxNamespaceType::Pid),
            _ => None,
        };
        if let Some((_, key)) = kind.and_then(joined_name) {
            let fd = (FIRST_INHERITED..).nth(inherit.len()).unwrap_or(i32::MAX);
            options.inherit_fd.push(InheritFd { key: key.to_string(), fd });
            inherit.push(join.fd.as_fd());
        } else if join.kind == CloneFlags::CLONE_NEWCGROUP {
            return Err(Error::new(
                "linux.namespaces: criu cannot restore a container into a cgroup namespace by path",
            ));
        } else {
            let named = external(Path::new(namespaces::file(join.kind)), &join.path)?;
            options.join_ns.push(JoinNamespace { ns: named.key, ns_file: named.val });
        }
    }
    Ok(inherit)
}

/// The places of the binds that the container had beside those of its configuration. Where they come from is not read
/// from the images, which may be anybody's.
fn added(images: &Path) -> Result<Vec<PathBuf>> {
    let path = images.join(ADDED);
    match std::fs::read_to_string(&path) {
        // Other runtimes write none.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        text => serde_json::from_str(&text.context(|| format!("cannot read {}", path.display()))?)
            .map_err(|e| Error::new(format!("{}: {e}", path.display()))),
    }
}

/// Tells CRIU where the mounts are that belong to the host.
fn mounts(state: &State, config: &Config, images: &Path, options: &mut Options) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context(|| "cannot read /proc/self/mountinfo")?;
    let cgroup = &state.vessel.cgroup;
    let bundle = Path::new(&state.vessel.bundle);
    let externals = rootfs::externals(config, bundle, &cgroup_mounts(cgroup), cgroup.unified);
    if let Some(place) = added(images)?.iter().find(|&place| externals.iter().all(|e| e.place != *place)) {
        let text = format!("{} was mounted while the container ran, and config.json does not have it", place.display());
        return Err(Error::new(text).hint("add the bind that is to be there to mounts"));
    }
    for External { place, source, recursive } in externals {
        // CRIU takes no path with links, dots or double slashes.
        let source = source.canonicalize().unwrap_or(source);
        options.ext_mnt.push(external(&place, &source)?);
        for mount in recursive.then(|| rootfs::mounts_below(&table, &source)).into_iter().flatten() {
            if let Ok(rest) = mount.strip_prefix(&source) {
                options.ext_mnt.push(external(&place.join(rest), &mount)?);
            }
        }
    }
    options.ext_mnt.push(external(Path::new(NULL), Path::new(NULL))?);
    Ok(())
}

/// Notes which process is the container's init. It is our child from the start.
fn note(state: &mut State, pid: i32, rollback: &mut Rollback) -> Result<OwnedFd> {
    let pidfd = wait::open(pid)?;
    rollback.pidfd = Some(pidfd.try_clone().context(|| "cannot copy a descriptor")?);
    state.init_process_pid = pid;
    if let Some(group) = &state.vessel.rdt {
        for pid in state.vessel.cgroup.pids()? {
            group.add(pid).context(|| "linux.intelRdt")?;
        }
    }
    rollback.poststop = Some((state.vessel.poststop.clone(), state.oci("stopped").to_string()));
    Ok(pidfd)
}

/// All processes are there, and go on when this is done: from now on the container is one that runs.
fn arrived(entry: &Entry, state: &mut State, config: &Config, init: &OwnedFd) -> Result<()> {
    if config.spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        visit(init, CloneFlags::CLONE_NEWNS, Work::ProtectRoot, state)?;
    }
    let pid = state.init_process_pid;
    let stat = sys::process::stat(pid);
    state.init_process_start =
        stat.ok_or_else(|| Error::new("the container's init ended while it was restored"))?.start;
    let linux = config.linux();
    let path = |file: &str| format!("/proc/{pid}/ns/{file}");
    state.namespace_paths = namespaces::listed(linux).map(|(_, name, file)| (name.to_string(), path(file))).collect();
    let identity = |path: &str| rustix::fs::stat(path).map(|s| (s.st_dev, s.st_ino)).ok();
    if identity(&path("time")) != identity("/proc/self/ns/time") && !state.namespace_paths.contains_key("NEWTIME") {
        state.namespace_paths.insert("NEWTIME".to_string(), path("time"));
        state.vessel.time_namespace = true;
    }
    entry.write_state(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_standard_streams_are_handed_over() {
        let images = std::env::temp_dir().join(format!("vessel-streams-{}", std::process::id()));
        std::fs::create_dir(&images).unwrap();
        let mut found = [r#"null"#, r#"["a","b","c"]"#, r#"["a","b","c","pipe:[1]"]"#].map(|text| {
            std::fs::write(images.join(DESCRIPTORS), text).unwrap();
            streams(&images).map_err(|e| e.to_string())
        });
        std::fs::remove_dir_all(&images).unwrap();
        assert!(std::mem::replace(&mut found[2], Ok(Vec::new())).unwrap_err().ends_with("standard streams, not 4"));
        assert_eq!(found.map(|found| found.unwrap().len()), [0, 3, 0]);
    }
}
