//! What a test asks of the machine, and the list of the tests that did not get it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use super::suite::{CGROUP_ROOT, User, runtime_kind, suite, version_line};

/// Something that one machine has and another lacks.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Controllers on cgroup v1.
    CgroupV1,
    /// cgroup v2 alone.
    CgroupV2,
    /// A cgroup controller, of either version.
    Controller(&'static str),
    /// A cgroup controller with a hierarchy of v1.
    OnV1(&'static str),
    /// systemd, reachable by D-Bus.
    Systemd,
    /// A systemd instance of the ordinary user.
    UserSystemd,
    /// AppArmor is on.
    AppArmor,
    /// SELinux is on.
    Selinux,
    /// Time namespaces.
    TimeNamespace,
    /// An ordinary user who has subordinate ids, and the programs that map them.
    Subids,
    /// A static busybox.
    Busybox,
    /// A program of the host.
    Program(&'static str),
    /// A kernel at least this new.
    Kernel(u32, u32),
    /// A kernel older than this.
    OlderKernel(u32, u32),
    /// A file or directory.
    File(&'static str),
    /// A kind of filesystem that the kernel knows.
    Filesystem(&'static str),
    /// More than one processor.
    TwoCpus,
    /// A CRIU that works with this kernel.
    Criu,
    /// Something that CRIU can do with this kernel, by the name of `criu check --feature`.
    CriuFeature(&'static str),
    /// A capability of the suite itself, by number.
    Capability(u32),
}

impl Need {
    /// Why it is not here.
    fn missing(self) -> Option<String> {
        let v2 = Path::new(CGROUP_ROOT).join("cgroup.controllers");
        let absent = |there: bool, what: &str| (!there).then(|| what.to_owned());
        match self {
            Need::CgroupV1 => absent(!v2.exists() && Path::new(CGROUP_ROOT).join("devices").exists(), "no cgroup v1"),
            Need::OnV1(name) => absent(on_v1(name), &format!("no {name} on cgroup v1")),
            Need::CgroupV2 => absent(v2.exists(), "no cgroup v2"),
            Need::Controller(name) => absent(on_v1(name) || on_v2(name), &format!("no cgroup controller {name}")),
            Need::Systemd => absent(Path::new("/run/systemd/system").exists(), "no systemd"),
            Need::UserSystemd => {
                let bus = format!("/run/user/{}/bus", User::ordinary().uid);
                absent(Path::new(&bus).exists(), "no systemd of the ordinary user")
            }
            Need::AppArmor => {
                let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
                let listed = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
                absent(on.trim() == "Y" && listed.contains("apparmor"), "no AppArmor")
            }
            Need::Selinux => absent(Path::new("/sys/fs/selinux/status").exists(), "no SELinux"),
            Need::TimeNamespace => absent(Path::new("/proc/self/ns/time").exists(), "no time namespaces"),
            Need::Subids => {
                let there = User::ordinary().name.is_some() && on_path("newuidmap") && on_path("newgidmap");
                absent(there, "no user with subordinate ids")
            }
            Need::Busybox => absent(suite().busybox.is_some(), "no busybox"),
            Need::Program(name) => absent(on_path(name), &format!("no program {name}")),
            Need::Kernel(major, minor) => {
                absent(kernel() >= (major, minor), &format!("the kernel is older than {major}.{minor}"))
            }
            Need::OlderKernel(major, minor) => {
                let text = format!("needs the vm (make vm): the kernel is not older than {major}.{minor}");
                absent(kernel() < (major, minor), &text)
            }
            Need::File(path) => absent(Path::new(path).exists(), &format!("no {path}")),
            Need::Filesystem(name) => {
                let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
                let there = known.lines().any(|l| l.split_whitespace().last() == Some(name));
                absent(there, &format!("the kernel knows no {name}"))
            }
            Need::TwoCpus => absent(std::thread::available_parallelism().is_ok_and(|n| n.get() > 1), "one processor"),
            Need::Criu => absent(*CRIU, "needs the vm (make vm): no CRIU that works with this kernel"),
            Need::CriuFeature(name) => absent(
                *CRIU && criu(&["check", "--feature", name]),
                &format!("needs the vm (make vm): CRIU has no {name} with this kernel"),
            ),
            Need::Capability(number) => {
                let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
                let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default();
                let set = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
                absent(set >> number & 1 == 1, &format!("the suite has no capability {number}"))
            }
        }
    }
}

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

static CRIU: LazyLock<bool> = LazyLock::new(|| criu(&["check"]));

fn criu(args: &[&str]) -> bool {
    on_path("criu") && super::Cmd::new("criu").args(args).run().code == 0
}

fn on_path(name: &str) -> bool {
    let dirs = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    dirs.iter().any(|d| Path::new(d).join(name).exists())
}

/// The first of the needs that the machine does not meet.
pub fn missing(needs: &[Need]) -> Option<String> {
    needs.iter().find_map(|n| n.missing())
}

/// Whether a controller has a hierarchy of v1. systemd leaves an empty directory where the kernel refuses to mount one.
fn on_v1(controller: &str) -> bool {
    Path::new(CGROUP_ROOT).join(controller).join("tasks").exists()
}

/// Whether a controller, by its name of v2, is on v2, be v1 beside it or not.
pub fn on_v2(controller: &str) -> bool {
    let lists = |part: &str| {
        let names = fs::read_to_string(Path::new(CGROUP_ROOT).join(part).join("cgroup.controllers"));
        names.unwrap_or_default().split_whitespace().any(|name| name == controller)
    };
    lists("") || lists("unified")
}

/// Whether this machine is the one of hack/vm.
pub fn in_vm() -> bool {
    std::env::var_os("TESTBED").is_some_and(|name| name == "vm")
}

/// The same, or that one with the hierarchies of cgroup v1.
pub fn in_any_vm() -> bool {
    in_vm() || std::env::var_os("TESTBED").is_some_and(|name| name == "vm-cgroup1")
}

/// The reason to skip where the runtime under test is of that kind.
pub fn deviation(kind: &str, reason: &str) -> Option<String> {
    if runtime_kind() != kind {
        return None;
    }
    if measuring() {
        let _ = writeln!(std::io::stderr(), "DEVIATES {}: {reason}", test_name());
        return None;
    }
    Some(format!("{kind} deviates: {reason}"))
}

/// The same of a runtime that did not pass the running test when it was measured.
pub fn recorded_deviation() -> Option<String> {
    let record = match runtime_kind() {
        "runc" => include_str!("../spec/runc.txt"),
        "crun" => include_str!("../spec/crun.txt"),
        "youki" => include_str!("../spec/youki.txt"),
        _ => return None,
    };
    let line = format!("{} FAILED", test_name());
    if measuring() {
        return None;
    }
    record
        .lines()
        .find(|l| l.starts_with(&line))
        .and_then(|_| deviation(runtime_kind(), "see docs/spec-conformance.md"))
}

/// Whether the run is to tell what another runtime does (`make conformance`): then a known deviation is no reason to skip,
/// and what a runtime leaves behind makes no test fail that does not ask for it.
pub fn measuring() -> bool {
    std::env::var_os("CONFORMANCE").is_some()
}

static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes that the running test is skipped; the `skip!` macro also ends it. `$VESSEL_TEST_REPORT` names a file that gets
/// a line for each.
pub fn skip(reason: &str) {
    let line = format!("{}: {reason}", test_name());
    if let Some(path) = std::env::var_os("VESSEL_TEST_REPORT") {
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut f| f.write_all(format!("{line}\n").as_bytes())).unwrap();
    }
    // Past libtest's capture, so that it is seen of tests that pass.
    let _ = writeln!(std::io::stderr(), "SKIP {line}");
    SKIPPED.lock().unwrap().push(line);
}

/// The name of the running test. libtest names its threads so; with one thread only it has none.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("unnamed").to_owned()
}

/// Prints how many tests were skipped.
pub fn print_skipped() {
    let skipped = SKIPPED.lock().map(|s| s.len()).unwrap_or(0);
    let _ = writeln!(std::io::stderr(), "{skipped} skipped");
    if measuring() {
        let version = version_line();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cgroup = if Need::CgroupV2.missing().is_none() { 2 } else { 1 };
        let _ = writeln!(
            std::io::stderr(),
            "MEASURED {version}, on Linux {}, cgroup v{cgroup}",
            kernel.split('-').next().unwrap_or_default().trim()
        );
    }
}
