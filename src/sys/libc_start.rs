//! The start of the C library for a static program, without its look at the processor. A part of the binary
//! (src/main.rs): it takes the place of `libc-start.o` of glibc.
//!
//! glibc executes CPUID some forty times to choose functions for strings and memory, and to size its caches. In a
//! virtual machine each of them leaves the guest, which takes microseconds: longer than all else that the start does, and
//! a tenth of a short command. This program copies little, and the functions for any processor do for it.
//!
//! Left out with it is what only dlopen (and so name services and iconv) and pthread_exit in the first thread need: this
//! program has neither.
//!
//! What is called here is glibc's own and no interface, so it is done with the versions alone that it was made for
//! (build.rs); with another the usual start is linked. The order of the steps is that of glibc.

use std::ffi::{c_char, c_int, c_long, c_void};

type Main = extern "C" fn(c_int, *const *const c_char, *const *const c_char) -> c_int;
/// Of `.preinit_array` and `.init_array`.
type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// What glibc defines in the same object, and its functions for memory look at: sizes in bytes, from where on each way
/// of copying pays. They are what glibc takes where it cannot find out more.
macro_rules! sizes {
    ($($name:ident = $size:expr;)*) => {$(
        // SAFETY: as the program has this object instead of glibc's, no other symbol has the name; glibc only reads it,
        // as a `long`.
        #[unsafe(no_mangle)]
        static $name: c_long = $size;
    )*};
}

sizes! {
    __x86_data_cache_size_half = 16 << 10;
    __x86_data_cache_size = 32 << 10;
    __x86_shared_cache_size_half = 512 << 10;
    __x86_shared_cache_size = 1 << 20;
    __x86_shared_non_temporal_threshold = 768 << 10;
    __x86_rep_movsb_threshold = 2 << 10;
    __x86_rep_stosb_threshold = 2 << 10;
    __x86_rep_movsb_stop_threshold = 768 << 10;
    // Since 2.38.
    __x86_memset_non_temporal_threshold = 768 << 10;
    // What a call of the dynamic linker has to save: there is none.
    _dl_x86_features_tlsdesc_state_size = 0;
}

/// Bits that say what some processors had better avoid: none.
// SAFETY: as above; glibc reads it as an `int`.
#[unsafe(no_mangle)]
static __x86_string_control: c_int = 0;

/// A relocation whose value a function finds: Elf64_Rela of the type R_X86_64_IRELATIVE.
#[repr(C)]
struct Relocation {
    place: *mut usize,
    info: u64,
    find: extern "C" fn() -> usize,
}

// SAFETY: the names and types are glibc's, of the versions that build.rs lets pass, or the linker's: each two of these
// enclose a list.
unsafe extern "C" {
    static mut __environ: *const *const c_char;
    static mut __libc_stack_end: *const c_void;
    static mut __libc_enable_secure: c_int;
    static mut _dl_random: *const [usize; 2];
    static __rela_iplt_start: [Relocation; 0];
    static __rela_iplt_end: [Relocation; 0];
    static __preinit_array_start: [Constructor; 0];
    static __preinit_array_end: [Constructor; 0];
    static __init_array_start: [Constructor; 0];
    static __init_array_end: [Constructor; 0];
    static __fini_array_start: [extern "C" fn(); 0];
    static __fini_array_end: [extern "C" fn(); 0];
    fn _init();
    fn _fini();
    fn _dl_aux_init(auxiliary: *const c_void);
    fn __tunables_init(environment: *const *const c_char);
    fn __libc_setup_tls();
    fn __libc_early_init(is_initial: bool);
    fn __libc_init_first(argc: c_int, argv: *const *const c_char, environment: *const *const c_char);
    fn __libc_check_standard_fds();
    fn __cxa_atexit(function: extern "C" fn(*mut c_void), argument: *mut c_void, object: *mut c_void) -> c_int;
    fn exit(status: c_int) -> !;
}

/// Called by `_start`, with the stack as execve(2) has made it.
///
/// Until thread-local storage is there, nothing may be called that uses it or is chosen by a relocation: a copy of
/// memory, for instance. There is no protector of the stack in functions of Rust, which this could upset.
// SAFETY: the program has this instead of glibc's object, so the name is there once.
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_start_main(
    main: Main,
    argc: c_int,
    argv: *const *const c_char,
    _init_of_old_programs: *const c_void,
    _fini_of_old_programs: *const c_void,
    at_exit: Option<extern "C" fn(*mut c_void)>,
    stack_end: *const c_void,
) -> c_int {
    // SAFETY: the arguments, their null pointer, the environment, its own, and the auxiliary vector follow each other on
    // the stack. Each function gets what glibc gives it, in glibc's order, and the only thread there is runs this.
    unsafe {
        let environment = argv.add(argc as usize + 1);
        __environ = environment;
        __libc_stack_end = stack_end;
        let mut end = environment;
        while !(*end).is_null() {
            end = end.add(1);
        }
        _dl_aux_init(end.add(1).cast());
        __tunables_init(environment);
        let (mut next, last) =
            ((&raw const __rela_iplt_start).cast::<Relocation>(), (&raw const __rela_iplt_end).cast());
        while next < last {
            *(*next).place = ((*next).find)();
            next = next.add(1);
        }
        __libc_setup_tls();
        // The canary of stacks, which has a zero for strings that are not ended, and what hides pointers in a jmp_buf.
        let [canary, guard] = (&raw const _dl_random).read_volatile().read_unaligned();
        std::arch::asm!(
            "mov fs:[0x28], {}",
            "mov fs:[0x30], {}",
            in(reg) canary & !0xff,
            in(reg) guard,
            options(nostack, preserves_flags),
        );
        if let Some(at_exit) = at_exit {
            __cxa_atexit(at_exit, std::ptr::null_mut(), std::ptr::null_mut());
        }
        __libc_early_init(true);
        __libc_init_first(argc, argv, environment);
        __cxa_atexit(destruct, std::ptr::null_mut(), std::ptr::null_mut());
        if (&raw const __libc_enable_secure).read_volatile() != 0 {
            __libc_check_standard_fds();
        }
        let construct = |mut next: *const Constructor, last: *const Constructor| {
            while next < last {
                (*next)(argc, argv, environment);
                next = next.add(1);
            }
        };
        construct((&raw const __preinit_array_start).cast(), (&raw const __preinit_array_end).cast());
        _init();
        construct((&raw const __init_array_start).cast(), (&raw const __init_array_end).cast());
        exit(main(argc, argv, environment))
    }
}

/// Calls what the program wants called at its end, the last first.
extern "C" fn destruct(_: *mut c_void) {
    // SAFETY: the linker's two symbols enclose a list of functions.
    unsafe {
        let first = (&raw const __fini_array_start).cast::<extern "C" fn()>();
        let mut next = (&raw const __fini_array_end).cast::<extern "C" fn()>();
        while next > first {
            next = next.sub(1);
            (*next)();
        }
        _fini();
    }
}
