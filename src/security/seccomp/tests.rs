use std::fmt::Write;

use libseccomp::{ScmpArch, ScmpSyscall};

use super::bpf::Instruction;
use super::machine::{Call, run};
use super::*;

const X86: u32 = 0x4000_0003;
const X86_64: u32 = 0xc000_003e;
const X32: u32 = 0x4000_003e;
const ARM64: u32 = 0xc000_00b7;
const X32_BIT: u32 = 0x4000_0000;

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = ERRNO | 38;

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn compiled(json: &str) -> (Filter, Vec<Instruction>) {
    let filter = compile(&profile(json)).unwrap_or_else(|e| panic!("{e}: {json}"));
    let program = bpf::from_bytes(&filter.program);
    (filter, program)
}

fn call(arch: u32, name: &str, args: [u64; 6]) -> Call {
    let scmp = match arch {
        X86 => ScmpArch::X86,
        X86_64 => ScmpArch::X8664,
        X32 => ScmpArch::X32,
        ARM64 => ScmpArch::Aarch64,
        other => panic!("{other}"),
    };
    let number = ScmpSyscall::from_name_by_arch(name, scmp).unwrap().as_raw_syscall() as u32;
    Call { arch: if arch == X32 { X86_64 } else { arch }, number, args }
}

fn native() -> u32 {
    if cfg!(target_arch = "x86_64") { X86_64 } else { ARM64 }
}

