//! The device policy as a program for the kernel (v2). It runs at every open and mknod of a device, and the kernel checks
//! each instruction when it is loaded, so it is short: comparisons of one word that jump to one shared end.

use super::devices::{ALL, Devices, Kind, Policy, Rule};
use crate::error::{Error, Result};
use crate::sys::bpf::Insn;

/// Operations, on 32 bits.
mod op {
    pub(super) const LOAD: u8 = 0x61;
    pub(super) const MOV: u8 = 0xb4;
    pub(super) const MOV_REGISTER: u8 = 0xbc;
    pub(super) const AND: u8 = 0x54;
    pub(super) const OR_REGISTER: u8 = 0x4c;
    pub(super) const SHIFT_LEFT: u8 = 0x64;
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    pub(super) const JUMP: u8 = 0x05;
    pub(super) const JUMP_EQUAL: u8 = 0x16;
    pub(super) const JUMP_NOT_EQUAL: u8 = 0x56;
    pub(super) const JUMP_ANY_BIT: u8 = 0x46;
    pub(super) const EXIT: u8 = 0x95;
}

/// Registers: the result, the kernel's `struct bpf_cgroup_dev_ctx`, and what is read from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Major and minor number in one word, as the kernel keeps them: 12 and 20 bits.
const NUMBER: u8 = 6;
const MINOR_BITS: u32 = 20;

/// Compiles a policy; none is needed where everything is allowed.
pub(super) fn compile(policy: &Policy) -> Result<Option<Vec<Insn>>> {
    let rules = reduce(policy);
    if policy.allow && rules.is_empty() {
        return Ok(None);
    }
    let mut program = Program::default();
    program.begin();
    for run in rules.chunk_by(|a, b| a.allow == b.allow) {
        program.run(run);
    }
    program.finish(policy.allow).map(Some)
}

/// The rules that matter, those that decide first in front.
fn reduce(policy: &Policy) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for rule in policy.rules.iter().rev().filter(|rule| possible(&rule.devices)) {
        let decided = |access: u8, before: &Rule| {
            if before.devices.cover(&rule.devices) { access & !before.access } else { access }
        };
        let access = rules.iter().fold(rule.access, decided);
        if access != 0 {
            rules.push(Rule { access, ..*rule });
        }
    }
    // A rule that says what holds anyway is of use only in front of one that says otherwise.
    let mut kept: Vec<Rule> = Vec::new();
    for rule in rules.into_iter().rev() {
        let differs = |other: &Rule| {
            other.allow != rule.allow && other.devices.meet(&rule.devices) && other.access & rule.access != 0
        };
        if rule.allow != policy.allow || kept.iter().any(differs) {
            kept.push(rule);
        }
    }
    kept.reverse();
    kept
}

/// Whether the kernel can have such a device.
fn possible(devices: &Devices) -> bool {
    devices.major.is_none_or(|major| major < 1 << 12) && devices.minor.is_none_or(|minor| minor < 1 << MINOR_BITS)
}

/// A place that is jumped to before it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Allow,
    Deny,
    Local(usize),
}

#[derive(Default)]
struct Program {
    insns: Vec<Insn>,
    jumps: Vec<(usize, Label)>,
    locals: Vec<usize>,
}

impl Program {
    fn push(&mut self, code: u8, dst: u8, src: u8, imm: u32) {
        self.insns.push(Insn::new(code, dst, src, 0, imm as i32));
    }

    fn load(&mut self, register: u8, place: i16) {
        self.insns.push(Insn::new(op::LOAD, register, CONTEXT, place, 0));
    }

    fn jump(&mut self, code: u8, register: u8, value: u32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(code, register, 0, value);
    }

    fn local(&mut self) -> Label {
        self.locals.push(usize::MAX);
        Label::Local(self.locals.len() - 1)
    }

    fn place(&mut self, label: Label) {
        if let Label::Local(index) = label {
            self.locals[index] = self.insns.len();
        }
    }

    fn begin(&mut self) {
        self.load(ACCESS, 0);
        self.push(op::MOV_REGISTER, KIND, ACCESS, 0);
        self.push(op::AND, KIND, 0, 0xffff);
        self.push(op::SHIFT_RIGHT, ACCESS, 0, 16);
        self.load(MAJOR, 4);
        self.load(MINOR, 8);
        self.push(op::MOV_REGISTER, NUMBER, MAJOR, 0);
        self.push(op::SHIFT_LEFT, NUMBER, 0, MINOR_BITS);
        self.push(op::OR_REGISTER, NUMBER, MINOR, 0);
        self.push(op::MOV, RESULT, 0, 1);
    }

