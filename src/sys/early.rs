//! Before the C library: the first half of `crate::seal` for a start that is going to be sealed.
//!
//! `create`, `run` and `exec` start twice. A start of the C library costs more than all that the first one does, so that
//! is done before it, by system calls alone. Where anything is not as expected, this does nothing, and `crate::seal` goes
//! its usual way, with all fallbacks and messages.
//!
//! What the C library sets up is missing here: thread-local storage, and its functions for strings and memory, which are
//! chosen at its start. So nothing is copied by value here that a compiler might copy by calling one, and bytes are read
//! and written as volatile, which keeps loops from becoming such calls.

use std::mem::MaybeUninit;

use libc::{c_char, c_long};

/// The program of this process.
pub const EXE: &std::ffi::CStr = c"/proc/self/exe";

/// The attributes of the overlay's mount (MOUNT_ATTR_*): nosuid, nodev, nodiratime, nosymfollow. Together with a
/// read-only superblock no other overlay has them all: one that merely happens to be mounted read-only, as the root of a
/// container may be, is still writable beneath.
pub const ATTRIBUTES: u32 = 0x2 | 0x4 | 0x80 | 0x0020_0000;

/// Whether what statfs(2) tells is of such an overlay.
pub const fn is_our_overlay(f_type: i64, f_flags: i64) -> bool {
    const MAGIC: i64 = 0x794c_7630;
    const ST_NOSYMFOLLOW: u64 = 0x2000;
    const FLAGS: i64 =
        (libc::ST_RDONLY | libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NODIRATIME | ST_NOSYMFOLLOW) as i64;
    f_type == MAGIC && f_flags & FLAGS == FLAGS
}

/// The second layer, which is there in any case. Nothing is mounted below it: that would be locked in a user namespace,
/// and what it covers must not come to light there.
pub const ELSEWHERE: &std::ffi::CStr = c":/sys/class";

/// The longest text that fsconfig(2) takes, with its end.
const LONGEST: usize = 256;
const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CMD_CREATE: usize = 6;

/// Goes on as the same program from an overlay that nobody can write, or returns.
///
/// # Safety
/// `stack` is the stack as execve(2) has made it: the number of arguments, the arguments and the environment, each list
/// with a null pointer at its end. Nothing else has run in this process.
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn begin(stack: *const usize) {
    // SAFETY: the caller's promise.
    let (arguments, environment) = unsafe {
        let arguments = stack.add(1);
        (arguments, arguments.add(*stack + 1))
    };
    // SAFETY: both lists are the kernel's; everything that `seal` opens it closes.
    unsafe {
        if wants_seal(arguments) {
            seal(arguments, environment);
        }
    }
}

/// Whether an argument is one of the commands that seal themselves. That another command, which has such a word as an
/// argument, is sealed too does no harm.
#[cfg(target_arch = "x86_64")]
unsafe fn wants_seal(arguments: *const usize) -> bool {
    // SAFETY: the list ends with a null pointer, and each argument with a zero.
    unsafe {
        let mut next = arguments;
        while *next != 0 {
            let argument = *next as *const c_char;
            if next != arguments
                && (is(argument, c"run".as_ptr()) || is(argument, c"create".as_ptr()) || is(argument, c"exec".as_ptr()))
            {
                return true;
            }
            next = next.add(1);
        }
        false
    }
}

/// Compares two texts that end in zero.
#[cfg(target_arch = "x86_64")]
unsafe fn is(one: *const c_char, other: *const c_char) -> bool {
    let mut i = 0;
    // SAFETY: reading ends with the first difference or at the zero that both have.
    unsafe {
        loop {
            let (a, b) = (one.add(i).read_volatile(), other.add(i).read_volatile());
            if a != b {
                return false;
            }
            if a == 0 {
                return true;
            }
            i += 1;
        }
    }
}