#[test]
fn every_action() {
    let cases = [
        (r#""SCMP_ACT_KILL""#, KILL),
        (r#""SCMP_ACT_KILL_THREAD""#, KILL),
        (r#""SCMP_ACT_KILL_PROCESS""#, KILL_PROCESS),
        (r#""SCMP_ACT_TRAP""#, TRAP),
        (r#""SCMP_ACT_ERRNO""#, ERRNO | 1),
        (r#""SCMP_ACT_ERRNO","errnoRet":0"#, ERRNO),
        (r#""SCMP_ACT_ERRNO","errnoRet":95"#, ERRNO | 95),
        (r#""SCMP_ACT_TRACE""#, TRACE | 1),
        (r#""SCMP_ACT_TRACE","errnoRet":5"#, TRACE | 5),
        (r#""SCMP_ACT_LOG""#, LOG),
        (r#""SCMP_ACT_NOTIFY""#, NOTIFY),
        (r#""SCMP_ACT_ALLOW""#, ALLOW),
    ];
    for (action, want) in cases {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/agent",
                "syscalls":[{{"names":["mkdirat","no_such_call"],"action":{action}}}]}}"#
        );
        let (filter, program) = compiled(&json);
        assert_eq!(run(&program, call(native(), "mkdirat", [0; 6])), want, "{action}");
        assert_eq!(run(&program, call(native(), "read", [0; 6])), ALLOW, "{action}");
        assert_eq!(filter.notify, want == NOTIFY);
    }
}

#[test]
fn default_actions_and_the_stub() {
    // (default, for what is known and not named, for what is newer)
    let cases = [
        (r#""SCMP_ACT_KILL""#, KILL, ENOSYS),
        (r#""SCMP_ACT_KILL_PROCESS""#, KILL_PROCESS, ENOSYS),
        (r#""SCMP_ACT_TRAP""#, TRAP, ENOSYS),
        (r#""SCMP_ACT_ERRNO""#, ERRNO | 1, ENOSYS),
        (r#""SCMP_ACT_ERRNO","defaultErrnoRet":13"#, ERRNO | 13, ENOSYS),
        (r#""SCMP_ACT_ERRNO","defaultErrnoRet":38"#, ENOSYS, ENOSYS),
        (r#""SCMP_ACT_TRACE""#, TRACE | 1, TRACE | 1),
        (r#""SCMP_ACT_LOG""#, LOG, LOG),
        (r#""SCMP_ACT_ALLOW""#, ALLOW, ALLOW),
    ];
    for (default, unnamed, newer) in cases {
        let json = format!(
            r#"{{"defaultAction":{default},"syscalls":[{{"names":["read","statx","clone3"],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        let (_, program) = compiled(&json);
        let last = call(native(), "clone3", [0; 6]);
        assert_eq!(run(&program, last), ALLOW, "{default}");
        assert_eq!(run(&program, call(native(), "mkdirat", [0; 6])), unnamed, "{default}");
        for number in [last.number + 1, 9999, 0x3fff_ffff] {
            assert_eq!(run(&program, Call { number, ..last }), newer, "{default} {number}");
        }
        // Another architecture is no newer call.
        assert_eq!(run(&program, Call { arch: 0x1234, ..last }), KILL, "{default}");
    }
}

#[test]
fn every_comparison() {
    let high = 1u64 << 40;
    // (op, value, valueTwo, argument, whether it holds)
    let cases = [
        ("EQ", 5, 0, 5, true),
        ("EQ", high | 5, 0, 5, false),
        ("EQ", high | 5, 0, high | 5, true),
        ("NE", 5, 0, 5, false),
        ("NE", 5, 0, high | 5, true),
        ("LT", 5, 0, 4, true),
        ("LT", 5, 0, 5, false),
        ("LT", 5, 0, high, false),
        ("LE", 5, 0, 5, true),
        ("LE", high, 0, high + 1, false),
        ("GT", 5, 0, 5, false),
        ("GT", 5, 0, high, true),
        ("GE", high, 0, high, true),
        ("GE", high, 0, high - 1, false),
        ("MASKED_EQ", 0x7e02_0000, 0, 0x11, true),
        ("MASKED_EQ", 0x7e02_0000, 0, 0x1000_0011, false),
        ("MASKED_EQ", 0xf0, 0x30, 0x3f, true),
        ("MASKED_EQ", high | 1, high, high | 2, true),
        ("MASKED_EQ", high | 1, high, 1, false),
    ];
    for (op, value, two, argument, holds) in cases {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["dup3"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":2,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}]}}]}}"#
        );
        let (_, program) = compiled(&json);
        let want = if holds { ALLOW } else { ERRNO | 1 };
        let got = run(&program, call(native(), "dup3", [0, 0, argument, 0, 0, 0]));
        assert_eq!(got, want, "{argument} {op} {value}/{two}");
    }
}

#[test]
fn conditions_on_several_arguments_and_on_one() {
    let args = |first: u32, second: u32| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["dup3"],"action":"SCMP_ACT_ALLOW","args":[
                {{"index":{first},"value":1,"op":"SCMP_CMP_EQ"}},{{"index":{second},"value":2,"op":"SCMP_CMP_EQ"}}]}}]}}"#
        )
    };
    let (_, both) = compiled(&args(0, 1));
    let (_, either) = compiled(&args(0, 0));
    for (a, b, in_both, in_either) in
        [(1, 2, true, true), (1, 0, false, true), (2, 0, false, true), (3, 2, false, false)]
    {
        let one = call(native(), "dup3", [a, b, 0, 0, 0, 0]);
        assert_eq!(run(&both, one) == ALLOW, in_both, "{a} {b}");
        assert_eq!(run(&either, one) == ALLOW, in_either, "{a} {b}");
    }
}

#[test]
fn flags() {
    let cases = [
        ("", 4),
        (r#","flags":[]"#, 0),
        (r#","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG"]"#, 2),
        (r#","flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#, 4),
        (r#","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#, 0),
        (
            r#","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],"listenerPath":"/a","listenerMetadata":"m",
              "syscalls":[{"names":["dup"],"action":"SCMP_ACT_NOTIFY"}]"#,
            32,
        ),
    ];
    for (json, want) in cases {
        let (filter, _) = compiled(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{json}}}"#));
        assert_eq!(filter.flags, want, "{json}");
    }
}

#[test]
fn what_the_specification_forbids() {
    let cases = [
        (
            r#""SCMP_ACT_ALLOW","syscalls":[{"names":["dup"],"action":"SCMP_ACT_KILL","errnoRet":1}]"#,
            "linux.seccomp.syscalls[0]: errnoRet: SCMP_ACT_KILL takes no errno",
        ),
        (r#""SCMP_ACT_ALLOW","defaultErrnoRet":1"#, "linux.seccomp: defaultErrnoRet: SCMP_ACT_ALLOW takes no errno"),
        (r#""SCMP_ACT_ERRNO","defaultErrnoRet":70000"#, "defaultErrnoRet: 70000 is above 65535"),
        (
            r#""SCMP_ACT_ALLOW","listenerPath":"/a","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_NOTIFY"}]"#,
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (r#""SCMP_ACT_NOTIFY","listenerPath":"/a""#, "SCMP_ACT_NOTIFY cannot be used as default action"),
        (r#""SCMP_ACT_ALLOW","syscalls":[{"names":["dup"],"action":"SCMP_ACT_NOTIFY"}]"#, "needs listenerPath"),
        (r#""SCMP_ACT_ALLOW","listenerMetadata":"m""#, "listenerMetadata must not be set without listenerPath"),
        (
            r#""SCMP_ACT_ALLOW","syscalls":[{"names":["dup"],"action":"SCMP_ACT_KILL",
               "args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]"#,
            "linux.seccomp.syscalls[0]: args[0].index: 6 is not below 6",
        ),
        (r#""SCMP_ACT_ALLOW","syscalls":[{"names":[""],"action":"SCMP_ACT_KILL"}]"#, "empty string is not a valid"),
    ];
    for (json, text) in cases {
        let e = check(&profile(&format!(r#"{{"defaultAction":{json}}}"#))).unwrap_err().to_string();
        assert!(e.contains(text), "{e}");
    }
}

/// A profile with the shape of the engines' default ones: most calls allowed, some on conditions, some with errnos.
fn engine_profile(architectures: &str, default: &str) -> String {
    let mut names = String::new();
    let allowed = |number: &i32| !matches!(number % 7, 3) && !matches!(number, 56 | 135 | 272 | 308 | 41);
    for number in (0..435).filter(allowed) {
        if let Ok(name) = ScmpSyscall::from_raw_syscall(number).get_name_by_arch(ScmpArch::X8664) {
            write!(names, r#""{name}","#).unwrap();
        }
    }
    format!(
        r#"{{"defaultAction":{default},"architectures":[{architectures}],"syscalls":[
        {{"names":[{names}"socketcall","_llseek","stat64","a_call_of_tomorrow"],"action":"SCMP_ACT_ALLOW"}},
        {{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":0,"op":"SCMP_CMP_EQ"}}]}},
        {{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":8,"op":"SCMP_CMP_EQ"}}]}},
        {{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":4294967295,"op":"SCMP_CMP_EQ"}}]}},
        {{"names":["clone"],"action":"SCMP_ACT_ALLOW",
          "args":[{{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}}]}},
        {{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":22,"args":[
          {{"index":0,"value":16,"op":"SCMP_CMP_EQ"}},{{"index":2,"value":9,"op":"SCMP_CMP_EQ"}}]}},
        {{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{{"index":2,"value":9,"op":"SCMP_CMP_NE"}}]}},
        {{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":16,"op":"SCMP_CMP_NE"}}]}},
        {{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}},
        {{"names":["setns","unshare"],"action":"SCMP_ACT_LOG"}}]}}"#
    )
}

/// What libseccomp makes of the whole profile in one program, with a search in a line.
fn oracle(json: &str) -> Vec<Instruction> {
    let profile = profile(json);
    let profile = profile::read(&profile).unwrap();
    arch::export(&arch::context(&profile, &profile.architectures).unwrap()).unwrap()
}

#[test]
fn the_parts_do_what_one_program_does() {
    let architectures = [
        "",
        r#""SCMP_ARCH_X86_64""#,
        r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86""#,
        r#""SCMP_ARCH_X86","SCMP_ARCH_X32""#,
        r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32""#,
        r#""SCMP_ARCH_AARCH64","SCMP_ARCH_ARM""#,
        r#""SCMP_ARCH_NATIVE","SCMP_ARCH_RISCV64","SCMP_ARCH_MIPSEL64","SCMP_ARCH_PPC64LE""#,
    ];
    let arguments = [
        [0; 6],
        [16, 0, 9, 0, 0, 0],
        [16, 0, 8, 0, 0, 0],
        [8, 1, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 6],
        [0x1200011, 0, 0, 0, 0, 0],
        [0x7e02_0000, 0, 0, 0, 0, 0],
        [0xffff_ffff, 0, 0, 0, 0, 0],
        [1 << 32 | 8, 0, 0, 0, 0, 0],
        [u64::MAX; 6],
    ];
    for list in architectures {
        // With this default there is no stub, so the two must agree on every call.
        let json = engine_profile(list, r#""SCMP_ACT_ERRNO","defaultErrnoRet":38"#);
        let (_, program) = compiled(&json);
        let oracle = oracle(&json);
        for arch in [X86, X86_64, ARM64, 0x4000_0028, 0xc000_00f3, 0xc000_0008, 0xc000_0015, 0x1234] {
            let numbers = (0..600).chain(4000..4500).chain(5000..5500).chain([u32::MAX, X32_BIT - 1]);
            for number in numbers.flat_map(|n| [n, n | X32_BIT]) {
                for args in arguments {
                    let call = Call { arch, number, args };
                    assert_eq!(run(&program, call), run(&oracle, call), "{list}: {call:x?}");
                }
            }
        }
    }
}

#[test]
fn newer_calls_of_each_architecture() {
    let json = engine_profile(
        r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32","SCMP_ARCH_AARCH64""#,
        r#""SCMP_ACT_ERRNO""#,
    );
    let (_, program) = compiled(&json);
    let oracle = oracle(&json);
    // x32 has calls of its own from 512 on; the last one that the profile names is pwritev2.
    for (arch, last) in [(X86, "clone3"), (X86_64, "clone3"), (X32, "pwritev2"), (ARM64, "clone3")] {
        let last = call(arch, last, [0; 6]);
        let base = if arch == X32 { X32_BIT } else { 0 };
        for number in 0..600 {
            let one = Call { number: base + number, ..last };
            let want = if one.number > last.number { ENOSYS } else { run(&oracle, one) };
            assert_eq!(run(&program, one), want, "{one:x?}");
        }
    }
}

#[test]
fn calls_of_x32_are_no_newer_calls_where_x32_is_not_asked_for() {
    let (_, program) = compiled(&engine_profile(r#""SCMP_ARCH_X86_64""#, r#""SCMP_ACT_ERRNO""#));
    let one = call(X86_64, "read", [0; 6]);
    if native() == X86_64 {
        assert_eq!(run(&program, Call { number: X32_BIT, ..one }), KILL);
        assert_eq!(run(&program, Call { number: X32_BIT + 5000, ..one }), KILL);
    }
}

/// On x86 it has two: the one of its own, which is newer, and socketcall's.
#[test]
fn a_call_that_is_packed_is_not_newer_than_itself() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],
        "syscalls":[{"names":["read","socket"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let (_, program) = compiled(json);
    let answer = |number, first| run(&program, Call { arch: X86, number, args: [first, 0, 0, 0, 0, 0] });
    assert_eq!((answer(3, 0), answer(4, 0)), (ALLOW, ERRNO | 1));
    // SYS_SOCKET and SYS_BIND.
    assert_eq!((answer(102, 1), answer(102, 2)), (ALLOW, ERRNO | 1));
    assert_eq!((answer(359, 0), answer(360, 0)), (ALLOW, ENOSYS));
}

/// Neighbours that differ, some by their arguments: longer than a comparison can skip, in several places.
#[test]
fn a_long_program_finds_all_its_answers() {
    let names = |i: i32| ScmpSyscall::from(i).get_name().ok();
    let calls: Vec<_> = (0..450).filter_map(|i| Some((i as u32, names(i)?))).collect();
    let actions =
        [("ALLOW", ALLOW), ("LOG", LOG), ("ERRNO", ERRNO | 1), ("TRAP", TRAP), ("KILL_PROCESS", KILL_PROCESS)];
    let action = |number: u32| actions[number as usize % actions.len()];
    let mut rules = String::new();
    for (number, name) in &calls {
        let comma = if rules.is_empty() { "" } else { "," };
        let args = if number % 3 == 0 { r#","args":[{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]"# } else { "" };
        write!(rules, r#"{comma}{{"names":["{name}"],"action":"SCMP_ACT_{}"{args}}}"#, action(*number).0).unwrap();
    }
    let json = format!(r#"{{"defaultAction":"SCMP_ACT_TRACE","syscalls":[{rules}]}}"#);
    let profile = profile(&json);
    let read = profile::read(&profile).unwrap();
    assert!(searched_for(&read, read.architectures[0]));
    let (_, program) = compiled(&json);
    assert!(program.len() > 4 * 255, "{}", program.len());
    for number in 0..450 {
        for arg in [7, 8] {
            let known = calls.iter().any(|(n, _)| *n == number) && (number % 3 != 0 || arg == 7);
            let want = if known { action(number).1 } else { TRACE | 1 };
            let call = Call { arch: native(), number, args: [0, arg, 0, 0, 0, 0] };
            assert_eq!(run(&program, call), want, "{number} {arg}");
        }
    }
}

/// The kernel takes the program: installed on a thread of its own, which the filter ends with.
#[test]
fn the_kernel_takes_it() {
    let json = engine_profile(r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32""#, r#""SCMP_ACT_LOG""#);
    let filter = compile(&profile(&json)).unwrap();
    std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        assert!(install(&filter).unwrap().is_none());
        // personality(2) with what the profile does not name is logged, not refused.
        assert!(nix::unistd::getpid().as_raw() > 0);
    })
    .join()
    .unwrap();
}

/// Numbers that are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn one<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// Profiles of all kinds of rules, also of such as contradict each other.
fn random_profile(random: &mut Random) -> String {
    let names = [
        "read",
        "write",
        "close",
        "dup",
        "dup3",
        "clone",
        "personality",
        "socket",
        "bind",
        "accept",
        "accept4",
        "send",
        "sendto",
        "recvmsg",
        "sendmmsg",
        "socketcall",
        "ipc",
        "semop",
        "semget",
        "shmat",
        "msgctl",
        "semtimedop",
        "ioctl",
        "statx",
        "clone3",
        "_llseek",
        "time",
        "preadv2",
        "execveat",
        "arm_fadvise64_64",
        "riscv_flush_icache",
    ];
    let values = [0u64, 1, 2, 9, 16, 40, 0xffff_ffff, 0x7e02_0000, 1 << 32, 1 << 32 | 9, u64::MAX, 1 << 63];
    let actions = ["ALLOW", "ERRNO", "KILL", "LOG", "TRAP"];
    let mut rules = String::new();
    for i in 0..random.below(12) {
        let mut args = String::new();
        for j in 0..random.one(&[0, 0, 1, 1, 2, 3]) {
            let op = random.one(&["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"]);
            let (index, value, two) = (random.below(3), random.one(&values), random.one(&values));
            let comma = if j == 0 { "" } else { "," };
            write!(args, r#"{comma}{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#)
                .unwrap();
        }
        let (first, second, comma) = (random.one(&names), random.one(&names), if i == 0 { "" } else { "," });
        // Few actions, so that most profiles do not contradict themselves.
        let action = if random.below(4) == 0 { random.one(&actions) } else { "ALLOW" };
        write!(rules, r#"{comma}{{"names":["{first}","{second}"],"action":"SCMP_ACT_{action}","args":[{args}]}}"#)
            .unwrap();
    }
    let default = random.one(&[r#""SCMP_ACT_ERRNO","defaultErrnoRet":38"#, r#""SCMP_ACT_LOG""#, r#""SCMP_ACT_ALLOW""#]);
    format!(
        r#"{{"defaultAction":{default},"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32",
             "SCMP_ARCH_AARCH64","SCMP_ARCH_ARM","SCMP_ARCH_RISCV64"],"syscalls":[{rules}]}}"#
    )
}

/// Whether our own generator makes the part of that architecture.
fn searched_for(profile: &profile::Profile, arch: profile::Architecture) -> bool {
    search::compile(profile, arch, &profile.numbers(arch.scmp)).is_some()
}

/// What the rules say, read plainly: a rule without conditions is the strongest, else one whose conditions all hold.
fn meant(profile: &profile::Profile, arch: ScmpArch, wide: bool, call: Call) -> u32 {
    let number = |rule: &&profile::Rule| {
        let name = profile.calls[rule.call].name;
        ScmpSyscall::from_name_by_arch(name, arch).is_ok_and(|n| n.as_raw_syscall() as u32 == call.number)
    };
    let holds = |condition: &profile::Condition| {
        let narrow = |value: u64| if wide { value } else { u64::from(value as u32) };
        let (arg, value) = (narrow(call.args[condition.index as usize]), narrow(condition.value));
        match condition.compare {
            profile::Compare::NotEqual => arg != value,
            profile::Compare::Less => arg < value,
            profile::Compare::LessOrEqual => arg <= value,
            profile::Compare::Equal => arg == value,
            profile::Compare::GreaterOrEqual => arg >= value,
            profile::Compare::Greater => arg > value,
            profile::Compare::Masked(mask) => arg & narrow(mask) == value,
        }
    };
    let rules: Vec<_> = profile.rules.iter().filter(number).collect();
    let free = rules.iter().find(|rule| rule.conditions.is_empty());
    let rule = free.or_else(|| rules.iter().find(|rule| rule.conditions.iter().all(holds)));
    search::value(rule.map_or(profile.default, |rule| rule.action)).unwrap()
}

/// Against a plain reading of the rules, as libseccomp 2.5 gets some chains of conditions wrong.
#[test]
fn random_profiles_do_what_they_say() {
    let values = [0u64, 1, 2, 3, 5, 9, 16, 40, 0xffff_ffff, 0x1200_0011, 1 << 32, 1 << 32 | 9, u64::MAX, 1 << 63];
    let mut random = Random(1);
    let mut searched = 0;
    let rounds = std::env::var("VESSEL_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    for _ in 0..rounds {
        let json = random_profile(&mut random);
        let profile = profile(&json);
        let read = profile::read(&profile).unwrap();
        let program = match compile(&profile) {
            Ok(filter) => bpf::from_bytes(&filter.program),
            // libseccomp refuses some, for the architectures that it has to do.
            Err(_) => continue,
        };
        for arch in &read.architectures {
            if !searched_for(&read, *arch) {
                continue;
            }
            searched += 1;
            let wide = !matches!(arch.scmp, ScmpArch::X86 | ScmpArch::X32 | ScmpArch::Arm);
            let audit = if arch.number == X32 { X86_64 } else { arch.number };
            let bit = if arch.number == X32 { X32_BIT } else { 0 };
            let number = |call: &profile::Call| {
                let number = ScmpSyscall::from_name_by_arch(call.name, arch.scmp).ok()?.as_raw_syscall();
                u32::try_from(number).ok()
            };
            let named: Vec<u32> = read.calls.iter().filter_map(number).collect();
            let others = (0..600).step_by(7).map(|n| n | bit).chain([bit | 0x3fff_ffff]);
            for number in named.iter().flat_map(|n| [*n, n + 1, n.saturating_sub(1).max(bit)]).chain(others) {
                if arch.scmp == ScmpArch::X86 && matches!(number, 102 | 117 | 337 | 345 | 359..=373 | 393..=402) {
                    // What is packed into socketcall(2) and ipc(2) has a test of its own.
                    continue;
                }
                for _ in 0..12 {
                    let args = [(); 6].map(|()| random.one(&values));
                    // The kernel gives words of 32 bits to callers of that size.
                    let args = if wide { args } else { args.map(|arg| u64::from(arg as u32)) };
                    let call = Call { arch: audit, number, args };
                    assert_eq!(run(&program, call), meant(&read, arch.scmp, wide, call), "{json}: {call:x?}");
                }
            }
        }
    }
    assert!(searched > rounds * 2, "{searched} of {rounds}");
}

#[test]
fn packed_calls_and_repeated_rules_are_libseccomps() {
    let names = r#""socket","bind","accept","accept4","send","recv","sendto","recvmsg","recvmmsg","sendmmsg","shutdown",
        "getsockopt","semop","semget","semctl","semtimedop","msgsnd","msgget","shmat","shmctl","read""#;
    let arg = r#"[{"index":0,"value":16,"op":"SCMP_CMP_NE"},{"index":2,"value":9,"op":"SCMP_CMP_EQ"}]"#;
    let rules = [
        format!(r#"{{"names":[{names}],"action":"SCMP_ACT_ALLOW"}}"#),
        format!(r#"{{"names":[{names}],"action":"SCMP_ACT_ALLOW","args":{arg}}}"#),
        format!(
            r#"{{"names":["socketcall","ipc"],"action":"SCMP_ACT_ALLOW"}},{{"names":[{names}],"action":"SCMP_ACT_LOG"}}"#
        ),
        format!(
            r#"{{"names":[{names}],"action":"SCMP_ACT_LOG"}},{{"names":["socketcall","ipc"],"action":"SCMP_ACT_ALLOW"}}"#
        ),
        r#"{"names":["dup3"],"action":"SCMP_ACT_ALLOW"},{"names":["dup3"],"action":"SCMP_ACT_LOG"}"#.to_owned(),
        r#"{"names":["dup3"],"action":"SCMP_ACT_LOG"},{"names":["dup3"],"action":"SCMP_ACT_ALLOW"}"#.to_owned(),
        format!(
            r#"{{"names":["dup3"],"action":"SCMP_ACT_LOG","args":{arg}}},{{"names":["dup3"],"action":"SCMP_ACT_ALLOW"}}"#
        ),
        format!(
            r#"{{"names":[{names}],"action":"SCMP_ACT_LOG"}},{{"names":[{names}],"action":"SCMP_ACT_LOG","args":{arg}}}"#
        ),
    ];
    let mut searched = 0;
    for rules in rules {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
                "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{rules}]}}"#
        );
        let profile = profile(&json);
        let read = profile::read(&profile).unwrap();
        searched += read.architectures.iter().filter(|arch| searched_for(&read, **arch)).count();
        let (oracle, (_, program)) = (oracle(&json), compiled(&json));
        for arch in [X86, X86_64] {
            for number in 0..480 {
                for first in 0..30 {
                    for third in [0, 9] {
                        let call = Call { arch, number, args: [first, 0, third, 0, 0, 0] };
                        assert_eq!(run(&program, call), run(&oracle, call), "{rules}: {call:x?}");
                    }
                }
            }
        }
    }
    assert_eq!(searched, 2 * 8);
}