    /// Rules that all say the same, so that their order is free: those of one kind and access are put together.
    fn run(&mut self, rules: &[Rule]) {
        let allow = rules.first().is_some_and(|rule| rule.allow);
        let mut rules = merge(rules);
        // What holds for both kinds of device needs no look at the kind.
        let whole = |kind, access| {
            let devices = Devices { kind, major: None, minor: None };
            Rule { allow, devices, access }
        };
        for access in 1..=ALL {
            let both = [whole(Kind::Char, access), whole(Kind::Block, access)];
            if both.iter().all(|rule| rules.contains(rule)) {
                rules.retain(|rule| !both.contains(rule));
                self.verdict(allow, access);
            }
        }
        rules.sort_by_key(|rule| (rule.devices.kind, rule.access, rule.devices));
        for of_kind in rules.chunk_by(|a, b| a.devices.kind == b.devices.kind) {
            let next = self.local();
            let number = if of_kind[0].devices.kind == Kind::Char { 2 } else { 1 };
            self.jump(op::JUMP_NOT_EQUAL, KIND, number, next);
            for group in of_kind.chunk_by(|a, b| a.access == b.access) {
                self.group(allow, group);
            }
            self.place(next);
        }
    }

    /// Rules of one kind of device with the same access.
    fn group(&mut self, allow: bool, group: &[Rule]) {
        let Some((last, others)) = group.split_last() else { return };
        if last.access == ALL {
            for rule in group {
                self.test(&rule.devices, op::JUMP_EQUAL, if allow { Label::Allow } else { Label::Deny });
            }
            return;
        }
        let (found, next) = (self.local(), self.local());
        for rule in others {
            self.test(&rule.devices, op::JUMP_EQUAL, found);
        }
        if last.devices.major.is_some() || last.devices.minor.is_some() {
            self.test(&last.devices, op::JUMP_NOT_EQUAL, next);
        }
        self.place(found);
        self.verdict(allow, last.access);
        self.place(next);
    }

    /// Compares the device's numbers; for all devices, jumps.
    fn test(&mut self, devices: &Devices, code: u8, to: Label) {
        match (devices.major, devices.minor) {
            (Some(major), Some(minor)) => self.jump(code, NUMBER, major << MINOR_BITS | minor, to),
            (Some(major), None) => self.jump(code, MAJOR, major, to),
            (None, Some(minor)) => self.jump(code, MINOR, minor, to),
            (None, None) => self.jump(op::JUMP, 0, 0, to),
        }
    }

    /// The device matches: allowed access needs no further rule, and when none is left the answer is there.
    fn verdict(&mut self, allow: bool, access: u8) {
        if allow {
            self.push(op::AND, ACCESS, 0, u32::from(ALL & !access));
            self.jump(op::JUMP_EQUAL, ACCESS, 0, Label::Allow);
        } else {
            self.jump(op::JUMP_ANY_BIT, ACCESS, u32::from(access), Label::Deny);
        }
    }

    /// The end that all share: the result is 1 until `Deny` makes it 0.
    fn finish(mut self, allow: bool) -> Result<Vec<Insn>> {
        if allow {
            self.jump(op::JUMP, 0, 0, Label::Allow);
        }
        let deny = self.insns.len();
        self.push(op::MOV, RESULT, 0, 0);
        let end = self.insns.len();
        self.push(op::EXIT, 0, 0, 0);
        for (from, label) in self.jumps {
            let to = match label {
                Label::Allow => end,
                Label::Deny => deny,
                Label::Local(index) => self.locals[index],
            };
            let distance = to.saturating_sub(from + 1);
            self.insns[from].off = i16::try_from(distance)
                .map_err(|_| Error::new("linux.resources.devices: there are too many rules for one program"))?;
        }
        Ok(self.insns)
    }
}

/// Joins rules on the same devices, and drops what a wider one of them says too.
fn merge(rules: &[Rule]) -> Vec<Rule> {
    let mut merged: Vec<Rule> = Vec::new();
    for rule in rules {
        match merged.iter_mut().find(|other| other.devices == rule.devices) {
            Some(other) => other.access |= rule.access,
            None => merged.push(*rule),
        }
    }
    let all = merged.clone();
    for rule in &mut merged {
        let wider = all.iter().filter(|other| other.devices != rule.devices && other.devices.cover(&rule.devices));
        // Only as a whole: a rest would cost a comparison with another access.
        if wider.clone().fold(rule.access, |access, other| access & !other.access) == 0 {
            rule.access = 0;
        }
    }
    merged.retain(|rule| rule.access != 0);
    merged
}

