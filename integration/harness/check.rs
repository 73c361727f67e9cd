//! What a runtime must not leave behind: processes, mounts, cgroups, files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::suite::{CGROUP_ROOT, Suite};

/// What a test's container left, as lines for people. `mark` is the test's directory, `id` the container's name.
pub fn left(mark: &Path, id: &str, cgroup: &str) -> Vec<String> {
    let mut left = processes(mark, cgroup);
    left.extend(mounts(mark));
    left.extend(
        hierarchies()
            .iter()
            .map(|h| h.join(cgroup.trim_start_matches('/')))
            .filter(|p| p.exists())
            .map(|p| format!("cgroup {}", p.display())),
    );
    left.extend(fs::read_dir(mark.join("root")).into_iter().flatten().flatten().filter_map(|e| {
        let path = e.path();
        // A runtime may keep directories of its own there (locks), but nothing of the container.
        (path.file_name()? == id).then(|| format!("file {}", path.display()))
    }));
    left
}

/// The mount points of all cgroup hierarchies.
pub fn hierarchies() -> Vec<PathBuf> {
    if Path::new(CGROUP_ROOT).join("cgroup.controllers").exists() {
        return vec![CGROUP_ROOT.into()];
    }
    fs::read_dir(CGROUP_ROOT).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

/// Processes that carry the directory in their environment or arguments, or lie in the cgroup.
fn processes(mark: &Path, cgroup: &str) -> Vec<String> {
    let mark = mark.as_os_str().as_encoded_bytes();
    let has = |bytes: &[u8], needle: &[u8]| {
        bytes.windows(needle.len()).enumerate().any(|(i, w)| {
            w == needle && bytes.get(i + needle.len()).is_none_or(|b| !b.is_ascii_alphanumeric() && *b != b'-')
        })
    };
    let mut left = Vec::new();
    for pid in pids() {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let arguments = read("cmdline");
        let ours = has(&read("environ"), mark) || has(&arguments, mark) || has(&read("cgroup"), cgroup.as_bytes());
        if ours && pid != std::process::id() as i32 {
            // Other runtimes may leave helpers that have ended to their subreaper.
            if arguments.is_empty() && super::runtime_kind() != "vessel" {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
                continue;
            }
            left.push(format!("process {pid} {}", String::from_utf8_lossy(&arguments).replace('\0', " ")));
        }
    }
    left
}

/// All processes.
pub fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Mounts at or below a directory.
pub fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let at = |line: &&str| line.split(' ').nth(4).is_some_and(|p| Path::new(p).starts_with(dir));
    table.lines().filter(at).map(|l| format!("mount {l}")).collect()
}

/// What all tests together left: also what no single test could see.
pub fn everything_left(suite: &Suite) -> Vec<String> {
    // Tests of the command line alone have no container.
    for hierarchy in hierarchies() {
        let _ = fs::remove_dir(hierarchy.join(&suite.name));
    }
    let mut left = mounts(&suite.dir);
    let programs: Vec<_> = [Some(&suite.probe), suite.busybox.as_ref(), Some(&suite.runtime)]
        .into_iter()
        .flatten()
        .filter_map(|p| fs::metadata(p).ok())
        .map(|m| (m.dev(), m.ino()))
        .collect();
    for pid in pids() {
        let program = fs::metadata(format!("/proc/{pid}/exe")).ok().map(|m| (m.dev(), m.ino()));
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let child = fs::read_to_string(format!("/proc/{pid}/stat")).ok().is_some_and(|stat| {
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            // Engines leave their monitors, and what cleans up for them, to whoever reaps them.
            let monitor = fields.next() == Some("Z") && ["conmon", "podman", "containerd-shim"].contains(&name.trim());
            fields.next() == Some(&std::process::id().to_string()) && !monitor
        });
        if child || program.is_some_and(|p| programs.contains(&p)) {
            left.push(format!("process {pid} {}", name.trim()));
        }
    }
    cgroups_named(Path::new(CGROUP_ROOT), &suite.name, &mut left);
    left
}

fn cgroups_named(dir: &Path, name: &str, left: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(name) {
            left.push(format!("cgroup {}", path.display()));
        } else {
            cgroups_named(&path, name, left);
        }
    }
}

/// Takes away what a failed test left, as far as it goes, so that others are not disturbed.
pub fn sweep(mark: &Path, cgroup: &str) {
    for _ in 0..50 {
        let left = processes(mark, cgroup);
        if left.is_empty() {
            break;
        }
        for line in left {
            let pid = line.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap();
            let pid = Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for line in mounts(mark).iter().rev() {
        if let Some(at) = line.split(' ').nth(5) {
            let _ = nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    for hierarchy in hierarchies() {
        remove_tree(&hierarchy.join(cgroup.trim_start_matches('/')));
    }
}

fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    let _ = fs::remove_dir(dir);
}
