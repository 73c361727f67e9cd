//! The floor: what no runtime can do without. It takes the default bundle through the same life as a runtime, with the
//! system calls that the kernel needs for it and no others: it reads no configuration, checks nothing, resolves no path
//! safely, and knows the bundle by heart. It is no runtime, and what it is told comes from the benchmark alone.
//!
//! ```text
//! floor run|create DIR ROOTFS [--cgroup DIR]... [--v2] [--mounts N] [--filter FILE] [--limits] [--user ID:SIZE] -- PROGRAM...
//! floor start|delete DIR
//! floor exec DIR PROGRAM...
//! ```
//!
//! DIR is where it keeps what `start`, `exec` and `delete` need to know.

// Nor does it look at the processor, as vessel does not.
#[cfg(glibc_start)]
#[path = "../src/sys/libc_start.rs"]
mod libc_start;

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};
use vessel::error::{Context, Error, Result};
use vessel::sys::bpf::{Insn, attach_device_program, load_device_program};
use vessel::sys::clone::{Clone, clone3};
use vessel::sys::process::{execve, exit};

const NONE: Option<&str> = None;
const MASKED_FILES: [&str; 6] = ["kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug"];
const MASKED_DIRS: [&str; 4] = ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
];
/// AUDIT_WRITE, KILL and NET_BIND_SERVICE.
const KEPT: u64 = 1 << 29 | 1 << 5 | 1 << 10;
const LAST_CAPABILITY: u32 = 40;

#[derive(Default)]
struct Bundle {
    state: String,
    rootfs: String,
    cgroups: Vec<String>,
    v2: bool,
    mounts: usize,
    filter: Option<Vec<u8>>,
    limits: bool,
    user: Option<(u32, u32)>,
    program: Vec<CString>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_default();
    let done = match verb.as_str() {
        "run" | "create" => bundle(&mut args).and_then(|bundle| make(&bundle, verb == "run")),
        "start" => start(&args.next().unwrap_or_default()),
        "delete" => delete(&args.next().unwrap_or_default()),
        "exec" => {
            exec(&args.next().unwrap_or_default(), &args.filter_map(|a| CString::new(a).ok()).collect::<Vec<_>>())
        }
        _ => Err(Error::new("floor: run, create, start, delete or exec (see benches/floor.rs)")),
    };
    exit(done.unwrap_or_else(|e| {
        eprintln!("floor: {verb}: {e}");
        1
    }))
}

fn bundle(args: &mut impl Iterator<Item = String>) -> Result<Bundle> {
    let mut bundle = Bundle { state: args.next().unwrap_or_default(), ..Bundle::default() };
    bundle.rootfs = args.next().unwrap_or_default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--v2" => bundle.v2 = true,
            "--limits" => bundle.limits = true,
            "--cgroup" => bundle.cgroups.extend(args.next()),
            "--mounts" => bundle.mounts = args.next().and_then(|n| n.parse().ok()).unwrap_or_default(),
            "--filter" => bundle.filter = args.next().and_then(|file| std::fs::read(file).ok()),
            "--user" => {
                bundle.user = args
                    .next()
                    .as_deref()
                    .and_then(|u| u.split_once(':'))
                    .and_then(|(id, size)| Some((id.parse().ok()?, size.parse().ok()?)));
            }
            _ => bundle.program = args.by_ref().filter_map(|a| CString::new(a).ok()).collect(),
        }
    }
    Ok(bundle)
}

