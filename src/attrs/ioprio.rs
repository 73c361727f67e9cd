//! I/O priority (config.md, `process.ioPriority`).

use oci_spec::runtime::{IOPriorityClass, LinuxIOPriority};

use crate::error::{Error, Result};
use crate::sys::sched;

/// Sets class and priority. The class RT needs CAP_SYS_ADMIN or CAP_SYS_NICE on the host.
pub fn apply(priority: &LinuxIOPriority) -> Result<()> {
    let value = value(priority)?;
    sched::set_io_priority(value).map_err(|e| {
        let what = format!("cannot set I/O priority {} of class {}", priority.priority(), priority.class());
        match e.errno() {
            libc::EPERM => e.context(format!("{what} (the class needs CAP_SYS_NICE on the host)")),
            _ => e.context(what),
        }
    })
}

/// The kernel's form of a priority.
pub fn value(priority: &LinuxIOPriority) -> Result<i32> {
    let level = match i32::try_from(priority.priority()) {
        Ok(level @ 0..=7) => level,
        _ => {
            let text = format!("process.ioPriority: invalid ioPriority.Priority: {} (0 to 7)", priority.priority());
            return Err(Error::new(text));
        }
    };
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(class << 13 | level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_levels() {
        for (class, level, want) in [("RT", 0, 1 << 13), ("BE", 4, 2 << 13 | 4), ("IDLE", 7, 3 << 13 | 7)] {
            let text = format!(r#"{{"class":"IOPRIO_CLASS_{class}","priority":{level}}}"#);
            assert_eq!(value(&serde_json::from_str(&text).unwrap()).unwrap(), want);
        }
        for level in [-1, 8] {
            let text = format!(r#"{{"class":"IOPRIO_CLASS_BE","priority":{level}}}"#);
            assert!(value(&serde_json::from_str(&text).unwrap()).is_err());
        }
    }
}
