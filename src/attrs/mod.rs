//! Attributes of a process that the kernel keeps: one file each. All act on the calling process.

pub mod affinity;
pub mod ioprio;
pub mod list;
pub mod mempolicy;
pub mod oom;
pub mod personality;
pub mod rlimits;
pub mod scheduler;