/// What `crate::seal::overlay` does, and the execution.
#[cfg(target_arch = "x86_64")]
unsafe fn seal(arguments: *const usize, environment: *const usize) {
    let exe = EXE.as_ptr() as usize;
    let mut view = MaybeUninit::<rustix::fs::StatFs>::uninit();
    // SAFETY: `view` has the type that the kernel fills in, and is read only then.
    let sealed = unsafe {
        call(libc::SYS_statfs, exe, view.as_mut_ptr() as usize, 0, 0, 0) != 0 || {
            let view = view.as_ptr();
            is_our_overlay((*view).f_type, (*view).f_flags)
        }
    };
    if sealed {
        return;
    }
    let mut path = MaybeUninit::<[u8; LONGEST]>::uninit();
    let mut layers = MaybeUninit::<[u8; LONGEST]>::uninit();
    let (path, layers) = (path.as_mut_ptr().cast::<u8>(), layers.as_mut_ptr().cast::<u8>());
    // SAFETY: both buffers have LONGEST bytes, of which readlink leaves the last one free; what is read of `path` is what
    // the kernel has written.
    let name = unsafe {
        let length = call(libc::SYS_readlink, exe, path as usize, LONGEST - 1, 0, 0);
        if length <= 0 || length as usize == LONGEST - 1 {
            return;
        }
        path.add(length as usize).write_volatile(0);
        lower_layers(path, layers)
    };
    if name == 0 {
        return;
    }
    // SAFETY: the texts end in zero and outlive the calls; the lists are the kernel's.
    unsafe {
        let mount = match make(layers) {
            NOT_PERMITTED => make_in_user_namespace(layers),
            mount => mount,
        };
        if mount < 0 {
            return;
        }
        let (mount, name) = (mount as usize, path.add(name) as usize);
        if shows(mount, name) {
            let flags = libc::AT_EMPTY_PATH as usize;
            call(libc::SYS_execveat, mount, name, arguments as usize, environment as usize, flags);
        }
        call(libc::SYS_close, mount, 0, 0, 0, 0);
    }
}

/// Writes the layers of the overlay, as `crate::seal::layers` has them, and gives the place of the program's name in its
/// path; 0 where there is none, or no room.
#[cfg(target_arch = "x86_64")]
unsafe fn lower_layers(path: *const u8, layers: *mut u8) -> usize {
    // SAFETY: the path ends in zero; nothing is written beyond LONGEST bytes.
    unsafe {
        let (mut slash, mut i) = (0, 0);
        loop {
            match path.add(i).read_volatile() {
                0 => break,
                b'/' => slash = i,
                _ => {}
            }
            i += 1;
        }
        // A program in the root directory itself is left to the usual way.
        if slash == 0 {
            return 0;
        }
        let mut to = 0;
        for i in 0..slash {
            let byte = path.add(i).read_volatile();
            if to + 2 + ELSEWHERE.count_bytes() + 1 > LONGEST {
                return 0;
            }
            if byte == b'\\' || byte == b':' {
                layers.add(to).write_volatile(b'\\');
                to += 1;
            }
            layers.add(to).write_volatile(byte);
            to += 1;
        }
        let at = |i: usize| path.add(i).read_volatile();
        let in_sys = slash >= 4 && at(1) == b's' && at(2) == b'y' && at(3) == b's' && at(4) == b'/';
        let second = if in_sys { c":/dev" } else { ELSEWHERE };
        for i in 0..=second.count_bytes() {
            layers.add(to).write_volatile(second.as_ptr().cast::<u8>().add(i).read_volatile());
            to += 1;
        }
        slash + 1
    }
}

