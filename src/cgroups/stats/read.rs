//! Reading the files that count.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Pressure, Psi, Stats, Used};
use crate::cgroups::{Dir, files};
use crate::error::{Error, Result};

/// What reads the counts of one controller.
pub(super) type Part = fn(&Files, &mut Stats) -> Result<()>;

/// A directory of a cgroup. What the kernel does not have, or what is turned off, is none.
pub(super) struct Files {
    path: PathBuf,
    fd: OwnedFd,
}

impl Files {
    pub(super) fn open(dir: &Dir) -> Result<Files> {
        let path = dir.directory();
        let fd = files::open_dir(&path)
            .map_err(|e| Error::from_errno(e.raw_os_error(), format!("cannot open the cgroup {}", path.display())))?;
        Ok(Files { path, fd })
    }

    /// A file's text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        match files::open_file(&self.fd, name, OFlags::RDONLY).and_then(|file| files::read_all(file.as_fd())) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            Err(e) => Err(files::cannot_read(e, &self.path, name)),
        }
    }

    /// A file with one number; `max` is the largest.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.trim() {
            "max" => Ok(Some(u64::MAX)),
            number => number.parse().map(Some).map_err(|_| self.odd(name, &text)),
        }
    }

    /// The same where nothing counts as 0.
    pub(super) fn count(&self, name: &str) -> Result<u64> {
        Ok(self.number(name)?.unwrap_or_default())
    }

    /// A file of lines `NAME NUMBER`.
    pub(super) fn table(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(name)?.unwrap_or_default();
        let line = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_string(), value.trim().parse().ok()?))
        };
        text.lines().map(line).collect::<Option<_>>().ok_or_else(|| self.odd(name, &text))
    }

    /// A file of numbers in one line.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<u64>> {
        let text = self.text(name)?.unwrap_or_default();
        text.split_whitespace()
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()
            .ok_or_else(|| self.odd(name, &text))
    }

    /// A file of pressure.
    pub(super) fn pressure(&self, name: &str) -> Result<Option<Psi>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        pressure(&text).map(Some).ok_or_else(|| self.odd(name, &text))
    }

    /// The counts of huge pages: files of a size, of which some may have another name in older kernels.
    pub(super) fn hugetlb(
        &self,
        read: impl Fn(&Files, &str) -> Result<Option<Used>>,
    ) -> Result<BTreeMap<String, Used>> {
        let mut all = BTreeMap::new();
        let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
        for size in sizes.filter_map(|entry| page_size(entry.file_name().to_str()?)) {
            if let Some(counts) = read(self, &size)? {
                all.insert(size, counts);
            }
        }
        Ok(all)
    }

    pub(super) fn odd(&self, name: &str, text: &str) -> Error {
        let text: String = text.chars().take(80).collect();
        Error::new(format!("{} is not understood: {text:?}", self.path.join(name).display()))
    }
}

fn pressure(text: &str) -> Option<Psi> {
    let mut psi = Psi::default();
    for line in text.lines() {
        let (kind, values) = line.split_once(' ')?;
        let mut of = Pressure::default();
        for value in values.split(' ') {
            let (key, value) = value.split_once('=')?;
            match key {
                "avg10" => of.avg10 = value.parse().ok()?,
                "avg60" => of.avg60 = value.parse().ok()?,
                "avg300" => of.avg300 = value.parse().ok()?,
                "total" => of.total = value.parse().ok()?,
                _ => {}
            }
        }
        match kind {
            "some" => psi.some = of,
            "full" => psi.full = of,
            _ => {}
        }
    }
    Some(psi)
}

/// A size as the files of the controller have it, from the name in /sys/kernel/mm/hugepages.
fn page_size(name: &str) -> Option<String> {
    let mut size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let mut units = ["KB", "MB"].iter();
    while size >= 1024
        && let Some(_) = units.next()
    {
        size /= 1024;
    }
    Some(format!("{size}{}", units.next().unwrap_or(&"GB")))
}

/// Numbers as `0-3,7`.
pub(super) fn list(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.25 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let psi = pressure(text).unwrap();
        assert_eq!((psi.some.avg10, psi.some.avg300, psi.some.total, psi.full.total), (1.5, 0.25, 42, 7));
        assert!(pressure("some avg10=x").is_none());
    }

    #[test]
    fn sizes_of_huge_pages_have_two_names() {
        for (name, want) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-16777216kB", Some("16GB")),
            ("other", None),
        ] {
            assert_eq!(page_size(name).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(list("0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(list("\n"), Some(vec![]));
        assert_eq!(list("a"), None);
    }
}
