//! The rules for `process` (config.md, "Process").

use oci_spec::runtime::{LinuxSchedulerPolicy, Process, Scheduler, Spec};

use super::Faults;

pub(super) fn check(faults: &mut Faults, process: &Process, place: &str) {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        faults.add(format_args!("{place}args"), "must not be empty");
    }
    if !process.cwd().is_absolute() {
        let cwd = process.cwd().display();
        faults.add(format_args!("{place}cwd"), format!("Cwd must be an absolute path, not \"{cwd}\""));
    }
    faults.no_nul(format_args!("{place}cwd"), &process.cwd().to_string_lossy());
    for (i, arg) in process.args().iter().flatten().enumerate() {
        faults.no_nul(format_args!("{place}args[{i}]"), arg);
    }
    for (i, variable) in process.env().iter().flatten().enumerate() {
        let place = format!("{place}env[{i}]");
        match variable.split_once('=') {
            None => faults.add(&place, format!("invalid environment variable: missing '=' in {variable:?}")),
            Some(("", _)) => faults.add(&place, "invalid environment variable: name cannot be empty"),
            Some(_) => {}
        }
        faults.no_nul(&place, variable);
    }
    let user = process.user();
    let groups =
        user.additional_gids().iter().flatten().enumerate().map(|(i, gid)| (format!("additionalGids[{i}]"), *gid));
    for (name, id) in [("uid".to_string(), user.uid()), ("gid".to_string(), user.gid())].into_iter().chain(groups) {
        if id == u32::MAX {
            // The kernel takes it for "as it is", which is root.
            faults.add(format_args!("{place}user.{name}"), format!("{id} is no id"));
        }
    }
    if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
        faults.add(format_args!("{place}oomScoreAdj"), format!("{score} is not between -1000 and 1000"));
    }
    if let Some(io) = process.io_priority()
        && !(0..=7).contains(&io.priority())
    {
        faults.add(format_args!("{place}ioPriority.priority"), format!("{} is not between 0 and 7", io.priority()));
    }
    if process.terminal() == Some(true)
        && let Some(size) = process.console_size()
    {
        for (name, side) in [("height", size.height()), ("width", size.width())] {
            if u16::try_from(side).is_err() {
                faults.add(format_args!("{place}consoleSize.{name}"), format!("{side} is above 65535"));
            }
        }
    }
    rlimits(faults, process, place);
    if let Some(scheduler) = process.scheduler() {
        check_scheduler(faults, scheduler, &format!("{place}scheduler"));
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        for (name, list) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
            if let Some(fault) = list.as_deref().and_then(list_fault) {
                faults.add(format_args!("{place}execCPUAffinity.{name}"), fault);
            }
        }
    }
}

fn rlimits(faults: &mut Faults, process: &Process, place: &str) {
    let rlimits = process.rlimits().as_deref().unwrap_or_default();
    for (i, rlimit) in rlimits.iter().enumerate() {
        if rlimits[..i].iter().any(|earlier| earlier.typ() == rlimit.typ()) {
            faults.add(format_args!("{place}rlimits[{i}].type"), format!("{} is there twice", rlimit.typ()));
        }
        if rlimit.soft() > rlimit.hard() {
            let text = format!("the soft limit {} is above the hard limit {}", rlimit.soft(), rlimit.hard());
            faults.add(format_args!("{place}rlimits[{i}]"), text);
        }
    }
}

