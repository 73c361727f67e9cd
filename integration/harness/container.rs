//! A container of one test.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::cmd::{Cmd, Output, Running};
use super::suite::{CGROUP_ROOT, User, open_to_all, runtime_kind, suite};
use super::{check, eventually, need};

/// The configuration to begin with: the one that `spec` writes.
const CONFIG: &str = include_str!("../../config.json.example");

/// A bundle, a state root, a cgroup and a name that no other test has. What is left of the container when this is
/// dropped is deleted by force, and the test fails where that leaves anything.
///
/// The test's directory has `bundle/config.json`, `bundle/rootfs` and `root` (the state root); a test's own files go
/// beside them ([`Container::path`]).
pub struct Container {
    /// The container's name.
    pub id: String,
    /// The test's directory.
    pub dir: PathBuf,
    /// The configuration as last written.
    pub config: Value,
    global: Vec<String>,
    user: Option<User>,
    cgroup: String,
    runtime: RefCell<Option<Running>>,
    pids: RefCell<Vec<i32>>,
    deleted: Cell<bool>,
}

impl Container {
    /// A container whose program is the probe with these arguments.
    pub fn new<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Container {
        Container::with(args, |_| {})
    }

    /// The same with changes to the configuration.
    pub fn with<S: AsRef<str>>(args: impl IntoIterator<Item = S>, edit: impl FnOnce(&mut Value)) -> Container {
        let number = suite().number();
        let name = need::test_name().rsplit("::").next().unwrap_or_default().to_owned();
        // Short, as the path of a socket has 107 bytes at most.
        let name: String = name.chars().take(20).collect();
        let dir = suite().dir.join(format!("{number}-{name}"));
        let rootfs = dir.join("bundle/rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        for part in ["", "bundle", "bundle/rootfs"] {
            open_to_all(&dir.join(part));
        }
        for part in ["proc", "sys", "dev", "etc", "tmp", "root", "run", "bin"] {
            fs::create_dir(rootfs.join(part)).unwrap();
            open_to_all(&rootfs.join(part));
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\n").unwrap();
        fs::hard_link(&suite().probe, rootfs.join("probe")).unwrap();

        let cgroup = format!("/{}/{number}", suite().name);
        let mut config: Value = serde_json::from_str(CONFIG).unwrap();
        if runtime_kind() == "crun" {
            // Old ones refuse versions that they do not know.
            config["ociVersion"] = json!("1.0.2");
        }
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = probe(args);
        // The mark by which a process of this test is found.
        config["process"]["env"] = json!(["PATH=/bin:/", format!("VESSEL_TEST={}", dir.display())]);
        config["linux"]["cgroupsPath"] = json!(cgroup);
        let mut container = Container {
            id: format!("{}-{number}", suite().name),
            dir,
            config,
            global: Vec::new(),
            user: None,
            cgroup,
            runtime: RefCell::new(None),
            pids: RefCell::new(Vec::new()),
            deleted: Cell::new(false),
        };
        container.edit(edit);
        container
    }

    /// A container of an ordinary user: with a user namespace where only she is mapped, and without what she may not do
    /// (cgroups, limits). Every command runs as her.
    pub fn rootless<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Container {
        let user = User::ordinary();
        let mut container = Container::new(args);
        container.edit(|config| {
            let linux = config["linux"].as_object_mut().unwrap();
            linux.remove("cgroupsPath");
            linux.remove("resources");
            linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            linux.insert("uidMappings".into(), json!([{"containerID": 0, "hostID": user.uid, "size": 1}]));
            linux.insert("gidMappings".into(), json!([{"containerID": 0, "hostID": user.gid, "size": 1}]));
            for mount in config["mounts"].as_array_mut().unwrap() {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|o| !o.as_str().unwrap().starts_with("gid="));
                }
            }
            config["process"].as_object_mut().unwrap().remove("rlimits");
        });
        container.own(&user);
        container.user = Some(user);
        container
    }

    /// Gives the test's directory, with all that is in it, to a user.
    pub fn own(&self, user: &User) {
        fn walk(path: &Path, user: &User) {
            std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                fs::read_dir(path).unwrap().flatten().for_each(|e| walk(&e.path(), user));
            }
        }
        // The probe is one file for all tests.
        let probe = self.rootfs().join("probe");
        fs::remove_file(&probe).unwrap();
        walk(&self.dir, user);
        fs::hard_link(&suite().probe, &probe).unwrap();
    }

    /// Changes the configuration, and writes it.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        edit(&mut self.config);
        fs::write(self.bundle().join("config.json"), self.config.to_string()).unwrap();
    }

    /// Makes the probe with these arguments the program.
    pub fn program<S: AsRef<str>>(&mut self, args: impl IntoIterator<Item = S>) {
        self.edit(|config| config["process"]["args"] = probe(args));
    }

    /// Puts busybox into the root filesystem, with the names of the applets that tests use.
    pub fn busybox(&self) {
        let bin = self.rootfs().join("bin");
        fs::hard_link(suite().busybox.as_ref().expect("needs!(Need::Busybox)"), bin.join("busybox")).unwrap();
        for name in ["sh", "cat", "ls", "sleep", "true", "false", "echo", "id", "mount", "ps", "kill", "stty", "tty"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
    }

    /// Adds global flags to all commands that follow.
    pub fn global(&mut self, flags: &[&str]) {
        self.global.extend(flags.iter().map(ToString::to_string));
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("bundle/rootfs")
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The state root.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The runtime, with its global flags.
    pub fn runtime(&self) -> Cmd {
        let mut cmd =
            Cmd::new(&suite().runtime).env("VESSEL_TEST", self.dir.as_os_str()).arg("--root").arg(self.root());
        if let Some(user) = &self.user {
            let own = format!("/run/user/{}", user.uid);
            let runtime_dir = if Path::new(&own).exists() { PathBuf::from(own) } else { self.dir.clone() };
            cmd = cmd.user(user).env("XDG_RUNTIME_DIR", runtime_dir.as_os_str());
        }
        cmd.args(&self.global).cwd(&self.dir)
    }

    /// A command of the runtime: `container.command("kill", ["ID", "KILL"])`.
    pub fn command<S: AsRef<str>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Cmd {
        args.into_iter().fold(self.runtime().arg(name), |cmd, arg| cmd.arg(arg.as_ref()))
    }

    /// `run`, in the foreground, to the end of the program.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.run_cmd().run()
    }

    /// `run`, to be changed and run.
    pub fn run_cmd(&self) -> Cmd {
        self.command("run", ["--bundle"]).arg(self.bundle()).arg(&self.id)
    }

    /// `create`, to be changed and run. [`Container::create_with`] keeps what it prints.
    pub fn create_cmd(&self) -> Cmd {
        let cmd = self.command("create", ["--bundle"]).arg(self.bundle());
        cmd.arg("--pid-file").arg(self.path("pid")).arg(&self.id)
    }

    /// `create` with more flags.
    pub fn create_cmd_with(&self, flags: &[&str]) -> Cmd {
        let cmd = self.command("create", flags).arg("--bundle").arg(self.bundle());
        cmd.arg("--pid-file").arg(self.path("pid")).arg(&self.id)
    }

    /// `create`; what the container prints is in [`Container::stdout`].
    #[track_caller]
    pub fn create(&self) -> Output {
        self.create_with(self.create_cmd())
    }

    /// The same with a command of one's own.
    #[track_caller]
    pub fn create_with(&self, cmd: Cmd) -> Output {
        let mut running = cmd.spawn();
        let output = running.wait();
        if let Some(pid) = fs::read_to_string(self.path("pid")).ok().and_then(|t| t.parse().ok()) {
            self.pids.borrow_mut().push(pid);
        }
        *self.runtime.borrow_mut() = Some(running);
        output
    }

    /// `create` and `start`, which must succeed.
    #[track_caller]
    pub fn started(&self) -> &Container {
        self.create().ok();
        self.start().ok();
        self
    }

    #[track_caller]
    pub fn start(&self) -> Output {
        self.command("start", [&self.id]).run()
    }

    /// `state`, which must succeed.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.command("state", [&self.id]).run().ok().json()
    }

    /// The status that `state` tells.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the status is that.
    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        eventually(&format!("status {status}"), || (self.status() == status).then_some(()));
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.command("kill", [&self.id, signal]).run()
    }

    #[track_caller]
    pub fn delete(&self) -> Output {
        self.command("delete", [&self.id]).run()
    }

    /// `exec` of the probe with these arguments, in the foreground.
    #[track_caller]
    pub fn exec<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.exec_cmd(&[], args).run()
    }

    /// `exec` with flags, to be changed and run.
    pub fn exec_cmd<S: AsRef<str>>(&self, flags: &[&str], args: impl IntoIterator<Item = S>) -> Cmd {
        let cmd = self.command("exec", flags).arg(&self.id).arg("/probe");
        args.into_iter().fold(cmd, |cmd, arg| cmd.arg(arg.as_ref()))
    }

    /// What the created container, and `create` itself, has printed so far.
    pub fn stdout(&self) -> String {
        self.runtime.borrow().as_ref().map(Running::stdout).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        self.runtime.borrow().as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// Waits until the created container has printed a text, and returns all that it has printed.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let has = || Some(self.stdout()).filter(|s| s.contains(text));
        eventually(&format!("{text:?} from the container"), has)
    }

    /// The pid of the created container's init, from the pid file.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.path("pid")).expect("the pid file");
        text.parse().unwrap_or_else(|_| panic!("the pid file must have a number and nothing else, not {text:?}"))
    }

    /// Waits for the end of the created container's init, as an engine's monitor does; its exit code, or 128+n.
    #[track_caller]
    pub fn wait_exit(&self) -> i32 {
        let pid = self.pid();
        eventually("end of init", || match waitpid(Pid::from_raw(pid), Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
            Ok(_) => None,
            Err(e) => panic!("init {pid} is no child of its subreaper: {e}"),
        })
    }

    /// The cgroup of a process of the host, as a directory: on v1 that of the controller (also `name=systemd`).
    #[track_caller]
    pub fn cgroup_of(pid: i32, controller: &str) -> PathBuf {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let v2 = Path::new(CGROUP_ROOT).join("cgroup.controllers").exists();
        let beside = need::on_v2(controller);
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next().unwrap(), fields.next().unwrap().trim_start_matches('/'));
            if (v2 || beside) && names.is_empty() {
                return Path::new(CGROUP_ROOT).join(if v2 { "" } else { "unified" }).join(path);
            }
            if !v2 && names.split(',').any(|n| n == controller) {
                return Path::new(CGROUP_ROOT).join(controller.trim_start_matches("name=")).join(path);
            }
        }
        panic!("no cgroup of {controller} in {text}");
    }

    /// A file of the cgroup of the created container, without the last newline.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, file: &str) -> String {
        let path = Container::cgroup_of(self.pid(), controller).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim_end().to_owned()
    }

    /// The path in `linux.cgroupsPath`.
    pub fn cgroups_path(&self) -> &str {
        &self.cgroup
    }

    /// What is there of the container now, as lines for people; nothing before `create` and after `delete`.
    pub fn left(&self) -> Vec<String> {
        check::left(&self.dir, &self.id, &self.cgroup)
    }

    /// Processes of a command that was killed are the children of this one. One that lives makes the test fail.
    pub fn reap_orphans(&self) {
        for pid in self.left().iter().filter_map(|l| l.strip_prefix("process ")?.trim().parse().ok()) {
            super::reap_orphan(pid);
        }
    }

    /// Fails the test if anything is left of the container, as after a command that failed.
    #[track_caller]
    pub fn nothing_left(&self) {
        self.reap();
        // The kernel takes a moment to take away what a killed process held.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let mut left = self.left();
        while !left.is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(10));
            left = self.left();
        }
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }

    fn reap(&self) {
        for pid in self.pids.borrow_mut().drain(..) {
            super::reap_orphan(pid);
        }
    }

    /// Deletes the container by force, and checks that nothing is left of it.
    #[track_caller]
    pub fn finish(&self) {
        self.command("delete", ["--force", &self.id]).run().ok();
        self.nothing_left();
        self.deleted.set(true);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() || need::measuring() {
            // The test has its message, or is about something else; what is left is taken away in silence.
            // It may be that which does not end.
            let delete =
                std::panic::AssertUnwindSafe(|| self.command("delete", ["--force", &self.id]).timeout(20).run());
            let _ = std::panic::catch_unwind(delete);
            check::sweep(&self.dir, &self.cgroup);
            let _ = fs::remove_dir_all(&self.dir);
            return;
        }
        let finish = std::panic::AssertUnwindSafe(|| {
            if !self.deleted.get() {
                self.finish();
            }
        });
        if let Err(fault) = std::panic::catch_unwind(finish) {
            check::sweep(&self.dir, &self.cgroup);
            let _ = fs::remove_dir_all(&self.dir);
            std::panic::resume_unwind(fault);
        }
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn probe<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Value {
    let args = args.into_iter().map(|a| a.as_ref().to_owned());
    std::iter::once("/probe".to_owned()).chain(args).collect()
}
