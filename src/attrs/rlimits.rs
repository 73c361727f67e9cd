//! Resource limits (config.md, `process.rlimits`).

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::error::{Error, Result};

/// Sets all limits. Before a user namespace is entered: to raise a hard limit takes CAP_SYS_RESOURCE in the initial one.
/// That of open files is only raised, as files are still to be opened: see [`finish`].
pub fn apply(rlimits: &[PosixRlimit]) -> Result<()> {
    set(None, rlimits)
}

/// The same for process `pid`.
pub fn apply_to(pid: i32, rlimits: &[PosixRlimit]) -> Result<()> {
    set(Pid::from_raw(pid), rlimits)
}

/// Lowers the limit of open files of this process to what is asked for, right before the program is executed.
pub fn finish(rlimits: &[PosixRlimit]) -> Result<()> {
    for (place, limit) in rlimits.iter().enumerate().filter(|(_, limit)| limit.typ() == PosixRlimitType::RlimitNofile) {
        set_one(None, place, limit, asked(limit))?;
    }
    Ok(())
}

fn set(pid: Option<Pid>, rlimits: &[PosixRlimit]) -> Result<()> {
    for (place, limit) in rlimits.iter().enumerate() {
        let mut new = asked(limit);
        if limit.typ() == PosixRlimitType::RlimitNofile && limit.soft() <= limit.hard() {
            let have = getrlimit(Resource::Nofile);
            let higher = |a: Option<u64>, b: Option<u64>| Some(a?.max(b?));
            new = Rlimit { current: higher(new.current, have.current), maximum: higher(new.maximum, have.maximum) };
        }
        set_one(pid, place, limit, new)?;
    }
    Ok(())
}

fn set_one(pid: Option<Pid>, place: usize, limit: &PosixRlimit, new: Rlimit) -> Result<()> {
    prlimit(pid, resource(limit.typ()), new)
        .map(drop)
        .map_err(|e| explain(limit, e.raw_os_error()).context(format!("process.rlimits[{place}]")))
}

/// A limit as the configuration has it.
fn asked(limit: &PosixRlimit) -> Rlimit {
    let finite = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Rlimit { current: finite(limit.soft()), maximum: finite(limit.hard()) }
}

fn explain(limit: &PosixRlimit, errno: i32) -> Error {
    let name = limit.typ();
    let (soft, hard) = (value(limit.soft()), value(limit.hard()));
    let e = Error::from_errno(errno, format!("cannot set {name} to soft {soft}, hard {hard}"));
    match errno {
        libc::EINVAL if limit.soft() > limit.hard() => {
            e.context(format!("the soft limit of {name} is above the hard one"))
        }
        libc::EPERM => match getrlimit(resource(name)).maximum {
            Some(have) if limit.hard() > have => e.context(format!(
                "the hard limit of {name} is {}, asked for is {hard}, and raising it needs CAP_SYS_RESOURCE",
                value(have)
            )),
            _ if matches!(name, PosixRlimitType::RlimitNofile) => e.context("the limit is above the sysctl fs.nr_open"),
            _ => e,
        },
        _ => e,
    }
}

fn value(limit: u64) -> String {
    if limit == libc::RLIM_INFINITY { "unlimited".to_string() } else { limit.to_string() }
}

fn resource(name: PosixRlimitType) -> Resource {
    match name {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_specification_is_a_resource() {
        for name in [
            "AS",
            "CORE",
            "CPU",
            "DATA",
            "FSIZE",
            "LOCKS",
            "MEMLOCK",
            "MSGQUEUE",
            "NICE",
            "NOFILE",
            "NPROC",
            "RSS",
            "RTPRIO",
            "RTTIME",
            "SIGPENDING",
            "STACK",
        ] {
            let name: PosixRlimitType = format!("RLIMIT_{name}").parse().unwrap();
            assert_eq!(format!("RLIMIT_{:?}", resource(name)).to_uppercase(), name.to_string());
        }
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_told() {
        let limit = serde_json::from_str(r#"{"type":"RLIMIT_CORE","soft":2,"hard":1}"#).unwrap();
        let e = apply(&[limit]).unwrap_err().to_string();
        assert!(e.starts_with("process.rlimits[0]: the soft limit of RLIMIT_CORE is above"), "{e}");
    }
}
