//! Statistics of v2, under the names that those of v1 have.

use super::read::{Files, Part};
use super::{Blkio, BlkioEntry, MemoryEntry, Stats, Used};
use crate::error::Result;

/// Reads the counts of the controllers that are on v2.
pub(super) fn read(files: &Files, on_v2: &dyn Fn(&str) -> bool, stats: &mut Stats) -> Result<()> {
    let parts: [(&str, Part); 5] = [("cpu", cpu), ("memory", memory), ("pids", pids), ("io", io), ("hugetlb", hugetlb)];
    parts.iter().filter(|(name, _)| on_v2(name)).try_for_each(|(_, part)| part(files, stats))
}

fn hugetlb(files: &Files, stats: &mut Stats) -> Result<()> {
    stats.hugetlb = files.hugetlb(|files, size| {
        let mut usage = files.number(&format!("hugetlb.{size}.rsvd.current"))?;
        if usage.is_none() {
            usage = files.number(&format!("hugetlb.{size}.current"))?;
        }
        let failures = files.table(&format!("hugetlb.{size}.events"))?.get("max").copied().unwrap_or_default();
        Ok(usage.map(|usage| Used { usage, max: 0, failcnt: failures }))
    })?;
    Ok(())
}

fn cpu(files: &Files, stats: &mut Stats) -> Result<()> {
    let table = files.table("cpu.stat")?;
    let of = |key: &str| table.get(key).copied().unwrap_or_default();
    let nanoseconds = |key: &str| of(key).saturating_mul(1000);
    let cpu = &mut stats.cpu;
    cpu.usage.total = nanoseconds("usage_usec");
    cpu.usage.user = nanoseconds("user_usec");
    cpu.usage.kernel = nanoseconds("system_usec");
    cpu.throttling.periods = of("nr_periods");
    cpu.throttling.throttled_periods = of("nr_throttled");
    cpu.throttling.throttled_time = nanoseconds("throttled_usec");
    Ok(())
}

fn memory(files: &Files, stats: &mut Stats) -> Result<()> {
    let entry = |part: &str| -> Result<Option<MemoryEntry>> {
        let Some(usage) = files.number(&format!("memory{part}.current"))? else { return Ok(None) };
        let count = |name: &str| files.count(&format!("memory{part}.{name}"));
        Ok(Some(MemoryEntry { limit: count("max")?, used: Used { usage, max: count("peak")?, failcnt: 0 } }))
    };
    let memory = &mut stats.memory;
    memory.raw = files.table("memory.stat")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or_default();
    let Some(usage) = entry("")? else { return Ok(()) };
    // v1 counts swap together with memory. The peaks of the two may be of different times.
    let swap = entry(".swap")?.unwrap_or_default();
    memory.swap = MemoryEntry {
        limit: swap.limit.saturating_add(if swap.limit == u64::MAX { 0 } else { usage.limit }),
        used: Used { usage: swap.used.usage + usage.used.usage, max: 0, failcnt: 0 },
    };
    memory.usage = usage;
    Ok(())
}

fn pids(files: &Files, stats: &mut Stats) -> Result<()> {
    stats.pids.current = match files.number("pids.current")? {
        Some(current) => current,
        // Without the controller the processes themselves are counted.
        None => {
            files.text("cgroup.procs")?.or(files.text("cgroup.threads")?).unwrap_or_default().lines().count() as u64
        }
    };
    stats.pids.limit = files.number("pids.max")?.filter(|&limit| limit != u64::MAX).unwrap_or_default();
    Ok(())
}

fn io(files: &Files, stats: &mut Stats) -> Result<()> {
    let text = files.text("io.stat")?.unwrap_or_default();
    io_entries(&text, &mut stats.blkio).ok_or_else(|| files.odd("io.stat", &text))
}

/// Lines `MAJOR:MINOR KEY=VALUE ...`.
fn io_entries(text: &str, blkio: &mut Blkio) -> Option<()> {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (op, bytes) = match key {
                "rbytes" => ("Read", true),
                "wbytes" => ("Write", true),
                "rios" => ("Read", false),
                "wios" => ("Write", false),
                _ => continue,
            };
            let list = if bytes { &mut blkio.io_service_bytes_recursive } else { &mut blkio.io_serviced_recursive };
            list.push(BlkioEntry { major, minor, op: op.to_string(), value: value.parse().ok()? });
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_in_the_words_of_v1() {
        let mut blkio = Blkio::default();
        io_entries("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:0\n", &mut blkio).unwrap();
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 0, op: op.into(), value };
        assert_eq!(blkio.io_service_bytes_recursive, [entry("Read", 10), entry("Write", 20)]);
        assert_eq!(blkio.io_serviced_recursive, [entry("Read", 1), entry("Write", 2)]);
        assert!(io_entries("8:0 rbytes=x", &mut blkio).is_none());
    }
}
