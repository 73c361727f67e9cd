//! What all tests of one run share: a directory, copies of the binaries, and the check at the very end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::check;

/// Where cgroups are mounted.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The things that the tests of one run share.
pub struct Suite {
    /// The directory that everything lies below; anybody may search it.
    pub dir: PathBuf,
    /// Its name, which is also the name of the cgroup that the containers' cgroups lie in, and part of every id.
    pub name: String,
    /// A copy of the runtime that anybody may run.
    pub runtime: PathBuf,
    /// The probe, for hard links.
    pub probe: PathBuf,
    /// A static busybox, for hard links, if there is one.
    pub busybox: Option<PathBuf>,
    next: AtomicUsize,
}

/// A user without privileges. Where the machine has `alice` (with subordinate ids), it is she.
#[derive(Clone, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// In /etc/passwd, and with ranges in /etc/subuid and /etc/subgid.
    pub name: Option<String>,
}

impl User {
    /// An ordinary user; the uid need not be in /etc/passwd.
    pub fn ordinary() -> User {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let subuid = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let alice = passwd.lines().find(|l| l.starts_with("alice:")).filter(|_| subuid.contains("alice:"));
        match alice.map(|l| l.split(':').collect::<Vec<_>>()) {
            Some(fields) => User {
                uid: fields[2].parse().unwrap(),
                gid: fields[3].parse().unwrap(),
                name: Some("alice".to_owned()),
            },
            None => User { uid: 54321, gid: 54321, name: None },
        }
    }
}

static SUITE: LazyLock<Suite> = LazyLock::new(Suite::new);

/// The suite of this process.
pub fn suite() -> &'static Suite {
    &SUITE
}

/// The runtime under test: `$RUNTIME`, or the binary that was built with the tests.
pub fn runtime() -> &'static Path {
    &suite().runtime
}

/// What `--version` prints.
static VERSION: LazyLock<String> = LazyLock::new(|| super::Cmd::new(runtime()).arg("--version").run().ok().stdout);

/// The first word of `--version`: vessel (which has a line more where its file has another name), runc, crun.
pub fn runtime_kind() -> &'static str {
    if VERSION.lines().any(|line| line.starts_with("vessel: ")) {
        return "vessel";
    }
    VERSION.split_whitespace().next().filter(|word| *word != "version").unwrap_or("vessel")
}

/// Its first line.
pub fn version_line() -> &'static str {
    VERSION.lines().next().unwrap_or_default()
}

/// Whether the runtime's version is below `version`, by the first two numbers.
pub fn runtime_is_before(version: &str) -> bool {
    let numbers = |text: &str| -> (u32, u32) {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    let own = VERSION.lines().next().and_then(|line| line.split_whitespace().find(|w| w.starts_with(char::is_numeric)));
    numbers(own.unwrap_or_default()) < numbers(version)
}

/// How long a test waits for something: a loaded test bed with one slow processor takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something is so; fails the test when it does not become so.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {} s in vain: {what}", PATIENCE.as_secs());
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Waits for the end of a process whose parent is gone, and which is a child of this one thereby. One that lives on makes
/// the test fail.
#[track_caller]
pub fn reap_orphan(pid: i32) {
    let (pid, no_hang) = (nix::unistd::Pid::from_raw(pid), nix::sys::wait::WaitPidFlag::WNOHANG);
    let ended = || nix::sys::wait::waitpid(pid, Some(no_hang)) != Ok(nix::sys::wait::WaitStatus::StillAlive);
    eventually("the end of a process", || ended().then_some(()));
}

impl Suite {
    fn new() -> Suite {
        assert!(nix::unistd::geteuid().is_root(), "the integration tests need root");
        let name = format!("vessel-test-{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        let built = std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("examples/probe");
        let probe = std::env::var_os("PROBE").map_or(built, PathBuf::from);
        assert!(probe.exists(), "the probe is not built: cargo build --example probe");
        fs::create_dir(&dir).unwrap();
        let bin = dir.join("bin");
        fs::create_dir(&bin).unwrap();
        open_to_all(&dir);
        open_to_all(&bin);

        let found = which(&std::env::var_os("RUNTIME").unwrap_or_else(|| env!("CARGO_BIN_EXE_vessel").into()));
        let runtime = copy(&found, &bin);
        let probe = copy(&probe, &bin);
        let answer = std::process::Command::new(&probe).args(["echo", "ready"]).output().unwrap();
        if answer.stdout != b"ready\n" {
            let _ = fs::remove_dir_all(&dir);
            panic!("the probe is not built: cargo build --example probe");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|p| p.exists());
        let busybox = busybox.map(|p| copy(p, &bin));

        // Containers whose runtime has ended come to us, as they come to an engine's monitor.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        // SAFETY: the handler is a plain function, and the libraries that it uses still work at exit.
        unsafe { libc::atexit(at_exit) };
        // The emulated machine is slow.
        let minutes = if super::in_any_vm() { 180 } else { 30 };
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(minutes * 60));
            eprintln!("the integration tests take more than {minutes} minutes: given up");
            std::process::abort();
        });
        Suite { dir, name, runtime, probe, busybox, next: AtomicUsize::new(1) }
    }

    /// A number that no other caller gets.
    pub fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Lets every user search a directory, whatever the umask is.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn which(name: &OsString) -> PathBuf {
    let path = PathBuf::from(name);
    if path.components().count() > 1 {
        return path;
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&dirs).collect();
    dirs.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    dirs.iter().map(|d| d.join(&path)).find(|p| p.exists()).unwrap_or_else(|| panic!("no program {}", path.display()))
}

fn copy(from: &Path, dir: &Path) -> PathBuf {
    let to = dir.join(from.file_name().unwrap());
    fs::copy(from, &to).unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
    open_to_all(&to);
    to
}

/// The last check of a run, after libtest has printed its result.
extern "C" fn at_exit() {
    let suite = suite();
    let end = Instant::now() + Duration::from_secs(10);
    let mut left = check::everything_left(suite);
    // An engine cleans up in the background.
    while !left.is_empty() && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
        left = check::everything_left(suite);
    }
    if let Err(e) = fs::remove_dir_all(&suite.dir) {
        left.push(format!("{}: {e}", suite.dir.display()));
    }
    super::need::print_skipped();
    if !left.is_empty() && !super::measuring() {
        eprintln!("the tests left behind:\n  {}", left.join("\n  "));
        // SAFETY: ends the process without running handlers again.
        unsafe { libc::_exit(101) };
    }
}
