//! The program inside the containers of the tests: static, without need of any file. `probe VERB [ARG...]`; several
//! verbs are separated by `--`, and done in order. Facts are printed as lines `WORD VALUE`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::Duration;
use std::{env, fs, io, process, thread};

fn main() {
    // A closed pipe ends the probe as it ends other programs.
    // SAFETY: sets a disposition before any thread is made.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let args: Vec<String> = env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    for verb in args.split(|a| a == "--") {
        let words: Vec<&str> = verb.iter().map(String::as_str).collect();
        if let Err(e) = act(&words) {
            say(&format!("error {} {}", e.raw_os_error().map_or("-".to_owned(), name_of), words.join(" ")));
            eprintln!("probe {}: {e}", words.join(" "));
            process::exit(1);
        }
    }
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn act(words: &[&str]) -> io::Result<()> {
    let (verb, args) = words.split_first().unwrap_or((&"", &[]));
    let arg = |i: usize| args.get(i).copied().unwrap_or_default();
    match *verb {
        // Text.
        "echo" => say(&args.join(" ")),
        "stderr" => eprintln!("{}", args.join(" ")),
        "args" => args.iter().for_each(|a| say(&format!("arg {a}"))),
        "env" => env::vars_os().for_each(|(k, v)| say(&format!("{}={}", k.to_string_lossy(), v.to_string_lossy()))),
        "stdin" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            say(&format!("stdin {}", text.trim_end()));
        }
        "readline" => {
            let mut text = String::new();
            io::stdin().read_line(&mut text)?;
            say(&format!("line {}", text.trim_end()));
        }
        // Files.
        "cat" => io::stdout().write_all(&fs::read(arg(0))?)?,
        "ls" => {
            let mut names: Vec<_> = fs::read_dir(arg(0))?.collect::<io::Result<Vec<_>>>()?;
            names.sort_by_key(|e| e.file_name());
            names.iter().for_each(|e| say(&e.file_name().to_string_lossy()));
        }
        "write" => fs::write(arg(0), args[1..].join(" "))?,
        "append" => fs::OpenOptions::new().append(true).open(arg(0))?.write_all(args[1..].join(" ").as_bytes())?,
        "mkdir" => fs::create_dir(arg(0))?,
        // As fast as it can, and for long, but not for ever.
        "mkdirs" => {
            (0..100_000).try_for_each(|n| fs::create_dir(format!("{}/{}-{n}", arg(0), process::id())))?;
        }
        "rm" => fs::remove_file(arg(0))?,
        "symlink" => std::os::unix::fs::symlink(arg(0), arg(1))?,
        "readlink" => say(&format!("link {}", fs::read_link(arg(0))?.display())),
        "chmod" => fs::set_permissions(arg(0), fs::Permissions::from_mode(octal(arg(1))))?,
        "chown" => std::os::unix::fs::chown(arg(0), Some(number(arg(1)) as u32), Some(number(arg(2)) as u32))?,
        "stat" => args.iter().try_for_each(|path| stat(path))?,
        // Whether it can be opened, which `device DEV` also tells of devices: `open PATH r|w|rw`.
        "open" => {
            let (read, write) = (!arg(1).contains('w') || arg(1).contains('r'), arg(1).contains('w'));
            tell("open", fs::OpenOptions::new().read(read).write(write).open(arg(0)).map(|_| 0));
        }
        "try-write" => tell("write", fs::write(arg(0), args[1..].join(" ")).map(|()| 0)),
        "try-read" => tell("read", fs::read(arg(0)).map(|b| b.len() as i64)),
        "mknod" => {
            let path = CString::new(arg(0))?;
            let device = libc::makedev(number(arg(2)) as u32, number(arg(3)) as u32);
            let kind = if arg(1) == "b" { libc::S_IFBLK } else { libc::S_IFCHR };
            // SAFETY: a path that lives.
            tell("mknod", result(unsafe { libc::mknod(path.as_ptr(), kind | 0o600, device) }.into()));
        }
        "mountinfo" => io::stdout().write_all(&fs::read("/proc/self/mountinfo")?)?,
        "statfs" => statfs(arg(0))?,
        "xattr" => xattr(arg(0), arg(1))?,
        // Itself.
        "pid" => {
            // SAFETY: takes nothing.
            let (session, group) = unsafe { (libc::getsid(0), libc::getpgrp()) };
            say(&format!("pid {}\nsid {session}\npgrp {group}", process::id()));
        }
        "ids" => ids(),
        "caps" => {
            for line in fs::read_to_string("/proc/self/status")?.lines() {
                if line.starts_with("Cap") || line.starts_with("NoNewPrivs") || line.starts_with("Seccomp:") {
                    say(&line.replace(":\t", " "));
                }
            }
        }
        "status" => {
            let text = fs::read_to_string("/proc/self/status")?;
            text.lines().for_each(|l| say(&l.replace(":\t", " ")));
        }
        "rlimits" => io::stdout().write_all(&fs::read("/proc/self/limits")?)?,
        "rlimit" => rlimit(arg(0))?,
        "umask" => {
            // SAFETY: takes a number.
            let mask = unsafe { libc::umask(0) };
            say(&format!("umask {mask:04o}"));
        }
        "cwd" => say(&format!("cwd {}", env::current_dir()?.display())),
        "exe" => say(&format!("exe {}", fs::read_link("/proc/self/exe")?.display())),
        "oom" => say(&format!("oom {}", fs::read_to_string("/proc/self/oom_score_adj")?.trim())),
        "fds" => fds()?,
        "ns" => {
            for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
                if let Ok(link) = fs::read_link(format!("/proc/self/ns/{name}")) {
                    say(&format!("{name} {}", link.display()));
                }
            }
        }
        "cgroup" => io::stdout().write_all(&fs::read("/proc/self/cgroup")?)?,
        "hostname" => names(),
        "interfaces" => fs::read_dir("/sys/class/net")?.flatten().for_each(|e| say(&e.file_name().to_string_lossy())),
        "label" => {
            for name in ["current", "apparmor/current"] {
                if let Ok(text) = fs::read_to_string(format!("/proc/self/attr/{name}")) {
                    say(&format!("{name} {}", text.trim_end_matches(['\n', '\0'])));
                }
            }
        }
        "time" => {
            for (name, clock) in [("monotonic", libc::CLOCK_MONOTONIC), ("boottime", libc::CLOCK_BOOTTIME)] {
                // SAFETY: plain data, filled by the kernel.
                let mut time: libc::timespec = unsafe { std::mem::zeroed() };
                // SAFETY: a pointer to a timespec that lives.
                unsafe { libc::clock_gettime(clock, &raw mut time) };
                say(&format!("{name} {}", time.tv_sec));
            }
        }
        "sched" => sched()?,
        "ioprio" => {
            // SAFETY: takes numbers.
            let value = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
            say(&format!("ioprio class={} level={}", value >> 13, value & 0x1fff));
        }
        "affinity" => {
            let text = fs::read_to_string("/proc/self/status")?;
            let list = text.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
            say(&format!("affinity {}", list.trim()));
        }
        "personality" => {
            // SAFETY: takes a number.
            say(&format!("personality {:#x}", unsafe { libc::personality(0xffff_ffff) }));
        }
        "mempolicy" => mempolicy()?,
        "keyring" => keyring()?,
        "isatty" => (0..3).for_each(|fd| {
            // SAFETY: takes a number.
            say(&format!("isatty {fd} {}", unsafe { libc::isatty(fd) } == 1));
        }),
        "winsize" => {
            let (rows, columns) = winsize()?;
            say(&format!("winsize {rows}x{columns}"));
        }
        // What it may do: `syscall NR ARGS...`, a number or a text each.
        "syscall" => syscall(args),
        // The first thread ends, the program goes on.
        "headless" => {
            thread::spawn(|| thread::sleep(Duration::from_secs(600)));
            syscall(&[&libc::SYS_exit.to_string(), "0"]);
        }
        "unshare" => {
            // SAFETY: takes a number.
            tell("unshare", result(unsafe { libc::unshare(number(arg(0)) as i32) }.into()));
        }
        "mount" => {
            let texts: Vec<CString> = (0..3).map(|i| CString::new(arg(i))).collect::<Result<_, _>>()?;
            // SAFETY: texts that live, and no data.
            let done = unsafe {
                let flags = number(arg(3)) as libc::c_ulong;
                libc::mount(texts[0].as_ptr(), texts[1].as_ptr(), texts[2].as_ptr(), flags, std::ptr::null())
            };
            tell("mount", result(done.into()));
        }
        "sethostname" => {
            // SAFETY: a text that lives, and its length.
            tell("sethostname", result(unsafe { libc::sethostname(arg(0).as_ptr().cast(), arg(0).len()) }.into()));
        }
        // A lock on a file, until it ends.
        "lock" => {
            use std::os::fd::IntoRawFd;
            let file = fs::File::create(arg(0))?.into_raw_fd();
            // SAFETY: takes numbers.
            result(unsafe { libc::flock(file, libc::LOCK_EX) }.into())?;
        }
        "connect" => {
            let mut stream = std::os::unix::net::UnixStream::connect(arg(0))?;
            stream.write_all(args[1..].join(" ").as_bytes())?;
        }
        "listen" => {
            let listener = std::os::unix::net::UnixListener::bind(arg(0))?;
            say("listening");
            let mut text = String::new();
            listener.accept()?.0.read_to_string(&mut text)?;
            say(&format!("received {text}"));
        }
        // A connection to itself, over which words go once that file is there.
        "tcp" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let mut here = std::net::TcpStream::connect(listener.local_addr()?)?;
            let mut there = listener.accept()?.0;
            drop(listener);
            say("connected");
            act(&["wait-file", arg(0)])?;
            let done = here.write_all(b"words").and_then(|()| {
                here.shutdown(std::net::Shutdown::Write)?;
                let mut text = String::new();
                there.set_read_timeout(Some(Duration::from_secs(5)))?;
                there.read_to_string(&mut text).map(|n| n as i64)
            });
            tell("tcp", done);
        }
        "notify" => {
            // A datagram to the NOTIFY_SOCKET of the environment.
            let socket = std::os::unix::net::UnixDatagram::unbound()?;
            socket.connect(env::var("NOTIFY_SOCKET").unwrap_or_default())?;
            socket.send(args.join("\n").as_bytes())?;
        }
        "readfd" => {
            let mut text = String::new();
            fs::File::open(format!("/proc/self/fd/{}", arg(0)))?.read_to_string(&mut text)?;
            say(&format!("fd{} {}", arg(0), text.trim_end()));
        }
        // How it goes on, and ends.
        "sleep" => thread::sleep(Duration::from_millis(if args.is_empty() { 600_000 } else { number(arg(0)) as u64 })),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "exit" => process::exit(number(arg(0)) as i32),
        // By a signal of its own; pid 1 cannot do that by kill(2), so a child of the runtime's exec or a fork does.
        "signal-exit" => {
            // SAFETY: takes numbers.
            unsafe { libc::kill(libc::getpid(), number(arg(0)) as i32) };
            thread::sleep(Duration::from_secs(600));
        }
        "memhog" => memhog(number(arg(0)) as usize),
        "fork" => fork(number(arg(0)) as usize)?,
        "trap" => trap(args)?,
        "wait-file" => {
            while !fs::exists(arg(0))? {
                thread::sleep(Duration::from_millis(5));
            }
        }
        // Runs a program in place of itself.
        "exec" => {
            use std::os::unix::process::CommandExt;
            return Err(process::Command::new(arg(0)).args(&args[1..]).exec());
        }
        other => return Err(io::Error::other(format!("no such verb: {other:?}"))),
    }
    Ok(())
}

