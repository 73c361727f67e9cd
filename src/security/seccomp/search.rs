//! A code generator for the common profiles: a binary search over ranges of system call numbers.
//!
//! It takes a small part of the time of libseccomp's export, and its programs are about half as long and walked in a few
//! steps, which each system call of the container gains from. What it cannot decide as libseccomp does (conditional rules
//! for one call that disagree and may both hold, further architectures), it leaves to libseccomp, which always gives the
//! names and numbers.

use std::collections::BTreeMap;

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};

use super::bpf::{self, EQUAL, GREATER, Instruction};
use super::profile::{Architecture, Compare, Condition, Profile, Rule};

const GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;

/// Where struct seccomp_data has the arguments.
const ARGUMENTS: u32 = 16;

const X32_BIT: u32 = 0x4000_0000;
/// SECCOMP_RET_KILL_THREAD, which libseccomp gives to callers of other architectures.
const KILL: u32 = 0;

/// What is done with a call, or with a range of numbers.
#[derive(Clone, PartialEq, Eq)]
enum Answer {
    Always(u32),
    /// The first alternative whose conditions all hold, else the default.
    When(Vec<(Vec<Condition>, u32)>),
}

/// Calls that are made through another one: their number there, and the one of their own, where they have it.
type PackedCalls = &'static [(i32, Option<u32>)];

/// What x86 makes through socketcall(2).
const SOCKETCALLS: PackedCalls = &[
    (1, Some(359)),
    (2, Some(361)),
    (3, Some(362)),
    (4, Some(363)),
    (5, None),
    (6, Some(367)),
    (7, Some(368)),
    (8, Some(360)),
    (9, None),
    (10, None),
    (11, Some(369)),
    (12, Some(371)),
    (13, Some(373)),
    (14, Some(366)),
    (15, Some(365)),
    (16, Some(370)),
    (17, Some(372)),
    (18, Some(364)),
    (19, Some(337)),
    (20, Some(345)),
];

/// The same for ipc(2).
const IPCS: PackedCalls = &[
    (1, None),
    (2, Some(393)),
    (3, Some(394)),
    (4, None),
    (11, Some(400)),
    (12, Some(401)),
    (13, Some(399)),
    (14, Some(402)),
    (21, Some(397)),
    (22, Some(398)),
    (23, Some(395)),
    (24, Some(396)),
];

/// socketcall(2) and ipc(2), and where libseccomp's pseudo numbers for what they make begin (downwards).
const PACKED: [(u32, i32, PackedCalls); 2] = [(102, -100, SOCKETCALLS), (117, -200, IPCS)];

/// The program of one architecture, which expects the number of the call to be loaded; None where libseccomp has to do it.
pub(super) fn compile(profile: &Profile, arch: Architecture) -> Option<Vec<Instruction>> {
    let wide = match arch.scmp {
        ScmpArch::X8664 | ScmpArch::Aarch64 | ScmpArch::Riscv64 => true,
        ScmpArch::X86 | ScmpArch::X32 | ScmpArch::Arm => false,
        _ => return None,
    };
    let default = value(profile.default)?;
    let mut ranges = ranges(&answers(profile, arch.scmp)?, default);
    if arch.scmp == ScmpArch::X8664 {
        // Numbers of x32 are another architecture's; the largest is a tracer's "no call".
        ranges.retain(|(first, _)| *first < X32_BIT);
        ranges.push((X32_BIT, Answer::Always(KILL)));
        ranges.push((u32::MAX, Answer::Always(default)));
    }
    let mut program = Vec::new();
    search(&ranges, default, wide, &mut program)?;
    Some(program)
}

