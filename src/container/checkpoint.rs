//! `checkpoint`: saves a running container to files, by CRIU.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags};

use super::ground::cgroup_mounts;
use super::state::{State, Status, wrong};
use super::store::{self, Entry};
use super::{CheckpointRequest, CriuRequest, Host, delete};
use crate::cgroups::KeptOptions;
use crate::criu::{Criu, Event, ExternalMount, Features, Launch, Options, PageServer, Work};
use crate::error::{Cause, Context, Error, Result};
use crate::rootfs::{self, External};
use crate::spec::{self, Config};
use crate::{log, sys};

/// What the standard streams were, for `restore`: runc's file.
pub(super) const DESCRIPTORS: &str = "descriptors.json";
/// The places of the binds that `mounts add` had made, for `restore` to look for them in config.json.
pub(super) const ADDED: &str = "added-mounts.json";
/// What is bound on masked files.
pub(super) const NULL: &str = "/dev/null";

pub(super) fn checkpoint(host: &Host, request: &CheckpointRequest) -> Result<()> {
    warn_rootless();
    let entry = store::open_locked(host, &request.id)?;
    let state = entry.state()?;
    match state.status(&entry)? {
        Status::Running | Status::Paused => {}
        status => return Err(wrong(status, &format!("cannot checkpoint container {}", request.id))),
    }
    check_status_fd(request)?;
    let config = spec::parse(entry.config()?)?;
    // The root of a user namespace has to find the images, which only the host's root can read.
    let images = directory(&request.criu.images, if has_user_namespace(&config) { 0o711 } else { 0o700 })?;
    check_parent(request)?;
    let kept = KeptOptions::note();
    let mut criu = Criu::start(Launch::default(), &mut || Ok(()))?;
    check_features(&mut criu, request)?;

    let mut options = Options {
        root: Some(state.config.rootfs.clone()),
        pid: Some(state.init_process_pid),
        leave_running: Some(request.leave_running),
        tcp_skip_in_flight: Some(request.tcp_skip_in_flight),
        link_remap: Some(request.link_remap),
        freeze_cgroup: state.vessel.cgroup.freezer().map(|path| path.to_string_lossy().into_owned()),
        images_dir_fd: images.as_raw_fd(),
        ..common(&request.criu, "dump.log", &config)
    };
    if let Some((address, port)) = &request.page_server {
        options.page_server = Some(PageServer { address: Some(address.clone()), port: Some(i32::from(*port)) });
    }
    if let Some(parent) = &request.parent {
        options.parent_img = Some(parent.to_string_lossy().into_owned());
        options.track_mem = Some(true);
    }
    joined(config.spec.linux().as_ref(), &mut options)?;
    if !request.pre_dump {
        let added = mounts(&state, &config, &mut options)?;
        let streams = streams(&state, &mut options)?;
        write_json(&request.criu.images.join(DESCRIPTORS), &streams)?;
        write_json(&request.criu.images.join(ADDED), &added)?;
    }
    let work_directory = work_directory(&request.criu, &mut options)?;
    let log = log_file(&request.criu, &options);
    let work = if request.pre_dump { Work::PreDump } else { Work::Dump };
    criu.work(work, options, &log, &mut |event| {
        log::debug(|| format!("criu: {event:?}"));
        match (event, request.status_fd) {
            (Event::PagesReady, Some(number)) => {
                sys::fd::write_once(number, &[0]).map_err(|e| e.context("cannot write to --status-fd"))
            }
            _ => Ok(()),
        }
    })?;
    drop((work_directory, kept));
    if request.leave_running || request.pre_dump { Ok(()) } else { finish(&entry, &state) }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| Error::new(e.to_string()))?;
    std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}

/// Removes the container, whose processes CRIU has ended.
fn finish(entry: &Entry, state: &State) -> Result<()> {
    delete::end(state)?;
    delete::destroy(entry, state, true)
}

/// CRIU needs more rights than an ordinary user has, in most cases.
pub(super) fn warn_rootless() {
    if !nix::unistd::geteuid().is_root() || sys::proc::in_user_namespace() {
        log::warn("checkpoint and restore are not tested without the rights of root");
    }
}

