//! The rules of the specification for Linux, and those of runc that keep a container from being less than was asked for.
//!
//! What needs the host to decide (whether a file is there, whether a controller is on) is left to who uses it.

mod linux;
mod process;
mod resources;

use std::fmt::Display;

use oci_spec::runtime::{Hook, LinuxIdMapping, LinuxNamespaceType, Process, Spec};

use super::Config;
use super::options::Options;
use crate::error::{Cause, Error, Result};

/// Checks a configuration against the specification; the error names the place of the first fault.
pub fn validate(config: &Config) -> Result<()> {
    match faults(config).into_iter().next() {
        None => Ok(()),
        Some(fault) => Err(Error::of(Cause::Config, fault)),
    }
}

/// All faults of a configuration, each in one line that begins with its place.
pub fn faults(config: &Config) -> Vec<String> {
    let mut faults = Faults::default();
    let spec = &config.spec;
    faults.version(spec.version());
    faults.root(spec);
    if let Some(process) = spec.process() {
        process::check(&mut faults, process, "process.");
        process::check_with_resources(&mut faults, process, spec);
    }
    faults.host_names(spec);
    faults.mounts(spec);
    faults.hooks(spec);
    for key in spec.annotations().iter().flatten().map(|(key, _)| key).filter(|key| key.is_empty()) {
        faults.add("annotations", format!("{key:?} is no key: it is empty"));
    }
    if let Some(linux) = spec.linux() {
        linux::check(&mut faults, linux);
        if let Some(resources) = linux.resources() {
            resources::check(&mut faults, resources);
        }
    }
    faults.0
}

/// Checks a process alone, as `exec --process` brings it.
pub fn validate_process(process: &Process) -> Result<()> {
    let mut faults = Faults::default();
    process::check(&mut faults, process, "process.");
    match faults.0.into_iter().next() {
        None => Ok(()),
        Some(fault) => Err(Error::of(Cause::Config, fault)),
    }
}

