//! What a cgroup has used, in the JSON of `runc events`: consumers know its names, and which of them are left out when
//! there is nothing to tell.

mod read;
mod v1;
mod v2;

use std::collections::BTreeMap;

use serde::Serialize;

use super::Cgroup;
use crate::error::Result;
use read::Files;

/// The statistics of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Time of the processors, in nanoseconds.
    pub cpu: Cpu,
    /// What it may run on (v1).
    pub cpuset: CpuSet,
    /// Memory, in bytes.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Input and output of block devices.
    pub blkio: Blkio,
    /// Huge pages, by their size.
    pub hugetlb: BTreeMap<String, Used>,
    /// Nothing: there is no Intel RDT.
    pub intel_rdt: IntelRdt,
    /// Nothing: the runtime makes no interfaces whose traffic it could count.
    pub network_interfaces: Option<Vec<()>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    #[serde(skip_serializing_if = "empty")]
    pub usage: CpuUsage,
    #[serde(skip_serializing_if = "empty")]
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "empty")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "empty")]
    pub total: u64,
    #[serde(skip_serializing_if = "empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "empty")]
    pub periods: u64,
    #[serde(skip_serializing_if = "empty")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "empty")]
    pub throttled_time: u64,
}

/// How long processes waited for a resource (Documentation/accounting/psi.rst).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Psi {
    #[serde(skip_serializing_if = "empty")]
    pub some: Pressure,
    #[serde(skip_serializing_if = "empty")]
    pub full: Pressure,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuSet {
    #[serde(skip_serializing_if = "empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "empty")]
    pub cache: u64,
    #[serde(skip_serializing_if = "empty")]
    pub usage: MemoryEntry,
    /// Memory and swap together, as v1 counts them.
    #[serde(skip_serializing_if = "empty")]
    pub swap: MemoryEntry,
    #[serde(skip_serializing_if = "empty")]
    pub kernel: MemoryEntry,
    #[serde(rename = "kernelTCP", skip_serializing_if = "empty")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`.
    #[serde(skip_serializing_if = "empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "empty")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// The largest number where there is none.
    pub limit: u64,
    #[serde(flatten)]
    pub used: Used,
}

/// How much is used, was used at most, and how often more was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    #[serde(skip_serializing_if = "empty")]
    pub usage: u64,
    #[serde(skip_serializing_if = "empty")]
    pub max: u64,
    pub failcnt: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "empty")]
    pub current: u64,
    /// 0 where there is none.
    #[serde(skip_serializing_if = "empty")]
    pub limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    #[serde(skip_serializing_if = "empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "empty")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlkioEntry {
    #[serde(skip_serializing_if = "empty")]
    pub major: u64,
    #[serde(skip_serializing_if = "empty")]
    pub minor: u64,
    #[serde(skip_serializing_if = "empty")]
    pub op: String,
    #[serde(skip_serializing_if = "empty")]
    pub value: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IntelRdt {}

fn empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// See [`Cgroup::stats`].
pub(super) fn stats(cgroup: &Cgroup) -> Result<Stats> {
    let mut stats = Stats::default();
    if !cgroup.unified {
        v1::read(cgroup, &mut stats)?;
    }
    if let Some(dir) = cgroup.v2() {
        let files = Files::open(dir)?;
        v2::read(&files, &|controller| cgroup.on_v2(controller), &mut stats)?;
        // A hybrid host has the pressure on its v2 side.
        stats.cpu.psi = files.pressure("cpu.pressure")?;
        stats.memory.psi = files.pressure("memory.pressure")?;
        stats.blkio.psi = files.pressure("io.pressure")?;
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_that_of_runc() {
        let none = concat!(
            r#"{"cpu":{},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"#,
            r#""memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
            r#""sched_relax_domain_level":0},"memory":{},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"#,
            r#""network_interfaces":null}"#
        );
        let mut stats = Stats::default();
        assert_eq!(serde_json::to_string(&stats).unwrap(), none);
        stats.cpu.usage.total = 5;
        stats.cpu.throttling.throttled_periods = 6;
        stats.memory.kernel_tcp.used.usage = 7;
        stats.blkio.io_queued_recursive.push(BlkioEntry { major: 8, minor: 0, op: "Read".into(), value: 9 });
        let value = serde_json::to_value(&stats).unwrap();
        assert_eq!(
            value["cpu"].to_string(),
            r#"{"throttling":{"throttledPeriods":6},"usage":{"kernel":0,"total":5,"user":0}}"#
        );
        assert_eq!(value["memory"].to_string(), r#"{"kernelTCP":{"failcnt":0,"limit":0,"usage":7}}"#);
        assert_eq!(value["blkio"].to_string(), r#"{"ioQueueRecursive":[{"major":8,"op":"Read","value":9}]}"#);
    }
}
