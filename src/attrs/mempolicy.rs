//! NUMA memory policy (config-linux.md, "Memory policy").

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use super::list;
use crate::error::{Error, Result};
use crate::sys::sched;

/// Sets mode, flags and nodes.
pub fn apply(policy: &LinuxMemoryPolicy) -> Result<()> {
    let (mode, nodes) = check(policy)?;
    sched::set_mempolicy(mode, &nodes).map_err(|e| {
        let what = format!("cannot set memory policy {} on nodes {:?}", policy.mode(), node_list(policy));
        match e.errno() {
            libc::EINVAL => e.context(format!("{what} (a node is missing, or the kernel does not know mode or flags)")),
            _ => e.context(what),
        }
    })
}

/// The mode with its flags and the nodes' mask, in the kernel's form; an error where they cannot go together.
pub fn check(policy: &LinuxMemoryPolicy) -> Result<(i32, Vec<u64>)> {
    use MemoryPolicyModeType::*;
    let list = node_list(policy);
    let nodes = list::parse(list).map_err(|e| e.context(format!("invalid memory policy nodes {list:?}")))?;
    let mode = match policy.mode() {
        MpolDefault => 0,
        MpolPreferred => 1,
        MpolBind => 2,
        MpolInterleave => 3,
        MpolLocal => 4,
        MpolPreferredMany => 5,
        MpolWeightedInterleave => 6,
    };
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    match policy.mode() {
        MpolDefault | MpolLocal if count != 0 => {
            Err(Error::new(format!("memory policy mode requires 0 nodes but got {count}")))
        }
        MpolBind | MpolInterleave | MpolPreferredMany | MpolWeightedInterleave if count == 0 => {
            Err(Error::new("memory policy mode requires at least one node but got 0"))
        }
        _ => Ok((mode | flags(policy), nodes)),
    }
    .map_err(|e| e.context(format!("linux.memoryPolicy: {}", policy.mode())))
}

fn flags(policy: &LinuxMemoryPolicy) -> i32 {
    let bit = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
    };
    policy.flags().iter().flatten().map(bit).fold(0, |all, bit| all | bit)
}

fn node_list(policy: &LinuxMemoryPolicy) -> &str {
    policy.nodes().as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> LinuxMemoryPolicy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn policies_in_the_kernels_form() {
        let cases: &[(&str, i32, &[u64])] = &[
            (r#"{"mode":"MPOL_DEFAULT"}"#, 0, &[]),
            (r#"{"mode":"MPOL_PREFERRED"}"#, 1, &[]),
            (r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES"]}"#, 2 | 1 << 15, &[1]),
            (r#"{"mode":"MPOL_INTERLEAVE","nodes":"0-1"}"#, 3, &[3]),
            (r#"{"mode":"MPOL_LOCAL"}"#, 4, &[]),
            (r#"{"mode":"MPOL_PREFERRED_MANY","nodes":"1","flags":["MPOL_F_RELATIVE_NODES"]}"#, 5 | 1 << 14, &[2]),
            (r#"{"mode":"MPOL_BIND","nodes":"64","flags":["MPOL_F_NUMA_BALANCING"]}"#, 2 | 1 << 13, &[0, 1]),
        ];
        for (json, mode, nodes) in cases {
            assert_eq!(check(&policy(json)).unwrap(), (*mode, nodes.to_vec()), "{json}");
        }
    }

    #[test]
    fn what_does_not_go_together() {
        let cases = [
            (r#"{"mode":"MPOL_DEFAULT","nodes":"0"}"#, "requires 0 nodes but got 1"),
            (r#"{"mode":"MPOL_BIND"}"#, "requires at least one node but got 0"),
            (r#"{"mode":"MPOL_BIND","nodes":"a"}"#, "invalid memory policy nodes \"a\""),
        ];
        for (json, text) in cases {
            let e = check(&policy(json)).unwrap_err().to_string();
            assert!(e.contains(text), "{e}");
        }
    }
}
