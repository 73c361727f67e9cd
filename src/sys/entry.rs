//! Where the program begins. A part of the binary (src/main.rs), as a library has no `main`.

use std::ffi::{c_char, c_int};

/// Called by the C library. The runtime of Rust, which would be called else and call this, looks at the process' memory
/// map and sets up handlers for an overflow of the stack: as much work as some commands have in all.
// SAFETY: there is one `main` in a program, and this has the type that the C library expects of it.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    vessel::sys::start::prepare();
    c_int::from(super::run())
}

/// Where the kernel begins (build.rs tells the linker): before the C library, which begins at `_start`. Only in a static
/// program: in another, rdx tells `_start` what the dynamic linker wants called at the end.
// SAFETY: no other symbol has this name. `begin` gets what it asks for: the stack is as the kernel has made it, and nothing
// else has run. `_start` finds the same stack afterwards.
#[cfg(all(target_arch = "x86_64", target_env = "gnu", target_feature = "crt-static"))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn vessel_start() -> ! {
    std::arch::naked_asm!(
        "mov rdi, rsp",
        "mov rbx, rsp",
        "call {begin}",
        "mov rsp, rbx",
        // What the C library shall call at the end: nothing.
        "xor edx, edx",
        "jmp _start",
        begin = sym vessel::sys::early::begin,
    )
}