/// What was found so far.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, place: impl Display, text: impl Display) {
        self.0.push(format!("{place}: {text}"));
    }

    /// The kernel ends texts at a NUL, so a text with one inside would be cut silently.
    fn no_nul(&mut self, place: impl Display, text: &str) {
        if text.contains('\0') {
            self.add(place, "holds a NUL character");
        }
    }

    fn version(&mut self, version: &str) {
        let core = version.split(['-', '+']).next().unwrap_or_default();
        let numbers: Vec<&str> = core.split('.').collect();
        let is_number = |n: &&str| !n.is_empty() && n.len() < 10 && n.bytes().all(|b| b.is_ascii_digit());
        if numbers.len() != 3 || !numbers.iter().all(is_number) || version.ends_with(['-', '+']) {
            self.add("ociVersion", format!("{version:?} is not a version (SemVer, as 1.3.0)"));
        } else if numbers[0] != "1" {
            self.add("ociVersion", format!("{version} is not supported (1.x is)"));
        }
    }

    fn root(&mut self, spec: &Spec) {
        match spec.root() {
            None => self.add("root", "is missing"),
            Some(root) if root.path().as_os_str().is_empty() => self.add("root.path", "is missing"),
            Some(root) => self.no_nul("root.path", &root.path().to_string_lossy()),
        }
    }

    fn host_names(&mut self, spec: &Spec) {
        let uts = has(spec, LinuxNamespaceType::Uts);
        for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
            let Some(name) = name else { continue };
            if !uts {
                self.add(field, format!("unable to set {field} without a private UTS namespace"));
            }
            if name.len() > 64 {
                self.add(field, "is longer than 64 bytes, which the kernel takes at most");
            }
            self.no_nul(field, name);
        }
    }

    fn mounts(&mut self, spec: &Spec) {
        for (i, mount) in spec.mounts().iter().flatten().enumerate() {
            let place = format!("mounts[{i}]");
            if mount.destination().as_os_str().is_empty() {
                self.add(format_args!("{place}.destination"), "is empty");
            }
            self.no_nul(format_args!("{place}.destination"), &mount.destination().to_string_lossy());
            let options = Options::of(mount);
            let bind = options.flags & libc::MS_BIND != 0;
            if bind && let Some(name) = options.unknown_to_binds() {
                let text = "bind mounts cannot have any filesystem-specific options applied";
                self.add(format_args!("{place}.options"), format!("{text}: {name}"));
            }
            if matches!(mount.typ().as_deref(), Some("tmpfs" | "devpts")) {
                self.owners(spec, &place, &options.data);
            }
            let some = |mappings: &Option<Vec<_>>| mappings.as_ref().is_some_and(|m| !m.is_empty());
            let (uids, gids) = (some(mount.uid_mappings()), some(mount.gid_mappings()));
            if uids != gids {
                self.add(&place, "id-mapped mounts must have both uid and gid mappings specified");
            }
            linux::mappings(self, &format!("{place}.uidMappings"), mount.uid_mappings().as_deref());
            linux::mappings(self, &format!("{place}.gidMappings"), mount.gid_mappings().as_deref());
            let mapped = uids || gids || options.idmap.is_some();
            if mapped && !bind {
                self.add(&place, "id-mapped mounts are only supported for bind-mounts");
            }
            if bind && options.idmap.is_some() && !uids && !has(spec, LinuxNamespaceType::User) {
                let text = "the option idmap needs uidMappings and gidMappings, or a user namespace to take them from";
                self.add(format_args!("{place}.options"), text);
            }
        }
    }

    /// The kernel refuses owners without a mapping, with no more than "invalid argument".
    fn owners(&mut self, spec: &Spec, place: &str, data: &str) {
        let Some(linux) = spec.linux().as_ref().filter(|l| linux::is_new(l, LinuxNamespaceType::User)) else { return };
        for option in data.split(',') {
            let (field, mappings, id) = match option.split_once('=') {
                Some(("uid", id)) => ("uidMappings", linux.uid_mappings(), id),
                Some(("gid", id)) => ("gidMappings", linux.gid_mappings(), id),
                _ => continue,
            };
            let Ok(id) = id.parse::<u32>() else { continue };
            let mapped = |m: &LinuxIdMapping| id.checked_sub(m.container_id()).is_some_and(|i| i < m.size());
            // Without any mappings something else is wrong, and is reported elsewhere.
            if mappings.as_ref().is_some_and(|m| !m.is_empty() && !m.iter().any(mapped)) {
                self.add(format_args!("{place}.options"), format!("{option}: linux.{field} does not map this id"));
            }
        }
    }

    #[allow(deprecated)] // prestart is deprecated, and still in use
    fn hooks(&mut self, spec: &Spec) {
        let Some(hooks) = spec.hooks() else { return };
        self.hooks_of("prestart", hooks.prestart().as_deref());
        self.hooks_of("createRuntime", hooks.create_runtime().as_deref());
        self.hooks_of("createContainer", hooks.create_container().as_deref());
        self.hooks_of("startContainer", hooks.start_container().as_deref());
        self.hooks_of("poststart", hooks.poststart().as_deref());
        self.hooks_of("poststop", hooks.poststop().as_deref());
    }

    fn hooks_of(&mut self, kind: &str, hooks: Option<&[Hook]>) {
        for (i, hook) in hooks.into_iter().flatten().enumerate() {
            let place = format!("hooks.{kind}[{i}]");
            if !hook.path().is_absolute() {
                let path = hook.path().display();
                self.add(format_args!("{place}.path"), format!("must be an absolute path, not \"{path}\""));
            }
            if let Some(timeout) = hook.timeout().filter(|t| *t <= 0) {
                self.add(format_args!("{place}.timeout"), format!("must be greater than 0, not {timeout}"));
            }
            let texts = hook.args().iter().flatten().chain(hook.env().iter().flatten());
            texts.for_each(|text| self.no_nul(&place, text));
        }
    }
}

