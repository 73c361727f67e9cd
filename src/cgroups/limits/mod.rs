//! `linux.resources` as values for files of the kernel. Nothing here touches the system.
//!
//! The configuration speaks the language of v1 (shares, memory and swap together); on v2 it is translated as runc does.
//! In most fields 0 means "not set".

mod v1;
mod v2;

use std::borrow::Cow;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxResources, LinuxThrottleDevice};

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
    pub(super) fn new(
        field: &str,
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Write {
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
        if unified { v2::memory(memory, &mut writes)? } else { v1::memory(memory, &mut writes)? }
    }
    if let Some(io) = resources.block_io() {
        check_weights(io)?;
        if unified { v2::io(io, &mut writes) } else { v1::io(io, &mut writes) }
    }
    if let Some(cpu) = resources.cpu() {
        if unified {
            v2::cpu(cpu, &mut writes);
        } else {
            v1::cpu(cpu, &mut writes)?;
        }
        cpuset(cpu, &mut writes);
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        hugepages(index, limit, unified, &mut writes)?;
    }
    if let Some(network) = resources.network().as_ref().filter(|_| !unified) {
        v1::network(network, &mut writes);
    }
    rdma(resources, &mut writes);
    self::unified(resources, unified, &mut writes)?;
    if unified && is_idle(resources) {
        // It has a weight of its own, and the kernel refuses another one.
        writes.retain(|write| write.file != "cpu.weight");
    }
    Ok(writes)
}

/// What of `resources` the host's cgroups cannot carry out and runtimes leave out by custom, for a warning.
/// `on_v2` tells whether a controller, by its name of v2, is on v2.
pub(super) fn ignored(resources: &LinuxResources, on_v2: &dyn Fn(&str) -> bool) -> Vec<String> {
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    let io = resources.block_io().as_ref();
    let set = |value: Option<u64>| value.is_some_and(|value| value != 0);
    #[allow(deprecated)]
    let kernel = memory.is_some_and(|memory| memory.kernel().is_some());
    let v2 = [
        ("memory.kernelTCP", "memory", memory.is_some_and(|memory| memory.kernel_tcp().is_some())),
        ("memory.swappiness", "memory", memory.is_some_and(|memory| memory.swappiness().is_some())),
        ("memory.disableOOMKiller", "memory", memory.is_some_and(|memory| memory.disable_oom_killer() == Some(true))),
        ("cpu.realtimeRuntime", "cpu", cpu.is_some_and(|cpu| cpu.realtime_runtime().is_some_and(|value| value != 0))),
        ("cpu.realtimePeriod", "cpu", cpu.is_some_and(|cpu| set(cpu.realtime_period()))),
        ("blockIO.leafWeight", "io", io.is_some_and(|io| set(io.leaf_weight().map(u64::from)))),
        ("network.classID", "", resources.network().as_ref().is_some_and(|network| network.class_id().is_some())),
        ("network.priorities", "", resources.network().as_ref().is_some_and(|network| network.priorities().is_some())),
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
    if on_v2("cpu") && is_idle(resources) && in_unified(resources, "cpu.weight").is_some() {
        let why = "unable to apply both cpu.weight and cpu.idle, as an idle cgroup has a weight of its own";
        warnings.push(left_out("unified.cpu.weight", why));
    }
    let v2 = v2.into_iter().filter(|&(_, controller, found)| found && on_v2(controller));
    warnings.extend(v2.map(|(name, ..)| left_out(name, "cgroup v2 has nothing like it")));
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

/// The shares that can be set: an idle cgroup has a weight of its own, and the kernel refuses another one.
fn own_shares(cpu: &LinuxCpu) -> Option<u64> {
    cpu.shares().filter(|&shares| shares != 0 && cpu.idle() != Some(1))
}

fn in_unified<'a>(resources: &'a LinuxResources, key: &str) -> Option<&'a str> {
    resources.unified().as_ref()?.get(key).map(|value| value.trim())
}

/// Whether a cgroup of v2 becomes idle. What the kernel's own file name says comes last.
fn is_idle(resources: &LinuxResources) -> bool {
    match in_unified(resources, "cpu.idle") {
        Some(value) => value == "1",
        None => resources.cpu().as_ref().is_some_and(|cpu| cpu.idle() == Some(1)),
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
        assert_eq!(ignored(&resources, &|_| true).len(), 4);
        assert_eq!(ignored(&resources, &|_| false).len(), 1);
    }
}
