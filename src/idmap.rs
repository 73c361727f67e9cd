//! User namespaces' id mappings (config-linux.md, "User namespace mappings").
//!
//! A caller with rights over the parent namespace writes them itself. Any other caller may map just its own id, or has
//! newuidmap(1) and newgidmap(1) write what /etc/subuid and /etc/subgid give it.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Error, Result};
use crate::sys::proc::Proc;

/// Which of the two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Uid,
    Gid,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Kind::Uid => "uid_map",
            Kind::Gid => "gid_map",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Kind::Uid => "linux.uidMappings",
            Kind::Gid => "linux.gidMappings",
        }
    }

    fn helper(self) -> &'static str {
        match self {
            Kind::Uid => "newuidmap",
            Kind::Gid => "newgidmap",
        }
    }

    fn ranges_file(self) -> &'static str {
        match self {
            Kind::Uid => "/etc/subuid",
            Kind::Gid => "/etc/subgid",
        }
    }

    /// The caller's own id, which it may map without anybody's help.
    fn own_id(self) -> u32 {
        match self {
            Kind::Uid => rustix::process::geteuid().as_raw(),
            Kind::Gid => rustix::process::getegid().as_raw(),
        }
    }
}

/// Writes both maps of the user namespace that process `pid` has just made. `privileged`: the caller has CAP_SETUID and
/// CAP_SETGID in the parent namespace. Without that and with the caller's own group alone, setgroups(2) is turned off in
/// the namespace, as the kernel demands: see [`check_groups`].
pub fn write(proc: &Proc, pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping], privileged: bool) -> Result<()> {
    // A process that sees its uid mapped finds both done.
    write_one(proc, pid, Kind::Gid, gids, privileged)?;
    write_one(proc, pid, Kind::Uid, uids, privileged)
}

fn write_one(proc: &Proc, pid: i32, kind: Kind, mappings: &[LinuxIdMapping], privileged: bool) -> Result<()> {
    check(mappings).map_err(|e| e.context(kind.field()))?;
    let own = is_own_id(mappings, kind.own_id());
    if !privileged && !own {
        return by_helper(pid, kind, mappings);
    }
    if kind == Kind::Gid && !privileged {
        proc.write(&format!("{pid}/setgroups"), b"deny")?;
    }
    proc.write(&format!("{pid}/{}", kind.file()), table(mappings).as_bytes()).map_err(|e| {
        let e = e.context(kind.field());
        match e.errno() {
            libc::EPERM => e.hint(
                "are the host's ids mapped in this user namespace, and has the caller CAP_SETUID, CAP_SETGID and, to \
                 map id 0, CAP_SETFCAP?",
            ),
            libc::EINVAL => e.hint("the kernel takes a map only if its text is shorter than a page"),
            _ => e,
        }
    })
}

/// Refuses supplementary groups that cannot be set with these mappings: setgroups(2) is off where an unprivileged caller
/// maps its own group alone, since dropping groups there would lift denials that rest on them (CVE-2014-8989); and a
/// group needs a mapping.
pub fn check_groups(groups: &[u32], gids: &[LinuxIdMapping], privileged: bool) -> Result<()> {
    const FIELD: &str = "process.user.additionalGids";
    if groups.is_empty() {
        return Ok(());
    }
    if !setgroups_allowed(gids, privileged) {
        return Err(Error::new(format!(
            "{FIELD}: cannot be set by an unprivileged caller who maps only the own group (map more in \
             linux.gidMappings)"
        )));
    }
    match groups.iter().find(|&&group| host_id(gids, group).is_none()) {
        Some(group) => Err(Error::new(format!("{FIELD}: {group} is not mapped in linux.gidMappings"))),
        None => Ok(()),
    }
}

/// Whether setgroups(2) works in a namespace that [`write`] maps so.
fn setgroups_allowed(gids: &[LinuxIdMapping], privileged: bool) -> bool {
    privileged || !is_own_id(gids, Kind::Gid.own_id())
}

/// The id on the host of an id in the container, if it is mapped.
pub fn host_id(mappings: &[LinuxIdMapping], container_id: u32) -> Option<u32> {
    mappings.iter().find_map(|m| {
        let offset = container_id.checked_sub(m.container_id())?;
        if offset < m.size() { m.host_id().checked_add(offset) } else { None }
    })
}

/// One mapping, of one id, onto the caller's own.
fn is_own_id(mappings: &[LinuxIdMapping], own: u32) -> bool {
    matches!(mappings, [m] if m.size() == 1 && m.host_id() == own)
}

