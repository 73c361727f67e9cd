//! Putting limits back.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::limits::Write;
use super::{Cgroup, files, systemd};
use crate::log;

/// What was in the files that were written, in the order of writing.
#[derive(Debug, Default)]
pub struct Undo {
    files: Vec<Before>,
    /// The cgroup of whose limits systemd was told.
    told: Option<Cgroup>,
}

#[derive(Debug)]
struct Before {
    dir: PathBuf,
    file: String,
    value: String,
}

impl Undo {
    /// Keeps what a write of `value` to a file will replace; `text` is what the file has now.
    pub(super) fn add(&mut self, dir: &Path, file: &str, value: &str, text: &str) {
        self.files.push(Before { dir: dir.to_path_buf(), file: file.to_string(), value: before(file, value, text) });
    }

    /// Notes that systemd is told of the new values.
    pub(super) fn tells(&mut self, cgroup: &Cgroup) {
        self.told = Some(cgroup.clone());
    }

    /// Writes the old values, last first. What cannot be put back is told as a warning.
    pub fn restore(&self) {
        if let Some((cgroup, unit)) = self.told.as_ref().and_then(|cgroup| Some((cgroup, cgroup.unit.as_ref()?))) {
            let write = |before: &Before| Write::new("", "", before.file.clone(), &before.value);
            let writes: Vec<_> = self.files.iter().rev().map(write).collect();
            if let Err(e) = systemd::update(unit, cgroup, &writes) {
                log::warn(&format!("limits could not be put back: {e}"));
            }
        }
        let mut later = Vec::new();
        for before in self.files.iter().rev() {
            match before.write() {
                // It may fit after others are back.
                Err(Errno::INVAL) => later.push(before),
                done => before.warn(done),
            }
        }
        later.into_iter().for_each(|before| before.warn(before.write()));
    }
}

impl Before {
    fn write(&self) -> Result<(), Errno> {
        files::write(files::open_dir(&self.dir)?, &self.file, &self.value)
    }

    fn warn(&self, done: Result<(), Errno>) {
        if let Err(e) = done {
            let e = files::cannot_write(e, &self.dir, &self.file, &self.value);
            log::warn(&format!("a limit could not be put back: {e}"));
        }
    }
}

/// What to write to a file to have again what it shows as `text`, when it was told `value`.
fn before(file: &str, value: &str, text: &str) -> String {
    if file == "memory.oom_control" {
        return files::value(text, "oom_kill_disable").unwrap_or("0").to_string();
    }
    // Files that have a line for each device, interface or kind.
    if let Some((key, _)) = value.split_once(' ') {
        let line = text.lines().find(|line| line.split(' ').next() == Some(key));
        match line {
            Some(line) => return line.trim_end().to_string(),
            None if key.contains(':') => return format!("{key} {}", unset(file)),
            None => {}
        }
    }
    let line = text.lines().next().unwrap_or_default();
    match line.strip_prefix("default ").unwrap_or(line).trim_end() {
        // An empty write never reaches the kernel.
        "" => "\n".to_string(),
        line => line.to_string(),
    }
}

/// What a device has that a file does not list.
fn unset(file: &str) -> &'static str {
    match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        name if name.starts_with("blkio.throttle.") => "0",
        "blkio.weight_device" | "blkio.leaf_weight_device" => "0",
        _ => "default",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_back_as_they_take_it() {
        for (file, value, text, want) in [
            ("pids.max", "5", "max\n", "max"),
            ("cpu.max", "5000 10000", "max 100000\n", "max 100000"),
            ("cpu.max", "5000 10000", "5000 100000\n", "5000 100000"),
            ("cpuset.cpus", "0", "\n", "\n"),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "0"),
            ("io.weight", "200", "default 100\n8:0 50\n", "100"),
            ("io.weight", "8:0 200", "default 100\n8:0 50\n", "8:0 50"),
            ("io.weight", "8:16 200", "default 100\n8:0 50\n", "8:16 default"),
            ("io.max", "8:0 rbps=1", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
            (
                "io.max",
                "8:0 rbps=1",
                "8:0 rbps=5 wbps=max riops=max wiops=max\n",
                "8:0 rbps=5 wbps=max riops=max wiops=max",
            ),
            ("blkio.throttle.read_bps_device", "8:0 1", "8:1 7\n", "8:0 0"),
            ("net_prio.ifpriomap", "lo 5", "lo 0\neth0 1\n", "lo 0"),
            ("rdma.max", "mlx hca_handle=1", "mlx hca_handle=max hca_object=9\n", "mlx hca_handle=max hca_object=9"),
        ] {
            assert_eq!(before(file, value, text), want, "{file} {value}");
        }
    }
}
