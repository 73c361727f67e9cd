//! A code generator for the common profiles: a binary search over ranges of system call numbers.
//!
//! It takes a small part of the time of libseccomp's export, and its programs for profiles like those of engines are about
//! half as long and walked in a few steps, which each system call of the container gains from. What it cannot decide as
//! libseccomp does (conditional rules for one call that disagree and may both hold, further architectures), it leaves to
//! libseccomp, which always gives the names and numbers.

use std::borrow::Cow;

use libseccomp::{ScmpAction, ScmpArch};

use super::bpf::{self, EQUAL, GREATER, Instruction, RETURN};
use super::profile::{Architecture, Compare, Condition, Profile, Rule};

const GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;

/// Where struct seccomp_data has the arguments.
const ARGUMENTS: u32 = 16;

const X32_BIT: u32 = 0x4000_0000;
/// SECCOMP_RET_KILL_THREAD, which libseccomp gives to callers of other architectures.
const KILL: u32 = 0;

/// A rule for a call of the architecture.
struct Entry<'a> {
    number: u32,
    conditions: Cow<'a, [Condition]>,
    action: u32,
}

/// What is done with a call, or with a range of numbers.
#[derive(Clone, Copy)]
enum Answer<'a> {
    Always(u32),
    /// The first entry whose conditions all hold, else the default.
    When(&'a [Entry<'a>]),
}

impl PartialEq for Answer<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Answer::Always(one), Answer::Always(other)) => one == other,
            (Answer::When(one), Answer::When(other)) => {
                let alike = |(a, b): (&Entry, &Entry)| a.action == b.action && a.conditions == b.conditions;
                one.len() == other.len() && one.iter().zip(*other).all(alike)
            }
            _ => false,
        }
    }
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

/// The program of one architecture, which expects the number of the call to be loaded; None where libseccomp has to do
/// it. `numbers` are those of the profile's calls.
pub(super) fn compile(profile: &Profile, arch: Architecture, numbers: &[i32]) -> Option<Vec<Instruction>> {
    let wide = match arch.scmp {
        ScmpArch::X8664 | ScmpArch::Aarch64 | ScmpArch::Riscv64 => true,
        ScmpArch::X86 | ScmpArch::X32 | ScmpArch::Arm => false,
        _ => return None,
    };
    let default = value(profile.default)?;
    let entries = entries(profile, arch.scmp, numbers)?;
    let mut ranges = ranges(&entries, default)?;
    if arch.scmp == ScmpArch::X8664 {
        // Numbers of x32 are another architecture's; the largest is a tracer's "no call".
        ranges.retain(|(first, _)| *first < X32_BIT);
        ranges.push((X32_BIT, Answer::Always(KILL)));
        ranges.push((u32::MAX, Answer::Always(default)));
        // The default may be to kill, too.
        ranges.dedup_by(|second, first| second.1 == first.1);
    }
    let mut code = Code { reversed: Vec::with_capacity(2 * ranges.len()), gives: Vec::new(), default, wide };
    code.search(&ranges)?;
    code.reversed.reverse();
    Some(code.reversed)
}

/// The numbers by which a call is made, each with the first argument of the call that it is packed into. None where the
/// architecture does not have it.
pub(super) fn ways(number: i32, arch: ScmpArch) -> [Option<(u32, Option<u64>)>; 2] {
    if let Ok(number) = u32::try_from(number) {
        return [Some((number, None)), None];
    }
    for (call, base, table) in PACKED.iter().filter(|_| arch == ScmpArch::X86) {
        if let Some((packed, own)) = table.iter().find(|(packed, _)| base - packed == number) {
            return [Some((*call, Some(*packed as u64))), own.map(|own| (own, None))];
        }
    }
    [None, None]
}

/// What the rules say of the architecture's calls, by number; for one call as the profile has them.
fn entries<'a>(profile: &'a Profile, arch: ScmpArch, numbers: &[i32]) -> Option<Vec<Entry<'a>>> {
    let mut entries = Vec::with_capacity(profile.rules.len());
    for rule in &profile.rules {
        let action = value(rule.action)?;
        for (number, argument) in ways(*numbers.get(rule.call)?, arch).into_iter().flatten() {
            let conditions = match argument {
                Some(argument) => Cow::Owned(packed(rule, argument)),
                None => Cow::Borrowed(&rule.conditions[..]),
            };
            entries.push(Entry { number, conditions, action });
        }
    }
    entries.sort_by_key(|entry| entry.number);
    Some(entries)
}

