//! The flags before the command, which hold for all of them.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use clap::Command;

use super::lex::{Flag, Given, Lexed, command, go_bool, lex, options, switch, value};
use super::name::{NAME, called};
use super::verb::Verb;
use crate::cgroups::Driver;
use crate::container::Host;
use crate::error::{Cause, Context, Error, Result};
use crate::log::Format;
use crate::sys::proc;

/// The lines of `--version`, for the name that the program was called by. Engines look for the word "version" and for a
/// line that begins with "commit:".
pub(super) fn version(program: &str) -> String {
    const NUMBER: &str = env!("CARGO_PKG_VERSION");
    let lines = concat!("\ncommit: ", env!("VESSEL_COMMIT"), "\nspec: 1.3.0\n");
    let own = if program == NAME { String::new() } else { format!("{NAME}: {NUMBER}\n") };
    format!("{program} version {NUMBER}{lines}{own}")
}

/// The flags as they were given.
pub(super) struct Globals {
    pub(super) help: bool,
    pub(super) version: bool,
    pub(super) debug: bool,
    pub(super) log: Option<OsString>,
    pub(super) log_format: Format,
    pub(super) timings: Option<PathBuf>,
    given: Given,
}

const FLAGS: &[Flag] = &[
    switch("debug", ' ', "log what is done, too"),
    value(
        "log",
        ' ',
        "FILE",
        "append messages to FILE, or send them to journald:NAME or syslog:NAME (default: standard error)",
    ),
    value("log-format", ' ', "FORMAT", "text (default) or json"),
    value("root", ' ', "DIR", "where the state of containers is kept, best on a tmpfs (default: /run/vessel)"),
    switch("systemd-cgroup", ' ', "let systemd make the cgroups; cgroupsPath is slice:prefix:name then"),
    value("cgroup-manager", ' ', "MANAGER", "who makes the cgroups: cgroupfs (default), systemd or disabled"),
    value("rootless", ' ', "BOOL", "pass over missing rights on cgroups: true, false or auto (default)"),
    value("timings", ' ', "FILE", "append how long each phase takes to FILE, as a trace where it ends in .json"),
    switch("version", 'v', "print the version of vessel and of the specification"),
];

/// The flags for programs that write manual pages and completions.
pub(super) fn documented() -> Command {
    command("vessel", FLAGS)
        .help_template("{options}")
        .about("Open Container Initiative runtime")
        .long_about(
            "vessel makes and runs containers. A container is described by a bundle: a directory with a root filesystem \
             and a config.json, as the OCI runtime-spec has it. Engines such as podman, containerd and Docker call it in \
             the place of runc.\n\nFlags are accepted with one dash or two, and a repeated one holds as it was given last.\n\n\
             A command exits with 0 where it was done, and with 1 where it failed; run and exec exit with the code of the \
             program, or 128 and the number of the signal that ended it. exec exits with 255 where the program could not \
             be run.\n\nThe state of containers is kept in /run/vessel, and for an ordinary user in \
             $XDG_RUNTIME_DIR/vessel.\n\nCalled by another name, as where it is installed in the place of runc, vessel says \
             that name in its help and version, with its own behind it. By the name runc, run and create word their \
             failures as runc does, for programs that compare them.",
        )
        .override_usage("vessel [global options] command [command options] [arguments...]")
}

/// Takes the global flags off the arguments; the rest begins with the command.
pub(super) fn read(args: impl Iterator<Item = OsString>) -> Result<(Globals, Vec<OsString>)> {
    let see = |fault: String| {
        Error::of(Cause::Usage, {
            let program = called();
            format!("{program}: {fault} (see {program} --help)")
        })
    };
    let Lexed { given, positionals, help } = lex(FLAGS, true, args).map_err(see)?;
    let log_format = given.value("log-format").filter(|f| !f.is_empty());
    let globals = Globals {
        help,
        version: given.switch("version"),
        debug: given.switch("debug"),
        log: given.value("log").filter(|l| !l.is_empty()).map(OsString::from),
        log_format: log_format.map_or(Ok(Format::Text), |f| f.to_string_lossy().parse())?,
        timings: given.value("timings").filter(|t| !t.is_empty()).map(PathBuf::from),
        given,
    };
    Ok((globals, positionals))
}

impl Globals {
    /// What the flags say about this host.
    pub(super) fn host(&self) -> Result<Host> {
        let (root, root_given) = match self.given.value("root") {
            Some(root) => (given_root(Path::new(root))?, true),
            None => (default_root(), false),
        };
        let rootless = self.given.value("rootless").map(|r| r.to_string_lossy().into_owned());
        Ok(Host {
            root,
            root_given,
            driver: self.driver()?,
            rootless: rootless.map_or(Ok(None), |text| bool_or_auto(&text))?,
        })
    }