fn make(bundle: &Bundle, run: bool) -> Result<i32> {
    rustix::fs::mkdir(&bundle.state, rustix::fs::Mode::RWXU).context(|| "mkdir state")?;
    for cgroup in &bundle.cgroups {
        rustix::fs::mkdir(cgroup, rustix::fs::Mode::from_raw_mode(0o755)).context(|| "mkdir cgroup")?;
    }
    // A new cgroup of this hierarchy has none, and takes no process.
    for cgroup in bundle.cgroups.iter().filter(|c| !bundle.v2 && controls(c, "cpuset")) {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let text = std::fs::read_to_string(format!("{cgroup}/../{file}")).context(|| file)?;
            write(&format!("{cgroup}/{file}"), &text)?;
        }
    }
    if bundle.limits {
        limit(bundle)?;
    }
    let cgroup = match bundle.cgroups.first() {
        Some(dir) if bundle.v2 => Some(directory(dir)?),
        _ => None,
    };
    match &cgroup {
        Some(cgroup) => attach_device_program(cgroup.as_fd(), load_device_program(&device_program())?.as_fd())?,
        None => allow_devices(bundle)?,
    }
    let gate = if run {
        None
    } else {
        let path = format!("{}/gate", bundle.state);
        nix::unistd::mkfifo(path.as_str(), Mode::S_IRUSR | Mode::S_IWUSR).context(|| "mkfifo")?;
        if bundle.user.is_some() {
            // Root of the user namespace is nobody here.
            rustix::fs::chmod(path.as_str(), rustix::fs::Mode::from_raw_mode(0o666)).context(|| "chmod")?;
        }
        Some(open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).context(|| "gate")?)
    };
    let (ready, ready_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context(|| "pipe")?;
    let maps = bundle.user.map(|_| nix::unistd::pipe2(OFlag::O_CLOEXEC)).transpose().context(|| "pipe")?;
    let mut flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNS;
    if bundle.user.is_some() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    let (pid, pidfd) = match clone3(flags.bits() as u64, cgroup.as_ref().map(AsFd::as_fd))? {
        Clone::Child => {
            let maps = maps.map(|(wait, _)| wait);
            drop(ready);
            let e = init(bundle, maps, ready_end, gate).err();
            eprintln!("floor: init: {}", e.map(|e| e.to_string()).unwrap_or_default());
            exit(1)
        }
        Clone::Parent(pid, pidfd) => (pid, pidfd),
    };
    drop(ready_end);
    if let (Some((id, size)), Some((_, go))) = (bundle.user, maps) {
        let map = format!("0 {id} {size}");
        if size == 1 {
            write(&format!("/proc/{pid}/setgroups"), "deny")?;
        }
        write(&format!("/proc/{pid}/uid_map"), &map)?;
        write(&format!("/proc/{pid}/gid_map"), &map)?;
        drop(go);
    }
    if !run {
        // Its end comes with "ready" or without, as init ends.
        if File::from(ready).read(&mut [0]).context(|| "pipe")? == 0 {
            return Err(Error::new("init ended"));
        }
        let user = if bundle.user.is_some() { "user" } else { "" };
        write_new(
            &format!("{}/state", bundle.state),
            &format!("{pid}\n{}\n{user}\n{}\n", bundle.v2, bundle.cgroups.join("\n")),
        )?;
        return Ok(0);
    }
    let status = wait(&pidfd)?;
    remove(&bundle.state, &bundle.cgroups)?;
    Ok(status)
}

fn init(bundle: &Bundle, maps: Option<OwnedFd>, ready: OwnedFd, gate: Option<OwnedFd>) -> Result<()> {
    if !bundle.v2 {
        for cgroup in &bundle.cgroups {
            write(&format!("{cgroup}/tasks"), "0")?;
        }
    }
    if let Some(maps) = maps {
        let _ = File::from(maps).read(&mut [0]);
        let (uid, gid) = (nix::unistd::Uid::from_raw(0), nix::unistd::Gid::from_raw(0));
        nix::unistd::setresgid(gid, gid, gid).context(|| "setresgid")?;
        nix::unistd::setresuid(uid, uid, uid).context(|| "setresuid")?;
    }
    if bundle.v2 {
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).context(|| "unshare")?;
    }
    nix::unistd::setsid().context(|| "setsid")?;
    loopback()?;
    filesystem(bundle)?;
    nix::unistd::sethostname("vessel").context(|| "sethostname")?;
    restrict(&bundle.filter, gate.is_none())?;
    if let Some(gate) = gate {
        nix::unistd::write(&ready, b"r").context(|| "pipe")?;
        let gate = format!("/proc/self/fd/{}", gate.as_raw_fd());
        open(gate.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).context(|| "gate")?;
        install(&bundle.filter)?;
    }
    Err(program(&bundle.program))
}

fn loopback() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context(|| "socket")?;
    vessel::sys::net::add_flags(socket.as_fd(), "lo", libc::IFF_UP)
}

