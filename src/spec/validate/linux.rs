//! The rules for `linux` (config-linux.md), without its resources.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxDeviceType, LinuxIdMapping, LinuxIntelRdt, LinuxMemoryPolicy, LinuxNamespace, LinuxNamespaceType,
    LinuxNetDevice, MemoryPolicyFlagType, MemoryPolicyModeType,
};

use super::Faults;
use super::process::{list_fault, list_len};

/// Whether the container has a namespace of its own of this kind, new or joined.
pub(super) fn has(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    find(linux, kind).is_some()
}

/// Whether a namespace of this kind is made for the container.
pub(super) fn is_new(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    find(linux, kind).is_some_and(|n| n.path().is_none())
}

fn find(linux: &Linux, kind: LinuxNamespaceType) -> Option<&LinuxNamespace> {
    linux.namespaces().iter().flatten().find(|n| n.typ() == kind)
}

pub(super) fn check(faults: &mut Faults, linux: &Linux) {
    namespaces(faults, linux);
    user_namespace(faults, linux);
    time_namespace(faults, linux);
    paths(faults, linux);
    devices(faults, linux);
    if let Some(propagation) = linux.rootfs_propagation() {
        let known = ["shared", "slave", "private", "unbindable"];
        if !known.contains(&propagation.strip_prefix('r').unwrap_or(propagation)) {
            faults.add("linux.rootfsPropagation", format!("{propagation:?} is not one of {}", known.join(", ")));
        }
    }
    let mut names: Vec<&String> = linux.sysctl().iter().flatten().map(|(name, _)| name).collect();
    names.sort();
    for name in names {
        if let Some(fault) = sysctl_fault(linux, name) {
            faults.add("linux.sysctl", fault);
        }
    }
    if let Some(policy) = linux.memory_policy() {
        memory_policy(faults, policy);
    }
    if let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) {
        net_devices(faults, linux, devices);
    }
    if let Some(rdt) = linux.intel_rdt() {
        intel_rdt(faults, rdt);
    }
}

fn intel_rdt(faults: &mut Faults, rdt: &LinuxIntelRdt) {
    let closid = rdt.clos_id().as_deref().unwrap_or_default();
    if closid != "/" && (closid == "." || closid == ".." || closid.contains(['/', '\n'])) {
        faults.add("linux.intelRdt.closID", format!("{closid:?} is neither / nor the name of a directory"));
    }
    for (field, schema, prefix) in
        [("l3CacheSchema", rdt.l3_cache_schema(), ""), ("memBwSchema", rdt.mem_bw_schema(), "MB:")]
    {
        let schema = schema.as_deref().unwrap_or_default();
        if schema.contains('\n') {
            faults.add(format!("linux.intelRdt.{field}"), "it has more than one line");
        } else if !schema.is_empty() && !schema.starts_with(prefix) {
            faults.add(format!("linux.intelRdt.{field}"), format!("{schema:?} does not begin with {prefix}"));
        }
    }
    for (i, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') {
            faults.add(format!("linux.intelRdt.schemata[{i}]"), "it has more than one line");
        }
    }
}

fn net_devices(faults: &mut Faults, linux: &Linux, devices: &HashMap<String, LinuxNetDevice>) {
    if !has(linux, LinuxNamespaceType::Network) {
        faults.add("linux.netDevices", "unable to move network devices without a private NET namespace");
    }
    let mut names: Vec<_> = devices.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let mut seen = Vec::new();
    for (name, device) in names {
        let new = device.name().as_deref().filter(|name| !name.is_empty());
        if let Some(fault) = device_name_fault(name, false) {
            faults.add("linux.netDevices", fault);
        }
        if let Some(fault) = new.and_then(|new| device_name_fault(new, true)) {
            faults.add(format!("linux.netDevices.{name}.name"), fault);
        }
        let new = new.unwrap_or(name);
        if seen.contains(&new) && !new.contains("%d") {
            faults.add("linux.netDevices", format!("two devices are to be {new:?}"));
        }
        seen.push(new);
    }
}

