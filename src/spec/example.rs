//! The configuration that `vessel spec` writes.

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};

/// A container with a shell, for root.
pub const ROOT: &str = include_str!("../../config.json.example");

/// The same for a host with cgroup v1: there the cgroup namespace is not asked for, as in what runc writes, which other
/// programs complete.
pub fn without_cgroup_namespace() -> String {
    ROOT.replace(",\n            {\n                \"type\": \"cgroup\"\n            }", "")
}

/// The same for an ordinary user: in a user namespace whose root is `uid` and `gid`, without what such a user may not
/// do (resource limits, a sysfs of its own without a network namespace).
pub fn rootless(uid: u32, gid: u32) -> Result<String> {
    let mut config: Value = serde_json::from_str(ROOT).map_err(|e| Error::new(e.to_string())).context(|| "example")?;
    let linux = &mut config["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|n| n["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        for mount in mounts {
            if mount["destination"] == "/sys" {
                // A sysfs may be mounted only by who owns the network namespace.
                *mount = json!({
                    "destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]
                });
            }
            if let Some(options) = mount["options"].as_array_mut() {
                // These ids are not mapped: only one is.
                options.retain(|o| !o.as_str().is_some_and(|o| o.starts_with("gid=") || o.starts_with("uid=")));
            }
        }
    }
    let mut text = serde_json::to_string_pretty(&config).map_err(|e| Error::new(e.to_string()))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxNamespaceType, Spec};

    #[test]
    fn the_cgroup_namespace_can_be_left_out() {
        let spec: Spec = serde_json::from_str(&without_cgroup_namespace()).unwrap();
        let namespaces = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
        assert!(namespaces.iter().all(|n| n.typ() != LinuxNamespaceType::Cgroup));
    }

    #[test]
    fn both_are_configurations_by_the_spec() {
        serde_json::from_str::<Spec>(ROOT).unwrap();
        let spec: Spec = serde_json::from_str(&rootless(1000, 100).unwrap()).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        let namespaces = linux.namespaces().as_ref().unwrap();
        assert!(namespaces.iter().any(|n| n.typ() == LinuxNamespaceType::User));
        assert!(!namespaces.iter().any(|n| n.typ() == LinuxNamespaceType::Network));
        let gids = linux.gid_mappings().as_ref().unwrap();
        assert_eq!((gids[0].host_id(), gids[0].container_id(), gids[0].size()), (100, 0, 1));
        for mount in spec.mounts().as_ref().unwrap() {
            assert!(mount.options().iter().flatten().all(|o| !o.starts_with("gid=")), "{mount:?}");
        }
    }
}
