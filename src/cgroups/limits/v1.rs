//! `linux.resources` in the files of cgroup v1, whose language the configuration speaks.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork};

use super::{Missing, Write, fault, own_shares, throttles};
use crate::error::Result;

pub(super) fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    let (limit, swap) = (set(memory.limit()), set(memory.swap()));
    // Each of the two bounds the other, so one of them may have to wait for its turn.
    if let Some(limit) = limit {
        writes.push(Write::new("memory.limit", "memory", "memory.limit_in_bytes", limit).ordered());
    }
    let swap_file = "memory.memsw.limit_in_bytes";
    match (limit, swap) {
        (_, Some(swap)) => writes.push(Write::new("memory.swap", "memory", swap_file, swap).ordered()),
        // No limit of memory means none of swap either.
        (Some(-1), None) => {
            writes.push(Write::new("memory.limit", "memory", swap_file, -1).or(Missing::Skip).ordered());
        }
        _ => {}
    }
    if let Some(reservation) = set(memory.reservation()) {
        writes.push(Write::new("memory.reservation", "memory", "memory.soft_limit_in_bytes", reservation));
    }
    if let Some(tcp) = set(memory.kernel_tcp()) {
        writes.push(Write::new("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", tcp));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory.disableOOMKiller", "memory", "memory.oom_control", 1));
    }
    match memory.swappiness() {
        // -1 as an unsigned number: the default of some engines.
        None | Some(u64::MAX) => {}
        Some(value @ 0..=100) => writes.push(Write::new("memory.swappiness", "memory", "memory.swappiness", value)),
        Some(value) => {
            let why = format!("invalid memory swappiness value: {value} (valid range is 0-100)");
            return Err(fault("memory.swappiness", why));
        }
    }
    Ok(())
}

/// The range of `cpu.shares`, which the kernel keeps without a word.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

pub(super) fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    let mut add = |field: &str, file: &'static str, value: String| {
        writes.push(Write::new(&format!("cpu.{field}"), "cpu", file, value).ordered());
    };
    if let Some(shares) = own_shares(cpu) {
        let bound = shares.clamp(*SHARES.start(), *SHARES.end());
        if shares != bound {
            let word = if shares > bound { "maximum" } else { "minimum" };
            return Err(fault("cpu.shares", format!("the {word} allowed cpu-shares is {bound}, not {shares}")));
        }
        add("shares", "cpu.shares", shares.to_string());
    }
    // Quota and burst are checked against each other, and quota by period against the parent's.
    if let Some(period) = cpu.period().filter(|&period| period != 0) {
        add("period", "cpu.cfs_period_us", period.to_string());
    }
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        add("quota", "cpu.cfs_quota_us", quota.to_string());
    }
    // Before the real-time values, as processes of that class can only join a group that has a budget.
    if let Some(period) = cpu.realtime_period().filter(|&period| period != 0) {
        add("realtimePeriod", "cpu.rt_period_us", period.to_string());
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|&runtime| runtime != 0) {
        add("realtimeRuntime", "cpu.rt_runtime_us", runtime.to_string());
    }
    if let Some(idle) = cpu.idle() {
        add("idle", "cpu.idle", idle.to_string());
    }
    if let Some(burst) = cpu.burst() {
        // Kernels before 5.14 have no bursts.
        let write = Write::new("cpu.burst", "cpu", "cpu.cfs_burst_us", burst).or(Missing::Skip).ordered();
        writes.push(write);
    }
    Ok(())
}

pub(super) fn io(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    let set = |value: Option<u16>| value.filter(|&value| value != 0);
    let bfq = |file, value: &str| Missing::Or(file, value.to_string());
    if let Some(weight) = set(io.weight()).map(|weight| weight.to_string()) {
        let write = Write::new("blockIO.weight", "blkio", "blkio.weight", &weight);
        writes.push(write.or(bfq("blkio.bfq.weight", &weight)));
    }
    if let Some(weight) = set(io.leaf_weight()) {
        writes.push(Write::new("blockIO.leafWeight", "blkio", "blkio.leaf_weight", weight));
    }
    for (index, device) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        let line = |weight| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(line) = set(device.weight()).map(line) {
            let write = Write::new(&field, "blkio", "blkio.weight_device", &line);
            writes.push(write.or(bfq("blkio.bfq.weight_device", &line)));
        }
        if let Some(weight) = set(device.leaf_weight()) {
            writes.push(Write::new(&field, "blkio", "blkio.leaf_weight_device", line(weight)));
        }
    }
    for (field, file, _, devices) in throttles(io) {
        for (index, device) in devices.iter().flatten().enumerate() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            writes.push(Write::new(&format!("blockIO.{field}[{index}]"), "blkio", file, line));
        }
    }
}

pub(super) fn network(network: &LinuxNetwork, writes: &mut Vec<Write>) {
    if let Some(class) = network.class_id().filter(|&class| class != 0) {
        writes.push(Write::new("network.classID", "net_cls", "net_cls.classid", class));
    }
    for (index, priority) in network.priorities().iter().flatten().enumerate() {
        let line = format!("{} {}", priority.name(), priority.priority());
        writes.push(Write::new(&format!("network.priorities[{index}]"), "net_prio", "net_prio.ifpriomap", line));
    }
}