fn filesystem(bundle: &Bundle) -> Result<()> {
    let (nosuid, noexec, nodev) = (MsFlags::MS_NOSUID, MsFlags::MS_NOEXEC, MsFlags::MS_NODEV);
    let no = nosuid | noexec | nodev;
    let (rec, bind, ro) = (MsFlags::MS_REC, MsFlags::MS_BIND, MsFlags::MS_RDONLY);
    at(NONE, "/", NONE, rec | MsFlags::MS_SLAVE, NONE)?;
    at(Some(&bundle.rootfs), &bundle.rootfs, NONE, bind | rec, NONE)?;
    nix::unistd::chdir(bundle.rootfs.as_str()).context(|| "chdir")?;
    at(Some("proc"), "proc", Some("proc"), MsFlags::empty(), NONE)?;
    at(Some("tmpfs"), "dev", Some("tmpfs"), nosuid | MsFlags::MS_STRICTATIME, Some("mode=755,size=65536k"))?;
    for dir in ["dev/pts", "dev/shm", "dev/mqueue"] {
        rustix::fs::mkdir(dir, rustix::fs::Mode::from_raw_mode(0o755)).context(|| dir)?;
    }
    let pts = if bundle.user.is_some_and(|(_, size)| size == 1) {
        "newinstance,ptmxmode=0666,mode=0620"
    } else {
        "newinstance,ptmxmode=0666,mode=0620,gid=5"
    };
    at(Some("devpts"), "dev/pts", Some("devpts"), nosuid | noexec, Some(pts))?;
    at(Some("shm"), "dev/shm", Some("tmpfs"), no, Some("mode=1777,size=65536k"))?;
    at(Some("mqueue"), "dev/mqueue", Some("mqueue"), no, NONE)?;
    at(Some("sysfs"), "sys", Some("sysfs"), no | ro, NONE)?;
    if bundle.v2 {
        at(Some("cgroup"), "sys/fs/cgroup", Some("cgroup2"), no | ro | MsFlags::MS_RELATIME, NONE)?;
    } else if !bundle.cgroups.is_empty() {
        at(Some("tmpfs"), "sys/fs/cgroup", Some("tmpfs"), no, Some("mode=755"))?;
        for cgroup in &bundle.cgroups {
            let name = format!("sys/fs/cgroup/{}", hierarchy(cgroup));
            rustix::fs::mkdir(&name, rustix::fs::Mode::from_raw_mode(0o755)).context(|| "mkdir")?;
            at(Some(cgroup), &name, NONE, bind, NONE)?;
            at(NONE, &name, NONE, bind | MsFlags::MS_REMOUNT | ro | no, NONE)?;
        }
        at(NONE, "sys/fs/cgroup", NONE, MsFlags::MS_REMOUNT | ro | no, Some("mode=755"))?;
    }
    for number in 0..bundle.mounts {
        at(Some(&bundle.state), &format!("m/{number}"), NONE, bind, NONE)?;
    }
    for (name, major, minor) in DEVICES {
        let path = format!("dev/{name}");
        if bundle.user.is_some() {
            File::create(&path).context(|| &path)?;
            at(Some(&format!("/{path}")), &path, NONE, bind, NONE)?;
        } else {
            use nix::sys::stat::{SFlag, makedev, mknod};
            mknod(path.as_str(), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
                .context(|| "mknod")?;
        }
    }
    for (target, link) in LINKS {
        rustix::fs::symlink(target, link).context(|| link)?;
    }
    nix::unistd::pivot_root(".", ".").context(|| "pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "umount2")?;
    if mount(NONE, "/", NONE, bind | MsFlags::MS_REMOUNT | ro, NONE).is_err() {
        // A user namespace has to keep what the host's mount has.
        at(NONE, "/", NONE, bind | MsFlags::MS_REMOUNT | ro | nosuid | nodev, NONE)?;
    }
    for file in MASKED_FILES {
        passed(mount(Some("/dev/null"), format!("/proc/{file}").as_str(), NONE, bind, NONE))?;
    }
    for dir in MASKED_DIRS {
        passed(mount(Some("tmpfs"), dir, Some("tmpfs"), ro, NONE))?;
    }
    for path in READ_ONLY {
        if passed(mount(Some(path), path, NONE, bind | rec, NONE))? {
            at(NONE, path, NONE, bind | MsFlags::MS_REMOUNT | ro | no, NONE)?;
        }
    }
    Ok(())
}

/// Capabilities, limits and the filter. `now` is false where a gate is in front of the program.
fn restrict(filter: &Option<Vec<u8>>, now: bool) -> Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1024).context(|| "setrlimit")?;
    for capability in 0..=LAST_CAPABILITY {
        if KEPT & 1 << capability == 0 {
            let set = CapabilitySet::from_bits_retain(1 << capability);
            rustix::thread::remove_capability_from_bounding_set(set).context(|| "capabilities")?;
        }
    }
    let kept = CapabilitySet::from_bits_retain(KEPT);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context(|| "capabilities")?;
    rustix::thread::set_no_new_privs(true).context(|| "no_new_privs")?;
    if now { install(filter) } else { Ok(()) }
}

