//! Scheduling policy (config.md, `process.scheduler`).

use oci_spec::runtime::{LinuxSchedulerFlag, LinuxSchedulerPolicy, Scheduler};

use crate::error::{Error, Result};
use crate::sys::sched::{self, Attributes};

/// Sets policy, nice value, priority, flags and deadlines.
pub fn apply(scheduler: &Scheduler) -> Result<()> {
    let attributes = check(scheduler)?;
    sched::set_attributes(&attributes).map_err(|e| explain(scheduler, e))
}

fn explain(scheduler: &Scheduler, e: Error) -> Error {
    let policy = scheduler.policy();
    let e = e.context(format!("error setting scheduler: {policy}"));
    match e.errno() {
        libc::EPERM => match policy {
            LinuxSchedulerPolicy::SchedDeadline => e.context(
                "process scheduler can't be used together with AllowedCPUs \
                 (SCHED_DEADLINE needs every CPU of its domain, and CAP_SYS_NICE on the host)",
            ),
            LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr => e.context(format!(
                "{policy} needs CAP_SYS_NICE on the host, and real-time in the cgroup (cpu.rt_runtime_us)"
            )),
            _ => e.context("this needs CAP_SYS_NICE on the host"),
        },
        libc::EINVAL => e.context("the kernel refuses these values together"),
        _ => e,
    }
    .context("process.scheduler")
}

/// The attributes in the kernel's form; an error where fields do not go together.
pub fn check(scheduler: &Scheduler) -> Result<Attributes> {
    let policy = *scheduler.policy();
    let fail = |text: String| Err(Error::new(format!("process.scheduler: {text}")));
    let nice = scheduler.nice().unwrap_or(0);
    let priority = scheduler.priority().unwrap_or(0);
    let deadlines = [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|time| time.unwrap_or(0));
    use LinuxSchedulerPolicy::*;
    if matches!(policy, SchedOther | SchedBatch) && !(-20..=19).contains(&nice) {
        return fail(format!("invalid scheduler.nice: {nice} when scheduler.policy is {policy}"));
    }
    if priority != 0 && !matches!(policy, SchedFifo | SchedRr) {
        return fail("scheduler.priority can only be specified for SchedFIFO or SchedRR policy".into());
    }
    if deadlines != [0; 3] && !matches!(policy, SchedDeadline) {
        return fail("scheduler runtime/deadline/period can only be specified for SchedDeadline policy".into());
    }
    let Ok(priority) = u32::try_from(priority) else {
        return fail(format!("invalid scheduler.priority: {priority}"));
    };
    let [runtime, deadline, period] = deadlines;
    let flags = scheduler.flags().iter().flatten().fold(0, |all, flag| all | bit(*flag));
    Ok(Attributes { policy: number(policy), flags, nice, priority, runtime, deadline, period })
}

fn number(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

fn bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_in_the_kernels_form() {
        let all = Attributes::default();
        let cases = [
            (r#"{"policy":"SCHED_OTHER","nice":19}"#, Attributes { nice: 19, ..all }),
            (r#"{"policy":"SCHED_BATCH","nice":-20}"#, Attributes { policy: 3, nice: -20, ..all }),
            (r#"{"policy":"SCHED_FIFO","priority":7}"#, Attributes { policy: 1, priority: 7, ..all }),
            (
                r#"{"policy":"SCHED_RR","priority":1,"flags":["SCHED_FLAG_KEEP_PARAMS","SCHED_FLAG_RECLAIM"]}"#,
                Attributes { policy: 2, priority: 1, flags: 0x12, ..all },
            ),
            (r#"{"policy":"SCHED_IDLE"}"#, Attributes { policy: 5, ..all }),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3}"#,
                Attributes { policy: 6, runtime: 1, deadline: 2, period: 3, ..all },
            ),
        ];
        for (json, want) in cases {
            assert_eq!(check(&serde_json::from_str(json).unwrap()).unwrap(), want, "{json}");
        }
    }

    #[test]
    fn what_does_not_go_together() {
        let cases = [
            (
                r#"{"policy":"SCHED_OTHER","nice":20}"#,
                "invalid scheduler.nice: 20 when scheduler.policy is SCHED_OTHER",
            ),
            (r#"{"policy":"SCHED_IDLE","priority":1}"#, "scheduler.priority can only be specified"),
            (r#"{"policy":"SCHED_FIFO","priority":-1}"#, "invalid scheduler.priority: -1"),
            (r#"{"policy":"SCHED_RR","period":1}"#, "runtime/deadline/period can only be specified"),
        ];
        for (json, text) in cases {
            let e = check(&serde_json::from_str(json).unwrap()).unwrap_err().to_string();
            assert!(e.contains(text), "{e}");
        }
    }
}
