//! `vessel exec`.

use super::lex::{Flag, switch, value, values};
use super::verb::{Call, Count, Verb, handover, pid_file, utf8};
use crate::container::{self, ExecRequest};
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "exec",
    about: "execute another process in a running container",
    details: "The process joins the namespaces and the cgroup of the container and has the environment, user and \
              capabilities of the container's program, but for what the flags say. The exit code is that of the \
              process, 128 and its number where a signal ended it, and 255 where it could not be run.",
    args: "<container-id> <command> [arguments]  || -p process.json <container-id>",
    count: Count::AtLeast(1),
    flags_first: true,
    flags,
    run,
};

fn flags() -> Vec<Flag> {
    let mut flags = vec![
        value("cwd", ' ', "DIR", "the working directory in the container"),
        values("env", 'e', "NAME=VALUE", "add to the environment"),
        switch("tty", 't', "make a terminal"),
        value("user", 'u', "UID[:GID]", "the user, by numbers"),
        values("additional-gids", 'g', "GID", "a further group, by number"),
        value("process", 'p', "FILE", "the whole process, as `process` in config.json"),
        switch("detach", 'd', "return as soon as the program runs"),
        pid_file(),
        value("process-label", ' ', "LABEL", "the SELinux label"),
        value("apparmor", ' ', "PROFILE", "the AppArmor profile"),
        switch("no-new-privs", ' ', "forbid more privileges by execve"),
        values("cap", 'c', "CAP", "add a capability"),
        values("cgroup", ' ', "[CONTROLLER[,CONTROLLER]:]PATH", "a cgroup below the container's, which is there"),
        switch("ignore-paused", ' ', "enter a paused container too"),
    ];
    flags.extend(handover());
    flags
}

fn run(call: &Call) -> Result<i32> {
    request(call).and_then(|request| container::exec(&call.host, &request)).map_err(|e| e.context("exec failed"))
}

fn request(call: &Call) -> Result<ExecRequest> {
    let process = call.absolute("process")?;
    let args = match process {
        Some(_) => Vec::new(),
        None => call.args[1..].iter().map(|a| utf8(a.clone(), "argument")).collect::<Result<_>>()?,
    };
    if process.is_none() && args.is_empty() {
        return Err(Error::new("exec args cannot be empty"));
    }
    Ok(ExecRequest {
        id: call.id(),
        process,
        args,
        cwd: call.text("cwd")?,
        env: call.texts("env")?,
        tty: call.switch("tty"),
        user: call.text("user")?.map(|text| user(&text)).transpose()?,
        additional_gids: call
            .texts("additional-gids")?
            .iter()
            .map(|g| number("additional-gids", g))
            .collect::<Result<_>>()?,
        caps: call.texts("cap")?,
        no_new_privs: call.switch("no-new-privs"),
        process_label: call.text("process-label")?,
        apparmor: call.text("apparmor")?,
        console_socket: call.absolute("console-socket")?,
        pidfd_socket: call.absolute("pidfd-socket")?,
        detach: call.switch("detach"),
        pid_file: call.absolute("pid-file")?,
        preserve_fds: call.number("preserve-fds")?,
        cgroups: call.texts("cgroup")?,
        ignore_paused: call.switch("ignore-paused"),
    })
}

/// `UID` or `UID:GID`, digits alone: whatever else could be read in two ways, and one of them as root.
fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    Ok((number("user", uid)?, gid.map(|gid| number("user", gid)).transpose()?))
}

/// An id; the highest number means "none" to the kernel.
fn number(flag: &str, text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(id) if digits && id != u32::MAX => Ok(id),
        _ => Err(Error::new(format!("--{flag}: {text:?} is not an id (a number is wanted, names are not looked up)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        for (text, want) in [
            ("1", Some((1, None))),
            ("1:2", Some((1, Some(2)))),
            ("0:0", Some((0, Some(0)))),
            ("4294967294", Some((4_294_967_294, None))),
            (":5", None),
            ("1:", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("-1", None),
            ("4294967295", None),
            ("4294967296", None),
            ("root", None),
            ("root:wheel", None),
            ("1:wheel", None),
            ("1x", None),
            ("1:2:3", None),
            ("", None),
        ] {
            assert_eq!(user(text).ok(), want, "{text:?}");
        }
    }
}
