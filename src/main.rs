//! The `vessel` binary. Everything lives in the library; see its documentation.

#![no_main]
#![deny(unsafe_code)]

#[path = "sys/entry.rs"]
#[allow(unsafe_code)]
mod entry;

#[cfg(glibc_start)]
#[path = "sys/libc_start.rs"]
#[allow(unsafe_code)]
mod libc_start;

/// All that `main` does beside what the runtime of Rust would have done. Returns the exit code.
fn run() -> u8 {
    vessel::cli::main()
}