fn install(filter: &Option<Vec<u8>>) -> Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    vessel::sys::seccomp::set_filter(filter, 0, false).map(drop)
}

fn program(args: &[CString]) -> Error {
    match args.first() {
        Some(path) => {
            execve(path, args, &[c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()])
        }
        None => Error::new("no program"),
    }
}

fn start(dir: &str) -> Result<i32> {
    let path = format!("{dir}/gate");
    open(path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).context(|| "gate")?;
    nix::unistd::unlink(path.as_str()).context(|| "gate")?;
    Ok(0)
}

/// What `create` has left: the process, whether on v2, whether in a user namespace, the cgroups.
fn state(dir: &str) -> Result<(i32, bool, bool, Vec<String>)> {
    let text = std::fs::read_to_string(format!("{dir}/state")).context(|| "state")?;
    let mut lines = text.lines();
    let pid = lines.next().and_then(|l| l.parse().ok()).ok_or_else(|| Error::new("no state"))?;
    let (v2, user) = (lines.next() == Some("true"), lines.next() == Some("user"));
    Ok((pid, v2, user, lines.filter(|l| !l.is_empty()).map(str::to_string).collect()))
}

fn pidfd(pid: i32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::new("no pid"))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).context(|| "pidfd_open")
}

fn delete(dir: &str) -> Result<i32> {
    let (pid, _, _, cgroups) = state(dir)?;
    if let Ok(pidfd) = pidfd(pid) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).context(|| "poll")?;
    }
    rustix::fs::unlink(format!("{dir}/state")).context(|| "state")?;
    remove(dir, &cgroups)?;
    Ok(0)
}

fn remove(dir: &str, cgroups: &[String]) -> Result<()> {
    for cgroup in cgroups {
        rustix::fs::rmdir(cgroup).context(|| format!("rmdir {cgroup}"))?;
    }
    rustix::fs::rmdir(dir).context(|| format!("rmdir {dir}"))
}

fn exec(dir: &str, args: &[CString]) -> Result<i32> {
    let (pid, v2, user, cgroups) = state(dir)?;
    let pidfd = pidfd(pid)?;
    let cgroup = match cgroups.first() {
        Some(dir) if v2 => Some(directory(dir)?),
        _ => None,
    };
    let tasks = cgroups.iter().filter(|_| !v2).map(|cgroup| {
        open(format!("{cgroup}/tasks").as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).context(|| "tasks")
    });
    let tasks = tasks.collect::<Result<Vec<_>>>()?;
    // The pid namespace holds for children only, and a process cannot go into a cgroup beyond its cgroup namespace.
    let mut first = CloneFlags::CLONE_NEWPID;
    if user {
        first |= CloneFlags::CLONE_NEWUSER;
    }
    let mut rest =
        CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS;
    if v2 {
        rest |= CloneFlags::CLONE_NEWCGROUP;
    }
    nix::sched::setns(&pidfd, first).context(|| "setns")?;
    match clone3(0, cgroup.as_ref().map(AsFd::as_fd))? {
        Clone::Child => {
            let child = || {
                for tasks in &tasks {
                    nix::unistd::write(tasks, b"0").context(|| "tasks")?;
                }
                nix::sched::setns(&pidfd, rest).context(|| "setns")?;
                restrict(&None, true)?;
                Err(program(args))
            };
            let e: Result<()> = child();
            eprintln!("floor: exec: {}", e.err().map(|e| e.to_string()).unwrap_or_default());
            exit(1)
        }
        Clone::Parent(_, pidfd) => wait(&pidfd),
    }
}

fn wait(pidfd: &OwnedFd) -> Result<i32> {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).context(|| "waitid")?;
    Ok(status.and_then(|s| s.exit_status()).unwrap_or(1))
}