/// Whether the container has a namespace of its own of this kind, new or joined.
fn has(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    spec.linux().as_ref().is_some_and(|l| linux::has(l, kind))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde_json::{Value, json};

    /// The faults of the example with parts of it replaced (by JSON pointer).
    pub(super) fn faults_with(parts: &[(&str, Value)]) -> Vec<String> {
        let mut value: Value = serde_json::from_str(super::super::example::ROOT).unwrap();
        for (pointer, part) in parts {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[key] = part.clone();
        }
        faults(&parse(value.to_string()).unwrap())
    }

    /// Each change alone makes one fault that begins so.
    pub(super) fn each_is_one_fault(table: &[(&str, Value, &str)]) {
        for (pointer, part, want) in table {
            let faults = faults_with(&[(pointer, part.clone())]);
            assert!(faults.len() == 1 && faults[0].starts_with(want), "{pointer} {part}: {faults:?}");
        }
    }

    #[test]
    fn the_examples_have_no_faults() {
        assert_eq!(faults_with(&[]), [""; 0]);
        let rootless = super::super::example::rootless(1000, 1000).unwrap();
        assert_eq!(faults(&parse(rootless).unwrap()), [""; 0]);
    }

    /// The places of all values in a document, as JSON pointers.
    fn places(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_string());
        match value {
            Value::Object(map) => map.iter().for_each(|(key, v)| places(v, &format!("{at}/{key}"), all)),
            Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), all)),
            _ => {}
        }
    }

    #[test]
    fn no_value_anywhere_makes_more_than_an_error() {
        let good: Value = serde_json::from_str(super::super::example::ROOT).unwrap();
        let mut all = Vec::new();
        places(&good, "", &mut all);
        let odd =
            [json!(null), json!(""), json!("\u{0}\n"), json!([]), json!({}), json!(-1), json!(1e300), json!([[]])];
        for place in &all {
            for value in &odd {
                let mut bad = good.clone();
                *bad.pointer_mut(place).unwrap() = value.clone();
                match parse(bad.to_string()) {
                    Ok(config) => drop(faults(&config)),
                    Err(e) => assert_eq!(e.to_string().lines().count(), 1, "{place} {value}: {e}"),
                }
            }
        }
    }

    #[test]
    fn versions_are_semver_1() {
        for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.0.0-rc5", "1.4.0+x.y"] {
            assert_eq!(faults_with(&[("/ociVersion", json!(version))]), [""; 0]);
        }
        for version in ["", "1", "1.0", "invalid", "1.a.0", "1.0.0-", "v1.0.0", "0.5.0", "2.0.0"] {
            let faults = faults_with(&[("/ociVersion", json!(version))]);
            assert!(faults.len() == 1 && faults[0].starts_with("ociVersion: "), "{faults:?}");
        }
    }

    #[test]
    fn every_rule_names_its_place() {
        each_is_one_fault(&[
            ("/root", json!(null), "root: is missing"),
            ("/root/path", json!(""), "root.path: is missing"),
            ("/hostname", json!("x".repeat(65)), "hostname: is longer"),
            ("/mounts/0/destination", json!(""), "mounts[0].destination: is empty"),
            (
                "/mounts/1/options",
                json!(["bind", "size=1", "r0"]),
                "mounts[1].options: bind mounts cannot have any filesystem",
            ),
            ("/mounts/1/options", json!(["idmap"]), "mounts[1]: id-mapped mounts are only"),
            ("/annotations", json!({"": "x"}), "annotations: "),
            (
                "/hooks",
                json!({"poststop": [{"path": "/a"}, {"path": "b"}]}),
                "hooks.poststop[1].path: must be an absolute",
            ),
            (
                "/hooks",
                json!({"prestart": [{"path": "/a", "timeout": 0}]}),
                "hooks.prestart[0].timeout: must be greater",
            ),
        ]);
        let faults = faults_with(&[("/domainname", json!("x")), ("/linux/namespaces", json!([{"type": "mount"}]))]);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn owners_of_mounts_are_mapped() {
        let map = |size: u32| json!([{"containerID": 0, "hostID": 1000, "size": size}]);
        let of = |size: u32| {
            faults_with(&[
                ("/linux/namespaces", json!([{"type": "mount"}, {"type": "uts"}, {"type": "user"}])),
                ("/linux/uidMappings", map(1)),
                ("/linux/gidMappings", map(size)),
            ])
        };
        assert_eq!(of(6), [""; 0]);
        assert_eq!(of(5), ["mounts[2].options: gid=5: linux.gidMappings does not map this id"]);
    }

    #[test]
    fn id_mapped_mounts_have_both_mappings() {
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
        let mount = |more: Value| {
            let mut mount = json!({"destination": "/m", "source": "/", "type": "bind", "options": ["bind"]});
            mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            faults_with(&[("/mounts", json!([mount]))])
        };
        assert_eq!(mount(json!({"uidMappings": map, "gidMappings": map})), [""; 0]);
        assert_eq!(mount(json!({"uidMappings": map})).len(), 1);
        assert_eq!(mount(json!({"options": ["rbind", "ridmap"]})).len(), 1);
    }
}
