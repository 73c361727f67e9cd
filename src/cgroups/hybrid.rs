//! Hosts with v1 hierarchies and v2 beside them (hybrid): a controller that no hierarchy of v1 has may be on the v2
//! side, where its limits are then set in the words of v2.

use oci_spec::runtime::LinuxResources;

use super::limits::{self, Write};
use super::{Cgroup, make};
use crate::error::Result;

/// Whether a controller, by its name of v2, is on the v2 side of a hybrid host, where the cgroup has a directory.
pub(super) fn beside(cgroup: &Cgroup, controller: &str) -> bool {
    !cgroup.unified
        && cgroup.dir_of(v1_name(controller)).is_none()
        && cgroup.v2().is_some_and(|dir| {
            make::controllers(&dir.mountpoint).is_ok_and(|names| names.iter().any(|name| name == controller))
        })
}

/// What to write for `resources` in the directories that the cgroup has.
pub(super) fn plan(cgroup: &Cgroup, resources: Option<&LinuxResources>, pids: Option<i64>) -> Result<Vec<Write>> {
    let writes = limits::plan(resources, pids, cgroup.unified)?;
    if cgroup.unified || writes.iter().all(|write| cgroup.dir_of(&write.controller).is_some()) {
        return Ok(writes);
    }
    let translated = limits::plan(resources, pids, true)?;
    Ok(mixed(writes, translated, &|controller| beside(cgroup, controller)))
}

/// Takes the writes of controllers that are on the v2 side from what was planned for v2.
fn mixed(v1: Vec<Write>, v2: Vec<Write>, beside: &dyn Fn(&str) -> bool) -> Vec<Write> {
    let stay = v1.into_iter().filter(|write| !beside(v2_name(&write.controller)));
    stay.chain(v2.into_iter().filter(|write| beside(&write.controller))).collect()
}

fn v1_name(controller: &str) -> &str {
    if controller == "io" { "blkio" } else { controller }
}

fn v2_name(controller: &str) -> &str {
    if controller == "blkio" { "io" } else { controller }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_is_told_in_the_words_of_its_version() {
        let json = r#"{"memory":{"limit":100,"swap":150},"pids":{"limit":7},"blockIO":{"weight":10},
            "network":{"classID":1},"hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#;
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let of = |beside: &[&str]| -> Vec<String> {
            let plan = |unified| limits::plan(Some(&resources), None, unified).unwrap();
            let writes = mixed(plan(false), plan(true), &|name| beside.contains(&name));
            writes.into_iter().map(|write| format!("{}={}", write.file, write.value)).collect()
        };
        let v1 = ["pids.max=7", "memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=150", "blkio.weight=10"];
        let network = "net_cls.classid=1";
        let pages = ["hugetlb.2MB.max=4", "hugetlb.2MB.rsvd.max=4"];
        assert_eq!(of(&["hugetlb"]), [&v1[..], &[network], &pages].concat());
        let v2 = ["memory.swap.max=50", "memory.max=100", "io.bfq.weight=10"];
        assert_eq!(of(&["hugetlb", "memory", "io"]), [&v1[..1], &[network], &v2, &pages].concat());
    }
}
