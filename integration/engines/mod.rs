//! Engines that drive the runtime: what they ask for is more than any list of flags tells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::harness::{
    CGROUP_ROOT, Cmd, Container, Need, Output, Pty, Running, User, eventually, missing, runtime, suite,
};

mod containerd;
mod docker;
mod podman;
mod podman_cgroups;
mod pods;
mod rootless;

/// An engine with everything of its own in the test's directory and cgroup, and the container's root filesystem.
struct Engine {
    c: Container,
    user: Option<User>,
    /// Where the files are that tell who the user is, if the machine does not know.
    files: Option<PathBuf>,
    /// podman's `--cgroup-manager`.
    manager: &'static str,
    daemon: Option<Running>,
    /// A directory with a short path, which engines ask for where they have sockets.
    short: PathBuf,
    /// The turn of an ordinary user's engine: all of hers share one process that holds her user namespace, and each ends
    /// it when it goes.
    _turn: Option<MutexGuard<'static, ()>>,
}

static TURN: Mutex<()> = Mutex::new(());

/// Flags without which engines ask for more than a root without CAP_SYS_RESOURCE may give.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=512:1024", "--ulimit", "nproc=1000:1000"];

impl Engine {
    fn podman() -> Engine {
        let short = suite().dir.join(suite().number().to_string());
        fs::create_dir(&short).unwrap();
        Engine {
            c: Container::new(["echo"]),
            user: None,
            files: None,
            manager: "cgroupfs",
            daemon: None,
            short,
            _turn: None,
        }
    }

    /// podman of an ordinary user.
    fn rootless() -> Engine {
        let user = User::ordinary();
        // A test that failed in its turn has ended it all the same.
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut engine = Engine::podman();
        engine._turn = Some(turn);
        fs::create_dir(engine.c.path("home")).unwrap();
        engine.c.own(&user);
        std::os::unix::fs::chown(&engine.short, Some(user.uid), Some(user.gid)).unwrap();
        engine.user = Some(user);
        engine
    }

    /// Waits until the daemon answers; fails with what it has said where it has ended.
    fn wait_for_daemon(&self, question: impl Fn() -> Cmd) {
        eventually("the daemon's answer", || {
            if let Some(daemon) = self.daemon.as_ref().filter(|daemon| daemon.ended()) {
                panic!("the daemon has ended: {}", daemon.stderr());
            }
            (question().run().code == 0).then_some(())
        });
    }

    /// With another manager of cgroups than cgroupfs.
    fn with(mut self, manager: &'static str) -> Engine {
        self.manager = manager;
        self
    }

    /// The runtime with the test's state root. podman has a flag for that, but forgets it where it cleans up.
    fn runtime(&self) -> PathBuf {
        let script = self.short.join(runtime().file_name().unwrap());
        if !script.exists() {
            let call = format!("exec {} --root {} \"$@\"", runtime().display(), self.c.root().display());
            fs::write(&script, format!("#!/bin/sh\n{call}\n")).unwrap();
            fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        }
        script
    }

    /// Where an ordinary user's programs have their sockets.
    fn session(&self) -> Option<PathBuf> {
        let user = self.user.as_ref()?;
        Some(if self.files.is_some() { self.short.join("session") } else { format!("/run/user/{}", user.uid).into() })
    }