fn number(text: &str) -> i64 {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .unwrap_or_else(|_| panic!("not a number: {text:?}"))
}

fn octal(text: &str) -> u32 {
    u32::from_str_radix(text, 8).unwrap()
}

fn result(value: i64) -> io::Result<i64> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// `WORD ok VALUE` or `WORD ERRNO`.
fn tell(word: &str, result: io::Result<i64>) {
    match result {
        Ok(value) => say(&format!("{word} ok {value}")),
        Err(e) => say(&format!("{word} {}", e.raw_os_error().map_or_else(|| e.to_string(), name_of))),
    }
}

fn name_of(errno: i32) -> String {
    let names = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ELOOP, "ELOOP"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
    ];
    names.iter().find(|(n, _)| *n == errno).map_or_else(|| format!("E{errno}"), |(_, name)| (*name).to_owned())
}

/// `stat PATH TYPE mode=0644 uid=0 gid=0 rdev=1:3 size=0`.
fn stat(path: &str) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "link",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () => "socket",
    };
    let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
    say(&format!(
        "stat {path} {kind} mode={:04o} uid={} gid={} rdev={major}:{minor} size={}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.len()
    ));
    Ok(())
}

fn xattr(path: &str, name: &str) -> io::Result<()> {
    let (path, name) = (CString::new(path)?, CString::new(name)?);
    let mut value = [0u8; 256];
    // SAFETY: two texts and an array that live, with the length of the array.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let length = result(length as i64)? as usize;
    say(&format!("xattr {}", String::from_utf8_lossy(&value[..length]).trim_end_matches('\0')));
    Ok(())
}

