//! Which devices a container may use: the rules of `linux.resources.devices`, and what every container gets.
//!
//! The rules apply in their order, beginning with "nothing is allowed". Of the rules that match a device, the last one
//! decides about each kind of access. v1 keeps a list in the kernel that can express less than that; v2 asks a program.

use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use rustix::fs::OFlags;

use super::{Cgroup, files, filter};
use crate::error::{Cause, Context, Error, Result};
use crate::sys;

/// Kinds of access, with the numbers of the kernel.
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

/// Character or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Char,
    Block,
}

/// The devices that a rule is about; a number that is not there stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Devices {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Devices {
    /// Whether all of `other` are among these.
    pub(super) fn cover(&self, other: &Devices) -> bool {
        let number = |mine: Option<u32>, other| mine.is_none() || mine == other;
        self.kind == other.kind && number(self.major, other.major) && number(self.minor, other.minor)
    }

    /// Whether a device can be among both.
    pub(super) fn meet(&self, other: &Devices) -> bool {
        let number = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && number(self.major, other.major) && number(self.minor, other.minor)
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub allow: bool,
    pub devices: Devices,
    pub access: u8,
}

/// A list of rules after the last one that is about everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// What holds where no rule matches.
    pub allow: bool,
    pub rules: Vec<Rule>,
}

/// What every container may use, after its own rules: making any node (which gives no access to the device), and the
/// devices of config-linux.md, "Default Devices", with the terminals and net/tun, as engines are used to.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),
    (Kind::Char, Some(1), Some(8), ALL),
    (Kind::Char, Some(1), Some(7), ALL),
    (Kind::Char, Some(5), Some(0), ALL),
    (Kind::Char, Some(1), Some(5), ALL),
    (Kind::Char, Some(1), Some(9), ALL),
    (Kind::Char, Some(136), None, ALL),
    (Kind::Char, Some(5), Some(2), ALL),
    (Kind::Char, Some(10), Some(200), ALL),
];

impl Policy {
    /// Reads the rules of a configuration, and adds what every container gets.
    fn read(list: &[LinuxDeviceCgroup]) -> Result<Policy> {
        let mut policy = Policy { allow: false, rules: Vec::new() };
        for (index, rule) in list.iter().enumerate() {
            policy.add(rule).map_err(|e| e.context(format!("linux.resources.devices[{index}]")))?;
        }
        policy.rules.extend(DEFAULTS.map(|(kind, major, minor, access)| Rule {
            allow: true,
            devices: Devices { kind, major, minor },
            access,
        }));
        Ok(policy)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let access = access(rule.access().as_deref().unwrap_or_default())?;
        let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::C => Kind::Char,
            LinuxDeviceType::B => Kind::Block,
            // About everything, whatever the other fields say, so what came before has no meaning.
            LinuxDeviceType::A => {
                *self = Policy { allow: rule.allow(), rules: Vec::new() };
                return Ok(());
            }
            other => {
                return Err(Error::of(
                    Cause::Config,
                    format!("type: invalid device type {:?} (a, b and c are known)", other.as_str()),
                ));
            }
        };
        let devices = Devices { kind, major: number("major", rule.major())?, minor: number("minor", rule.minor())? };
        self.rules.push(Rule { allow: rule.allow(), devices, access });
        Ok(())
    }

    /// The exceptions from the policy's default, as the kernel's list in v1 keeps them, in the order of the rules. A rule
    /// takes back all that it covers; the list cannot take back a part of an exception, which would stay allowed without
    /// a word.
    fn exceptions(&self) -> Result<Vec<(Devices, u8)>> {
        let mut list: Vec<(Devices, u8)> = Vec::new();
        for rule in &self.rules {
            if rule.allow != self.allow {
                match list.iter_mut().find(|(devices, _)| *devices == rule.devices) {
                    Some((_, access)) => *access |= rule.access,
                    None => list.push((rule.devices, rule.access)),
                }
                continue;
            }
            for (_, access) in list.iter_mut().filter(|(devices, _)| rule.devices.cover(devices)) {
                *access &= !rule.access;
            }
            let wider = |(devices, access): &&(Devices, u8)| {
                *devices != rule.devices && devices.cover(&rule.devices) && access & rule.access != 0
            };
            if let Some((devices, access)) = list.iter().find(wider) {
                return Err(Error::of(
                    Cause::Config,
                    format!(
                        "linux.resources.devices: requested rule [{}] not supported by devices cgroupv1 (cannot punch hole in \
                     existing wildcard rule [{}])",
                        line(&rule.devices, rule.access),
                        line(devices, *access)
                    ),
                ));
            }
        }
        list.retain(|(_, access)| *access != 0);
        Ok(list)
    }
}

fn access(letters: &str) -> Result<u8> {
    let mut access = 0;
    for letter in letters.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            'a' => 0,
            _ => {
                return Err(Error::of(Cause::Config, format!("access: {letters:?} has letters other than r, w and m")));
            }
        };
    }
    if access == 0 {
        return Err(Error::of(Cause::Config, "access: device access field cannot be empty"));
    }
    Ok(access)
}

/// A device number; -1 stands for all.
fn number(name: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::of(Cause::Config, format!("{name}: {value} is no device number"))),
        },
    }
}

/// A line for the files of v1.
fn line(devices: &Devices, access: u8) -> String {
    let kind = if devices.kind == Kind::Char { 'c' } else { 'b' };
    let number = |number: Option<u32>| number.map_or("*".to_string(), |number| number.to_string());
    let letters: String =
        [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].iter().filter(|(bit, _)| access & bit != 0).map(|(_, c)| c).collect();
    format!("{kind} {}:{} {letters}", number(devices.major), number(devices.minor))
}