/// The answer for each call that the profile has rules for.
fn answers(profile: &Profile, arch: ScmpArch) -> Option<BTreeMap<u32, Answer>> {
    let mut rules: BTreeMap<u32, Vec<(Vec<Condition>, u32)>> = BTreeMap::new();
    for rule in &profile.rules {
        let number = ScmpSyscall::from_name_by_arch(&rule.name, arch).ok()?.as_raw_syscall();
        let action = value(rule.action)?;
        let mut add = |number, conditions| rules.entry(number).or_default().push((conditions, action));
        if let Ok(number) = u32::try_from(number) {
            add(number, rule.conditions.clone());
        } else if arch == ScmpArch::X86 {
            for (call, base, table) in PACKED {
                let Some((number, own)) = table.iter().find(|(packed, _)| base - packed == number) else { continue };
                add(call, packed(rule, *number as u64));
                if let Some(own) = own {
                    add(*own, rule.conditions.clone());
                }
            }
        }
        // Else the architecture does not have the call.
    }
    rules.into_iter().map(|(number, rules)| Some((number, answer(rules)?))).collect()
}

/// The conditions for the x86 call that takes the number of the rule's call as its first argument. What it passes on lies
/// in memory, where no filter can see it: conditions on the first argument fall away, and others look at the packed
/// call's own arguments, as with libseccomp.
fn packed(rule: &Rule, number: u64) -> Vec<Condition> {
    let first = Condition { index: 0, compare: Compare::Equal, value: number };
    std::iter::once(first).chain(rule.conditions.iter().filter(|condition| condition.index != 0).copied()).collect()
}

/// One answer for all rules of a call; None where they disagree and may both hold.
fn answer(rules: Vec<(Vec<Condition>, u32)>) -> Option<Answer> {
    // As libseccomp has it, the first rule without conditions is stronger than any other.
    if let Some((_, action)) = rules.iter().find(|(conditions, _)| conditions.is_empty()) {
        return Some(Answer::Always(*action));
    }
    for (i, (one, action)) in rules.iter().enumerate() {
        if rules[..i].iter().any(|(other, have)| have != action && !exclude(other, one)) {
            return None;
        }
    }
    Some(Answer::When(rules))
}

/// Whether two lists of conditions surely never hold together.
fn exclude(one: &[Condition], other: &[Condition]) -> bool {
    let contradict = |a: &Condition, b: &Condition| match (a.compare, b.compare) {
        _ if a.index != b.index => false,
        (Compare::Equal, Compare::Equal) => a.value as u32 != b.value as u32,
        (Compare::Equal, Compare::NotEqual) | (Compare::NotEqual, Compare::Equal) => a.value == b.value,
        _ => false,
    };
    one.iter().any(|a| other.iter().any(|b| contradict(a, b)))
}

/// The answers as ranges, each by its first number; neighbours that are alike are one.
fn ranges(answers: &BTreeMap<u32, Answer>, default: u32) -> Vec<(u32, Answer)> {
    let mut ranges = vec![(0, Answer::Always(default))];
    let mut add = |first: u32, answer: &Answer| match ranges.last_mut() {
        Some((start, last)) if *start == first => *last = answer.clone(),
        Some((_, last)) if last == answer => {}
        _ => ranges.push((first, answer.clone())),
    };
    for (number, answer) in answers {
        add(*number, answer);
        if !answers.contains_key(&(number + 1)) {
            add(number + 1, &Answer::Always(default));
        }
    }
    // What was replaced at its start may be like the range before it.
    ranges.dedup_by(|second, first| second.1 == first.1);
    ranges
}