/// What is wrong with the name of a device. In a new name, one `%d` stands for the first free number.
fn device_name_fault(name: &str, new: bool) -> Option<String> {
    let plain = if new { name.replacen("%d", "", 1) } else { name.to_string() };
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace();
    match () {
        () if name.is_empty() || name == "." || name == ".." => Some(format!("{name:?} is no name of a device")),
        () if name.len() > 15 => Some(format!("{name:?} has more than 15 bytes")),
        () if plain.contains(bad) => Some(format!("{name:?} has a character that names of devices cannot have")),
        () => None,
    }
}

fn namespaces(faults: &mut Faults, linux: &Linux) {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (i, namespace) in namespaces.iter().enumerate() {
        if namespaces[..i].iter().any(|earlier| earlier.typ() == namespace.typ()) {
            faults.add(format_args!("linux.namespaces[{i}].type"), format!("{} is there twice", namespace.typ()));
        }
        if let Some(path) = namespace.path().as_deref().filter(|p| !p.is_absolute()) {
            let text = format!("must be an absolute path, not \"{}\"", path.display());
            faults.add(format_args!("linux.namespaces[{i}].path"), text);
        }
    }
}

fn user_namespace(faults: &mut Faults, linux: &Linux) {
    let (uids, gids) = (linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref());
    mappings(faults, "linux.uidMappings", uids);
    mappings(faults, "linux.gidMappings", gids);
    let some = |m: Option<&[_]>| m.is_some_and(|m| !m.is_empty());
    match find(linux, LinuxNamespaceType::User) {
        None if some(uids) || some(gids) => {
            let place = if some(uids) { "linux.uidMappings" } else { "linux.gidMappings" };
            faults.add(place, "user namespace mappings specified, but user namespace isn't enabled in the config");
        }
        Some(user) if user.path().is_none() && !some(uids) && !some(gids) => {
            let text = "user namespaces enabled, but no namespace path to join nor mappings to apply specified";
            faults.add("linux.uidMappings", text);
        }
        Some(user) if user.path().is_none() && some(uids) != some(gids) => {
            let place = if some(uids) { "linux.gidMappings" } else { "linux.uidMappings" };
            faults.add(place, "is missing: a new user namespace needs both mappings");
        }
        _ => {}
    }
}

/// Ids are 32 bits wide, and the kernel takes no mapping that is empty or meets another one.
pub(super) fn mappings(faults: &mut Faults, place: &str, mappings: Option<&[LinuxIdMapping]>) {
    let mappings = mappings.unwrap_or_default();
    let meet = |a: u32, a_size: u32, b: u32, b_size: u32| {
        u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
    };
    for (i, m) in mappings.iter().enumerate() {
        if m.size() == 0 {
            faults.add(format_args!("{place}[{i}].size"), "must be greater than 0");
        }
        let beyond = |first: u32| u64::from(first) + u64::from(m.size()) > u64::from(u32::MAX);
        if beyond(m.container_id()) || beyond(m.host_id()) {
            faults.add(format_args!("{place}[{i}]"), "goes beyond the largest id, 4294967294");
        }
        let meets = |o: &LinuxIdMapping| {
            meet(m.container_id(), m.size(), o.container_id(), o.size())
                || meet(m.host_id(), m.size(), o.host_id(), o.size())
        };
        if let Some(earlier) = mappings[..i].iter().position(meets) {
            faults.add(format_args!("{place}[{i}]"), format!("overlaps with {place}[{earlier}]"));
        }
    }
}

fn time_namespace(faults: &mut Faults, linux: &Linux) {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|o| !o.is_empty()) else { return };
    match find(linux, LinuxNamespaceType::Time) {
        None => {
            let text = "time namespace offsets specified, but time namespace isn't enabled in the config";
            faults.add("linux.timeOffsets", text);
        }
        Some(time) if time.path().is_some() => {
            faults.add("linux.timeOffsets", "cannot be set in a time namespace that is joined by its path");
        }
        Some(_) => {}
    }
    for (clock, offset) in offsets {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            faults.add("linux.timeOffsets", format!("unknown clock {clock:?} (monotonic and boottime are known)"));
        }
        if offset.nanosecs().is_some_and(|n| n > 999_999_999) {
            faults.add(format_args!("linux.timeOffsets.{clock}.nanosecs"), "is a second or more");
        }
    }
}

