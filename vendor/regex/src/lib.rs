//! Takes the place of the crate `regex` in this build (`[patch]` in Cargo.toml). oci-spec has one regular expression, for
//! the lists of processors in `execCPUAffinity`, and brings an engine for it that would be a fifth of the binary.
//! regex-lite has the same interface, and is in the binary anyway.

pub use regex_lite::*;
