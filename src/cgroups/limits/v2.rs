//! `linux.resources` in the files of cgroup v2, converted as runc does.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory};

use super::{Missing, Write, fault, own_shares, throttles};
use crate::error::Result;

pub(super) fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    let or_max = |value: i64| if value == -1 { "max".to_string() } else { value.to_string() };
    let limit = memory.limit().unwrap_or_default();
    let both = memory.swap().unwrap_or_default();
    if let Some(value) = swap(limit, both)? {
        let harmless = matches!(value, -1 | 0);
        let write = Write::new("memory.swap", "memory", "memory.swap.max", or_max(value));
        // Without swap in the kernel, none and any amount are the same.
        writes.push(if harmless { write.or(Missing::Skip) } else { write });
    }
    if limit != 0 {
        writes.push(Write::new("memory.limit", "memory", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|&value| value != 0) {
        writes.push(Write::new("memory.reservation", "memory", "memory.low", or_max(reservation)));
    }
    Ok(())
}

/// The limit of swap alone, from those of memory and of both together.
fn swap(limit: i64, both: i64) -> Result<Option<i64>> {
    match (limit, both) {
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        (-1, both) => Ok(Some(both)),
        (0, _) => Err(fault("memory.swap", "unable to set swap limit without memory limit")),
        (limit, _) if limit < 0 => Err(fault("memory.limit", format!("invalid memory value: {limit}"))),
        (limit, both) if both < limit => Err(fault("memory.swap", "memory+swap limit should be >= memory limit")),
        (limit, both) => Ok(Some(both - limit)),
    }
}

pub(super) fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    let mut add = |field: &str, file: &'static str, value: String| {
        writes.push(Write::new(&format!("cpu.{field}"), "cpu", file, value).ordered());
    };
    if let Some(idle) = cpu.idle() {
        add("idle", "cpu.idle", idle.to_string());
    }
    if let Some(shares) = own_shares(cpu) {
        add("shares", "cpu.weight", weight(shares).to_string());
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    let period = cpu.period().filter(|&period| period != 0);
    if quota.is_some() || period.is_some() {
        let amount = quota.filter(|&quota| quota > 0).map_or("max".to_string(), |quota| quota.to_string());
        let field = if quota.is_some() { "quota" } else { "period" };
        // The kernel's default is a period of 100 ms.
        add(field, "cpu.max", format!("{amount} {}", period.unwrap_or(100_000)));
    }
    if let Some(burst) = cpu.burst() {
        add("burst", "cpu.max.burst", burst.to_string());
    }
}

/// Shares (2 to 262144, 1024 by default) as a weight (1 to 10000, 100 by default): a curve through these three points,
/// quadratic in the logarithms, so that a container of default shares has the default weight.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

pub(super) fn io(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    let set = |value: Option<u16>| value.filter(|&value| value != 0);
    // The BFQ scheduler takes the weights of v1; the kernel's general weight has another range.
    let general = |weight: u16| 1 + u64::from(weight.saturating_sub(10)) * 9999 / 990;
    if let Some(weight) = set(io.weight()) {
        let write = Write::new("blockIO.weight", "io", "io.bfq.weight", weight);
        writes.push(write.or(Missing::Or("io.weight", general(weight).to_string())));
    }
    for (index, device) in io.weight_device().iter().flatten().enumerate() {
        let Some(weight) = set(device.weight()) else { continue };
        let line = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
        let field = format!("blockIO.weightDevice[{index}].weight");
        let write = Write::new(&field, "io", "io.bfq.weight", line(weight.into()));
        writes.push(write.or(Missing::Or("io.weight", line(general(weight)))));
    }
    for (field, _, key, devices) in throttles(io) {
        for (index, device) in devices.iter().flatten().enumerate() {
            // 0 is no limit in the configuration, and refused by the kernel.
            let rate = if device.rate() == 0 { "max".to_string() } else { device.rate().to_string() };
            let line = format!("{}:{} {key}={rate}", device.major(), device.minor());
            writes.push(Write::new(&format!("blockIO.{field}[{index}]"), "io", "io.max", line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_on_the_known_curve() {
        let known = [(1, 1), (2, 1), (3, 2), (102, 17), (1024, 100), (4096, 303), (262_143, 10_000), (262_144, 10_000)];
        for (shares, want) in known {
            let got = weight(shares);
            assert!(got.abs_diff(want) <= 1, "{shares}: {got}, not {want}");
        }
        assert_eq!((weight(1024), weight(2), weight(262_144)), (100, 1, 10_000));
    }
}
