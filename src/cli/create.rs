//! `vessel create`.

use super::globals::prepare_root;
use super::lex::{Flag, switch, value};
use super::verb::{Call, Count, Verb, bundle, handover, pid_file};
use crate::container::{self, CreateRequest};
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "create",
    about: "create a container",
    details: "Makes the namespaces, cgroup and root filesystem that config.json describes and runs the hooks of \
              that time. The program itself waits for `start`. The configuration is kept as it is then: what is \
              changed in the bundle afterwards has no effect.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags,
    run,
};

/// The flags of `create`, which are flags of `run` too.
pub(super) fn flags() -> Vec<Flag> {
    let mut flags = vec![
        bundle(),
        value("config", 'f', "FILE", "the configuration; from the bundle where relative (default: config.json)"),
        pid_file(),
        switch("no-pivot", ' ', "move the root into place in place of pivot_root (for a root on a ramdisk)"),
        switch("no-new-keyring", ' ', "keep the caller's session keyring"),
    ];
    flags.extend(handover());
    flags
}

/// What these flags ask for.
pub(super) fn request(call: &Call) -> Result<CreateRequest> {
    Ok(CreateRequest {
        id: call.id(),
        bundle: call.absolute("bundle")?.unwrap_or_default(),
        config: call.path("config"),
        console_socket: call.absolute("console-socket")?,
        pidfd_socket: call.absolute("pidfd-socket")?,
        pid_file: call.absolute("pid-file")?,
        no_pivot: call.switch("no-pivot"),
        no_new_keyring: call.switch("no-new-keyring"),
        preserve_fds: call.number("preserve-fds")?,
    })
}

fn run(call: &Call) -> Result<i32> {
    prepare_root(&call.host)?;
    container::create(&call.host, &request(call)?)?;
    Ok(0)
}