fn statfs(path: &str) -> io::Result<()> {
    let text = CString::new(path)?;
    // SAFETY: plain data, filled by the kernel.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a path and a buffer that live.
    result(unsafe { libc::statvfs(text.as_ptr(), &raw mut found) }.into())?;
    say(&format!("statfs {path} flags={:#x} size={}", found.f_flag, found.f_blocks * found.f_frsize));
    Ok(())
}

fn ids() {
    let mut groups = [0; 64];
    // SAFETY: a buffer of that length.
    let count = unsafe { libc::getgroups(64, groups.as_mut_ptr()) };
    let groups: Vec<String> = groups[..count.max(0) as usize].iter().map(ToString::to_string).collect();
    // SAFETY: these take nothing.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    say(&format!("uid {uid}\ngid {gid}\ngroups {}", groups.join(" ")));
}

fn rlimit(name: &str) -> io::Result<()> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let title = match name {
        "NOFILE" => "Max open files",
        "NPROC" => "Max processes",
        "CORE" => "Max core file size",
        "MEMLOCK" => "Max locked memory",
        "STACK" => "Max stack size",
        "FSIZE" => "Max file size",
        other => other,
    };
    let line = text.lines().find(|l| l.starts_with(title)).ok_or_else(|| io::Error::other("no such limit"))?;
    let mut values = line[title.len()..].split_whitespace();
    say(&format!("rlimit {name} soft={} hard={}", values.next().unwrap_or("-"), values.next().unwrap_or("-")));
    Ok(())
}

