//! Capability sets (config.md, `process.capabilities`).

use caps::Capability;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use crate::error::{Context, Error, Result};

/// The five sets of a process as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What execve(2) can give at most.
    pub bounding: u64,
    /// What counts in permission checks.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives execve(2) with the file's inheritable set.
    pub inheritable: u64,
    /// What survives execve(2) of a plain file.
    pub ambient: u64,
}

/// The sets of a configuration; absent sets are empty. A capability that the kernel does not have is left out with a
/// warning (the second value).
pub fn plan(config: Option<&LinuxCapabilities>) -> Result<(Sets, Vec<String>)> {
    let Some(config) = config else { return Ok((Sets::default(), Vec::new())) };
    let supported = supported();
    let mut unavailable = 0;
    let mut bits = |set: &Option<Capabilities>| -> Result<u64> {
        let mut bits = 0;
        for capability in set.iter().flatten() {
            bits |= bit(&format!("CAP_{capability}"))?;
        }
        let known = bits & supported;
        unavailable |= bits & !known;
        Ok(known)
    };
    let sets = Sets {
        bounding: bits(config.bounding())?,
        effective: bits(config.effective())?,
        permitted: bits(config.permitted())?,
        inheritable: bits(config.inheritable())?,
        ambient: bits(config.ambient())?,
    };
    Ok((sets, warning(unavailable)))
}

/// Drops everything outside `sets.bounding` from the bounding set. Before the change of user.
pub fn limit_bounding(sets: &Sets) -> Result<()> {
    for capability in 0..u64::BITS {
        let bit = CapabilitySet::from_bits_retain(1 << capability);
        if sets.bounding & bit.bits() != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(bit) {
            Ok(()) => {}
            // Past the last capability of the kernel.
            Err(rustix::io::Errno::INVAL) => break,
            // Without CAP_SETPCAP even what is not in the set cannot be dropped.
            Err(rustix::io::Errno::PERM) if capability_is_in_bounding_set(bit) == Ok(false) => {}
            Err(e) => {
                let what = format!("cannot drop {} from the bounding set (needs CAP_SETPCAP)", name(capability));
                return Err(Error::from(e).context(what));
            }
        }
    }
    Ok(())
}

/// Sets effective, permitted, inheritable and ambient. After the change of user, under PR_SET_KEEPCAPS. `keep` are bits
/// that stay effective and permitted until execve(2) (CAP_SYS_ADMIN, for seccomp).
///
/// What the process itself does not hold cannot be given: it is left out, and told by the warnings that come back
/// (config.md: runtimes "SHOULD NOT fail if the container configuration requests capabilities that cannot be granted").
pub fn apply(sets: &Sets, keep: u64) -> Result<Vec<String>> {
    let have = capabilities(None).context(|| "cannot read capabilities")?;
    let (granted, refused) = grant(sets, have.permitted.bits(), have.inheritable.bits());
    let keep = keep & have.permitted.bits();
    set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(granted.effective | keep),
            permitted: CapabilitySet::from_bits_retain(granted.permitted | keep),
            inheritable: CapabilitySet::from_bits_retain(granted.inheritable),
        },
    )
    .context(|| "can't apply capabilities")?;
    clear_ambient_capability_set().context(|| "cannot clear the ambient capabilities")?;
    let mut warnings = warning(refused);
    for capability in (0..u64::BITS).filter(|capability| sets.ambient >> capability & 1 != 0) {
        let bit = CapabilitySet::from_bits_retain(1 << capability);
        if let Err(e) = configure_capability_in_ambient_set(bit, true) {
            let e = Error::from(e).context(format!("can't raise ambient capability {}", name(capability)));
            warnings.push(e.to_string());
        }
    }
    Ok(warnings)
}

/// The sets that a process with these permitted and inheritable sets can set, and what has to be left out. The ambient
/// set is left as it is.
fn grant(sets: &Sets, permitted: u64, inheritable: u64) -> (Sets, u64) {
    let granted = Sets {
        permitted: sets.permitted & permitted,
        effective: sets.effective & sets.permitted & permitted,
        inheritable: sets.inheritable & (inheritable | permitted & sets.bounding),
        ..*sets
    };
    let refused = (sets.permitted & !granted.permitted)
        | (sets.effective & !granted.effective)
        | (sets.inheritable & !granted.inheritable);
    (granted, refused)
}