/// The kernel's rules, told with the place of the fault; the kernel itself only says EINVAL.
fn check(mappings: &[LinuxIdMapping]) -> Result<()> {
    const LIMIT: usize = 340;
    if mappings.is_empty() {
        return Err(Error::new("a new user namespace needs at least one mapping"));
    }
    if mappings.len() > LIMIT {
        return Err(Error::new(format!("{} mappings, and the kernel takes at most {LIMIT}", mappings.len())));
    }
    for (i, m) in mappings.iter().enumerate() {
        if m.size() == 0 {
            return Err(Error::new(format!("[{i}].size: must not be 0")));
        }
        // The last id, 4294967295, is no id but means "no change" to chown(2) and others.
        for (key, first) in [("containerID", m.container_id()), ("hostID", m.host_id())] {
            if first.checked_add(m.size()).is_none() {
                return Err(Error::new(format!("[{i}]: {key} {first} and size {} go beyond the last id", m.size())));
            }
        }
        for (j, other) in mappings.iter().enumerate().take(i) {
            let meets = |a: u32, b: u32| a < b.saturating_add(other.size()) && b < a.saturating_add(m.size());
            if meets(m.container_id(), other.container_id()) || meets(m.host_id(), other.host_id()) {
                return Err(Error::new(format!("[{i}]: overlaps with [{j}]")));
            }
        }
    }
    Ok(())
}

/// The map as the kernel reads it.
fn table(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, m| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} {} {}", m.container_id(), m.host_id(), m.size());
        text
    })
}

fn by_helper(pid: i32, kind: Kind, mappings: &[LinuxIdMapping]) -> Result<()> {
    let name = kind.helper();
    let mut command = Command::new(name);
    command.arg(pid.to_string());
    for m in mappings {
        command.args([m.container_id(), m.host_id(), m.size()].map(|n| n.to_string()));
    }
    let output = command.stdin(Stdio::null()).output().map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let e = Error::from(e).context(format!("{}: cannot run {name}", kind.field()));
        if missing { e.hint("install it: its package is uidmap, shadow-utils or shadow") } else { e }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Error::new(format!("{}: {name} failed: {}: {told}", kind.field(), output.status)).hint(format!(
        "user {} needs these ids in {}, and {name} must be setuid root or have its file capability",
        rustix::process::getuid().as_raw(),
        kind.ranges_file(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    fn map(list: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        list.iter()
            .map(|&(container, host, size)| {
                LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
            })
            .collect()
    }

    #[test]
    fn ids_are_found_on_the_host() {
        let mappings = map(&[(0, 1000, 1), (1, 100_000, 65_535)]);
        for (id, want) in [(0, Some(1000)), (1, Some(100_000)), (65_535, Some(165_534)), (65_536, None)] {
            assert_eq!(host_id(&mappings, id), want, "{id}");
        }
        assert_eq!(host_id(&map(&[(5, 1, 1)]), 4), None);
    }

    #[test]
    fn the_kernels_rules_name_their_place() {
        for (list, want) in [
            (map(&[]), "at least one"),
            (map(&[(0, 0, 0)]), "[0].size"),
            (map(&[(0, u32::MAX, 1)]), "[0]: hostID"),
            (map(&[(0, 0, 1), (1, 4_000_000_000, 400_000_000)]), "[1]: hostID"),
            (map(&[(0, 1000, 2), (1, 2000, 1)]), "[1]: overlaps with [0]"),
            (map(&[(0, 1000, 2), (2, 1001, 1)]), "[1]: overlaps with [0]"),
            (map(&(0..341).map(|i| (i, i, 1)).collect::<Vec<_>>()), "341 mappings"),
        ] {
            let e = check(&list).unwrap_err().to_string();
            assert!(e.contains(want), "{e}");
        }
        assert!(check(&map(&[(0, 0, u32::MAX)])).is_ok());
        assert!(check(&map(&(0..340).map(|i| (i, i, 1)).collect::<Vec<_>>())).is_ok());
    }

    #[test]
    fn groups_need_a_mapping_and_setgroups() {
        let own = map(&[(0, Kind::Gid.own_id(), 1)]);
        assert!(check_groups(&[], &own, false).is_ok());
        assert!(check_groups(&[0], &own, true).is_ok());
        assert!(check_groups(&[0], &own, false).unwrap_err().to_string().contains("own group"));
        let more = map(&[(0, Kind::Gid.own_id(), 1), (1, 100_000, 10)]);
        assert!(check_groups(&[5], &more, false).is_ok());
        assert!(check_groups(&[11], &more, false).unwrap_err().to_string().contains("11 is not mapped"));
    }

    #[test]
    fn a_table_has_one_line_a_range() {
        assert_eq!(table(&map(&[(0, 1000, 1), (1, 100_000, 65_535)])), "0 1000 1\n1 100000 65535\n");
    }
}
