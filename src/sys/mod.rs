//! System calls that need `unsafe` or that the libraries lack, one file a subject. The only place with `unsafe`.

#![allow(unsafe_code)]

pub mod bpf;
pub mod clone;
pub mod early;
pub mod fd;
pub mod keyctl;
pub mod mount;
pub mod net;
pub mod ns;
pub mod pidfd;
pub mod proc;
pub mod process;
pub mod sched;
pub mod seal;
pub mod seccomp;
pub mod spawn;
pub mod start;