/// Code that finds the range of the loaded number and answers for it.
fn search(ranges: &[(u32, Answer)], default: u32, wide: bool, program: &mut Vec<Instruction>) -> Option<()> {
    if let [(_, answer)] = ranges {
        return answer_code(answer, default, wide, program);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let mut code = Vec::new();
    search(left, default, wide, &mut code)?;
    let first = right.first()?.0;
    match u8::try_from(code.len()) {
        Ok(skip) => program.push(bpf::compare(GREATER_OR_EQUAL, first, skip, 0)),
        Err(_) => {
            program.push(bpf::compare(GREATER_OR_EQUAL, first, 0, 1));
            program.push(bpf::jump(code.len() as u32));
        }
    }
    program.append(&mut code);
    search(right, default, wide, program)
}

fn answer_code(answer: &Answer, default: u32, wide: bool, program: &mut Vec<Instruction>) -> Option<()> {
    match answer {
        Answer::Always(action) => program.push(bpf::give(*action)),
        Answer::When(list) => {
            for (conditions, action) in list {
                let mut code = Vec::new();
                for condition in conditions {
                    holds(condition, wide, &mut code)?;
                }
                code.push(Step::Go(bpf::give(*action)));
                place(&code, program)?;
            }
            program.push(bpf::give(default));
        }
    }
    Some(())
}

/// An instruction of one alternative.
#[derive(Clone, Copy)]
enum Step {
    Go(Instruction),
    /// A comparison that, where it is true (or false), leaves the alternative.
    Leave(Instruction, bool),
}

/// Appends an alternative; to leave it is to go on behind it.
fn place(code: &[Step], program: &mut Vec<Instruction>) -> Option<()> {
    for (at, step) in code.iter().enumerate() {
        let behind = u8::try_from(code.len() - at - 1).ok()?;
        program.push(match *step {
            Step::Go(i) => i,
            Step::Leave(i, true) => Instruction { jt: behind, ..i },
            Step::Leave(i, false) => Instruction { jf: behind, ..i },
        });
    }
    Some(())
}

/// Code that goes on where the condition holds. Of callers with 32 bits only the lower word is looked at, as libseccomp
/// does.
fn holds(condition: &Condition, wide: bool, code: &mut Vec<Step>) -> Option<()> {
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    let word = |upper: bool| {
        let second = upper == cfg!(target_endian = "little");
        Step::Go(bpf::load(ARGUMENTS + 8 * condition.index + if second { 4 } else { 0 }))
    };
    let leave = |op, k, when| Step::Leave(bpf::compare(op, k, 0, 0), when);
    // (the comparison of the lower words, whether it leaves where it is true)
    let (op, when) = match condition.compare {
        Compare::Equal => (EQUAL, false),
        Compare::NotEqual => (EQUAL, true),
        Compare::Greater => (GREATER, false),
        Compare::GreaterOrEqual => (GREATER_OR_EQUAL, false),
        Compare::Less => (GREATER_OR_EQUAL, true),
        Compare::LessOrEqual => (GREATER, true),
        Compare::Masked(mask) => {
            if condition.value & !mask != 0 {
                return None;
            }
            let and = |k| Step::Go(bpf::compare(AND, k, 0, 0));
            if wide && mask >> 32 != 0 {
                code.extend([word(true), and((mask >> 32) as u32), leave(EQUAL, high, false)]);
            }
            code.extend([word(false), and(mask as u32), leave(EQUAL, low, false)]);
            return Some(());
        }
    };
    if wide {
        code.push(word(true));
        match condition.compare {
            Compare::Equal | Compare::Masked(_) => code.push(leave(EQUAL, high, false)),
            // Holds at once, past the two instructions for the lower words.
            Compare::NotEqual => code.push(Step::Go(bpf::compare(EQUAL, high, 0, 2))),
            Compare::Greater | Compare::GreaterOrEqual => {
                code.push(Step::Go(bpf::compare(GREATER, high, 3, 0)));
                code.push(leave(EQUAL, high, false));
            }
            Compare::Less | Compare::LessOrEqual => {
                code.push(leave(GREATER, high, true));
                code.push(Step::Go(bpf::compare(EQUAL, high, 0, 2)));
            }
        }
    }
    code.extend([word(false), leave(op, low, when)]);
    Some(())
}

/// SECCOMP_RET_* of an action.
pub(super) fn value(action: ScmpAction) -> Option<u32> {
    Some(match action {
        ScmpAction::KillProcess => 0x8000_0000,
        ScmpAction::KillThread => KILL,
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::Errno(errno) => 0x0005_0000 | u32::from(errno as u16),
        ScmpAction::Notify => 0x7fc0_0000,
        ScmpAction::Trace(message) => 0x7ff0_0000 | u32::from(message),
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Allow => 0x7fff_0000,
        _ => return None,
    })
}
