//! The end of a process of ours: becoming another program, or ending without a trace.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Error, Result};

/// Becomes the program at `path`. Returns only where that fails.
pub fn execve(path: &CString, args: &[CString], env: &[CString]) -> Error {
    let pointers =
        |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>();
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all three point to strings that end in zero, and the lists end in a null pointer; they outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Error::from(std::io::Error::last_os_error())
}

/// Keeps other processes out of this one, but for those with CAP_SYS_PTRACE in its user namespace: they can neither trace
/// it nor open what it has open. Until execve(2). Its files in /proc belong to root meanwhile.
pub fn protect() -> Result<()> {
    prctl::set_dumpable(false).map_err(|e| Error::from_errno(e, "cannot protect the process from the container"))
}

/// Whether other processes of the same ids may trace this one.
pub fn is_traceable() -> bool {
    // SAFETY: the call only reads a number. Of its values, 2 stands for root alone.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

/// Ends the process at once: no destructor runs, no buffer is flushed twice in a fork.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Gives the program that is executed next the signals as a program expects them: none blocked, and none ignored, be it by
/// the caller (as by a shell for its background jobs) or by Rust (SIGPIPE).
pub fn default_signals() -> Result<()> {
    // SAFETY: both calls only change how signals are handled, and SIG_DFL is no function of ours; the set is on the stack.
    let done = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        for signal in 1..=libc::SIGRTMAX() {
            // Refused for SIGKILL and SIGSTOP alone, which nobody can ignore.
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) == 0
    };
    if done { Ok(()) } else { Err(Error::from(std::io::Error::last_os_error()).context("cannot reset signals")) }
}

/// Lets SIGHUP, SIGINT, SIGQUIT and SIGTERM end this process, also as the init of a pid namespace, to which the kernel
/// delivers only what has a handler, and where the caller ignores them. The program that is executed next has the default.
pub fn end_on_signals() -> Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        exit(128 + signal);
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the structure is on the stack and whole, and all that the handler does is _exit(2), which is safe there.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = end as *const () as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut()) == 0
        };
        if !done {
            return Err(Error::from(std::io::Error::last_os_error()).context("cannot handle signals"));
        }
    }
    Ok(())
}

/// Lets the program that is executed next inherit descriptor `number`.
pub fn inherit(number: RawFd) -> Result<()> {
    // SAFETY: the call only changes a flag of a descriptor.
    let done = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    if done < 0 { Err(Error::from(std::io::Error::last_os_error())) } else { Ok(()) }
}

/// Gives `fds` the numbers from `first` on, close-on-exec, and closes everything above them. To be called where no other
/// owner of a descriptor from `first` on is used or dropped afterwards.
pub fn keep_only(fds: &mut [&mut OwnedFd], first: RawFd) -> Result<()> {
    let cannot = |e: std::io::Error| Error::from(e).context("cannot move a descriptor");
    let end = fds.iter().fold(first, |end, _| end + 1);
    for (number, fd) in (first..end).zip(fds.iter_mut()) {
        if fd.as_raw_fd() != number && (first..end).contains(&fd.as_raw_fd()) {
            // Out of the way of the others.
            let copy = rustix::io::fcntl_dupfd_cloexec(&**fd, end).map_err(|e| cannot(e.into()))?;
            std::mem::forget(std::mem::replace(*fd, copy));
        }
    }
    for (number, fd) in (first..end).zip(fds) {
        if fd.as_raw_fd() != number {
            // SAFETY: dup3 passes no memory; an owner that `number` had is neither used nor dropped, as the caller promises.
            if unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
                return Err(cannot(std::io::Error::last_os_error()));
            }
            // SAFETY: dup3 has just made it.
            let moved = unsafe { OwnedFd::from_raw_fd(number) };
            std::mem::forget(std::mem::replace(*fd, moved));
        }
    }
    // SAFETY: as above, of the owners of what is closed.
    if unsafe { libc::syscall(libc::SYS_close_range, end, libc::c_uint::MAX, 0) } < 0 {
        return Err(Error::from(std::io::Error::last_os_error()).context("cannot close descriptors"));
    }
    Ok(())
}

/// The reading of /proc/PID/stat that identifies a process beyond its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// When it started, in clock ticks after boot: with the pid it names a process for good.
    pub start: u64,
    /// Whether it has ended and only waits to be reaped.
    pub ended: bool,
}

/// Reads it; none where there is no such process.
pub fn stat(pid: i32) -> Option<Stat> {
    use procfs::FromRead;
    use std::io::Read;
    // One file, read at once: procfs' own way to it looks at the kernel's version first, and opens the directory. The name
    // of the program is the only field of any length, and has at most 64 bytes.
    let file = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    let mut text = [0; 2048];
    let size = (&file).read(&mut text).ok()?;
    let stat = procfs::process::Stat::from_read(&text[..size]).ok()?;
    // The first thread may end before the others, and is a zombie until they have.
    let ended = matches!(stat.state, 'X' | 'x') || stat.state == 'Z' && stat.num_threads <= 1;
    Some(Stat { start: stat.starttime, ended })
}

/// The words for a signal, in lower case as other programs print them.
pub fn signal_words(signal: i32) -> String {
    // SAFETY: strsignal gives a string that ends in zero, or null; it is copied before the next call could change it, as
    // the process has one thread.
    let words = unsafe {
        let words = libc::strsignal(signal);
        if words.is_null() { None } else { Some(std::ffi::CStr::from_ptr(words).to_string_lossy().to_lowercase()) }
    };
    words.unwrap_or_else(|| format!("signal {signal}"))
}
