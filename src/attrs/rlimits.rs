//! Resource limits (config.md, `process.rlimits`).

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use crate::error::{Error, Result};

/// Sets all limits. Before a user namespace is entered: to raise a hard limit takes CAP_SYS_RESOURCE in the initial one.
pub fn apply(rlimits: &[PosixRlimit]) -> Result<()> {
    for (place, limit) in rlimits.iter().enumerate() {
        setrlimit(resource(limit.typ()), limit.soft(), limit.hard())
            .map_err(|e| explain(limit, e as i32).context(format!("process.rlimits[{place}]")))?;
    }
    Ok(())
}

fn explain(limit: &PosixRlimit, errno: i32) -> Error {
    let name = limit.typ();
    let (soft, hard) = (value(limit.soft()), value(limit.hard()));
    let e = Error::from_errno(errno, format!("cannot set {name} to soft {soft}, hard {hard}"));
    match errno {
        libc::EINVAL if limit.soft() > limit.hard() => {
            e.context(format!("the soft limit of {name} is above the hard one"))
        }
        libc::EPERM => match getrlimit(resource(name)) {
            Ok((_, have)) if limit.hard() > have => e.context(format!(
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
    if limit == RLIM_INFINITY { "unlimited".to_string() } else { limit.to_string() }
}

fn resource(name: PosixRlimitType) -> Resource {
    match name {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
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
            assert_eq!(format!("{:?}", resource(name)), name.to_string());
        }
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_told() {
        let limit = serde_json::from_str(r#"{"type":"RLIMIT_CORE","soft":2,"hard":1}"#).unwrap();
        let e = apply(&[limit]).unwrap_err().to_string();
        assert!(e.starts_with("process.rlimits[0]: the soft limit of RLIMIT_CORE is above"), "{e}");
    }
}
