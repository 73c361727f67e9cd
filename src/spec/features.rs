//! What this runtime can do, by the names that a configuration uses (features.md).

use caps::Capability;
use libseccomp::ScmpVersion;
use serde_json::{Value, json};

use super::options;

/// The kinds of hooks, in the order of a container's life.
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

const SECCOMP_ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const SECCOMP_OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Architectures, and the version of libseccomp that first knew them.
const SECCOMP_ARCHS: [(&str, (u32, u32)); 23] = [
    ("SCMP_ARCH_AARCH64", (2, 2)),
    ("SCMP_ARCH_ARM", (2, 0)),
    ("SCMP_ARCH_LOONGARCH64", (2, 6)),
    ("SCMP_ARCH_M68K", (2, 6)),
    ("SCMP_ARCH_MIPS", (2, 2)),
    ("SCMP_ARCH_MIPS64", (2, 2)),
    ("SCMP_ARCH_MIPS64N32", (2, 2)),
    ("SCMP_ARCH_MIPSEL", (2, 2)),
    ("SCMP_ARCH_MIPSEL64", (2, 2)),
    ("SCMP_ARCH_MIPSEL64N32", (2, 2)),
    ("SCMP_ARCH_PARISC", (2, 4)),
    ("SCMP_ARCH_PARISC64", (2, 4)),
    ("SCMP_ARCH_PPC", (2, 3)),
    ("SCMP_ARCH_PPC64", (2, 3)),
    ("SCMP_ARCH_PPC64LE", (2, 3)),
    ("SCMP_ARCH_RISCV64", (2, 5)),
    ("SCMP_ARCH_S390", (2, 3)),
    ("SCMP_ARCH_S390X", (2, 3)),
    ("SCMP_ARCH_SH", (2, 6)),
    ("SCMP_ARCH_SHEB", (2, 6)),
    ("SCMP_ARCH_X32", (2, 0)),
    ("SCMP_ARCH_X86", (2, 0)),
    ("SCMP_ARCH_X86_64", (2, 0)),
];

/// Flags of seccomp(2), and the version of Linux that first knew them.
const SECCOMP_FLAGS: [(&str, (u32, u32)); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", (4, 14)),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", (4, 17)),
    ("SECCOMP_FILTER_FLAG_TSYNC", (3, 17)),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", (5, 19)),
];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// The document of `vessel features`.
pub fn document() -> Value {
    let library = ScmpVersion::current().map_or((2, 5, 0), |v| (v.major, v.minor, v.micro));
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": HOOKS,
        "mountOptions": options::TABLE.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": SECCOMP_ACTIONS,
                "operators": SECCOMP_OPERATORS,
                "archs": since(&SECCOMP_ARCHS, (library.0, library.1)),
                "knownFlags": since(&SECCOMP_FLAGS, (u32::MAX, 0)),
                "supportedFlags": since(&SECCOMP_FLAGS, kernel()),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": MEMORY_MODES, "flags": MEMORY_FLAGS},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "potentiallyUnsafeConfigAnnotations": [
            super::CRIU_CONFIG,
            super::STOP_SIGNAL,
            "org.systemd.property.",
            super::KEEP_GROUPS,
        ],
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "io.github.seccomp.libseccomp.version": format!("{}.{}.{}", library.0, library.1, library.2),
        },
    })
}

/// The names of a table that are known since `version` or longer.
fn since(table: &'static [(&str, (u32, u32))], version: (u32, u32)) -> Vec<&'static str> {
    table.iter().filter(|(_, first)| *first <= version).map(|(name, _)| *name).collect()
}

/// The capabilities that this kernel has, by number.
fn capabilities() -> Vec<String> {
    let mut known: Vec<Capability> = caps::runtime::thread_all_supported().into_iter().collect();
    known.sort_by_key(Capability::index);
    known.iter().map(ToString::to_string).collect()
}

/// The version of the running kernel; 0.0 where it has no number.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{
        Arch, Features, Hooks, LinuxSeccompFilterFlag, LinuxSeccompOperator, MemoryPolicyFlagType,
    };
    use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccompAction, MemoryPolicyModeType};
    use serde::de::DeserializeOwned;

    fn all_are<T: DeserializeOwned>(names: &[&str]) {
        for name in names {
            serde_json::from_value::<T>(json!(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    /// Every name is one that a configuration may use.
    #[test]
    fn the_tables_are_what_config_json_may_hold() {
        all_are::<LinuxNamespaceType>(&NAMESPACES);
        all_are::<LinuxSeccompAction>(&SECCOMP_ACTIONS);
        all_are::<LinuxSeccompOperator>(&SECCOMP_OPERATORS);
        all_are::<Arch>(&SECCOMP_ARCHS.map(|(name, _)| name));
        all_are::<LinuxSeccompFilterFlag>(&SECCOMP_FLAGS.map(|(name, _)| name));
        all_are::<MemoryPolicyModeType>(&MEMORY_MODES);
        all_are::<MemoryPolicyFlagType>(&MEMORY_FLAGS);
        let hooks: Value = HOOKS.iter().map(|kind| (kind.to_string(), json!([{"path": "/x"}]))).collect();
        let hooks: Hooks = serde_json::from_value(hooks).unwrap();
        assert_eq!(serde_json::to_value(hooks).unwrap().as_object().unwrap().len(), HOOKS.len());
    }

    #[test]
    fn the_document_is_one_by_the_specification() {
        let features: Features = serde_json::from_value(document()).unwrap();
        assert_eq!(features.oci_version_min(), "1.0.0");
        let linux = features.linux().as_ref().unwrap();
        assert!(linux.capabilities().as_ref().unwrap().contains(&"CAP_SYS_ADMIN".to_string()));
        let seccomp = linux.seccomp().as_ref().unwrap();
        assert!(seccomp.archs().as_ref().unwrap().contains(&Arch::ScmpArchX86_64));
        assert!(seccomp.supported_flags().as_ref().unwrap().iter().any(|f| f.ends_with("_TSYNC")));
    }
}
