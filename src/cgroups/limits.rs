//! `linux.resources` as values for files of the kernel. Nothing here touches the system.
//!
//! The configuration speaks the language of v1 (shares, memory and swap together); on v2 it is translated as runc does.
//! In most fields 0 means "not set".

use std::borrow::Cow;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};

use crate::error::{Cause, Error, Result};

/// A value for a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// The place in config.json.
    pub field: String,
    /// The controller that has the file.
    pub controller: Cow<'static, str>,
    /// The file's name.
    pub file: Cow<'static, str>,
    /// What to write.
    pub value: String,
    /// What to do where the kernel has no such file.
    pub missing: Missing,
    /// Whether the kernel may refuse the value until another one of the same controller is set.
    pub ordered: bool,
}

/// What to do where the kernel has no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The limit cannot be set.
    Fail,
    /// The limit has no meaning then.
    Skip,
    /// Another file carries it, with another value.
    Or(&'static str, String),
}

impl Write {
    fn new(field: &str, controller: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Write {
        Write {
            field: format!("linux.resources.{field}"),
            controller: controller.into(),
            file: file.into(),
            value: value.to_string(),
            missing: Missing::Fail,
            ordered: false,
        }
    }

    fn or(mut self, missing: Missing) -> Write {
        self.missing = missing;
        self
    }

    fn ordered(mut self) -> Write {
        self.ordered = true;
        self
    }

    /// Whether the controller has to be enabled before. The files of `unified` tell that themselves: not each prefix is
    /// a controller's name (`cgroup.max.depth`).
    pub(super) fn needs_controller(&self) -> bool {
        !self.field.starts_with("linux.resources.unified")
    }

    /// The error of a v1 host that has no such hierarchy, or where it may not be used.
    pub(super) fn no_hierarchy(&self) -> Error {
        let name = &self.controller;
        Error::new(format!("{}: cannot set {name} limit: container could not join or create cgroup", self.field))
    }
}

fn fault(field: &str, why: impl std::fmt::Display) -> Error {
    Error::of(Cause::Config, format!("linux.resources.{field}: {why}"))
}

/// The writes that carry out `resources`, those of a controller together. `pids_limit` is `pids.limit` where it is set,
/// as the type of `resources` cannot tell 0 from nothing.
pub(super) fn plan(resources: Option<&LinuxResources>, pids_limit: Option<i64>, unified: bool) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    let of_type = resources.and_then(|resources| resources.pids().map(|pids| pids.limit())).filter(|&limit| limit != 0);
    if let Some(limit) = pids_limit.or(of_type) {
        writes.push(pids(limit));
    }
    let Some(resources) = resources else { return Ok(writes) };
    if let Some(memory) = resources.memory() {
        if unified { memory_v2(memory, &mut writes)? } else { memory_v1(memory, &mut writes)? }
    }
    if let Some(io) = resources.block_io() {
        check_weights(io)?;
        if unified { io_v2(io, &mut writes) } else { io_v1(io, &mut writes) }
    }
    if let Some(cpu) = resources.cpu() {
        if unified {
            cpu_v2(cpu, &mut writes);
        } else {
            cpu_v1(cpu, &mut writes)?;
        }
        cpuset(cpu, &mut writes);
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        hugepages(index, limit, unified, &mut writes)?;
    }
    if let Some(network) = resources.network().as_ref().filter(|_| !unified) {
        network_v1(network, &mut writes);
    }
    rdma(resources, &mut writes);
    self::unified(resources, unified, &mut writes)?;
    Ok(writes)
}

/// What of `resources` the host's cgroups cannot carry out and runtimes leave out by custom, for a warning.
pub(super) fn ignored(resources: &LinuxResources, unified: bool) -> Vec<String> {
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    let io = resources.block_io().as_ref();
    let set = |value: Option<u64>| value.is_some_and(|value| value != 0);
    #[allow(deprecated)]
    let kernel = memory.is_some_and(|memory| memory.kernel().is_some());
    let v2 = [
        ("memory.kernelTCP", memory.is_some_and(|memory| memory.kernel_tcp().is_some())),
        ("memory.swappiness", memory.is_some_and(|memory| memory.swappiness().is_some())),
        ("memory.disableOOMKiller", memory.is_some_and(|memory| memory.disable_oom_killer() == Some(true))),
        ("cpu.realtimeRuntime", cpu.is_some_and(|cpu| cpu.realtime_runtime().is_some_and(|value| value != 0))),
        ("cpu.realtimePeriod", cpu.is_some_and(|cpu| set(cpu.realtime_period()))),
        ("blockIO.leafWeight", io.is_some_and(|io| set(io.leaf_weight().map(u64::from)))),
        ("network.classID", resources.network().as_ref().is_some_and(|network| network.class_id().is_some())),
        ("network.priorities", resources.network().as_ref().is_some_and(|network| network.priorities().is_some())),
    ];
    let left_out = |name: &str, why: &str| format!("linux.resources.{name} is ignored: {why}");
    let mut warnings = Vec::new();
    if kernel {
        warnings.push(left_out("memory.kernel", "the kernel has dropped limits of its own memory"));
    }
    if cpu.is_some_and(|cpu| set(cpu.shares()) && cpu.idle() == Some(1)) {
        warnings.push(left_out(
            "cpu.shares",
            "unable to apply both cpu.shares and cpu.idle, as an idle cgroup has a weight of its own",
        ));
    }
    let v2 = v2.into_iter().filter(|&(_, found)| unified && found);
    warnings.extend(v2.map(|(name, _)| left_out(name, "cgroup v2 has nothing like it")));
    warnings
}