/// See [`Cgroup::restrict_devices`].
pub(super) fn restrict(cgroup: &Cgroup, resources: Option<&LinuxResources>) -> Result<()> {
    let list = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let policy = Policy::read(list)?;
    let result = if cgroup.unified {
        let Some(dir) = cgroup.v2() else { return Ok(()) };
        restrict_v2(&dir.directory(), &policy)
    } else {
        let exceptions = policy.exceptions()?;
        let Some(dir) = cgroup.dir_of("devices") else { return Ok(()) };
        restrict_v1(&dir.directory(), policy.allow, &exceptions)
    };
    match result {
        // Who has no right to restrict has none to make or open devices of the host either.
        Err(_) if cgroup.rootless || sys::proc::in_user_namespace() => Ok(()),
        result => result,
    }
}

fn restrict_v1(path: &Path, allow: bool, exceptions: &[(Devices, u8)]) -> Result<()> {
    let fd = files::open_dir(path).context(|| format!("cannot open the cgroup {}", path.display()))?;
    let name = |allow| if allow { "devices.allow" } else { "devices.deny" };
    files::write(&fd, name(allow), "a").map_err(|e| files::cannot_write(e, path, name(allow), "a"))?;
    if exceptions.is_empty() {
        return Ok(());
    }
    let file = name(!allow);
    let out = files::open_file(&fd, file, OFlags::WRONLY).map_err(|e| files::cannot_write(e, path, file, ""))?;
    for (devices, access) in exceptions {
        let line = line(devices, *access);
        // The kernel takes one line a write.
        rustix::io::write(&out, line.as_bytes()).map_err(|e| {
            let e = files::cannot_write(e, path, file, &line);
            if e.errno() == libc::EPERM { e.hint("the parent cgroup does not allow it") } else { e }
        })?;
    }
    Ok(())
}

fn restrict_v2(path: &Path, policy: &Policy) -> Result<()> {
    let Some(program) = filter::compile(policy)? else { return Ok(()) };
    let fd = files::open_dir(path).context(|| format!("cannot open the cgroup {}", path.display()))?;
    let attach = || {
        let loaded = sys::bpf::load_device_program(&program)?;
        sys::bpf::attach_device_program(fd.as_fd(), loaded.as_fd())
    };
    attach().map_err(|e| e.context(format!("linux.resources.devices: cgroup {}", path.display())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cgroups) fn policy(json: &str) -> Policy {
        Policy::read(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap()).unwrap()
    }

    fn lines(json: &str) -> Vec<String> {
        let policy = policy(json);
        policy.exceptions().unwrap().iter().map(|(devices, access)| line(devices, *access)).collect()
    }

    const COMMON: [&str; 11] = [
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
        "c 1:8 rwm",
        "c 1:7 rwm",
        "c 5:0 rwm",
        "c 1:5 rwm",
        "c 1:9 rwm",
        "c 136:* rwm",
        "c 5:2 rwm",
        "c 10:200 rwm",
    ];

    #[test]
    fn no_rules_allow_what_every_container_gets() {
        assert_eq!(lines("[]"), COMMON);
        assert_eq!(lines(r#"[{"allow":false,"access":"rwm"}]"#), COMMON);
        assert!(!policy("[]").allow);
    }

    #[test]
    fn rules_add_up_in_their_order() {
        let json = r#"[{"allow":true,"type":"c","major":9,"minor":9,"access":"rwm"},
            {"allow":false,"access":"rwm"},
            {"allow":true,"type":"b","major":8,"access":"r"},
            {"allow":true,"type":"b","major":8,"minor":-1,"access":"w"},
            {"allow":true,"type":"c","major":7,"minor":7,"access":"rw"},
            {"allow":false,"type":"c","major":7,"minor":7,"access":"w"}]"#;
        assert_eq!(lines(json), [&["b 8:* rw", "c 7:7 r"], &COMMON[..]].concat());
    }

    #[test]
    fn a_wider_rule_takes_back_what_is_narrower() {
        let json = r#"[{"allow":true,"type":"b","major":8,"minor":1,"access":"rwm"},
            {"allow":true,"type":"b","major":9,"minor":1,"access":"rw"},
            {"allow":false,"type":"b","major":8,"access":"rw"},
            {"allow":false,"type":"b","access":"w"}]"#;
        assert_eq!(lines(json), [&["b 8:1 m", "b 9:1 r"], &COMMON[..]].concat());
    }

    #[test]
    fn a_list_that_allows_all_has_exceptions_to_deny() {
        let json = r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":10,"minor":1,"access":"rw"},
            {"allow":false,"type":"c","major":1,"minor":3,"access":"rw"}]"#;
        assert!(policy(json).allow);
        assert_eq!(lines(json), ["c 10:1 rw"]);
    }

    #[test]
    fn holes_in_wildcards_are_refused_on_v1() {
        let json = r#"[{"allow":true,"type":"c","major":7,"access":"rwm"},
            {"allow":false,"type":"c","major":7,"minor":3,"access":"w"}]"#;
        let text = policy(json).exceptions().unwrap_err().to_string();
        assert!(text.contains("cannot punch hole in existing wildcard rule [c 7:* rwm]"), "{text}");
    }

    #[test]
    fn faults_name_their_rule() {
        for (json, want) in [
            (r#"[{"allow":true,"type":"c"}]"#, "devices[0]: access: device access field cannot be empty"),
            (r#"[{"allow":true,"access":"x"}]"#, "devices[0]: access: \"x\" has letters other"),
            (r#"[{"allow":true,"type":"p","access":"r"}]"#, "devices[0]: type: invalid device type"),
            (r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#, "devices[0]: major: -2 is no device number"),
        ] {
            let list = serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap();
            let text = Policy::read(&list).unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        }
    }
}
