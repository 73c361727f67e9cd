//! vessel, a low-level container runtime for Linux: it takes an OCI bundle and makes, starts, watches, changes and
//! removes the container that it describes.
//!
//! A layer calls downward only: [`cli`] asks and prints, [`spec`] reads config.json, [`error`] and [`log`] know nothing
//! of the others.

#![deny(unsafe_code)]

pub mod cli;
pub mod error;
pub mod log;
pub mod spec;
