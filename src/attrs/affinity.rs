//! CPU affinity (config.md, `process.execCPUAffinity`).

use super::list;
use crate::error::Result;
use crate::sys::sched;

/// Runs the process only on these CPUs, a list as in `0-3,7`. An empty list changes nothing.
pub fn apply(cpus: &str) -> Result<()> {
    let mask = list::parse(cpus)?;
    if mask.is_empty() {
        return Ok(());
    }
    sched::set_affinity(&mask).map_err(|e| match e.errno() {
        libc::EINVAL => e.context(format!("cannot run on CPUs {cpus}: none of them is in the cpuset and online")),
        _ => e.context(format!("cannot run on CPUs {cpus}")),
    })
}

/// Lets the process run on every CPU of its cpuset: a container is not bound to those that its caller happens to run on.
pub fn reset() {
    // Words enough for every kernel, which cuts the mask to what it has. A kernel that refuses leaves things as they are,
    // which no configuration asked to be otherwise.
    let _ = sched::set_affinity(&[u64::MAX; 128]);
}

/// Checks a list without applying it.
pub fn check(cpus: &str) -> Result<()> {
    list::parse(cpus).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_cpu_is_told() {
        let e = apply("4000").unwrap_err();
        assert_eq!(e.errno(), libc::EINVAL);
        assert!(e.to_string().contains("CPUs 4000"), "{e}");
        assert!(apply("").is_ok());
        assert!(check("0-").is_err());
    }
}