/// Opens a directory for CRIU, and makes it where it is missing.
pub(super) fn directory(path: &Path, mode: u32) -> Result<OwnedFd> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), mode);
    builder.create(path).context(|| format!("cannot make the directory {}", path.display()))?;
    open_directory(path)
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context(|| format!("cannot open the directory {}", path.display()))
}

/// The options that a checkpoint and a restore have in common.
pub(super) fn common(request: &CriuRequest, log: &str, config: &Config) -> Options {
    let annotations = config.spec.annotations().as_ref();
    let config_file = match annotations.and_then(|all| all.get(spec::CRIU_CONFIG)) {
        Some(path) => Some(path.clone()).filter(|path| !path.is_empty()),
        None => Some("/etc/criu/runc.conf".to_string()),
    };
    Options {
        log_level: Some(4),
        log_file: Some(log.to_string()),
        notify_scripts: Some(true),
        orphan_pts_master: Some(true),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(request.cgroups.unwrap_or(crate::criu::CgroupMode::Default).into()),
        tcp_established: Some(request.tcp_established),
        ext_unix_sk: Some(request.ext_unix_sk),
        shell_job: Some(request.shell_job),
        lazy_pages: Some(request.lazy_pages),
        file_locks: Some(request.file_locks),
        auto_dedup: Some(request.auto_dedup),
        // Network devices are the engine's.
        empty_ns: Some(CloneFlags::CLONE_NEWNET.bits().cast_unsigned()),
        config_file,
        ..Options::default()
    }
}

/// Names the directory for logs. To be kept until CRIU has done its work.
fn work_directory(request: &CriuRequest, options: &mut Options) -> Result<Option<OwnedFd>> {
    let directory = request.work.as_deref().map(|path| directory(path, 0o700)).transpose()?;
    options.work_dir_fd = directory.as_ref().map(AsRawFd::as_raw_fd);
    Ok(directory)
}

pub(super) fn log_file(request: &CriuRequest, options: &Options) -> PathBuf {
    request.work.as_ref().unwrap_or(&request.images).join(options.log_file.as_deref().unwrap_or_default())
}

fn has_user_namespace(config: &Config) -> bool {
    let namespaces = config.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|n| n.typ() == LinuxNamespaceType::User)
}

fn check_parent(request: &CheckpointRequest) -> Result<()> {
    let Some(parent) = &request.parent else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::of(Cause::Usage, "--parent-path must be relative (to --image-path)"));
    }
    let path = request.criu.images.join(parent);
    open_directory(&path).map(drop).context(|| "invalid --parent-path")
}

fn check_status_fd(request: &CheckpointRequest) -> Result<()> {
    let Some(number) = request.status_fd else { return Ok(()) };
    if !sys::fd::is_writable(number) {
        return Err(Error::of(
            Cause::Usage,
            format!("invalid --status-fd argument {number}: it is not open for writing"),
        ));
    }
    Ok(())
}

fn check_features(criu: &mut Criu, request: &CheckpointRequest) -> Result<()> {
    let asked =
        Features { mem_track: request.pre_dump.then_some(true), lazy_pages: request.criu.lazy_pages.then_some(true) };
    if asked == Features::default() {
        return Ok(());
    }
    let have = criu.features(asked.clone())?;
    let missing = |asked: Option<bool>, have: Option<bool>| asked.is_some() && have != Some(true);
    if missing(asked.mem_track, have.mem_track) {
        return Err(Error::new("--pre-dump: the kernel cannot track changes of memory (CONFIG_MEM_SOFT_DIRTY)"));
    }
    if missing(asked.lazy_pages, have.lazy_pages) {
        return Err(Error::new("--lazy-pages: criu or the kernel cannot fetch pages on demand (userfaultfd)"));
    }
    Ok(())
}

