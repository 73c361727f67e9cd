//! `vessel restore`.

use super::checkpoint::{criu_flags, criu_request};
use super::globals::prepare_root;
use super::lex::{Flag, switch, value};
use super::verb::{Call, Count, Verb, bundle, pid_file};
use crate::container::{self, CreateRequest, RestoreRequest, RunRequest};
use crate::error::Result;

pub(super) const VERB: Verb = Verb {
    name: "restore",
    about: "restore a container from a previous checkpoint",
    details: "The bundle must be as it was, with the same files in the root filesystem. The limits are those of \
              config.json. The hooks prestart and createRuntime run. In the foreground, it does what `run` does.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags,
    run,
};

fn flags() -> Vec<Flag> {
    let mut flags = criu_flags();
    flags.extend([
        bundle(),
        switch("detach", 'd', "return as soon as the container runs"),
        pid_file(),
        value("console-socket", ' ', "SOCKET", "a UNIX socket that receives the master of the terminal"),
        switch("no-subreaper", ' ', "do not adopt orphans of the container"),
        switch("no-pivot", ' ', "for callers that give it to every command: how the root is moved is criu's choice"),
        switch("tcp-close", ' ', "close TCP connections that were open"),
        value("lsm-profile", ' ', "TYPE:NAME", "the label or profile of the processes, as selinux:LABEL"),
        value("lsm-mount-context", ' ', "CONTEXT", "the SELinux context of mounts"),
    ]);
    flags
}

fn run(call: &Call) -> Result<i32> {
    prepare_root(&call.host)?;
    let create = CreateRequest {
        id: call.id(),
        bundle: call.absolute("bundle")?.unwrap_or_default(),
        console_socket: call.absolute("console-socket")?,
        pid_file: call.absolute("pid-file")?,
        no_pivot: call.switch("no-pivot"),
        ..CreateRequest::default()
    };
    let request = RestoreRequest {
        run: RunRequest {
            create,
            detach: call.switch("detach"),
            keep: false,
            no_subreaper: call.switch("no-subreaper"),
        },
        criu: criu_request(call)?,
        tcp_close: call.switch("tcp-close"),
        lsm_profile: call.text("lsm-profile")?,
        lsm_mount_context: call.text("lsm-mount-context")?,
    };
    container::restore(&call.host, &request)
}
