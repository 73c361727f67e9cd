//! config.json: what the runtime-spec lets it hold.

pub mod example;
pub mod options;
