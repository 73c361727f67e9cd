//! Programs of the kernel's virtual machine that decide about devices (BPF_PROG_TYPE_CGROUP_DEVICE).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{Context, Error, Result};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs that are there stay, and those of cgroups below are added: all of them have to agree.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// The operation.
    pub code: u8,
    registers: u8,
    /// The distance of a jump, or the place of a load.
    pub off: i16,
    /// The constant.
    pub imm: i32,
}

impl Insn {
    /// An instruction on registers `dst` and `src`.
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
        // Two bit fields in C, whose order follows the byte order.
        let registers = if cfg!(target_endian = "little") { dst | (src << 4) } else { (dst << 4) | src };
        Insn { code, registers, off, imm }
    }

    /// The destination and the source register.
    pub const fn registers(self) -> (u8, u8) {
        let (low, high) = (self.registers & 15, self.registers >> 4);
        if cfg!(target_endian = "little") { (low, high) } else { (high, low) }
    }
}

/// The start of the kernel's `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The start of the kernel's `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a device program.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd> {
    let insn_cnt = u32::try_from(program.len()).map_err(|_| Error::new("the device program is too long"))?;
    let mut load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"vessel_devices\0\0",
    };
    // A signal makes the check of the program give up with EAGAIN.
    for _ in 0..30 {
        match bpf(BPF_PROG_LOAD, &load) {
            Err(e) if e.errno() == libc::EAGAIN => {}
            Ok(fd) => {
                // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
                return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
            }
            Err(e) if e.errno() == libc::EPERM => return Err(e.context("cannot load the device program")),
            Err(e) => {
                let mut log = vec![0_u8; 1 << 16];
                load.log_level = 1;
                load.log_size = 1 << 16;
                load.log_buf = log.as_mut_ptr() as u64;
                // The second refusal is the same one, with the kernel's reason.
                let _ = bpf(BPF_PROG_LOAD, &load).map(close);
                let text = String::from_utf8_lossy(&log);
                let reason = text.trim_end_matches('\0').lines().rfind(|line| !line.starts_with("processed "));
                let e = e.context("cannot load the device program");
                return Err(match reason {
                    Some(reason) if !reason.is_empty() => e.hint(reason),
                    _ => e,
                });
            }
        }
    }
    Err(Error::from_errno(libc::EAGAIN, "cannot load the device program"))
}

/// Lets a loaded program decide for the processes of the v2 cgroup `cgroup`.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attach = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach).map(drop).context(|| "cannot attach the device program")
}

fn close(fd: i32) {
    // SAFETY: the descriptor was made by the caller a moment ago and is used nowhere else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

fn bpf<T>(command: libc::c_int, attr: &T) -> Result<i32> {
    // SAFETY: `attr` is one of the structs above, of the size that is passed; it and what it points to (the program, the
    // license, the log) outlive the call, and the kernel writes to the log alone, within `log_size`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 {
        return Err(Error::from(std::io::Error::last_os_error()));
    }
    i32::try_from(result).map_err(|_| Error::new("bpf gave no descriptor"))
}