    /// What podman is told in a file alone.
    fn settings(&self) -> PathBuf {
        let file = self.short.join("containers.conf");
        let name = runtime().file_name().unwrap();
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile=512:1024\", \"nproc=1000:1000\"]\n\
             [engine]\nruntime_supports_nocgroup = [{name:?}]\n",
        );
        fs::write(&file, text).unwrap();
        file
    }

    /// podman with arguments, to be changed and run.
    fn cmd(&self, args: &[&str]) -> Cmd {
        let c = &self.c;
        let mut cmd = match (&self.user, &self.files) {
            (Some(user), Some(files)) => rootless::podman(files, user),
            (Some(user), None) => Cmd::new("podman").user(user),
            (None, _) => Cmd::new("podman"),
        };
        if let Some(session) = self.session() {
            let bus = format!("unix:path={}/bus", session.display());
            cmd = cmd.env("XDG_RUNTIME_DIR", session).env("DBUS_SESSION_BUS_ADDRESS", bus);
        }
        let cmd = cmd.timeout(180).cwd(&c.dir).env("HOME", c.path("home")).arg("--root").arg(c.path("storage"));
        let cmd = cmd.arg("--runroot").arg(&self.short).arg("--tmpdir").arg(c.path("tmp"));
        let cmd = cmd.args(["--storage-driver", "vfs", "--cgroup-manager", self.manager]);
        let cmd = cmd.env("CONTAINERS_CONF", self.settings());
        cmd.args(["--events-backend", "none", "--runtime"]).arg(self.runtime()).args(args)
    }

    /// podman with arguments.
    #[track_caller]
    fn act(&self, args: &[&str]) -> Output {
        self.cmd(args).run()
    }

    /// `podman run` of the probe, to be changed and run. The image is the container's root filesystem.
    fn run(&self, flags: &[&str], args: &[&str]) -> Cmd {
        let cmd = self.cmd(&["run", "--network", "none"]).args(LIMITS);
        let cmd = cmd.args(self.parent()).args(flags);
        let cmd = match flags.last() {
            Some(&"image") => cmd,
            _ => cmd.arg("--rootfs").arg(self.c.rootfs()),
        };
        cmd.arg("/probe").args(args)
    }

    /// The flags for the cgroup to make others in. An ordinary user's podman, and systemd, know one themselves.
    fn parent(&self) -> Vec<&str> {
        let told = self.user.is_none() && self.manager == "cgroupfs";
        if told { vec!["--cgroup-parent", self.c.cgroups_path()] } else { Vec::new() }
    }

    /// An ordinary user's podman keeps a process that holds her user namespace; old ones note it where --tmpdir says.
    fn end_namespace(&self) {
        let Some(session) = self.session() else { return };
        for file in [session.join("libpod/tmp/pause.pid"), self.c.path("tmp/pause.pid")] {
            let pid = fs::read_to_string(&file).unwrap_or_default();
            if let Ok(pid) = pid.trim().parse() {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(pid, None);
            }
            // Else the next one would try to join it.
            let _ = fs::remove_file(&file);
        }
    }

    /// The root filesystem as a tarball.
    fn tarball(&self) -> PathBuf {
        let path = self.c.path("rootfs.tar");
        let out = Cmd::new("tar").arg("-cf").arg(&path).arg("-C").arg(self.c.rootfs()).arg(".").run();
        // The probe gets and loses links while other tests come and go.
        assert!(out.code == 0 || out.stderr.trim() == "tar: ./probe: file changed as we read it", "{out}");
        path
    }

    /// Imports the root filesystem as `image`.
    fn import(&self) {
        self.cmd(&["import"]).arg(self.tarball()).arg("image").run().ok();
    }
}

fn v2() -> bool {
    missing(&[Need::CgroupV2]).is_none()
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.signal(nix::sys::signal::Signal::SIGTERM);
            if !std::thread::panicking() {
                daemon.wait();
            }
        }
        self.end_namespace();
        // Monitors clean up when their engine has answered already.
        if !std::thread::panicking() {
            let process = |line: &String| line.starts_with("process");
            eventually("the end of the engine's helpers", || {
                // One that is late has made another.
                self.end_namespace();
                (!self.c.left().iter().any(process)).then_some(())
            });
        }
        remove_empty(self.c.cgroups_path());
        let _ = fs::remove_dir_all(&self.short);
    }
}

/// Removes the cgroup that engines made theirs in, as soon as their monitors have left it; other processes in it are a
/// fault, which the container's own check reports.
fn remove_empty(cgroup: &str) {
    fn remove(dir: &Path) -> bool {
        let below = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
        below.for_each(|p| _ = remove(&p));
        !dir.exists() || fs::remove_dir(dir).is_ok()
    }
    let cgroup = cgroup.trim_start_matches('/');
    let v1 = fs::read_dir(CGROUP_ROOT).unwrap().flatten().map(|e| e.path().join(cgroup));
    let mut dirs: Vec<_> = v1.chain([Path::new(CGROUP_ROOT).join(cgroup)]).collect();
    for _ in 0..500 {
        dirs.retain(|p| !remove(p));
        if dirs.is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Cgroups and units of the machine that have a word in their names.
fn traces(word: &str) -> Vec<String> {
    let args = ["list-units", "--all", "--plain", "--no-legend", "--no-pager"];
    let units = Cmd::new("sh").args(["-c", "command -v systemctl >/dev/null || exit 0; exec systemctl \"$@\"", "sh"]);
    let units = units.args(args).arg(format!("*{word}*")).run().stdout;
    let mut found: Vec<_> = units.lines().map(str::to_owned).collect();
    let dirs = Cmd::new("find").arg(CGROUP_ROOT).args(["-type", "d", "-name"]).arg(format!("*{word}*")).run().stdout;
    found.extend(dirs.lines().map(str::to_owned));
    found
}

/// A command on a terminal, which is asked for a line: what comes out of the terminal.
#[track_caller]
fn on_terminal(cmd: Cmd) -> String {
    let mut pty = Pty::new();
    let mut running = cmd.terminal(pty.take_slave()).spawn();
    let mut shown = pty.read_until("isatty 2 true");
    std::io::Write::write_all(&mut pty.master, b"typed\n").unwrap();
    shown.push_str(&pty.read_until("line typed"));
    running.wait().ok();
    shown
}

/// What [`on_terminal`] expects.
const TERMINAL: [&str; 3] = ["isatty", "--", "readline"];