fn paths(faults: &mut Faults, linux: &Linux) {
    let mount = has(linux, LinuxNamespaceType::Mount);
    for (field, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        let paths = paths.as_deref().unwrap_or_default();
        if !mount && !paths.is_empty() {
            let text = "unable to restrict sys entries without a private MNT namespace";
            faults.add(format_args!("linux.{field}"), text);
        }
        for (i, path) in paths.iter().enumerate() {
            if !path.starts_with('/') {
                let text = format!("must be an absolute path, not {path:?}");
                faults.add(format_args!("linux.{field}[{i}]"), text);
            }
            faults.no_nul(format_args!("linux.{field}[{i}]"), path);
        }
    }
}

fn devices(faults: &mut Faults, linux: &Linux) {
    let devices = linux.devices().as_deref().unwrap_or_default();
    for (i, device) in devices.iter().enumerate() {
        let place = format!("linux.devices[{i}]");
        if !device.path().is_absolute() {
            let text = format!("must be an absolute path, not \"{}\"", device.path().display());
            faults.add(format_args!("{place}.path"), text);
        }
        faults.no_nul(format_args!("{place}.path"), &device.path().to_string_lossy());
        let typ = device.typ();
        if typ == LinuxDeviceType::A {
            faults.add(format_args!("{place}.type"), "\"a\" is no type of a device (c, b, u and p are)");
        }
        if typ != LinuxDeviceType::P && (device.major() < 0 || device.minor() < 0) {
            faults.add(&place, "has a negative device number");
        }
        let node = |d: &oci_spec::runtime::LinuxDevice| (d.typ(), d.major(), d.minor());
        if devices[..i].iter().any(|earlier| earlier.path() == device.path() && node(earlier) != node(device)) {
            faults.add(format_args!("{place}.path"), "is the path of an earlier device of another kind");
        }
    }
}

/// What is wrong with a kernel parameter: one that is not of a namespace of the container would change the host's.
fn sysctl_fault(linux: &Linux, name: &str) -> Option<String> {
    use LinuxNamespaceType::{Ipc, Network, User, Uts};
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let dotted = dotted(name);
    if dotted.split('.').any(|part| part.is_empty() || part == "/" || part == "//") || dotted.contains('\0') {
        return Some(format!("{name:?} is not the name of a kernel parameter"));
    }
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        let fault = format!("sysctl {name:?} is not allowed in the hosts ipc namespace");
        return (!has(linux, Ipc)).then_some(fault);
    }
    if dotted.starts_with("net.") {
        let host = find(linux, Network).is_none_or(|n| n.path().as_deref().is_some_and(is_own_network));
        return host.then(|| format!("sysctl {name:?} not allowed in host network namespace"));
    }
    if dotted.starts_with("user.") {
        let fault = format!("setting ucounts without a user namespace not allowed: {name}");
        return (!has(linux, User)).then_some(fault);
    }
    match dotted.as_str() {
        "kernel.domainname" if has(linux, Uts) => None,
        "kernel.hostname" if has(linux, Uts) => {
            Some(format!("sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field"))
        }
        _ => Some(format!("sysctl {name:?} is not in a separate kernel namespace")),
    }
}

/// A name with `/` between its parts has `.` inside them (sysctl.d(5)): both are changed for each other.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => {
            let swap = |c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_string(),
    }
}

/// Whether a path leads to the network namespace that we are in. One that leads nowhere fails when it is joined.
fn is_own_network(path: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let own = id(Path::new("/proc/self/ns/net"));
    own.is_some() && own == id(path)
}

