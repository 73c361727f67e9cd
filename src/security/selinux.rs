//! SELinux labels (config.md, `process.selinuxLabel`).

use crate::error::{Error, Result};
use crate::sys::proc::Proc;

const SELINUX_MAGIC: u64 = 0xf97c_ff8c;

/// Makes the next execve(2) of this thread enter `label`. SELinux being off is an error.
pub fn set_exec_label(proc: &Proc, label: &str) -> Result<()> {
    set(proc, "exec", label)
}

/// Labels the session keyring that is made next.
pub fn set_key_label(proc: &Proc, label: &str) -> Result<()> {
    set(proc, "keycreate", label)
}

fn set(proc: &Proc, attribute: &str, label: &str) -> Result<()> {
    proc.write(&format!("thread-self/attr/{attribute}"), label.as_bytes()).map_err(|e| {
        let why = match e.errno() {
            libc::EINVAL => "SELinux is disabled or not supported, or its policy does not know the label",
            libc::ENOENT | libc::EOPNOTSUPP => "SELinux is disabled or not supported",
            libc::EACCES | libc::EPERM => "the policy does not allow the runtime to set it",
            _ => "unexpected",
        };
        e.context(format!("process.selinuxLabel: cannot set label {label:?} ({attribute}): {why}"))
    })
}

/// Whether the kernel of the host has SELinux enabled. From outside a container's root.
pub fn is_enabled() -> bool {
    ["/sys/fs/selinux", "/selinux"]
        .into_iter()
        .any(|path| rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 & 0xffff_ffff == SELINUX_MAGIC))
}

/// An error where a label is asked for and SELinux is off; from outside a container's root.
pub fn check(label: &str) -> Result<()> {
    if label.is_empty() || is_enabled() {
        return Ok(());
    }
    Err(Error::new(format!(
        "process.selinuxLabel: {label:?} is specified in config, but selinux is disabled or not supported"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selinux_being_off_is_told() {
        if is_enabled() {
            return;
        }
        let e = set_exec_label(&Proc::open().unwrap(), "system_u:system_r:container_t:s0").unwrap_err().to_string();
        assert!(e.contains("SELinux is disabled or not supported"), "{e}");
        assert!(check("a").unwrap_err().to_string().contains("selinux is disabled or not supported"));
        assert!(check("").is_ok());
    }
}
