//! What is measured: runtimes with the command line of runc, and the floor, which has one of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_spec::runtime::LinuxSeccomp;
use vessel::error::{Context, Error, Result};

use crate::Options;
use crate::bundle::{self, ORDINARY, SLEEP, TRUE, Variant};
use crate::host::{Host, View};
use crate::spawn::Line;

/// A runtime or the floor.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// As tables call it.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) floor: bool,
    /// The numbers of names, so that no two meet.
    number: usize,
}

/// Vessel, the others in the order that was asked for, the floor at the end.
pub(crate) fn all(host: &Host, options: &Options) -> Result<Vec<Runtime>> {
    let mut runtimes: Vec<Runtime> = Vec::new();
    for (number, path) in options.runtimes.iter().chain([&options.floor]).enumerate() {
        let floor = number == options.runtimes.len();
        // A copy: the original may be where an ordinary user may not look, or on a slow file system.
        let program = copy(host, path, number)?;
        let name = if floor { "floor".to_string() } else { version(&program)? };
        runtimes.push(Runtime { name, program, floor, number });
    }
    Ok(runtimes)
}

fn copy(host: &Host, path: &Path, number: usize) -> Result<PathBuf> {
    let base = path.file_name().unwrap_or_default();
    let dir = host.work.join(format!("runtime-{number}"));
    fs::create_dir_all(&dir).context(|| "cannot make a directory")?;
    let copy = dir.join(base);
    fs::copy(path, &copy).context(|| format!("cannot copy {}", path.display()))?;
    Ok(copy)
}

/// The first line of `--version` without the word.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let static_build = is_static(program);
    let name = text.lines().next().unwrap_or_default().replace(" version", "");
    Ok(if static_build { name } else { format!("{name} (dynamic)") })
}

/// Whether a program has no interpreter, which is a string in its first page.
fn is_static(program: &Path) -> bool {
    let Ok(bytes) = fs::read(program) else { return true };
    !bytes.iter().take(4096).copied().collect::<Vec<_>>().windows(8).any(|w| w == b"ld-linux")
}

impl Runtime {
    /// The container number `slot` of this runtime.
    pub(crate) fn id(&self, slot: usize) -> String {
        format!("b{}-{slot:05}", self.number)
    }

    /// Where the state is.
    pub(crate) fn root(&self, host: &Host, variant: &Variant) -> PathBuf {
        let of = if variant.rootless { format!("user-{}", self.number) } else { self.number.to_string() };
        host.run.join(of)
    }

    /// Makes what its commands count on to be there.
    pub(crate) fn prepare(&self, host: &Host, variant: &Variant, slot: usize, sleeps: bool, cold: usize) -> Result<()> {
        let root = self.root(host, variant);
        fs::create_dir_all(&root).context(|| "cannot make a state root")?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).context(|| "cannot change a mode")?;
        if variant.rootless {
            std::os::unix::fs::chown(&root, Some(ORDINARY), Some(ORDINARY)).context(|| "cannot change an owner")?;
        }
        let args = if sleeps { SLEEP } else { TRUE };
        bundle::write(host, &self.bundle(slot), &self.id(slot), variant, args, cold)?;
        if self.floor && variant.seccomp {
            let filter = root.join("filter");
            if !filter.exists() {
                let text = bundle::profile(0).to_string();
                let profile: LinuxSeccomp = serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
                let compiled = vessel::security::seccomp::compile(&profile)?;
                fs::write(filter, compiled.program).context(|| "cannot write the filter")?;
            }
        }
        Ok(())
    }

    fn bundle(&self, slot: usize) -> String {
        format!("bundle-{}-{slot}", self.number)
    }

    /// A command: `run`, `create`, `start`, `delete` (of one that runs), `exec` of /bin/true, or one of runc's as it is.
    /// With `sleeps`, as in what was prepared.
    pub(crate) fn line(&self, host: &Host, variant: &Variant, slot: usize, sleeps: bool, verb: &str) -> Line {
        let args = if self.floor {
            self.floor_args(host, variant, slot, sleeps, verb)
        } else {
            self.oci_args(host, variant, slot, verb)
        };
        let mut all = vec![self.program.display().to_string()];
        all.extend(args);
        let user = variant.rootless.then_some(ORDINARY);
        let dir = self.root(host, variant).display().to_string();
        let names: &[&str] = if variant.rootless { &["XDG_RUNTIME_DIR", "HOME"] } else { &[] };
        Line { args: all, user, env: names.iter().map(|n| (n.to_string(), dir.clone())).collect() }
    }

    fn oci_args(&self, host: &Host, variant: &Variant, slot: usize, verb: &str) -> Vec<String> {
        let mut args = vec!["--root".to_string(), self.root(host, variant).display().to_string()];
        if variant.systemd {
            args.push("--systemd-cgroup".into());
        }
        let bundle = host.work.join(self.bundle(slot)).display().to_string();
        let id = self.id(slot);
        args.extend(match verb {
            "run" | "create" => vec![verb.into(), "--bundle".into(), bundle, id],
            "run -d" => vec!["run".into(), "-d".into(), "--bundle".into(), bundle, id],
            "delete" => vec![verb.into(), "--force".into(), id],
            "delete stopped" => vec!["delete".into(), id],
            "exec" => vec![verb.into(), id, "/bin/true".into()],
            "kill" => vec![verb.into(), id, "KILL".into()],
            "list" => vec![verb.into()],
            // Their tables differ: some run ps(1) for it.
            "ps" => vec![verb.into(), "--format".into(), "json".into(), id],
            _ => vec![verb.into(), id],
        });
        args
    }

    fn floor_args(&self, host: &Host, variant: &Variant, slot: usize, sleeps: bool, verb: &str) -> Vec<String> {
        let id = self.id(slot);
        let root = self.root(host, variant);
        let mut args = vec![verb.to_string(), root.join(&id).display().to_string()];
        if verb == "exec" {
            args.push("/bin/true".into());
        }
        if verb != "run" && verb != "create" {
            return args;
        }
        args.push(host.work.join(format!("rootfs-{}", variant.ids().map_or(0, |(id, _)| id))).display().to_string());
        if !variant.rootless {
            if host.view == View::V2 {
                args.push("--v2".into());
            }
            for cgroup in &host.cgroups {
                args.extend(["--cgroup".into(), cgroup.join(&id).display().to_string()]);
            }
        }
        if let Some((first, size)) = variant.ids() {
            args.extend(["--user".into(), format!("{first}:{size}")]);
        }
        if variant.limits {
            args.push("--limits".into());
        }
        if variant.seccomp {
            args.extend(["--filter".into(), root.join("filter").display().to_string()]);
        }
        args.extend(["--mounts".into(), variant.mounts.to_string(), "--".into()]);
        args.extend(if sleeps { SLEEP } else { TRUE }.iter().map(|a| a.to_string()));
        args
    }

    /// Removes what a failed command may have left.
    pub(crate) fn recover(&self, host: &Host, variant: &Variant, slot: usize) {
        let _ = self.line(host, variant, slot, false, "delete").time();
        let state = self.root(host, variant).join(self.id(slot));
        for _ in 0..if self.floor { 2 } else { 0 } {
            for file in ["gate", "state"] {
                let _ = fs::remove_file(state.join(file));
            }
            let _ = fs::remove_dir(&state);
            for cgroup in &host.cgroups {
                let _ = fs::remove_dir(cgroup.join(self.id(slot)));
            }
        }
    }
}