fn limit(bundle: &Bundle) -> Result<()> {
    let files = if bundle.v2 {
        [("", "memory.max", "67108864"), ("", "cpu.max", "50000 100000"), ("", "pids.max", "100")]
    } else {
        [
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("pids", "pids.max", "100"),
        ]
    };
    for (controller, file, value) in files {
        for cgroup in bundle.cgroups.iter().filter(|c| bundle.v2 || controls(c, controller)) {
            write(&format!("{cgroup}/{file}"), value)?;
        }
    }
    Ok(())
}

/// The hierarchy of a v1 cgroup: the directory below /sys/fs/cgroup.
fn hierarchy(cgroup: &str) -> &str {
    cgroup.trim_start_matches("/sys/fs/cgroup/").split('/').next().unwrap_or_default()
}

fn controls(cgroup: &str, controller: &str) -> bool {
    hierarchy(cgroup).split(',').any(|c| c == controller)
}

/// On v1 the rules are lines.
fn allow_devices(bundle: &Bundle) -> Result<()> {
    for cgroup in bundle.cgroups.iter().filter(|c| controls(c, "devices")) {
        write(&format!("{cgroup}/devices.deny"), "a")?;
        for (_, major, minor) in DEVICES {
            write(&format!("{cgroup}/devices.allow"), &format!("c {major}:{minor} rwm"))?;
        }
        for rule in ["c *:* m", "b *:* m", "c 5:2 rwm", "c 136:* rwm"] {
            write(&format!("{cgroup}/devices.allow"), rule)?;
        }
    }
    Ok(())
}

/// Allows mknod, and the default devices.
fn device_program() -> Vec<Insn> {
    const LOAD: u8 = 0x61;
    const JUMP_EQUAL: u8 = 0x15;
    const JUMP_NOT_EQUAL: u8 = 0x55;
    const AND: u8 = 0x57;
    const MOV: u8 = 0xb7;
    const MOV_REGISTER: u8 = 0xbf;
    const EXIT: u8 = 0x95;
    // The type and the access share a word; then come the major and the minor number.
    let mut program = vec![
        Insn::new(LOAD, 2, 1, 0, 0),
        Insn::new(LOAD, 3, 1, 4, 0),
        Insn::new(LOAD, 4, 1, 8, 0),
        Insn::new(MOV_REGISTER, 5, 2, 0, 0),
        Insn::new(AND, 5, 0, 0, 6 << 16),
    ];
    // Where the jump leads to is known when the program is whole.
    let allow = |code, dst, imm| Insn::new(code, dst, 0, i16::MIN, imm);
    program.push(allow(JUMP_EQUAL, 5, 0));
    program.push(Insn::new(AND, 2, 0, 0, 0xffff));
    program.push(Insn::new(JUMP_EQUAL, 2, 0, 2, 2));
    program.extend([Insn::new(MOV, 0, 0, 0, 0), Insn::new(EXIT, 0, 0, 0, 0)]);
    program.push(allow(JUMP_EQUAL, 3, 136));
    for (_, major, minor) in DEVICES.into_iter().chain([("ptmx", 5, 2)]) {
        program.push(Insn::new(JUMP_NOT_EQUAL, 3, 0, 1, major as i32));
        program.push(allow(JUMP_EQUAL, 4, minor as i32));
    }
    program.extend([Insn::new(MOV, 0, 0, 0, 0), Insn::new(EXIT, 0, 0, 0, 0)]);
    let end = program.len();
    program.extend([Insn::new(MOV, 0, 0, 0, 1), Insn::new(EXIT, 0, 0, 0, 0)]);
    for (place, insn) in program.iter_mut().enumerate().filter(|(_, insn)| insn.off == i16::MIN) {
        insn.off = (end - place - 1) as i16;
    }
    program
}

fn at(source: Option<&str>, target: &str, kind: Option<&str>, flags: MsFlags, data: Option<&str>) -> Result<()> {
    mount(source, target, kind, flags, data).context(|| format!("mount on {target}"))
}

/// Whether a path was there to be covered.
fn passed(done: nix::Result<()>) -> Result<bool> {
    match done {
        Err(nix::errno::Errno::ENOENT) => Ok(false),
        done => done.map(|()| true).context(|| "mount"),
    }
}

fn directory(path: &str) -> Result<OwnedFd> {
    open(path, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).context(|| "open cgroup")
}

fn write(path: &str, text: &str) -> Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).context(|| path)?;
    nix::unistd::write(&file, text.as_bytes()).context(|| path).map(drop)
}

fn write_new(path: &str, text: &str) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(text.as_bytes())).context(|| path)
}