/// 0 becomes 1, as with systemd, which knows no 0: with init in the cgroup both forbid every fork.
fn pids(limit: i64) -> Write {
    let value = match limit {
        0 => "1".to_string(),
        1.. => limit.to_string(),
        _ => "max".to_string(),
    };
    Write::new("pids.limit", "pids", "pids.max", value)
}

fn memory_v1(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
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

fn memory_v2(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    let or_max = |value: i64| if value == -1 { "max".to_string() } else { value.to_string() };
    let limit = memory.limit().unwrap_or_default();
    let swap = memory.swap().unwrap_or_default();
    if let Some(value) = swap_v2(limit, swap)? {
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
fn swap_v2(limit: i64, both: i64) -> Result<Option<i64>> {
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

/// The range of `cpu.shares`, which the kernel keeps without a word.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

fn cpu_v1(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
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

fn cpu_v2(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
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

/// The shares that can be set: an idle cgroup has a weight of its own, and the kernel refuses another one.
fn own_shares(cpu: &LinuxCpu) -> Option<u64> {
    cpu.shares().filter(|&shares| shares != 0 && cpu.idle() != Some(1))
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

fn cpuset(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    let mut add = |field: &str, file: &'static str, value: &Option<String>| {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            writes.push(Write::new(&format!("cpu.{field}"), "cpuset", file, value));
        }
    };
    add("cpus", "cpuset.cpus", cpu.cpus());
    add("mems", "cpuset.mems", cpu.mems());
}

fn throttles(io: &LinuxBlockIo) -> [(&'static str, &'static str, &'static str, &Option<Vec<LinuxThrottleDevice>>); 4] {
    [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ]
}

/// The range of weights in the specification; the kernel's own differ from scheduler to scheduler.
fn check_weights(io: &LinuxBlockIo) -> Result<()> {
    let check = |field: &str, value: Option<u16>| match value {
        None | Some(0 | 10..=1000) => Ok(()),
        Some(value) => Err(fault(field, format!("{value} is not in the range 10-1000"))),
    };
    check("blockIO.weight", io.weight())?;
    check("blockIO.leafWeight", io.leaf_weight())?;
    for (index, device) in io.weight_device().iter().flatten().enumerate() {
        check(&format!("blockIO.weightDevice[{index}].weight"), device.weight())?;
        check(&format!("blockIO.weightDevice[{index}].leafWeight"), device.leaf_weight())?;
    }
    Ok(())
}

fn io_v1(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
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

fn io_v2(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
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

/// The limit of pages that are used, and where the kernel has it (5.7) the one of pages that are reserved.
fn hugepages(index: usize, limit: &LinuxHugepageLimit, unified: bool, writes: &mut Vec<Write>) -> Result<()> {
    let size = limit.page_size();
    let field = format!("hugepageLimits[{index}]");
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(fault(&format!("{field}.pageSize"), format!("{size:?} is not a size as in 2MB")));
    }
    let suffix = if unified { "max" } else { "limit_in_bytes" };
    let file = |part: &str| format!("hugetlb.{size}{part}.{suffix}");
    writes.push(Write::new(&field, "hugetlb", file(""), limit.limit()));
    writes.push(Write::new(&field, "hugetlb", file(".rsvd"), limit.limit()).or(Missing::Skip));
    Ok(())
}

fn network_v1(network: &LinuxNetwork, writes: &mut Vec<Write>) {
    if let Some(class) = network.class_id().filter(|&class| class != 0) {
        writes.push(Write::new("network.classID", "net_cls", "net_cls.classid", class));
    }
    for (index, priority) in network.priorities().iter().flatten().enumerate() {
        let line = format!("{} {}", priority.name(), priority.priority());
        writes.push(Write::new(&format!("network.priorities[{index}]"), "net_prio", "net_prio.ifpriomap", line));
    }
}

fn rdma(resources: &LinuxResources, writes: &mut Vec<Write>) {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    for (name, limits) in devices {
        let part = |key: &str, value: Option<u32>| value.map(|value| format!(" {key}={value}")).unwrap_or_default();
        let line = name.clone() + &part("hca_handle", limits.hca_handles()) + &part("hca_object", limits.hca_objects());
        writes.push(Write::new(&format!("rdma.{name}"), "rdma", "rdma.max", line));
    }
}

/// The files of v2 by their own names: each line of a value is one write.
fn unified(resources: &LinuxResources, unified: bool, writes: &mut Vec<Write>) -> Result<()> {
    let mut keys: Vec<_> = resources.unified().iter().flatten().collect();
    keys.sort();
    for (key, value) in keys {
        if !unified {
            return Err(fault("unified", "invalid configuration: cannot use unified on cgroup v1"));
        }
        if key.contains('/') {
            return Err(fault("unified", format!("unified resource {key:?} must be a file name (no slashes)")));
        }
        let Some((controller, _)) = key.split_once('.').filter(|(controller, _)| !controller.is_empty()) else {
            let why = format!("unified resource {key:?} must be in the form CONTROLLER.PARAMETER");
            return Err(fault("unified", why));
        };
        for line in value.lines().filter(|line| !line.is_empty()) {
            let mut write = Write::new(&format!("unified.{key}"), "", key.clone(), line);
            write.controller = controller.to_string().into();
            writes.push(write);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str, unified: bool) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let writes = plan(Some(&resources), None, unified).unwrap();
        writes.into_iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    fn refusal(json: &str, unified: bool) -> String {
        plan(Some(&serde_json::from_str(json).unwrap()), None, unified).unwrap_err().to_string()
    }

    #[test]
    fn each_field_has_its_files() {
        for (json, v1, v2) in [
            (
                r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#,
                &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=150", "memory.soft_limit_in_bytes=50"][..],
                &["memory.swap.max=50", "memory.max=100", "memory.low=50"][..],
            ),
            (
                r#"{"memory":{"limit":-1}}"#,
                &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
                &["memory.swap.max=max", "memory.max=max"],
            ),
            (
                r#"{"memory":{"limit":100,"swap":100}}"#,
                &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=100"],
                &["memory.swap.max=0", "memory.max=100"],
            ),
            (
                r#"{"memory":{"limit":0,"swap":0,"swappiness":60,"disableOOMKiller":true,"kernel":7,
                "kernelTCP":9}}"#,
                &["memory.kmem.tcp.limit_in_bytes=9", "memory.oom_control=1", "memory.swappiness=60"],
                &[],
            ),
            (
                r#"{"cpu":{"shares":1024,"quota":5000,"period":10000,"burst":1000,"idle":0,"cpus":"0-1","mems":"0"}}"#,
                &[
                    "cpu.shares=1024",
                    "cpu.cfs_period_us=10000",
                    "cpu.cfs_quota_us=5000",
                    "cpu.idle=0",
                    "cpu.cfs_burst_us=1000",
                    "cpuset.cpus=0-1",
                    "cpuset.mems=0",
                ],
                &[
                    "cpu.idle=0",
                    "cpu.weight=100",
                    "cpu.max=5000 10000",
                    "cpu.max.burst=1000",
                    "cpuset.cpus=0-1",
                    "cpuset.mems=0",
                ],
            ),
            // An idle cgroup has a weight of its own.
            (r#"{"cpu":{"shares":512,"idle":1}}"#, &["cpu.idle=1"], &["cpu.idle=1"]),
            (r#"{"cpu":{"quota":-1}}"#, &["cpu.cfs_quota_us=-1"], &["cpu.max=max 100000"]),
            (r#"{"cpu":{"period":20000}}"#, &["cpu.cfs_period_us=20000"], &["cpu.max=max 20000"]),
            (
                r#"{"cpu":{"realtimeRuntime":5,"realtimePeriod":10}}"#,
                &["cpu.rt_period_us=10", "cpu.rt_runtime_us=5"],
                &[],
            ),
            (r#"{"pids":{"limit":7}}"#, &["pids.max=7"], &["pids.max=7"]),
            (
                r#"{"blockIO":{"weight":500,"leafWeight":10,"weightDevice":[{"major":8,"minor":0,"weight":1000}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}],
                "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":0}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":8}]}}"#,
                &[
                    "blkio.weight=500",
                    "blkio.leaf_weight=10",
                    "blkio.weight_device=8:0 1000",
                    "blkio.throttle.read_bps_device=8:0 9",
                    "blkio.throttle.write_bps_device=8:0 0",
                    "blkio.throttle.write_iops_device=8:1 8",
                ],
                &[
                    "io.bfq.weight=500",
                    "io.bfq.weight=8:0 1000",
                    "io.max=8:0 rbps=9",
                    "io.max=8:0 wbps=max",
                    "io.max=8:1 wiops=8",
                ],
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#,
                &["hugetlb.2MB.limit_in_bytes=4", "hugetlb.2MB.rsvd.limit_in_bytes=4"],
                &["hugetlb.2MB.max=4", "hugetlb.2MB.rsvd.max=4"],
            ),
            (
                r#"{"network":{"classID":3,"priorities":[{"name":"eth0","priority":5}]}}"#,
                &["net_cls.classid=3", "net_prio.ifpriomap=eth0 5"],
                &[],
            ),
            (
                r#"{"rdma":{"mlx":{"hcaHandles":1,"hcaObjects":2},"a":{"hcaObjects":3}}}"#,
                &["rdma.max=a hca_object=3", "rdma.max=mlx hca_handle=1 hca_object=2"],
                &["rdma.max=a hca_object=3", "rdma.max=mlx hca_handle=1 hca_object=2"],
            ),
        ] {
            assert_eq!(lines(json, false), v1, "{json}");
            assert_eq!(lines(json, true), v2, "{json}");
        }
    }

    #[test]
    fn unified_keys_are_files_of_v2() {
        let json = r#"{"unified":{"memory.high":"5","io.max":"8:0 rbps=1\n8:1 rbps=2\n"}}"#;
        assert_eq!(lines(json, true), ["io.max=8:0 rbps=1", "io.max=8:1 rbps=2", "memory.high=5"]);
        assert!(refusal(json, false).contains("cannot use unified on cgroup v1"));
        assert!(refusal(r#"{"unified":{"../x":"1"}}"#, true).contains("must be a file name (no slashes)"));
        assert!(refusal(r#"{"unified":{"memory":"1"}}"#, true).contains("in the form CONTROLLER.PARAMETER"));
    }

    #[test]
    fn impossible_values_name_their_field() {
        for (json, unified, want) in [
            (r#"{"memory":{"swap":5}}"#, true, "linux.resources.memory.swap: unable to set swap limit without"),
            (r#"{"memory":{"limit":6,"swap":5}}"#, true, "memory+swap limit should be >= memory limit"),
            (r#"{"memory":{"swappiness":101}}"#, false, "memory.swappiness: invalid memory swappiness value: 101"),
            (r#"{"cpu":{"shares":1}}"#, false, "cpu.shares: the minimum allowed cpu-shares is 2"),
            (r#"{"cpu":{"shares":262145}}"#, false, "the maximum allowed cpu-shares is 262144"),
            (r#"{"blockIO":{"weight":1001}}"#, true, "blockIO.weight: 1001 is not in the range 10-1000"),
            (r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":4}]}"#, true, "hugepageLimits[0].pageSize"),
        ] {
            let text = refusal(json, unified);
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn shares_become_weights_on_the_known_curve() {
        let known = [(1, 1), (2, 1), (3, 2), (102, 17), (1024, 100), (4096, 303), (262_143, 10_000), (262_144, 10_000)];
        for (shares, want) in known {
            let got = weight(shares);
            assert!(got.abs_diff(want) <= 1, "{shares}: {got}, not {want}");
        }
        assert_eq!((weight(1024), weight(2), weight(262_144)), (100, 1, 10_000));
    }

    #[test]
    fn a_pids_limit_of_0_is_one() {
        for (limit, want) in [(Some(0), Some("1")), (Some(-1), Some("max")), (Some(5), Some("5")), (None, None)] {
            let writes = plan(None, limit, true).unwrap();
            assert_eq!(writes.first().map(|write| write.value.as_str()), want);
        }
    }

    #[test]
    fn what_v2_lacks_is_told() {
        let json = r#"{"memory":{"swappiness":0,"kernel":5,"kernelTCP":5},"network":{"classID":1},"cpu":{"realtimePeriod":0}}"#;
        let resources = serde_json::from_str(json).unwrap();
        assert_eq!(ignored(&resources, true).len(), 4);
        assert_eq!(ignored(&resources, false).len(), 1);
    }
}