/// `fd NUMBER TARGET`, without the descriptor that reads the list.
fn fds() -> io::Result<()> {
    let entries: Vec<_> = fs::read_dir("/proc/self/fd")?.flatten().map(|e| e.path()).collect();
    for path in entries {
        if let Ok(target) = fs::read_link(&path) {
            say(&format!("fd {} {}", path.file_name().unwrap().to_string_lossy(), target.display()));
        }
    }
    Ok(())
}

fn names() {
    // SAFETY: plain data, filled by the kernel.
    let mut found: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: a buffer that lives.
    unsafe { libc::uname(&raw mut found) };
    let text = |field: &[libc::c_char]| -> String {
        field.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
    };
    say(&format!("hostname {}\ndomainname {}", text(&found.nodename), text(&found.domainname)));
    say(&format!("machine {}", text(&found.machine)));
}

#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn sched() -> io::Result<()> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    // SAFETY: a buffer that lives, and its size.
    result(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) })?;
    say(&format!(
        "sched policy={} nice={} priority={} flags={:#x} runtime={} deadline={} period={}",
        attr.policy, attr.nice, attr.priority, attr.flags, attr.runtime, attr.deadline, attr.period
    ));
    Ok(())
}

fn mempolicy() -> io::Result<()> {
    let (mut mode, mut mask) = (0i32, [0u64; 16]);
    // SAFETY: buffers that live; the mask has that many bits.
    result(unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, mask.as_mut_ptr(), 1024, 0, 0) })?;
    say(&format!("mempolicy mode={mode:#x} nodes={:#x}", mask[0]));
    Ok(())
}

