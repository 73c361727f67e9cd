//! libseccomp's part: a program for each architecture.
//!
//! One context with all architectures would do, but the time of its export grows faster than the number of its rules.

use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::{ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext};
use rustix::fs::MemfdFlags;

use super::bpf::{self, Instruction};
use super::profile::{Architecture, Compare, Condition, Profile};
use super::search;
use crate::error::{Context, Error, Result};

/// The program of one architecture.
pub(super) struct Part {
    pub(super) arch: Architecture,
    /// The largest number that the profile names, where calls above it shall fail with ENOSYS.
    pub(super) last: Option<u32>,
    pub(super) program: Vec<Instruction>,
}

/// From this number of rules on, libseccomp shall search in a tree: it is correct only where there are rules, and shorter
/// to walk only where there are many.
const TREE_FROM: usize = 32;

pub(super) fn compile(profile: &Profile) -> Result<Vec<Part>> {
    profile.architectures.iter().map(|arch| part(profile, *arch)).collect()
}

fn part(profile: &Profile, arch: Architecture) -> Result<Part> {
    let numbers = profile.numbers(arch.scmp);
    let last = last(&numbers, arch.scmp).filter(|_| profile.stub);
    if let Some(program) = search::compile(profile, arch, &numbers) {
        return Ok(Part { arch, last, program });
    }
    let mut context = context(profile, &[arch])?;
    if profile.rules.len() > TREE_FROM {
        context.set_ctl_optimize(2).map_err(|e| failed("cannot ask for a search tree", e))?;
    }
    Ok(Part { arch, last, program: export(&context)? })
}

/// libseccomp's context of a profile for some of its architectures.
pub(super) fn context(profile: &Profile, architectures: &[Architecture]) -> Result<ScmpFilterContext> {
    let mut context = ScmpFilterContext::new(profile.default).map_err(|e| failed("error creating filter", e))?;
    // A new context has the native architecture.
    if !architectures.iter().any(|arch| arch.scmp == ScmpArch::native()) {
        context.remove_arch(ScmpArch::native()).map_err(|e| failed("cannot leave out the native architecture", e))?;
    }
    for arch in architectures {
        context
            .add_arch(arch.scmp)
            .map_err(|e| failed(format!("error adding architecture {:?} to seccomp filter", arch.scmp), e))?;
    }
    for rule in &profile.rules {
        let call = profile.calls[rule.call];
        let conditions: Vec<_> = rule.conditions.iter().map(comparison).collect();
        context
            .add_rule_conditional(rule.action, call.native, &conditions)
            .map_err(|e| failed(format!("error adding seccomp filter rule for syscall {}", call.name), e))?;
    }
    Ok(context)
}

fn comparison(condition: &Condition) -> ScmpArgCompare {
    let op = match condition.compare {
        Compare::NotEqual => ScmpCompareOp::NotEqual,
        Compare::Less => ScmpCompareOp::Less,
        Compare::LessOrEqual => ScmpCompareOp::LessOrEqual,
        Compare::Equal => ScmpCompareOp::Equal,
        Compare::GreaterOrEqual => ScmpCompareOp::GreaterEqual,
        Compare::Greater => ScmpCompareOp::Greater,
        Compare::Masked(mask) => ScmpCompareOp::MaskedEqual(mask),
    };
    ScmpArgCompare::new(condition.index, op, condition.value)
}

pub(super) fn export(context: &ScmpFilterContext) -> Result<Vec<Instruction>> {
    let memory = rustix::fs::memfd_create("seccomp", MemfdFlags::CLOEXEC).context(|| "cannot make a memfd")?;
    let mut file = File::from(memory);
    context.export_bpf(&file).map_err(|e| failed("error exporting BPF", e))?;
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context(|| "cannot read the seccomp filter back")?;
    Ok(bpf::from_bytes(&bytes))
}

/// The largest number of a call that the profile names.
fn last(numbers: &[i32], arch: ScmpArch) -> Option<u32> {
    let ways = numbers.iter().flat_map(|number| search::ways(*number, arch));
    ways.flatten().map(|(number, _)| number).max().filter(|last| *last != 0)
}

fn failed(what: impl std::fmt::Display, e: libseccomp::error::SeccompError) -> Error {
    Error::new(format!("linux.seccomp: {what}: {e}"))
}
