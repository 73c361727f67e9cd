//! The machine: the cgroups that the runtimes see, the places where all happens, and their removal.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use vessel::error::{Context, Error, Result};

/// The cgroups that runtimes see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    V1,
    V2,
}

impl std::str::FromStr for View {
    type Err = Error;

    fn from_str(text: &str) -> Result<View> {
        match text {
            "v1" => Ok(View::V1),
            "v2" => Ok(View::V2),
            other => Err(Error::new(format!("--cgroup: {other:?} (v1 and v2 are known)"))),
        }
    }
}

/// Where the measuring takes place.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) view: View,
    /// Bundles, and copies of the runtimes. Everybody may search it.
    pub(crate) work: PathBuf,
    /// The state of containers.
    pub(crate) run: PathBuf,
    /// The cgroup of all containers, in each hierarchy.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The same, as config.json has it.
    pub(crate) cgroup: String,
    /// Whether systemd can make cgroups here.
    pub(crate) systemd: bool,
    /// Whether memory, processor time and processes can be limited here.
    pub(crate) limits: bool,
}

const ROOT: &str = "/sys/fs/cgroup";

/// Makes a mount namespace with the cgroups of `view`, and the directories; none where the machine has no such cgroups.
pub(crate) fn prepare(view: Option<View>) -> Result<Option<Host>> {
    unshare(CloneFlags::CLONE_NEWNS).context(|| "cannot make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context(|| "cannot make mounts private")?;
    let found = hierarchies()?;
    let has_v1 = !found.is_empty();
    let view = view.unwrap_or(if has_v1 { View::V1 } else { View::V2 });
    let hierarchies = match view {
        View::V1 if !has_v1 => return Ok(None),
        View::V1 => {
            // Debian's crun refuses a host that has both.
            let _ = umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH);
            found
        }
        View::V2 => {
            if has_v1 && mount(Some("cgroup2"), ROOT, Some("cgroup2"), MsFlags::empty(), none).is_err() {
                return Ok(None);
            }
            vec![PathBuf::from(ROOT)]
        }
    };
    let name = format!("vessel-bench-{}", std::process::id());
    let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
    let limits =
        view == View::V1 || ["cpu", "memory", "pids"].iter().all(|c| controllers.split_whitespace().any(|w| w == *c));
    let host = Host {
        limits,
        view,
        work: std::env::temp_dir().join(&name),
        run: Path::new("/run").join(&name),
        cgroups: hierarchies.iter().map(|h| h.join(&name)).collect(),
        cgroup: format!("/{name}"),
        systemd: view == View::V2 && !has_v1 && Path::new("/run/systemd/system").exists(),
    };
    for dir in host.cgroups.iter().chain([&host.work, &host.run]) {
        fs::create_dir(dir).context(|| format!("cannot make {}", dir.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // A new v1 cgroup has none; there is nothing to inherit elsewhere.
            if view == View::V1
                && let Ok(text) = fs::read_to_string(dir.with_file_name(file))
            {
                fs::write(dir.join(file), text).context(|| file)?;
            }
        }
    }
    // As on most machines, whatever this one has there.
    mount(Some("tmpfs"), &host.run, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context(|| "cannot mount a tmpfs")?;
    Ok(Some(host))
}

/// The mounted v1 hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context(|| "cannot read the mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.filter(|f| f.get(2) == Some(&"cgroup")).filter_map(|f| f.get(1).map(PathBuf::from)).collect())
}

impl Host {
    /// What reports call this set-up.
    pub(crate) fn name(&self) -> &'static str {
        match self.view {
            View::V1 => "v1",
            View::V2 if self.systemd => "v2-systemd",
            View::V2 => "v2",
        }
    }

    /// Ends all containers and removes everything.
    pub(crate) fn clean(&self) {
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
        let _ = umount2(&self.run, MntFlags::MNT_DETACH);
        for dir in [&self.run, &self.work] {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// Removes a cgroup with those below, and ends the processes in them.
fn remove_cgroup(dir: &Path) {
    for below in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        remove_cgroup(&below.path());
    }
    let begin = Instant::now();
    while fs::remove_dir(dir).is_err() && dir.exists() && begin.elapsed() < Duration::from_secs(5) {
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            let pid = pid.parse().ok().filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw);
            pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The machine in a line: processor, processors, memory, kernel.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_string();
        line.split_once(':').map(|(_, v)| v.trim().to_string()).unwrap_or_default()
    };
    let model = after(&read("/proc/cpuinfo"), "model name");
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / (1 << 20);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let model = if model.is_empty() { String::new() } else { format!("{model}, ") };
    format!("{model}{count} processor(s), {memory} GiB, Linux {kernel}")
}
