//! The rules for `linux.resources` (config-linux.md, "Control groups") that hold for every driver and version of
//! cgroups.

use oci_spec::runtime::LinuxResources;

use super::Faults;
use super::process::list_fault;

pub(super) fn check(faults: &mut Faults, resources: &LinuxResources) {
    for (i, rule) in resources.devices().iter().flatten().enumerate() {
        let access = rule.access().as_deref().unwrap_or_default();
        // The letter of the kernel for all devices gets in here as well, where it says nothing.
        if !access.chars().all(|c| "rwma".contains(c)) {
            let text = format!("{access:?} has more than r, w and m");
            faults.add(format_args!("linux.resources.devices[{i}].access"), text);
        }
    }
    if let Some(memory) = resources.memory()
        // The highest number is -1 of engines in Go: leave it as it is.
        && let Some(swappiness) = memory.swappiness().filter(|s| *s > 100 && *s != u64::MAX)
    {
        faults.add("linux.resources.memory.swappiness", format!("{swappiness} is not between 0 and 100"));
    }
    if let Some(cpu) = resources.cpu() {
        for (name, list) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
            let Some(list) = list else { continue };
            // The kernel takes every few of a range, too: `0-31:2/8`.
            let ranges: Vec<_> = list.split(',').map(|p| p.split(':').next().unwrap_or(p).trim()).collect();
            if let Some(fault) = list_fault(&ranges.join(",")) {
                faults.add(format_args!("linux.resources.cpu.{name}"), fault);
            }
        }
    }
    let limits = resources.hugepage_limits().as_deref().unwrap_or_default();
    for (i, limit) in limits.iter().enumerate() {
        let place = format!("linux.resources.hugepageLimits[{i}].pageSize");
        let number = ["KB", "MB", "GB"].iter().find_map(|unit| limit.page_size().strip_suffix(unit));
        if !number.is_some_and(|n| n.parse::<u32>().is_ok_and(|size| size > 0)) {
            faults.add(&place, format!("{:?} is not a size, as 2MB", limit.page_size()));
        }
        if limits[..i].iter().any(|earlier| earlier.page_size() == limit.page_size()) {
            faults.add(&place, format!("{} is there twice", limit.page_size()));
        }
    }
    let mut files: Vec<&String> = resources.unified().iter().flatten().map(|(file, _)| file).collect();
    files.sort();
    for file in files {
        // A name with a slash would lead out of the container's cgroup.
        if file.contains(['/', '\0']) || !file.contains('.') {
            faults.add("linux.resources.unified", format!("{file:?} is not the name of a file of cgroup v2"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{each_is_one_fault, faults_with};
    use serde_json::json;

    #[test]
    fn every_rule_names_its_place() {
        let at = "/linux/resources";
        each_is_one_fault(&[
            (at, json!({"devices": [{"allow": true, "access": "rx"}]}), "linux.resources.devices[0].access: \"rx\""),
            (at, json!({"memory": {"swappiness": 101}}), "linux.resources.memory.swappiness: 101"),
            (at, json!({"cpu": {"cpus": "0-"}}), "linux.resources.cpu.cpus: \"0-\" is not a list"),
            (
                at,
                json!({"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}),
                "linux.resources.hugepageLimits[0].pageSize",
            ),
            (at, json!({"unified": {"../x.max": "1"}}), "linux.resources.unified: \"../x.max\" is not the name"),
        ]);
    }

    #[test]
    fn what_engines_and_the_kernel_know_is_taken() {
        for good in [
            json!({"memory": {"swappiness": u64::MAX}}),
            json!({"cpu": {"cpus": "0-31:2/8, 40\n", "mems": "0"}}),
            json!({"unified": {"memory.high": "max"}}),
            json!({"hugepageLimits": [{"pageSize": "64KB", "limit": u64::MAX}]}),
        ] {
            assert_eq!(faults_with(&[("/linux/resources", good)]), [""; 0]);
        }
    }
}