/// The description of the session keyring.
fn keyring() -> io::Result<()> {
    const DESCRIBE: i32 = 6;
    const SESSION: i32 = -3;
    let mut text = [0u8; 256];
    // SAFETY: a buffer of that length.
    let length = unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, SESSION, text.as_mut_ptr(), text.len()) };
    let length = result(length)? as usize;
    say(&format!("keyring {}", String::from_utf8_lossy(&text[..length.min(text.len())]).trim_end_matches('\0')));
    Ok(())
}

fn winsize() -> io::Result<(u16, u16)> {
    // SAFETY: plain data, filled by the kernel.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: a buffer that lives.
    result(unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) }.into())?;
    Ok((size.ws_row, size.ws_col))
}

fn syscall(args: &[&str]) {
    let texts: Vec<CString> = args.iter().map(|a| CString::new(*a).unwrap()).collect();
    let value = |i: usize| match args.get(i) {
        None => 0,
        Some(text) if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => number(text),
        Some(_) => texts[i].as_ptr() as i64,
    };
    // SAFETY: the caller asks for a call with these values; texts live until it returns.
    let done = unsafe { libc::syscall(value(0), value(1), value(2), value(3), value(4), value(5), value(6)) };
    tell("syscall", result(done));
}

fn memhog(bytes: usize) {
    let mut block = vec![0u8; bytes];
    for page in block.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&block);
    say(&format!("memory {bytes}"));
    std::mem::forget(block);
}

/// Children that sleep; tells their pids.
fn fork(count: usize) -> io::Result<()> {
    for _ in 0..count {
        // SAFETY: one thread only, and the child does nothing but sleep.
        let pid = result(unsafe { libc::fork() }.into());
        match pid {
            Ok(0) => loop {
                thread::sleep(Duration::from_secs(600));
            },
            pid => tell("fork", pid),
        }
    }
    Ok(())
}

/// Prints `ready`, and then a line `signal NAME` for each signal that comes; ends at the one named last.
fn trap(signals: &[&str]) -> io::Result<()> {
    let known = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("TERM", libc::SIGTERM),
        ("CONT", libc::SIGCONT),
        ("WINCH", libc::SIGWINCH),
    ];
    // SAFETY: plain data, filled below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set that lives.
    unsafe { libc::sigemptyset(&raw mut set) };
    for name in signals {
        let signal = known.iter().find(|(n, _)| n == name).expect("a known signal").1;
        // SAFETY: a set that lives.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: sets that live, or null for what is not wanted.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    say("ready");
    loop {
        let mut signal = 0;
        // SAFETY: a set and a number that live.
        unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        let name = known.iter().find(|(_, n)| *n == signal).map_or("?", |(n, _)| n);
        if name == "WINCH" {
            let (rows, columns) = winsize().unwrap_or_default();
            say(&format!("signal WINCH {rows}x{columns}"));
        } else {
            say(&format!("signal {name}"));
        }
        if signals.last() == Some(&name) {
            return Ok(());
        }
    }
}
