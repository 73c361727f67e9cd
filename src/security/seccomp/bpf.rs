//! Classic BPF as seccomp uses it: instructions and their bytes.

/// One instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// How many instructions a true comparison skips.
    pub(super) jt: u8,
    /// How many instructions a false comparison skips.
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// BPF_MAXINSNS.
pub(super) const LONGEST: usize = 4096;

/// Loads a word of struct seccomp_data.
pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const EQUAL: u16 = 0x15;
pub(super) const GREATER: u16 = 0x25;
pub(super) const BITS_SET: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;

/// Where struct seccomp_data has the number of the system call and the architecture.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;

pub(super) const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jt: 0, jf: 0, k: offset }
}

pub(super) const fn jump(skip: u32) -> Instruction {
    Instruction { code: JUMP, jt: 0, jf: 0, k: skip }
}

pub(super) const fn compare(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

pub(super) const fn give(action: u32) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k: action }
}

const SIZE: usize = 8;

/// The instructions in the machine's byte order.
pub(super) fn to_bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * SIZE);
    for i in program {
        bytes.extend_from_slice(&i.code.to_ne_bytes());
        bytes.extend_from_slice(&[i.jt, i.jf]);
        bytes.extend_from_slice(&i.k.to_ne_bytes());
    }
    bytes
}

/// The instructions in these bytes; what is not a whole one is left out.
pub(super) fn from_bytes(bytes: &[u8]) -> Vec<Instruction> {
    let (whole, _) = bytes.as_chunks::<SIZE>();
    whole
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect()
}