/// The names of all capabilities that both vessel and the kernel know, in alphabetical order.
pub fn known() -> Vec<String> {
    let supported = supported();
    let mut names: Vec<_> =
        caps::all().iter().filter(|c| c.bitmask() & supported != 0).map(|c| c.to_string()).collect();
    names.sort_unstable();
    names
}

/// The bit of a capability by its name (`CAP_CHOWN`), None where there is none of that name.
pub fn bit_of(name: &str) -> Option<u64> {
    bit(name).ok()
}

fn bit(name: &str) -> Result<u64> {
    let capability: Capability = name.parse().map_err(|_| Error::new(format!("unknown capability {name:?}")))?;
    Ok(capability.bitmask())
}

/// All capabilities of the running kernel, which numbers them without gaps.
fn supported() -> u64 {
    let known = |n: u32| capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << n)).is_ok();
    let (mut count, mut unknown) = (0, u64::BITS);
    while count < unknown {
        let middle = count.midpoint(unknown);
        if known(middle) { count = middle + 1 } else { unknown = middle }
    }
    1_u64.checked_shl(count).unwrap_or(0).wrapping_sub(1)
}

fn warning(unavailable: u64) -> Vec<String> {
    if unavailable == 0 {
        return Vec::new();
    }
    let names: Vec<_> = (0..u64::BITS).filter(|capability| unavailable >> capability & 1 != 0).map(name).collect();
    vec![format!("ignoring unknown or unavailable capabilities: [{}]", names.join(" "))]
}

fn name(capability: u32) -> String {
    match caps::all().into_iter().find(|c| u32::from(c.index()) == capability) {
        Some(known) => known.to_string(),
        None => format!("CAP_{capability}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;

    #[test]
    fn the_kernels_capabilities_are_those_that_it_has_a_last_one_of() {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        assert_eq!(supported(), (1 << (last.trim().parse::<u32>().unwrap() + 1)) - 1);
    }

    #[test]
    fn names_become_bits() {
        let json = r#"{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_CHOWN"],"ambient":[]}"#;
        let (sets, warnings) = plan(Some(&serde_json::from_str(json).unwrap())).unwrap();
        assert_eq!(sets, Sets { bounding: CHOWN | KILL, effective: CHOWN, ..Sets::default() });
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(plan(None).unwrap().0, Sets::default());
    }

    #[test]
    fn every_capability_has_its_bit() {
        let all: oci_spec::runtime::Capabilities =
            caps::all().iter().map(|c| c.to_string().trim_start_matches("CAP_").parse().unwrap()).collect();
        assert_eq!(all.len(), 41);
        let mut config: LinuxCapabilities = serde_json::from_str("{}").unwrap();
        config.set_permitted(Some(all));
        let (sets, _) = plan(Some(&config)).unwrap();
        assert_eq!(sets.permitted, supported() & ((1 << 41) - 1));
        assert_eq!(bit_of("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit_of("CAP_NOTHING"), None);
    }

    #[test]
    fn what_is_not_held_is_not_asked_for() {
        let all = CHOWN | KILL;
        let sets = |effective, permitted, inheritable| Sets {
            bounding: all,
            effective,
            permitted,
            inheritable,
            ..Sets::default()
        };
        // (asked, held permitted, held inheritable, given, refused)
        let cases = [
            (sets(all, all, all), all, 0, sets(all, all, all), 0),
            (sets(all, all, all), CHOWN, 0, sets(CHOWN, CHOWN, CHOWN), KILL),
            (sets(all, CHOWN, 0), all, 0, sets(CHOWN, CHOWN, 0), KILL),
            (sets(0, 0, KILL), 0, KILL, sets(0, 0, KILL), 0),
        ];
        for (asked, permitted, inheritable, given, refused) in cases {
            assert_eq!(grant(&asked, permitted, inheritable), (given, refused), "{asked:?}");
        }
        assert_eq!(warning(KILL), ["ignoring unknown or unavailable capabilities: [CAP_KILL]"]);
    }
}
