//! From a profile of config.json to what libseccomp takes, with every rule of the specification checked.

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use crate::error::{Error, Result};

/// A profile that was checked.
pub(super) struct Profile<'a> {
    pub(super) default: ScmpAction,
    /// Without duplicates; the native one is always among them.
    pub(super) architectures: Vec<Architecture>,
    pub(super) rules: Vec<Rule>,
    /// Every system call that the profile names and libseccomp knows, also where the rule says nothing new.
    pub(super) calls: Vec<Call<'a>>,
    /// Whether calls newer than the profile shall fail with ENOSYS.
    pub(super) stub: bool,
    pub(super) flags: u32,
    pub(super) notify: bool,
}

/// An architecture as libseccomp knows it and by its number (SCMP_ARCH_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    pub(super) scmp: ScmpArch,
    pub(super) number: u32,
}

/// A system call by its name, and its number on the native architecture.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) native: ScmpSyscall,
}

impl Call<'_> {
    /// The number on an architecture; a negative one where the call has none of its own there, though on x86 it may be
    /// made through socketcall(2) or ipc(2).
    fn number(&self, arch: ScmpArch) -> i32 {
        if arch == ScmpArch::native() {
            return self.native.as_raw_syscall();
        }
        ScmpSyscall::from_name_by_arch(self.name, arch).map_or(UNKNOWN, ScmpSyscall::as_raw_syscall)
    }
}

impl Profile<'_> {
    /// The numbers of all calls on an architecture.
    pub(super) fn numbers(&self, arch: ScmpArch) -> Vec<i32> {
        self.calls.iter().map(|call| call.number(arch)).collect()
    }
}

/// What to do with one system call.
pub(super) struct Rule {
    /// Which of [`Profile::calls`].
    pub(super) call: usize,
    pub(super) action: ScmpAction,
    /// All must hold. Empty: always.
    pub(super) conditions: Vec<Condition>,
}

/// What must hold of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, from 0.
    pub(super) index: u32,
    pub(super) compare: Compare,
    pub(super) value: u64,
}

/// How an argument is compared with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// The bits of this mask must be the value's.
    Masked(u64),
}

/// SECCOMP_FILTER_FLAG_*.
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// EPERM, as the specification has it where no errno is given.
const DEFAULT_ERRNO: u32 = libc::EPERM as u32;

const ARGUMENTS: usize = 6;

/// __NR_SCMP_ERROR: libseccomp does not know the call on that architecture.
const UNKNOWN: i32 = -1;

/// Checks a profile against the specification without compiling it.
pub fn check(profile: &LinuxSeccomp) -> Result<()> {
    read(profile).map(drop)
}

pub(super) fn read(profile: &LinuxSeccomp) -> Result<Profile<'_>> {
    let place = |e: Error| e.context("linux.seccomp");
    let default = action(profile.default_action(), profile.default_errno_ret(), "defaultErrnoRet").map_err(place)?;
    let syscalls = profile.syscalls().as_deref().unwrap_or_default();
    let notify = check_notify(profile, syscalls).map_err(place)?;
    let count = syscalls.iter().map(|syscall| syscall.names().len()).sum();
    let (mut calls, mut rules) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (i, syscall) in syscalls.iter().enumerate() {
        add_rules(syscall, default, &mut calls, &mut rules)
            .map_err(|e| e.context(format!("linux.seccomp.syscalls[{i}]")))?;
    }
    Ok(Profile {
        default,
        architectures: architectures(profile).map_err(place)?,
        calls,
        rules,
        // A tracer answers ENOSYS on its own, and what is allowed or logged gets the kernel's.
        stub: !matches!(default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_))
            && default != ScmpAction::Errno(libc::ENOSYS),
        flags: flags(profile, notify),
        notify,
    })
}

