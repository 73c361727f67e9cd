//! The prologue: chooses the part of the caller's architecture, and answers ENOSYS to system calls that are newer than
//! the profile.
//!
//! A C library that tries a new system call and falls back to an old one takes only ENOSYS for "not there": an EPERM of a
//! profile that is older than the call would be passed to the program. Numbers grow with time, so what lies above every
//! number that the profile names is taken for newer.

use super::arch::Part;
use super::bpf::{self, ARCHITECTURE, BITS_SET, EQUAL, GREATER, Instruction, LOAD, NUMBER};

const X86_64: u32 = 0xc000_003e;
const X32: u32 = 0x4000_003e;
const S390: u32 = 0x0000_0016;
const S390X: u32 = 0x8000_0016;

/// Set in the number of each x32 call, which has the architecture number of x86-64.
const X32_BIT: u32 = 0x4000_0000;

/// SECCOMP_RET_ERRNO with ENOSYS.
const RETURN_ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;
/// SECCOMP_RET_KILL_THREAD, which libseccomp gives to callers of other architectures.
const RETURN_KILL: u32 = 0;

/// Joins the parts to one program.
pub(super) fn link(parts: &[Part]) -> Vec<Instruction> {
    let mut prologue = vec![bpf::load(ARCHITECTURE)];
    // Jumps into the parts, by place in the prologue and number of the part: known only when the prologue is whole.
    let mut entries = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        if part.arch.number == X32 {
            continue;
        }
        let x32 = parts.iter().position(|other| other.arch.number == X32).filter(|_| part.arch.number == X86_64);
        let start = prologue.len();
        prologue.push(bpf::compare(EQUAL, part.arch.number, 0, 0));
        prologue.push(bpf::load(NUMBER));
        if let Some(x32) = x32 {
            let test = prologue.len();
            prologue.push(bpf::compare(BITS_SET, X32_BIT, 0, 0));
            enter(&parts[x32], x32, &mut prologue, &mut entries);
            prologue[test].jf = (prologue.len() - test - 1) as u8;
        } else if part.arch.number == X86_64 && part.last.is_some() {
            // To x32 the part says what libseccomp says: it is another architecture, not a new call.
            prologue.push(bpf::compare(BITS_SET, X32_BIT, 2, 0));
        }
        enter(part, i, &mut prologue, &mut entries);
        prologue[start].jf = (prologue.len() - start - 1) as u8;
    }
    prologue.push(bpf::give(RETURN_KILL));

    let mut program = prologue;
    let mut starts = Vec::new();
    for part in parts {
        starts.push(program.len());
        program.extend_from_slice(&part.program[checked(part)..]);
    }
    for (place, part) in entries {
        program[place] = bpf::jump((starts[part] - place - 1) as u32);
    }
    program
}

/// Goes to a part with the call's number loaded, or gives ENOSYS.
fn enter(part: &Part, number: usize, prologue: &mut Vec<Instruction>, entries: &mut Vec<(usize, usize)>) {
    if let Some(last) = part.last {
        if matches!(part.arch.number, S390 | S390X) {
            // A call with a large number is made through call 0, and keeps that number where the kernel does not know it.
            prologue.push(bpf::compare(EQUAL, 0, 1, 0));
        }
        prologue.push(bpf::compare(GREATER, last, 0, 1));
        prologue.push(bpf::give(RETURN_ENOSYS));
    }
    entries.push((prologue.len(), number));
    prologue.push(bpf::jump(0));
}

/// How many instructions of a part only ask for the architecture, which the prologue has done.
fn checked(part: &Part) -> usize {
    let audit = if part.arch.number == X32 { X86_64 } else { part.arch.number };
    match part.program[..] {
        [first, second, third, ..]
            if first == bpf::load(ARCHITECTURE)
                && (second.code, second.k, second.jt) == (EQUAL, audit, 0)
                && third.code == LOAD =>
        {
            2
        }
        _ => 0,
    }
}