#[cfg(test)]
mod tests {
    use super::super::devices::tests::policy;
    use super::super::devices::{MKNOD, READ, WRITE};
    use super::*;

    #[derive(Clone, Copy, Debug)]
    struct Question {
        kind: Kind,
        major: u32,
        minor: u32,
        access: u8,
    }

    /// Executes a program as the kernel would.
    fn execute(program: &[Insn], question: Question) -> bool {
        let kind: u32 = if question.kind == Kind::Char { 2 } else { 1 };
        let context = [u32::from(question.access) << 16 | kind, question.major, question.minor];
        let mut registers = [0_u32; 11];
        let mut at = 0;
        for _ in 0..program.len() {
            let insn = program[at];
            let (dst, src) = insn.registers();
            let (dst, src, imm) = (usize::from(dst), registers[usize::from(src)], insn.imm as u32);
            let value = registers[dst];
            let jump = match insn.code {
                op::LOAD => {
                    registers[dst] = context[insn.off as usize / 4];
                    false
                }
                op::MOV => {
                    registers[dst] = imm;
                    false
                }
                op::MOV_REGISTER => {
                    registers[dst] = src;
                    false
                }
                op::AND => {
                    registers[dst] &= imm;
                    false
                }
                op::OR_REGISTER => {
                    registers[dst] |= src;
                    false
                }
                op::SHIFT_LEFT => {
                    registers[dst] <<= imm;
                    false
                }
                op::SHIFT_RIGHT => {
                    registers[dst] >>= imm;
                    false
                }
                op::JUMP => true,
                op::JUMP_EQUAL => value == imm,
                op::JUMP_NOT_EQUAL => value != imm,
                op::JUMP_ANY_BIT => value & imm != 0,
                op::EXIT => return registers[0] == 1,
                other => panic!("operation {other:#x}"),
            };
            at += 1 + if jump { usize::try_from(insn.off).unwrap() } else { 0 };
        }
        panic!("the program does not end");
    }

    /// What the policy says, by its words: about each kind of access the last rule that matches decides.
    fn answer(policy: &Policy, question: Question) -> bool {
        let device = Devices { kind: question.kind, major: Some(question.major), minor: Some(question.minor) };
        [MKNOD, READ, WRITE].iter().filter(|&bit| question.access & bit != 0).all(|bit| {
            let matching = policy.rules.iter().rev().find(|rule| rule.access & bit != 0 && rule.devices.cover(&device));
            matching.map_or(policy.allow, |rule| rule.allow)
        })
    }

    fn agree(policy: &Policy) {
        let program = compile(policy).unwrap();
        for kind in [Kind::Char, Kind::Block] {
            for major in [0, 1, 2, 5, 10, 136, 4095] {
                for minor in [0, 1, 2, 3, 8, 200, 0xf_ffff] {
                    for access in 1..=ALL {
                        let question = Question { kind, major, minor, access };
                        let got = program.as_ref().is_none_or(|program| execute(program, question));
                        assert_eq!(got, answer(policy, question), "{question:?} under {policy:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_usual_rules_make_a_short_program() {
        let policy = policy(r#"[{"allow":false,"access":"rwm"}]"#);
        agree(&policy);
        assert!(compile(&policy).unwrap().unwrap().len() <= 24);
    }

    #[test]
    fn allowing_everything_needs_no_program() {
        assert_eq!(compile(&policy(r#"[{"allow":true,"access":"rwm"}]"#)).unwrap(), None);
    }

    #[test]
    fn holes_and_numbers_that_no_device_has() {
        agree(&policy(
            r#"[{"allow":true,"type":"c","major":1,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":2,"access":"w"}]"#,
        ));
        agree(&policy(r#"[{"allow":true,"type":"b","major":4096,"minor":1048576,"access":"rwm"}]"#));
    }

    #[test]
    fn programs_say_what_random_rules_say() {
        let mut seed = 12345_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..400 {
            let mut policy = Policy { allow: draw(2) == 0, rules: Vec::new() };
            for _ in 0..draw(9) {
                let kind = if draw(3) == 0 { Kind::Block } else { Kind::Char };
                let major = [None, Some(1), Some(5), Some(10), Some(4095)][draw(5) as usize];
                let minor = [None, Some(1), Some(3), Some(200), Some(0xf_ffff)][draw(5) as usize];
                let access = [ALL, ALL, READ, READ | WRITE, MKNOD, WRITE][draw(6) as usize];
                policy.rules.push(Rule { allow: draw(3) != 0, devices: Devices { kind, major, minor }, access });
            }
            agree(&policy);
        }
    }
}