/// Whether the filter has a listener; an error where the profile's agent cannot work.
fn check_notify(profile: &LinuxSeccomp, syscalls: &[LinuxSyscall]) -> Result<bool> {
    let notifies = |syscall: &&LinuxSyscall| matches!(syscall.action(), LinuxSeccompAction::ScmpActNotify);
    // The process writes to the runtime between the filter and the program: an agent would wait for a listener that it
    // gets only afterwards.
    if syscalls.iter().filter(notifies).any(|syscall| syscall.names().iter().any(|name| name == "write")) {
        return Err(Error::new("SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    if matches!(profile.default_action(), LinuxSeccompAction::ScmpActNotify) {
        return Err(Error::new("SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let notify = syscalls.iter().any(|syscall| notifies(&syscall));
    let listener = profile.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    if notify && !listener {
        return Err(Error::new("SCMP_ACT_NOTIFY needs listenerPath, the socket of the agent"));
    }
    if profile.listener_metadata().as_ref().is_some_and(|text| !text.is_empty()) && !listener {
        return Err(Error::new("listenerMetadata must not be set without listenerPath"));
    }
    Ok(notify)
}

fn flags(profile: &LinuxSeccomp, notify: bool) -> u32 {
    let Some(flags) = profile.flags() else { return FLAG_SPEC_ALLOW };
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        // Init has one thread when it installs the filter, and execve(2) would end all others.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        // It says how a listener receives; the kernel refuses it where there is none.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if !notify => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
    };
    flags.iter().fold(0, |all, flag| all | bit(flag))
}

fn architectures(profile: &LinuxSeccomp) -> Result<Vec<Architecture>> {
    // libseccomp's filters have the native one whether it is asked for or not, and so have everybody's profiles.
    let native = ScmpArch::native();
    let mut all = vec![Architecture { scmp: native, number: number(native)? }];
    for arch in profile.architectures().iter().flatten() {
        let name = arch.to_string();
        let scmp = match name.parse().map_err(|_| Error::new(format!("architectures: {name} is not supported")))? {
            ScmpArch::Native => native,
            other => other,
        };
        if !all.iter().any(|have| have.scmp == scmp) {
            all.push(Architecture { scmp, number: number(scmp)? });
        }
    }
    Ok(all)
}

/// SCMP_ARCH_* of an architecture: AUDIT_ARCH_*, except for x32.
fn number(arch: ScmpArch) -> Result<u32> {
    use oci_spec::runtime::Arch;
    let arch = match arch {
        ScmpArch::X86 => Arch::ScmpArchX86,
        ScmpArch::X8664 => Arch::ScmpArchX86_64,
        ScmpArch::X32 => Arch::ScmpArchX32,
        ScmpArch::Arm => Arch::ScmpArchArm,
        ScmpArch::Aarch64 => Arch::ScmpArchAarch64,
        ScmpArch::Loongarch64 => Arch::ScmpArchLoongarch64,
        ScmpArch::M68k => Arch::ScmpArchM68k,
        ScmpArch::Mips => Arch::ScmpArchMips,
        ScmpArch::Mips64 => Arch::ScmpArchMips64,
        ScmpArch::Mips64N32 => Arch::ScmpArchMips64n32,
        ScmpArch::Mipsel => Arch::ScmpArchMipsel,
        ScmpArch::Mipsel64 => Arch::ScmpArchMipsel64,
        ScmpArch::Mipsel64N32 => Arch::ScmpArchMipsel64n32,
        ScmpArch::Ppc => Arch::ScmpArchPpc,
        ScmpArch::Ppc64 => Arch::ScmpArchPpc64,
        ScmpArch::Ppc64Le => Arch::ScmpArchPpc64le,
        ScmpArch::S390 => Arch::ScmpArchS390,
        ScmpArch::S390X => Arch::ScmpArchS390x,
        ScmpArch::Parisc => Arch::ScmpArchParisc,
        ScmpArch::Parisc64 => Arch::ScmpArchParisc64,
        ScmpArch::Riscv64 => Arch::ScmpArchRiscv64,
        ScmpArch::Sheb => Arch::ScmpArchSheb,
        ScmpArch::Sh => Arch::ScmpArchSh,
        other => return Err(Error::new(format!("architectures: {other:?} is not supported"))),
    };
    Ok(arch as u32)
}

fn add_rules<'a>(
    syscall: &'a LinuxSyscall,
    default: ScmpAction,
    calls: &mut Vec<Call<'a>>,
    rules: &mut Vec<Rule>,
) -> Result<()> {
    let action = action(syscall.action(), syscall.errno_ret(), "errnoRet")?;
    let args = syscall.args().as_deref().unwrap_or_default();
    let conditions = args.iter().enumerate().map(|(i, arg)| condition(arg, i)).collect::<Result<Vec<_>>>()?;
    if syscall.names().is_empty() {
        return Err(Error::new("names: no system call is named"));
    }
    for name in syscall.names() {
        if name.is_empty() {
            return Err(Error::new("names: empty string is not a valid syscall"));
        }
        // A rule that says what the default says is an error to libseccomp. A name that it does not know is newer than
        // it, and gets the default like all that is not named.
        let Ok(native) = ScmpSyscall::from_name(name) else { continue };
        calls.push(Call { name, native });
        if action == default {
            continue;
        }
        let call = calls.len() - 1;
        let rule = |conditions| Rule { call, action, conditions };
        if is_repeated(args) {
            // libseccomp takes one condition an argument. The field has agreed to read several as alternatives.
            rules.extend(conditions.iter().map(|condition| rule(vec![*condition])));
        } else {
            rules.push(rule(conditions.clone()));
        }
    }
    Ok(())
}

/// Whether two conditions are about the same argument.
fn is_repeated(args: &[LinuxSeccompArg]) -> bool {
    args.iter().enumerate().any(|(i, arg)| args[..i].iter().any(|before| before.index() == arg.index()))
}

fn condition(arg: &LinuxSeccompArg, place: usize) -> Result<Condition> {
    if arg.index() >= ARGUMENTS {
        return Err(Error::new(format!("args[{place}].index: {} is not below {ARGUMENTS}", arg.index())));
    }
    let (compare, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (Compare::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (Compare::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (Compare::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (Compare::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (Compare::GreaterOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (Compare::Greater, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (Compare::Masked(arg.value()), arg.value_two().unwrap_or(0)),
    };
    Ok(Condition { index: arg.index() as u32, compare, value })
}

/// An action with its errno; `field` is where the errno stands.
fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<ScmpAction> {
    let value = errno.unwrap_or(DEFAULT_ERRNO);
    let short = || u16::try_from(value).map_err(|_| Error::new(format!("{field}: {value} is above {}", u16::MAX)));
    let taken = match action {
        LinuxSeccompAction::ScmpActErrno => return Ok(ScmpAction::Errno(i32::from(short()?))),
        LinuxSeccompAction::ScmpActTrace => return Ok(ScmpAction::Trace(short()?)),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    };
    match errno {
        Some(_) => Err(Error::new(format!("{field}: {action} takes no errno (SCMP_ACT_ERRNO and SCMP_ACT_TRACE do)"))),
        None => Ok(taken),
    }
}
