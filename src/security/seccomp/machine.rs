//! A machine that runs filters as the kernel does, for tests.

use super::bpf::{ARCHITECTURE, BITS_SET, EQUAL, GREATER, Instruction, JUMP, LOAD, NUMBER, RETURN};

/// A system call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

const GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const ARGS: u32 = 16;

/// What the filter answers (SECCOMP_RET_*). Panics where the kernel would have refused the filter.
pub(super) fn run(program: &[Instruction], call: Call) -> u32 {
    let (mut at, mut a) = (0, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let taken = match i.code {
            RETURN => return i.k,
            LOAD => {
                a = word(call, i.k);
                0
            }
            AND => {
                a &= i.k;
                0
            }
            JUMP => i.k as usize,
            EQUAL => skip(i, a == i.k),
            GREATER => skip(i, a > i.k),
            GREATER_OR_EQUAL => skip(i, a >= i.k),
            BITS_SET => skip(i, a & i.k != 0),
            other => panic!("instruction {other:#x} at {}", at - 1),
        };
        at += taken;
    }
}

fn skip(i: Instruction, is: bool) -> usize {
    usize::from(if is { i.jt } else { i.jf })
}

fn word(call: Call, offset: u32) -> u32 {
    match offset {
        NUMBER => call.number,
        ARCHITECTURE => call.arch,
        8 | 12 => 0,
        _ => {
            let arg = call.args[((offset - ARGS) / 8) as usize];
            let high = (offset % 8 == 4) == cfg!(target_endian = "little");
            if high { (arg >> 32) as u32 } else { arg as u32 }
        }
    }
}