/// Makes the mount. Gives its descriptor; NOT_PERMITTED where the user may not, else another negative number.
#[cfg(target_arch = "x86_64")]
unsafe fn make(layers: *const u8) -> isize {
    // SAFETY: all texts end in zero.
    unsafe {
        let context = call(libc::SYS_fsopen, c"overlay".as_ptr() as usize, 1, 0, 0, 0);
        if context < 0 {
            return context;
        }
        let context = context as usize;
        let set = |key: &std::ffi::CStr, value: usize| {
            call(libc::SYS_fsconfig, context, FSCONFIG_SET_STRING, key.as_ptr() as usize, value, 0) == 0
        };
        let mut mount = -(libc::EINVAL as isize);
        if set(c"lowerdir", layers as usize)
            && set(c"xino", c"off".as_ptr() as usize)
            && call(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0) == 0
        {
            mount = call(libc::SYS_fsmount, context, 1, ATTRIBUTES as usize, 0, 0);
        }
        call(libc::SYS_close, context, 0, 0, 0, 0);
        mount
    }
}

/// What `make` answers an ordinary user.
#[cfg(target_arch = "x86_64")]
const NOT_PERMITTED: isize = -(libc::EPERM as isize);

/// What the child of `make_in_user_namespace` is given, and gives back.
#[cfg(target_arch = "x86_64")]
struct Work {
    layers: *const u8,
    mount: isize,
}

/// Makes the mount as an ordinary user: a child may, in a user namespace of its own, and we share its descriptors. We
/// ourselves must not go there, as the way back is closed.
#[cfg(target_arch = "x86_64")]
unsafe fn make_in_user_namespace(layers: *const u8) -> isize {
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_FILES
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::SIGCHLD;
    // Of a type that is aligned as a stack is.
    let mut stack = MaybeUninit::<[u128; 256]>::uninit();
    let mut work = Work { layers, mount: -1 };
    let pid: isize;
    // SAFETY: the child runs on a stack of its own, which has room for the little that `child` calls, and ends without a
    // return to here. We stand still until then, so that it alone writes to `work`. The kernel changes rax, rcx and r11.
    unsafe {
        let end = stack.as_mut_ptr().add(1);
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r9",
            "call {child}",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "2:",
            child = sym child,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone as isize => pid,
            in("rdi") flags as usize,
            in("rsi") end,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            in("r9") &raw mut work,
            lateout("rcx") _,
            lateout("r11") _,
        );
        if pid < 0 {
            return pid;
        }
        call(libc::SYS_wait4, pid as usize, 0, 0, 0, 0);
        (&raw const work.mount).read_volatile()
    }
}

/// All that the child does before it ends.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn child(work: *mut Work) {
    // SAFETY: the parent has made `work`, and waits.
    unsafe { (&raw mut (*work).mount).write_volatile(make((*work).layers)) }
}

/// Whether the mount shows the program that runs, and will be known as what it is.
#[cfg(target_arch = "x86_64")]
unsafe fn shows(mount: usize, name: usize) -> bool {
    let mut there = MaybeUninit::<libc::stat>::uninit();
    let mut here = MaybeUninit::<libc::stat>::uninit();
    let mut view = MaybeUninit::<rustix::fs::StatFs>::uninit();
    let (there, here, view) = (there.as_mut_ptr(), here.as_mut_ptr(), view.as_mut_ptr());
    // SAFETY: the kernel fills in what the pointers point to, which is read only then.
    unsafe {
        let flags = libc::AT_SYMLINK_NOFOLLOW as usize;
        let at = libc::AT_FDCWD as usize;
        call(libc::SYS_newfstatat, mount, name, there as usize, flags, 0) == 0
            && call(libc::SYS_newfstatat, at, EXE.as_ptr() as usize, here as usize, 0, 0) == 0
            && (*there).st_ino == (*here).st_ino
            && (*there).st_size == (*here).st_size
            && (*there).st_mtime == (*here).st_mtime
            && (*there).st_mtime_nsec == (*here).st_mtime_nsec
            && call(libc::SYS_fstatfs, mount, view as usize, 0, 0, 0) == 0
            && is_our_overlay((*view).f_type, (*view).f_flags)
    }
}

/// A system call. What is returned is the kernel's: an errno is negative.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the caller passes what the system call wants; the kernel changes rax, rcx and r11 alone, and the memory
    // that it was told to.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