/// The conditions for the x86 call that takes the number of the rule's call as its first argument. What it passes on lies
/// in memory, where no filter can see it: conditions on the first argument fall away, and others look at the packed
/// call's own arguments, as with libseccomp.
fn packed(rule: &Rule, number: u64) -> Vec<Condition> {
    let first = Condition { index: 0, compare: Compare::Equal, value: number };
    std::iter::once(first).chain(rule.conditions.iter().filter(|condition| condition.index != 0).copied()).collect()
}

/// One answer for all entries of a call; None where they disagree and may both hold.
fn answer<'a>(entries: &'a [Entry]) -> Option<Answer<'a>> {
    // As libseccomp has it, the first rule without conditions is stronger than any other.
    if let Some(entry) = entries.iter().find(|entry| entry.conditions.is_empty()) {
        return Some(Answer::Always(entry.action));
    }
    for (i, one) in entries.iter().enumerate() {
        let disagrees = |other: &Entry| other.action != one.action && !exclude(&other.conditions, &one.conditions);
        if entries[..i].iter().any(disagrees) {
            return None;
        }
    }
    Some(Answer::When(entries))
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
fn ranges<'a>(entries: &'a [Entry], default: u32) -> Option<Vec<(u32, Answer<'a>)>> {
    let default = Answer::Always(default);
    let mut ranges = vec![(0, default)];
    let mut add = |first, answer| match ranges.last_mut() {
        Some((start, last)) if *start == first => *last = answer,
        Some((_, last)) if *last == answer => {}
        _ => ranges.push((first, answer)),
    };
    let mut next = 0;
    for call in entries.chunk_by(|one, other| one.number == other.number) {
        let number = call.first()?.number;
        if number > next {
            add(next, default);
        }
        add(number, answer(call)?);
        next = number + 1;
    }
    add(next, default);
    Some(ranges)
}

/// How many instructions a comparison can skip.
const FARTHEST: usize = u8::MAX as usize;

/// A program that grows from its end, as jumps lead forwards: where they lead is then known, and code that is there can be
/// shared. Places are counted from the end.
struct Code {
    reversed: Vec<Instruction>,
    /// Where each action was given last.
    gives: Vec<(u32, usize)>,
    default: u32,
    wide: bool,
}

impl Code {
    /// Code that finds the range of the loaded number and answers for it: the place where it begins.
    fn search(&mut self, ranges: &[(u32, Answer)]) -> Option<usize> {
        if let [(_, answer)] = ranges {
            return self.answer(*answer);
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let first = right.first()?.0;
        let (right, left) = (self.search(right)?, self.search(left)?);
        // What brings the left one near may move the right one away by one.
        let right = self.near(right, FARTHEST - 1);
        let left = self.near(left, FARTHEST);
        let (over, on) = (u8::try_from(self.skip(right)).ok()?, u8::try_from(self.skip(left)).ok()?);
        Some(self.push(bpf::compare(GREATER_OR_EQUAL, first, over, on)))
    }

    fn push(&mut self, instruction: Instruction) -> usize {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }

    /// How many instructions lie between a place and the next instruction.
    fn skip(&self, place: usize) -> usize {
        self.reversed.len() - place - 1
    }

    /// A place that does the same, and to which no more than so many instructions are skipped.
    fn near(&mut self, place: usize, farthest: usize) -> usize {
        let skip = self.skip(place);
        if skip <= farthest {
            return place;
        }
        match self.reversed[place] {
            give if give.code == RETURN => self.give(give.k),
            _ => self.push(bpf::jump(skip as u32)),
        }
    }

    fn give(&mut self, action: u32) -> usize {
        let place = self.push(bpf::give(action));
        match self.gives.iter_mut().find(|(given, _)| *given == action) {
            Some((_, last)) => *last = place,
            None => self.gives.push((action, place)),
        }
        place
    }

    fn answer(&mut self, answer: Answer) -> Option<usize> {
        let entries = match answer {
            Answer::Always(action) => {
                let given = self.gives.iter().find(|(given, _)| *given == action);
                return Some(given.map(|(_, place)| *place).unwrap_or_else(|| self.give(action)));
            }
            Answer::When(entries) => entries,
        };
        let mut program = Vec::new();
        for entry in entries {
            let mut code = Vec::new();
            for condition in entry.conditions.iter() {
                holds(condition, self.wide, &mut code)?;
            }
            code.push(Step::Go(bpf::give(entry.action)));
            place(&code, &mut program)?;
        }
        program.push(bpf::give(self.default));
        self.reversed.extend(program.into_iter().rev());
        Some(self.reversed.len() - 1)
    }
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
