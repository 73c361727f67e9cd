//! `vessel checkpoint`.

use super::lex::{Flag, switch, value, values};
use super::verb::{Call, Count, Verb};
use crate::container::{self, CheckpointRequest, CriuRequest};
use crate::criu::CgroupMode;
use crate::error::{Cause, Context, Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "checkpoint",
    about: "checkpoint a running container",
    details: "CRIU saves the processes with all that they have to files, from which `restore` makes the container anew. \
              Then the container is deleted, unless it is to run on. What belongs to the host (bind mounts, namespaces \
              that were joined, pipes on the standard streams) is not saved.",
    args: "<container-id>",
    count: Count::Exactly(1),
    flags_first: false,
    flags,
    run,
};

fn flags() -> Vec<Flag> {
    let mut flags = criu_flags();
    flags.extend([
        value("parent-path", ' ', "DIR", "the images of a pre-dump, relative to --image-path"),
        switch("leave-running", ' ', "let the container run on"),
        switch("tcp-skip-in-flight", ' ', "leave out TCP connections that are not established yet"),
        switch("link-remap", ' ', "give open files without a name a name for the time being"),
        value("status-fd", ' ', "N", "write a zero byte to descriptor N when pages can be fetched (--lazy-pages)"),
        value("page-server", ' ', "ADDRESS:PORT", "send the memory there in place of files"),
        switch("pre-dump", ' ', "save the memory alone, and let the container run on"),
    ]);
    flags
}

/// The flags of `checkpoint` and of `restore`.
pub(super) fn criu_flags() -> Vec<Flag> {
    vec![
        value("image-path", ' ', "DIR", "the directory of the images (default: ./checkpoint)"),
        value("work-path", ' ', "DIR", "the directory for logs (default: that of the images)"),
        switch("tcp-established", ' ', "allow open TCP connections"),
        switch("ext-unix-sk", ' ', "allow UNIX sockets that are connected to the outside"),
        switch("shell-job", ' ', "allow a terminal of the caller's"),
        switch("lazy-pages", ' ', "fetch memory when it is used"),
        switch("file-locks", ' ', "allow locks of files"),
        value("manage-cgroups-mode", ' ', "MODE", "what is done about cgroups: soft (default), full, strict or ignore"),
        values("empty-ns", ' ', "KIND", "do not save what is in the namespace: network, which is always so"),
        switch("auto-dedup", ' ', "keep no page in two images"),
    ]
}

/// What these flags ask for.
pub(super) fn criu_request(call: &Call) -> Result<CriuRequest> {
    let images = match call.absolute("image-path")? {
        Some(path) => path,
        None => std::env::current_dir().context(|| "cannot tell the current directory")?.join("checkpoint"),
    };
    if let Some(kind) = call.texts("empty-ns")?.iter().find(|kind| *kind != "network") {
        return Err(Error::of(Cause::Usage, format!("--empty-ns: namespace {kind:?} is not supported (network is)")));
    }
    let cgroups = match call.text("manage-cgroups-mode")?.as_deref() {
        None => None,
        Some("soft") => Some(CgroupMode::Soft),
        Some("full") => Some(CgroupMode::Full),
        Some("strict") => Some(CgroupMode::Strict),
        Some("ignore") => Some(CgroupMode::Ignore),
        Some(other) => {
            let text = format!("invalid manage-cgroups-mode value {other:?} (soft, full, strict and ignore are known)");
            return Err(Error::of(Cause::Usage, text));
        }
    };
    Ok(CriuRequest {
        images,
        work: call.absolute("work-path")?,
        tcp_established: call.switch("tcp-established"),
        ext_unix_sk: call.switch("ext-unix-sk"),
        shell_job: call.switch("shell-job"),
        lazy_pages: call.switch("lazy-pages"),
        file_locks: call.switch("file-locks"),
        auto_dedup: call.switch("auto-dedup"),
        cgroups,
    })
}

fn run(call: &Call) -> Result<i32> {
    let request = CheckpointRequest {
        id: call.id(),
        criu: criu_request(call)?,
        parent: call.path("parent-path"),
        leave_running: call.switch("leave-running"),
        tcp_skip_in_flight: call.switch("tcp-skip-in-flight"),
        link_remap: call.switch("link-remap"),
        pre_dump: call.switch("pre-dump"),
        page_server: call.text("page-server")?.map(|text| page_server(&text)).transpose()?,
        status_fd: call.text("status-fd")?.map(|text| status_fd(&text)).transpose()?.flatten(),
    };
    container::checkpoint(&call.host, &request)?;
    Ok(0)
}

/// `ADDRESS:PORT`; an address of IPv6 is in brackets.
fn page_server(text: &str) -> Result<(String, u16)> {
    let wrong = || Error::of(Cause::Usage, "Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
    if bare.is_none() && address.contains(':') || address.is_empty() || bare == Some("") {
        return Err(wrong());
    }
    let port = port.parse().map_err(|_| Error::of(Cause::Usage, format!("Invalid port number {port:?}")))?;
    Ok((bare.unwrap_or(address).to_string(), port))
}

/// -1 stands for none.
fn status_fd(text: &str) -> Result<Option<i32>> {
    match text.parse() {
        Ok(-1) => Ok(None),
        Ok(number @ 0..) => Ok(Some(number)),
        _ => Err(Error::of(Cause::Usage, format!("invalid --status-fd argument {text}: it is no descriptor"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_have_address_and_port() {
        for (text, want) in [
            ("0.0.0.0:27277", Some(("0.0.0.0", 27277))),
            ("[::1]:1", Some(("::1", 1))),
            ("host:65535", Some(("host", 65535))),
            ("::1:1", None),
            (":1", None),
            ("[]:1", None),
            ("host", None),
            ("host:", None),
            ("host:65536", None),
        ] {
            let want = want.map(|(address, port)| (address.to_string(), port));
            assert_eq!(page_server(text).ok(), want, "{text}");
        }
    }
}
