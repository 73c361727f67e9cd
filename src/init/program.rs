//! Which file is executed, and why that fails where it does.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use crate::error::{Error, Result};

/// Finds the file for `args[0]` in the root that this process is in: as execvp(3) does, with the PATH of the container.
/// The wording is what engines look for to tell "not found" (exit code 127) from "not executable" (126).
pub fn find(name: &str, path: Option<&str>) -> Result<CString> {
    if name.is_empty() {
        return Err(Error::new("process.args[0]: exec: \"\": executable file not found in $PATH"));
    }
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => cstring(name),
            Err(e) if e == libc::ENOENT => Err(Error::from_errno(e, format!("exec: {name:?}: stat {name}"))),
            Err(e) => Err(Error::from_errno(e, format!("exec: {name:?}{}", why_not(Path::new(name), e)))),
        };
    }
    let mut denied = None;
    // No PATH is not an empty entry in it, which stands for the working directory.
    for dir in path.into_iter().filter(|path| !path.is_empty()).flat_map(|path| path.split(':')) {
        let file = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match executable(&file) {
            Ok(()) => return cstring(&file.to_string_lossy()),
            Err(e) if e == libc::EACCES => denied = denied.or(Some(file)),
            Err(_) => {}
        }
    }
    if let Some(file) = denied {
        let hint = why_not(&file, libc::EACCES);
        return Err(Error::from_errno(libc::EACCES, format!("exec: {:?}{hint}", file.display().to_string())));
    }
    let hint = match (path, name.contains(' ')) {
        (_, true) => " (the name has blanks in it: is it a whole command line?)".to_string(),
        (None, _) => " (process.env sets no PATH)".to_string(),
        (Some(path), _) => format!(" (PATH={path})"),
    };
    Err(Error::new(format!("exec: {name:?}: executable file not found in $PATH{hint}")))
}

fn cstring(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| Error::new(format!("process.args[0]: {path:?} has a zero byte in it")))
}

/// Whether this process may execute the file; else the errno.
fn executable(path: &Path) -> std::result::Result<(), i32> {
    let metadata = std::fs::metadata(path).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))?;
    if metadata.is_dir() {
        return Err(libc::EISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(rustix::io::Errno::raw_os_error)
}

fn why_not(path: &Path, errno: i32) -> &'static str {
    if errno != libc::EACCES {
        return "";
    }
    match std::fs::metadata(path) {
        Ok(m) if m.file_type().is_char_device() || m.file_type().is_fifo() => " (it is not a regular file)",
        Ok(m) if m.mode() & 0o111 == 0 => " (the file has no x bit)",
        Ok(_) => match rustix::fs::statvfs(path) {
            Ok(s) if s.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) => " (its mount is noexec)",
            _ => " (the user of the process has no x bit on it)",
        },
        Err(_) => " (a directory on the way may not be searched by the user of the process)",
    }
}

/// What hides behind the errno of a failed execve(2): the kernel says ENOENT too where the file is there but what it
/// needs is not.
pub fn explain(path: &CString, errno: i32) -> String {
    let head = read_regular(Path::new(&*path.to_string_lossy()), 4096);
    match errno {
        libc::ENOENT | libc::EACCES | libc::ELIBBAD => match interpreter(&head) {
            Some(name) if name.ends_with('\r') => {
                format!("its first line names the interpreter {:?}: it ends in CR LF, as on Windows", name.trim_end())
            }
            Some(name) if !Path::new(&name).exists() => {
                format!("its interpreter {name} is not there")
            }
            Some(name) => format!("its interpreter is {name}"),
            None => String::new(),
        },
        libc::ENOEXEC if head.is_empty() => "the file is empty".to_string(),
        libc::ENOEXEC if head.starts_with(b"\x7fELF") => match head.get(18..20) {
            Some(&[a, b]) => format!(
                "it is a program for {}, this machine is {}",
                machine(u16::from_le_bytes([a, b])),
                std::env::consts::ARCH
            ),
            _ => String::new(),
        },
        libc::ENOEXEC => "it is neither a program nor begins with a #! line".to_string(),
        _ => String::new(),
    }
}

/// The beginning of a file of the container, which may have put anything at the path: what is no regular file, as a fifo
/// on which we would wait for ever, reads as empty.
pub(super) fn read_regular(path: &Path, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(path, flags, Mode::empty()).map(File::from)
        && file.metadata().is_ok_and(|m| m.is_file())
    {
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    bytes
}

fn machine(number: u16) -> String {
    match number {
        3 => "x86".to_string(),
        20 | 21 => "powerpc".to_string(),
        22 => "s390x".to_string(),
        40 => "arm".to_string(),
        62 => "x86_64".to_string(),
        183 => "aarch64".to_string(),
        243 => "riscv".to_string(),
        258 => "loongarch".to_string(),
        other => format!("the machine {other}"),
    }
}

/// The interpreter that a script's first line or an ELF program names.
fn interpreter(head: &[u8]) -> Option<String> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next()?;
        let line = String::from_utf8_lossy(line);
        return line.trim_start_matches([' ', '\t']).split([' ', '\t']).next().map(str::to_string);
    }
    // A 64-bit program: program headers at e_phoff (32), each e_phentsize (54) long, e_phnum (56) of them.
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = head.get(at..at + size)?;
        usize::try_from(bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b))).ok()
    };
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for i in 0..count {
        let header = offset.checked_add(i.checked_mul(size)?)?;
        if number(header, 4)? == 3 {
            let (at, len) = (number(header + 8, 8)?, number(header + 32, 8)?);
            let name = head.get(at..at.checked_add(len)?)?;
            return Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_of_scripts() {
        assert_eq!(interpreter(b"#! /bin/sh -e\nx").as_deref(), Some("/bin/sh"));
        assert_eq!(interpreter(b"#!/bin/sh\r\nx").as_deref(), Some("/bin/sh\r"));
        assert_eq!(interpreter(b"\x7fELF\x02\x01"), None);
        assert_eq!(interpreter(b""), None);
    }
}
