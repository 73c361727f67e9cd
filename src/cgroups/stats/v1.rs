//! Statistics of v1: each controller in its own hierarchy.

use super::read::{Files, Part, list};
use super::{Blkio, BlkioEntry, MemoryEntry, Stats, Used};
use crate::cgroups::Cgroup;
use crate::error::Result;

/// Nanoseconds in a tick of `cpuacct.stat`, which is a hundredth of a second on all of Linux.
const TICK: u64 = 10_000_000;

pub(super) fn read(cgroup: &Cgroup, stats: &mut Stats) -> Result<()> {
    let parts: [(&str, Part); 7] = [
        ("cpu", cpu),
        ("cpuacct", cpuacct),
        ("cpuset", cpuset),
        ("memory", memory),
        ("pids", pids),
        ("blkio", blkio),
        ("hugetlb", hugetlb),
    ];
    for (name, part) in parts {
        if let Some(dir) = cgroup.dir_of(name) {
            part(&Files::open(dir)?, stats)?;
        }
    }
    Ok(())
}

fn cpu(files: &Files, stats: &mut Stats) -> Result<()> {
    let table = files.table("cpu.stat")?;
    let of = |key: &str| table.get(key).copied().unwrap_or_default();
    let throttling = &mut stats.cpu.throttling;
    throttling.periods = of("nr_periods");
    throttling.throttled_periods = of("nr_throttled");
    throttling.throttled_time = of("throttled_time");
    Ok(())
}

fn cpuacct(files: &Files, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    let table = files.table("cpuacct.stat")?;
    usage.user = table.get("user").copied().unwrap_or_default() * TICK;
    usage.kernel = table.get("system").copied().unwrap_or_default() * TICK;
    usage.total = files.count("cpuacct.usage")?;
    usage.percpu = files.numbers("cpuacct.usage_percpu")?;
    // A heading "cpu user system", and a line for each processor.
    let all = files.text("cpuacct.usage_all")?.unwrap_or_default();
    for line in all.lines().skip(1) {
        let mut fields = line.split(' ').skip(1).map(|field| field.parse().ok());
        let (Some(Some(user)), Some(Some(kernel))) = (fields.next(), fields.next()) else { continue };
        usage.percpu_user.push(user);
        usage.percpu_kernel.push(kernel);
    }
    Ok(())
}

fn cpuset(files: &Files, stats: &mut Stats) -> Result<()> {
    let numbers = |name: &str| {
        let text = files.text(name)?.unwrap_or_default();
        list(&text).ok_or_else(|| files.odd(name, &text))
    };
    let set = &mut stats.cpuset;
    set.cpus = numbers("cpuset.cpus")?;
    set.mems = numbers("cpuset.mems")?;
    for (name, value) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *value = files.count(name)?;
    }
    // -1 where nothing was asked for.
    let level = files.text("cpuset.sched_relax_domain_level")?.unwrap_or_default();
    set.sched_relax_domain_level = level.trim().parse().unwrap_or_default();
    Ok(())
}

fn memory(files: &Files, stats: &mut Stats) -> Result<()> {
    let entry = |part: &str| -> Result<MemoryEntry> {
        let count = |name: &str| files.count(&format!("memory{part}.{name}"));
        Ok(MemoryEntry {
            limit: count("limit_in_bytes")?,
            used: Used {
                usage: count("usage_in_bytes")?,
                max: count("max_usage_in_bytes")?,
                failcnt: count("failcnt")?,
            },
        })
    };
    let memory = &mut stats.memory;
    memory.raw = files.table("memory.stat")?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or_default();
    memory.usage = entry("")?;
    memory.swap = entry(".memsw")?;
    memory.kernel = entry(".kmem")?;
    memory.kernel_tcp = entry(".kmem.tcp")?;
    Ok(())
}

fn pids(files: &Files, stats: &mut Stats) -> Result<()> {
    stats.pids.current = files.count("pids.current")?;
    stats.pids.limit = files.number("pids.max")?.filter(|&limit| limit != u64::MAX).unwrap_or_default();
    Ok(())
}

/// Which part of the statistics has the counts of a file.
type Slot = fn(&mut Blkio) -> &mut Vec<BlkioEntry>;

const BYTES: Slot = |io| &mut io.io_service_bytes_recursive;
const SERVICED: Slot = |io| &mut io.io_serviced_recursive;
/// What only some schedulers count.
const DETAILS: [(&str, Slot); 6] = [
    ("sectors_recursive", |io| &mut io.sectors_recursive),
    ("io_service_time_recursive", |io| &mut io.io_service_time_recursive),
    ("io_wait_time_recursive", |io| &mut io.io_wait_time_recursive),
    ("io_merged_recursive", |io| &mut io.io_merged_recursive),
    ("io_queued_recursive", |io| &mut io.io_queued_recursive),
    ("time_recursive", |io| &mut io.io_time_recursive),
];

/// The counts of the scheduler that a device has: bfq, the old cfq, or none, where those of throttling are what there is.
fn blkio(files: &Files, stats: &mut Stats) -> Result<()> {
    for (prefix, suffix) in [("bfq.", "_recursive"), ("", "_recursive"), ("throttle.", "_recursive"), ("throttle.", "")]
    {
        let serviced = blkio_file(files, &format!("blkio.{prefix}io_serviced{suffix}"))?;
        if serviced.is_empty() {
            continue;
        }
        *SERVICED(&mut stats.blkio) = serviced;
        *BYTES(&mut stats.blkio) = blkio_file(files, &format!("blkio.{prefix}io_service_bytes{suffix}"))?;
        if prefix != "throttle." {
            for (name, slot) in DETAILS {
                *slot(&mut stats.blkio) = blkio_file(files, &format!("blkio.{prefix}{name}"))?;
            }
        }
        break;
    }
    Ok(())
}

fn blkio_file(files: &Files, name: &str) -> Result<Vec<BlkioEntry>> {
    let text = files.text(name)?.unwrap_or_default();
    blkio_entries(&text).ok_or_else(|| files.odd(name, &text))
}

/// Lines `MAJOR:MINOR [OP] NUMBER`, and one with a total.
fn blkio_entries(text: &str) -> Option<Vec<BlkioEntry>> {
    let mut entries = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("Total ")) {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        entries.push(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_string(),
            value: value.trim().parse().ok()?,
        });
    }
    Some(entries)
}

fn hugetlb(files: &Files, stats: &mut Stats) -> Result<()> {
    stats.hugetlb = files.hugetlb(|files, size| {
        for part in [".rsvd", ""] {
            let count = |name: &str| files.count(&format!("hugetlb.{size}{part}.{name}"));
            if let Some(usage) = files.number(&format!("hugetlb.{size}{part}.usage_in_bytes"))? {
                let (max, failcnt) = (count("max_usage_in_bytes")?, count("failcnt")?);
                return Ok(Some(Used { usage, max, failcnt }));
            }
        }
        Ok(None)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_devices_are_read() {
        let entry = |major, minor, op: &str, value| BlkioEntry { major, minor, op: op.into(), value };
        let text = "8:0 Read 100\n8:0 Write 0\n253:1 7\nTotal 107\n";
        assert_eq!(
            blkio_entries(text),
            Some(vec![entry(8, 0, "Read", 100), entry(8, 0, "Write", 0), entry(253, 1, "", 7)])
        );
        assert_eq!(blkio_entries("Total 0\n"), Some(vec![]));
        assert_eq!(blkio_entries("8 Read x\n"), None);
    }
}
