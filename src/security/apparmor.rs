//! AppArmor profiles (config.md, `process.apparmorProfile`).

use crate::error::{Error, Result};
use crate::sys::proc::Proc;

/// Where the kernel takes the profile: AppArmor's own file, and the one that it shared with other modules before it had
/// that.
const ATTRIBUTES: [&str; 2] = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];

/// Makes the next execve(2) of this thread enter `profile`, which may be `unconfined`. AppArmor being off is an error.
pub fn set_exec_profile(proc: &Proc, profile: &str) -> Result<()> {
    let text = format!("exec {profile}");
    let [own, shared] = ATTRIBUTES;
    let result = match proc.open_file(own, rustix::fs::OFlags::WRONLY) {
        Err(e) if e.errno() == libc::ENOENT => proc.write(shared, text.as_bytes()),
        _ => proc.write(own, text.as_bytes()),
    };
    result.map_err(|e| explain(e, profile))
}

fn explain(e: Error, profile: &str) -> Error {
    let why = match e.errno() {
        libc::ENOENT => "the profile is not loaded (apparmor_parser loads it)",
        libc::EINVAL | libc::EOPNOTSUPP | libc::ENODEV => "apparmor is not enabled in this kernel",
        libc::EPERM | libc::EACCES => {
            "the change to it is not allowed (perhaps by no_new_privs, or the present profile)"
        }
        _ => "unexpected",
    };
    e.context(format!("process.apparmorProfile: apparmor failed to apply profile {profile:?}: {why}"))
}

/// Whether the kernel of the host has AppArmor enabled. From outside a container's root.
pub fn is_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told() {
        if is_enabled() {
            let e = set_exec_profile(&Proc::open().unwrap(), "vessel-no-such-profile").unwrap_err().to_string();
            assert!(e.contains("\"vessel-no-such-profile\": the profile is not loaded"), "{e}");
        } else {
            let e = set_exec_profile(&Proc::open().unwrap(), "docker-default").unwrap_err().to_string();
            assert!(e.contains("\"docker-default\": apparmor is not enabled"), "{e}");
        }
    }
}