/// CRIU's name for a namespace of the configuration that is there before the container.
pub(super) fn joined_name(kind: LinuxNamespaceType) -> Option<(&'static str, &'static str)> {
    match kind {
        LinuxNamespaceType::Network => Some(("net", "extRootNetNS")),
        LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// Namespaces that are joined are not saved.
fn joined(linux: Option<&Linux>, options: &mut Options) -> Result<()> {
    for namespace in linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten() {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        let (Some(path), Some((file, key))) = (path, joined_name(namespace.typ())) else { continue };
        let stat = rustix::fs::stat(path).context(|| format!("cannot examine the namespace {}", path.display()))?;
        options.external.push(format!("{file}[{}]:{key}", stat.st_ino));
    }
    Ok(())
}

/// Names the mounts that are the host's: each by its place in the configuration, whatever links lead to. Gives the places
/// of those that `mounts add` has made and that are still there.
fn mounts(state: &State, config: &Config, options: &mut Options) -> Result<Vec<PathBuf>> {
    let pid = state.init_process_pid;
    let root = open_directory(Path::new(&format!("/proc/{pid}/root")))?;
    let path = format!("/proc/{pid}/mountinfo");
    let table = std::fs::read_to_string(&path).context(|| format!("cannot read {path}"))?;
    let bundle = Path::new(&state.vessel.bundle);
    let cgroup = &state.vessel.cgroup;
    let mut found = Vec::new();
    for External { place, recursive, .. } in rootfs::externals(config, bundle, &cgroup_mounts(cgroup), cgroup.unified) {
        if let Some((at, _)) = rootfs::locate(root.as_fd(), &place)? {
            found.push((at, place, recursive));
        }
    }
    let mut added = Vec::new();
    for External { place, recursive, .. } in &state.vessel.added {
        // A removal that failed half way, or the container itself, may have taken it away.
        if let Some((at, _)) = rootfs::locate(root.as_fd(), place)?
            && rootfs::is_mounted(&table, &at)
        {
            found.push((at, place.clone(), *recursive));
            added.push(place.clone());
        }
    }
    for (at, place, recursive) in &found {
        options.ext_mnt.push(external(at, place)?);
        if !recursive {
            continue;
        }
        for below in rootfs::mounts_below(&table, at) {
            // What the configuration mounts there has a name of its own.
            let own = found.iter().any(|(other, ..)| other != at && other.starts_with(at) && below.starts_with(other));
            if let Ok(rest) = below.strip_prefix(at)
                && !own
            {
                options.ext_mnt.push(external(&below, &place.join(rest))?);
            }
        }
    }
    let masked = config.spec.linux().as_ref().and_then(|linux| linux.masked_paths().as_ref());
    for path in masked.into_iter().flatten() {
        if let Some((at, false)) = rootfs::locate(root.as_fd(), Path::new(path))? {
            options.ext_mnt.push(external(&at, Path::new(NULL))?);
        }
    }
    Ok(added)
}

/// A mount that is not saved. The messages to CRIU are UTF-8.
pub(super) fn external(key: &Path, value: &Path) -> Result<ExternalMount> {
    let text = |path: &Path| match path.to_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(Error::new(format!("{}: a mount's place must be UTF-8 for criu", path.display()))),
    };
    Ok(ExternalMount { key: text(key)?, val: text(value)? })
}

/// What the standard streams are, for `restore` to replace them by its own. Files that are not to be seen in the container
/// are named to CRIU; pipes it names itself.
fn streams(state: &State, options: &mut Options) -> Result<Vec<String>> {
    let mut names = state.external_descriptors.clone();
    let pid = state.init_process_pid;
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    for (number, name) in names.iter_mut().enumerate().filter(|(_, name)| name.starts_with('/')) {
        let path = format!("/proc/{pid}/fd/{number}");
        let same = std::fs::read_link(&path).is_ok_and(|now| now == Path::new(name.as_str()));
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
        let (true, Some(mount)) = (same, mount.and_then(|id| id.parse::<u32>().ok())) else { continue };
        let inside = mounts.lines().any(|line| line.split(' ').next() == Some(&mount.to_string()));
        // A terminal of the host's is what --shell-job is for.
        let terminal = name.starts_with("/dev/pts/") || name.starts_with("/dev/tty");
        if let (false, false, Ok(stat)) = (inside, terminal, rustix::fs::stat(&path)) {
            *name = format!("file[{mount:x}:{:x}]", stat.st_ino);
            options.external.push(name.clone());
        }
    }
    Ok(names)
}
