//! Drives the built binary as an engine or a person would. `RUNTIME=runc` runs the same tests against another runtime,
//! which shows that a test asks for what the field asks for. See [`harness`].

// A test that cannot go on says so by a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_debug_implementations, unreachable_pub)]

#[allow(dead_code, unused_imports)]
mod harness;

mod apparmor;
mod binds;
mod capabilities;
mod cgroups;
mod checkpoint;
mod cli;
mod config;
mod cve_rootfs;
mod devices;
mod engines;
mod events;
mod foreground;
mod hooks;
mod hotmounts;
mod lifecycle;
mod mounts;
mod namespaces;
mod netdevices;
mod process;
mod removal;
mod resources;
mod rootfs;
mod rootless;
mod seal;
mod seccomp;
mod selinux;
mod spec;
mod stuck;
mod systemd;
mod systemd_inside;
mod tty;
mod update;
