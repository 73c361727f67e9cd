//! The options that the cgroup v2 file system of the host is mounted with, which CRIU resets where it mounts it for itself
//! (https://github.com/checkpoint-restore/criu/issues/3029).

use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::FsPickFlags;

use crate::error::{Context, Result};
use crate::log;

/// Puts the options back when it is dropped, where they have changed.
#[derive(Debug)]
pub struct KeptOptions(Option<(PathBuf, Vec<String>)>);

impl KeptOptions {
    /// Notes the options that hold now.
    pub fn note() -> KeptOptions {
        KeptOptions(options(&table()))
    }
}

impl Drop for KeptOptions {
    fn drop(&mut self) {
        let Some((place, wanted)) = self.0.take() else { return };
        if options(&table()).is_some_and(|(_, now)| wanted.iter().all(|option| now.contains(option))) {
            return;
        }
        if let Err(e) = set(&place, &wanted) {
            let (place, wanted) = (place.display(), wanted.join(","));
            log::warn(&format!("{place} is mounted without {wanted} now, and they cannot be put back: {e}"));
        }
    }
}

fn table() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// Where cgroup v2 is mounted, and the options of the file system itself.
fn options(mountinfo: &str) -> Option<(PathBuf, Vec<String>)> {
    mountinfo.lines().find_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        let mut fs = fs.split(' ');
        (fs.next()? == "cgroup2").then_some(())?;
        let options = fs.nth(1)?.split(',').filter(|option| !matches!(*option, "rw" | "ro"));
        Some((mount.split(' ').nth(4)?.into(), options.map(String::from).collect()))
    })
}

fn set(place: &Path, options: &[String]) -> Result<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_NO_AUTOMOUNT;
    let fs = rustix::mount::fspick(CWD, place, flags).context(|| "fspick")?;
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&fs, key, value),
            None => rustix::mount::fsconfig_set_flag(&fs, option.as_str()),
        }
        .context(|| option.clone())?;
    }
    rustix::mount::fsconfig_reconfigure(&fs).context(|| "fsconfig")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_file_system_are_told_from_those_of_the_mount() {
        let table = "24 1 0:22 / /sys rw,nosuid shared:2 - sysfs sysfs rw\n\
            30 24 0:26 / /sys/fs/cgroup rw,nosuid,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let (place, found) = options(table).unwrap();
        assert_eq!((place, found.join(",")), ("/sys/fs/cgroup".into(), "nsdelegate,memory_recursiveprot".to_string()));
        assert_eq!(options("24 1 0:22 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
