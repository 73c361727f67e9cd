//! vessel, a low-level container runtime for Linux: it takes an OCI bundle and makes, starts, watches, changes and
//! removes the container that it describes.
//!
//! A container's life, in the order of the code: [`cli`] reads the arguments and asks [`container`], whose `create` reads
//! the bundle with [`spec`], makes the cgroup with [`cgroups`], plans the root filesystem with [`rootfs`] and forks
//! [`init`]. Init sets itself up in the new namespaces, waits at the start gate, and becomes the program.
//!
//! A layer calls downward only: cli, container, init; then the subjects (rootfs, cgroups, security, attrs, namespaces,
//! idmap, net, rdt, hooks, console, criu, seal), which know neither each other nor the layers above; then [`spec`], [`sys`],
//! [`error`], [`log`] and [`timings`].

#![deny(unsafe_code)]

pub mod attrs;
pub mod cgroups;
pub mod cli;
pub mod console;
pub mod container;
pub mod criu;
pub mod error;
pub mod foreground;
pub mod hooks;
pub mod idmap;
pub mod init;
pub mod log;
pub mod namespaces;
pub mod net;
pub mod rdt;
pub mod rootfs;
pub mod seal;
pub mod security;
pub mod spec;
pub mod sys;
pub mod timings;