fn check_scheduler(faults: &mut Faults, scheduler: &Scheduler, place: &str) {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther, SchedRr};
    let policy = *scheduler.policy();
    let set = |n: &Option<u64>| n.is_some_and(|n| n != 0);
    if matches!(policy, SchedOther | SchedBatch)
        && let Some(nice) = scheduler.nice().filter(|n| !(-20..=19).contains(n))
    {
        faults.add(format_args!("{place}.nice"), format!("{nice} is not between -20 and 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    match policy {
        SchedFifo | SchedRr if !(1..=99).contains(&priority) => {
            faults.add(format_args!("{place}.priority"), format!("{priority} is not between 1 and 99 ({policy})"));
        }
        SchedFifo | SchedRr => {}
        _ if priority != 0 => {
            faults.add(format_args!("{place}.priority"), "can only be specified for SCHED_FIFO or SCHED_RR policy");
        }
        _ => {}
    }
    if policy != SchedDeadline && [scheduler.runtime(), scheduler.deadline(), scheduler.period()].into_iter().any(set) {
        faults.add(place, "runtime, deadline and period can only be specified for SCHED_DEADLINE policy");
    }
}

/// sched_setattr(2): a deadline is only kept by who may run on every CPU.
pub(super) fn check_with_resources(faults: &mut Faults, process: &Process, spec: &Spec) {
    let deadline = |s: &Scheduler| *s.policy() == LinuxSchedulerPolicy::SchedDeadline;
    if !process.scheduler().as_ref().is_some_and(deadline) {
        return;
    }
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    if let Some(cpus) = resources.and_then(|r| r.cpu().as_ref()).and_then(|c| c.cpus().as_ref()) {
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        if *cpus != online.trim() {
            let text = "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)";
            faults.add("process.scheduler.policy", text);
        }
    }
}

/// What is wrong with a list of CPUs or memory nodes, as in `0-3,7`.
pub(super) fn list_fault(list: &str) -> Option<String> {
    let wrong = list.split(',').find(|part| range(part).is_none())?;
    Some(format!("{list:?} is not a list (as 0-3,7): {wrong:?}"))
}

/// How many numbers a list has; what is no range counts as none.
pub(super) fn list_len(list: &str) -> u64 {
    list.split(',').filter_map(range).map(|(first, last)| u64::from(last - first) + 1).sum()
}

fn range(part: &str) -> Option<(u32, u32)> {
    let number = |n: &str| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse().ok()).flatten();
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{each_is_one_fault, faults_with};
    use super::*;
    use serde_json::json;

    #[test]
    fn every_rule_names_its_place() {
        let nofile = |soft: u64, hard: u64| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard});
        each_is_one_fault(&[
            ("/process/args", json!([]), "process.args: must not be empty"),
            ("/process/args", json!(["a\u{0}b"]), "process.args[0]: holds a NUL"),
            ("/process/cwd", json!("x"), "process.cwd: Cwd must be an absolute path"),
            ("/process/cwd", json!(null), "process.cwd: Cwd must be an absolute path"),
            ("/process/env", json!(["A=1", "B"]), "process.env[1]: invalid environment variable: missing '='"),
            ("/process/env", json!(["=1"]), "process.env[0]: invalid environment variable: name"),
            (
                "/process/rlimits",
                json!([nofile(1, 2), nofile(1, 2)]),
                "process.rlimits[1].type: RLIMIT_NOFILE is there twice",
            ),
            (
                "/process/rlimits",
                json!([nofile(3, 2)]),
                "process.rlimits[0]: the soft limit 3 is above the hard limit 2",
            ),
            ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: 1001"),
            ("/process/user/uid", json!(u32::MAX), "process.user.uid: 4294967295 is no id"),
            ("/process/user/gid", json!(u32::MAX), "process.user.gid: 4294967295 is no id"),
            ("/process/user/additionalGids", json!([1, u32::MAX]), "process.user.additionalGids[1]: 4294967295"),
            (
                "/process/ioPriority",
                json!({"class": "IOPRIO_CLASS_RT", "priority": 8}),
                "process.ioPriority.priority: 8",
            ),
            (
                "/process/execCPUAffinity",
                json!({"final": "3-1"}),
                "process.execCPUAffinity.final: \"3-1\" is not a list",
            ),
            ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice: 20"),
            (
                "/process/scheduler",
                json!({"policy": "SCHED_OTHER", "priority": 1}),
                "process.scheduler.priority: can only",
            ),
            (
                "/process/scheduler",
                json!({"policy": "SCHED_FIFO"}),
                "process.scheduler.priority: 0 is not between 1 and 99",
            ),
            (
                "/process/scheduler",
                json!({"policy": "SCHED_RR", "priority": 1, "period": 5}),
                "process.scheduler: runtime",
            ),
        ]);
        assert_eq!(faults_with(&[("/process", json!(null))]), [""; 0]);
    }

    #[test]
    fn the_size_of_a_terminal_fits_the_kernels_numbers() {
        let of = |terminal: bool, size| {
            faults_with(&[("/process/terminal", json!(terminal)), ("/process/consoleSize", size)])
        };
        let large = json!({"height": 65536, "width": 65535});
        assert_eq!(of(true, large.clone()), ["process.consoleSize.height: 65536 is above 65535"]);
        assert_eq!(of(true, json!({"height": 1, "width": 70000})), ["process.consoleSize.width: 70000 is above 65535"]);
        // config.md: runtimes "MUST ignore consoleSize if terminal is false or unset".
        assert_eq!(of(false, large), [""; 0]);
    }

    #[test]
    fn a_deadline_needs_every_cpu() {
        let scheduler = json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 2});
        let faults =
            faults_with(&[("/process/scheduler", scheduler), ("/linux/resources", json!({"cpu": {"cpus": "0-1000"}}))]);
        assert!(faults.len() == 1 && faults[0].contains("can't be used together with AllowedCPUs"), "{faults:?}");
    }

    #[test]
    fn lists_have_numbers_and_ranges() {
        for (list, good) in
            [("0", true), ("0-3,7", true), ("", false), ("1,", false), ("+1", false), ("a", false), ("2-1", false)]
        {
            assert_eq!(list_fault(list).is_none(), good, "{list}");
        }
        assert_eq!(list_len("0-3,7"), 5);
    }
}
