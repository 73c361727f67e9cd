//! Scheduling: sched_setattr(2), sched_setaffinity(2), ioprio_set(2), set_mempolicy(2). All act on the calling thread.

use crate::error::{Error, Result};

/// What sched_setattr(2) sets; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE.
    pub runtime: u64,
    /// For SCHED_DEADLINE.
    pub deadline: u64,
    /// For SCHED_DEADLINE.
    pub period: u64,
}

/// The kernel's struct sched_attr, second version (libc has the first, which the flags for utilization need more than).
#[repr(C)]
struct SchedAttr {
    size: u32,
    sched_policy: u32,
    sched_flags: u64,
    sched_nice: i32,
    sched_priority: u32,
    sched_runtime: u64,
    sched_deadline: u64,
    sched_period: u64,
    sched_util_min: u32,
    sched_util_max: u32,
}

/// Sets policy and attributes. There is no field for utilization in config.json: with its flags it is 0.
pub fn set_attributes(attributes: &Attributes) -> Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        sched_policy: attributes.policy,
        sched_flags: attributes.flags,
        sched_nice: attributes.nice,
        sched_priority: attributes.priority,
        sched_runtime: attributes.runtime,
        sched_deadline: attributes.deadline,
        sched_period: attributes.period,
        sched_util_min: 0,
        sched_util_max: 0,
    };
    // SAFETY: the kernel reads `size` bytes of `attr`, which lives for the whole call.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
}

/// Limits the thread to the CPUs of a mask, the lowest CPU in the lowest bit of the first word.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    let mask = words(mask);
    // SAFETY: the kernel reads as many bytes as are passed as the length.
    done(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask[..]), mask.as_ptr()) })
}

/// Sets the I/O priority, a class and a level as linux/ioprio.h packs them.
pub fn set_io_priority(value: i32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no memory is passed.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
}

/// Sets the memory policy: a mode with its flags, and the mask of its nodes.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let mask = words(nodes);
    // The kernel takes one bit less than it is told.
    let bits = if mask.is_empty() { 0 } else { size_of_val(&mask[..]) * 8 + 1 };
    let start = if mask.is_empty() { std::ptr::null() } else { mask.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits, which is the whole of `mask`, or nothing.
    done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, start, bits) })
}

/// The mask in the kernel's words.
fn words(mask: &[u64]) -> Vec<libc::c_ulong> {
    if cfg!(target_pointer_width = "64") {
        mask.iter().map(|word| *word as libc::c_ulong).collect()
    } else {
        mask.iter().flat_map(|word| [*word as libc::c_ulong, (*word >> 32) as libc::c_ulong]).collect()
    }
}

fn done(result: libc::c_long) -> Result<()> {
    if result < 0 { Err(Error::from(std::io::Error::last_os_error())) } else { Ok(()) }
}