fn memory_policy(faults: &mut Faults, policy: &LinuxMemoryPolicy) {
    use MemoryPolicyFlagType::{MpolFNumaBalancing, MpolFRelativeNodes, MpolFStaticNodes};
    use MemoryPolicyModeType::{MpolBind, MpolDefault, MpolLocal, MpolPreferred};
    let mode = policy.mode();
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    match mode {
        MpolDefault | MpolLocal if !nodes.is_empty() => {
            let text = format!("{mode}: memory policy mode requires 0 nodes but got {}", list_len(nodes));
            faults.add("linux.memoryPolicy.nodes", text);
        }
        MpolDefault | MpolLocal | MpolPreferred if nodes.is_empty() => {}
        _ if nodes.is_empty() => {
            let text = format!("{mode}: memory policy mode requires at least one node but got 0");
            faults.add("linux.memoryPolicy.nodes", text);
        }
        _ => {
            if let Some(fault) = list_fault(nodes) {
                faults.add("linux.memoryPolicy.nodes", format!("invalid memory policy node: {fault}"));
            }
        }
    }
    let flags = policy.flags().as_deref().unwrap_or_default();
    if flags.contains(&MpolFStaticNodes) && flags.contains(&MpolFRelativeNodes) {
        faults.add("linux.memoryPolicy.flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other");
    }
    if flags.contains(&MpolFNumaBalancing) && mode != MpolBind {
        faults.add("linux.memoryPolicy.flags", "MPOL_F_NUMA_BALANCING can only be specified for MPOL_BIND");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{each_is_one_fault, faults_with};
    use serde_json::json;

    #[test]
    fn every_rule_names_its_place() {
        let ns = |more: serde_json::Value| {
            let mut all = json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid"}]);
            all.as_array_mut().unwrap().push(more);
            all
        };
        let device = |path: &str, typ: &str, minor: i64| json!({"path": path, "type": typ, "major": 1, "minor": minor});
        let map = |size: u32| json!([{"containerID": 0, "hostID": 0, "size": size}]);
        each_is_one_fault(&[
            ("/linux/namespaces", ns(json!({"type": "pid"})), "linux.namespaces[3].type: pid is there twice"),
            (
                "/linux/namespaces",
                ns(json!({"type": "ipc", "path": "x"})),
                "linux.namespaces[3].path: must be an absolute",
            ),
            ("/linux/namespaces", ns(json!({"type": "user"})), "linux.uidMappings: user namespaces enabled, but no"),
            ("/linux/gidMappings", map(1), "linux.gidMappings: user namespace mappings specified, but user"),
            (
                "/linux/timeOffsets",
                json!({"monotonic": {"secs": 1}}),
                "linux.timeOffsets: time namespace offsets specified",
            ),
            ("/linux/maskedPaths", json!(["/a", "b"]), "linux.maskedPaths[1]: must be an absolute path"),
            ("/linux/devices", json!([device("x", "c", 3)]), "linux.devices[0].path: must be an absolute path"),
            ("/linux/devices", json!([device("/x", "a", 3)]), "linux.devices[0].type: \"a\" is no type"),
            ("/linux/devices", json!([device("/x", "b", -1)]), "linux.devices[0]: has a negative"),
            (
                "/linux/devices",
                json!([device("/x", "b", 1), device("/x", "c", 1)]),
                "linux.devices[1].path: is the path of",
            ),
            ("/linux/rootfsPropagation", json!("foo"), "linux.rootfsPropagation: \"foo\" is not one of"),
            ("/linux/netDevices", json!({"a/b": {}}), "linux.netDevices: \"a/b\" has a character"),
            ("/linux/netDevices", json!({"eth%d": {}}), "linux.netDevices: \"eth%d\" has a character"),
            ("/linux/netDevices", json!({"..": {}}), "linux.netDevices: \"..\" is no name"),
            (
                "/linux/netDevices",
                json!({"a": {"name": "sixteen-letters-"}}),
                "linux.netDevices.a.name: \"sixteen-letters-\" has more than 15 bytes",
            ),
            (
                "/linux/netDevices",
                json!({"a": {"name": "e%d%d"}}),
                "linux.netDevices.a.name: \"e%d%d\" has a character",
            ),
            (
                "/linux/netDevices",
                json!({"a": {"name": "b"}, "b": {}}),
                "linux.netDevices: two devices are to be \"b\"",
            ),
            ("/linux/intelRdt", json!({"closID": ".."}), "linux.intelRdt.closID: \"..\" is neither / nor"),
            ("/linux/intelRdt", json!({"closID": "a/b"}), "linux.intelRdt.closID: \"a/b\" is neither / nor"),
            (
                "/linux/intelRdt",
                json!({"memBwSchema": "L3:0=f"}),
                "linux.intelRdt.memBwSchema: \"L3:0=f\" does not begin",
            ),
            (
                "/linux/intelRdt",
                json!({"l3CacheSchema": "L3:0=f\nMB:0=5"}),
                "linux.intelRdt.l3CacheSchema: it has more",
            ),
            ("/linux/intelRdt", json!({"schemata": ["L3:0=f", "a\n"]}), "linux.intelRdt.schemata[1]: it has more"),
            (
                "/linux/memoryPolicy",
                json!({"mode": "MPOL_BIND"}),
                "linux.memoryPolicy.nodes: MPOL_BIND: memory policy mode requires at",
            ),
            (
                "/linux/memoryPolicy",
                json!({"mode": "MPOL_LOCAL", "nodes": "0-7"}),
                "linux.memoryPolicy.nodes: MPOL_LOCAL: memory policy mode requires 0 nodes but got 8",
            ),
            (
                "/linux/memoryPolicy",
                json!({"mode": "MPOL_BIND", "nodes": "x"}),
                "linux.memoryPolicy.nodes: invalid memory policy node",
            ),
        ]);
        for propagation in ["shared", "rslave", "private", "runbindable"] {
            assert_eq!(faults_with(&[("/linux/rootfsPropagation", json!(propagation))]), [""; 0]);
        }
    }

    #[test]
    fn mappings_are_what_the_kernel_takes() {
        let user = json!([{"type": "mount"}, {"type": "uts"}, {"type": "user"}]);
        let ranges = |list: &[(u32, u32, u32)]| {
            let list: Vec<_> = list.iter().map(|(c, h, s)| json!({"containerID": c, "hostID": h, "size": s})).collect();
            faults_with(&[
                ("/linux/namespaces", user.clone()),
                ("/linux/uidMappings", json!(list)),
                ("/linux/gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 10}])),
            ])
        };
        assert_eq!(ranges(&[(0, 1000, 1), (1, 100_000, 65_535)]), [""; 0]);
        for (list, want) in [
            (&[(0, 0, 0)][..], "linux.uidMappings[0].size: must be greater than 0"),
            (&[(0, 1000, 10), (9, 5000, 1)], "linux.uidMappings[1]: overlaps with linux.uidMappings[0]"),
            (&[(0, 1000, 10), (10, 1009, 1)], "linux.uidMappings[1]: overlaps with linux.uidMappings[0]"),
            (&[(0, u32::MAX, 1)], "linux.uidMappings[0]: goes beyond"),
            (&[], "linux.uidMappings: is missing"),
        ] {
            let faults = ranges(list);
            assert!(faults.len() == 1 && faults[0].starts_with(want), "{faults:?}");
        }
    }

    #[test]
    fn kernel_parameters_belong_to_a_namespace_of_the_container() {
        let all = json!([{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}]);
        let few = json!([{"type": "mount"}, {"type": "uts"}]);
        let joined = json!([{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/proc/self/ns/net"}]);
        for (namespaces, name, good) in [
            (&all, "net.ipv4.ip_forward", true),
            (&all, "net/ipv4/conf/eno2.100/rp_filter", true),
            (&few, "net.ipv4.ip_forward", false),
            (&joined, "net.ipv4.ip_forward", false),
            (&all, "kernel.shmmax", true),
            (&all, "kernel/shmmax", true),
            (&all, "fs.mqueue.msg_max", true),
            (&few, "kernel.shmmax", false),
            (&all, "kernel.domainname", true),
            (&all, "kernel.hostname", false),
            (&all, "kernel.pid_max", false),
            (&all, "vm.swappiness", false),
            (&all, "user.max_user_namespaces", false),
            (&all, "net/../kernel/core_pattern", false),
            (&all, "net..core", false),
            (&all, "", false),
        ] {
            let mut sysctl = serde_json::Map::new();
            sysctl.insert(name.to_string(), json!("1"));
            let faults = faults_with(&[("/linux/namespaces", namespaces.clone()), ("/linux/sysctl", json!(sysctl))]);
            assert_eq!(faults.is_empty(), good, "{name}: {faults:?}");
            assert!(faults.iter().all(|f| f.starts_with("linux.sysctl: ")), "{faults:?}");
        }
    }
}