    fn driver(&self) -> Result<Driver> {
        match self.given.value("cgroup-manager").map(|m| m.to_string_lossy()).as_deref() {
            None if self.given.switch("systemd-cgroup") => Ok(Driver::Systemd),
            None | Some("cgroupfs") => Ok(Driver::Cgroupfs),
            Some("systemd") => Ok(Driver::Systemd),
            Some("disabled") => Ok(Driver::Disabled),
            Some(other) => {
                Err(Error::new(format!("invalid cgroup-manager: {other} (cgroupfs, systemd and disabled are known)")))
            }
        }
    }
}

fn bool_or_auto(text: &str) -> Result<Option<bool>> {
    if text.is_empty() || text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    let fault = || Error::new(format!("invalid rootless: {text} (true, false and auto are known)"));
    go_bool(text).map(Some).ok_or_else(fault)
}

/// `--root`, absolute and without `..`, so that it means the same place from everywhere.
fn given_root(root: &Path) -> Result<PathBuf> {
    // Where it is not asked for, the caller's directory may be gone.
    let here = if root.is_absolute() { Ok(PathBuf::new()) } else { std::env::current_dir() };
    let here = here.context(|| "cannot tell the current directory (for --root)")?;
    let mut clean = PathBuf::new();
    for part in here.join(root).components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    if clean == Path::new("/") {
        return Err(Error::new("Option --root argument should not be set to /"));
    }
    Ok(clean)
}

/// /run/vessel; for an ordinary user, or root of a user namespace who is not called root, a directory of his own.
fn default_root() -> PathBuf {
    let own = !rustix::process::geteuid().is_root()
        || (proc::in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root"));
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if own && !dir.is_empty() => PathBuf::from(dir).join("vessel"),
        _ => PathBuf::from("/run/vessel"),
    }
}

/// Makes the default root of an ordinary user with the sticky bit, which keeps files in XDG_RUNTIME_DIR from being
/// cleaned away (XDG Base Directory Specification).
pub(super) fn prepare_root(host: &Host) -> Result<()> {
    if host.root_given || host.root == Path::new("/run/vessel") {
        return Ok(());
    }
    let mode = std::fs::Permissions::from_mode(0o1700);
    std::fs::create_dir_all(&host.root)
        .and_then(|()| std::fs::set_permissions(&host.root, mode))
        .context(|| format!("cannot make {} (from $XDG_RUNTIME_DIR; or choose a --root)", host.root.display()))
}

/// The help of vessel itself, for the name that it was called by.
pub(super) fn help(program: &str) -> String {
    let commands: String =
        super::VERBS.iter().map(|Verb { name, about, .. }| format!("   {name:<10}  {about}\n")).collect();
    let own = if program == NAME { "" } else { concat!("This is vessel ", env!("CARGO_PKG_VERSION"), ". ") };
    format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\n\
         {own}A container is described by a bundle: a directory with a root filesystem and a config.json.\n\n\
         USAGE:\n   {program} [global options] command [command options] [arguments...]\n\n\
         COMMANDS:\n{commands}   help        show the help of {program} or of a command\n\n\
         GLOBAL OPTIONS:\n{}",
        options(FLAGS)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(line: &str) -> Result<Host> {
        read(line.split_whitespace().map(OsString::from))?.0.host()
    }

    #[test]
    fn the_last_of_repeated_flags_holds_and_the_command_ends_them() {
        let line = "--root /a --systemd-cgroup -root=/b/../c --systemd-cgroup state --root /d";
        let (globals, rest) = read(line.split(' ').map(OsString::from)).unwrap();
        let host = globals.host().unwrap();
        assert_eq!((host.root.to_str().unwrap(), host.root_given, host.driver), ("/c", true, Driver::Systemd));
        assert_eq!(rest, ["state", "--root", "/d"]);
    }

    #[test]
    fn drivers_and_rootless_have_few_values() {
        for (line, driver, rootless) in [
            ("", Driver::Cgroupfs, None),
            ("--systemd-cgroup=false", Driver::Cgroupfs, None),
            ("--cgroup-manager disabled --rootless=true", Driver::Disabled, Some(true)),
            ("--cgroup-manager=systemd --rootless 0", Driver::Systemd, Some(false)),
            ("--rootless Auto", Driver::Cgroupfs, None),
        ] {
            let host = host(line).unwrap();
            assert_eq!((host.driver, host.rootless), (driver, rootless), "{line}");
        }
        for line in ["--rootless maybe", "--cgroup-manager x", "--root /", "--root /a/..", "--log-format x"] {
            assert!(host(line).is_err(), "{line}");
        }
    }
}
