//! The bundles that are measured: the one that `vessel spec` writes, with /bin/true, in variants.

use std::fs;
use std::path::{Path, PathBuf};

use libseccomp::{ScmpArch, ScmpSyscall};
use serde_json::{Value, json};
use vessel::error::{Context, Error, Result};
use vessel::spec::example;

use crate::host::{Host, View};

/// In what a bundle differs from the default one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) seccomp: bool,
    pub(crate) limits: bool,
    pub(crate) systemd: bool,
    /// A user namespace of 65536 ids, made by root.
    pub(crate) user: bool,
    /// Run by an ordinary user.
    pub(crate) rootless: bool,
    pub(crate) mounts: usize,
    /// A limit of memory alone, in KiB.
    pub(crate) memory: Option<u64>,
}

/// The first of the ids of a user namespace.
pub(crate) const FIRST_ID: u32 = 100_000;
/// The ordinary user: nobody, who has an entry in /etc/passwd, which newuidmap wants.
pub(crate) const ORDINARY: u32 = 65_534;
/// How many mounts a bundle can have at most.
const MOUNTS: usize = 1000;

pub(crate) const TRUE: &[&str] = &["/bin/true"];
pub(crate) const SLEEP: &[&str] = &["/bin/busybox", "sleep", "100000"];

impl Variant {
    /// The ids of the user namespace: the first one, and how many.
    pub(crate) fn ids(&self) -> Option<(u32, u32)> {
        match (self.rootless, self.user) {
            (true, _) => Some((ORDINARY, 1)),
            (_, true) => Some((FIRST_ID, 65536)),
            _ => None,
        }
    }

    /// The root filesystem, which belongs to its root.
    fn rootfs(&self, host: &Host) -> PathBuf {
        host.work.join(format!("rootfs-{}", self.ids().map_or(0, |(id, _)| id)))
    }
}

/// Makes the root filesystem of a variant, once.
pub(crate) fn rootfs(host: &Host, variant: &Variant) -> Result<PathBuf> {
    let root = variant.rootfs(host);
    if root.exists() {
        return Ok(root);
    }
    for dir in ["bin", "proc", "sys", "dev", "m"] {
        fs::create_dir_all(root.join(dir)).context(|| "cannot make the root filesystem")?;
    }
    for number in 0..MOUNTS {
        fs::create_dir(root.join(format!("m/{number}"))).context(|| "cannot make mount points")?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let busybox = busybox.ok_or_else(|| Error::new("there is no busybox"))?;
    fs::copy(busybox, root.join("bin/busybox")).context(|| "cannot copy busybox")?;
    std::os::unix::fs::symlink("busybox", root.join("bin/true")).context(|| "cannot make a link")?;
    if let Some((id, _)) = variant.ids() {
        for dir in ["", "bin", "proc", "sys", "dev", "m"] {
            std::os::unix::fs::chown(root.join(dir), Some(id), Some(id)).context(|| "cannot change an owner")?;
        }
    }
    Ok(root)
}

/// Makes or changes the bundle `name` whose container is `id`: the path of the directory.
pub(crate) fn write(
    host: &Host,
    name: &str,
    id: &str,
    variant: &Variant,
    args: &[&str],
    cold: usize,
) -> Result<PathBuf> {
    let dir = host.work.join(name);
    fs::create_dir_all(&dir).context(|| "cannot make a bundle")?;
    let config = config(host, id, variant, args, cold)?;
    fs::write(dir.join("config.json"), config.to_string()).context(|| "cannot write a bundle")?;
    Ok(dir)
}

fn config(host: &Host, id: &str, variant: &Variant, args: &[&str], cold: usize) -> Result<Value> {
    let text = match (variant.rootless, host.view) {
        (true, _) => example::rootless(ORDINARY, ORDINARY)?,
        (false, View::V2) => example::ROOT.to_string(),
        (false, View::V1) => example::without_cgroup_namespace(),
    };
    let mut config: Value = serde_json::from_str(&text).map_err(|e| Error::new(e.to_string()))?;
    // Older runtimes take no newer one.
    config["ociVersion"] = "1.0.2".into();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!(args);
    config["root"]["path"] = json!(rootfs(host, variant)?);
    let linux = &mut config["linux"];
    if !variant.rootless {
        let path = if variant.systemd { format!("system.slice:bench:{id}") } else { format!("{}/{id}", host.cgroup) };
        linux["cgroupsPath"] = path.into();
    }
    if variant.user
        && let Some(namespaces) = linux["namespaces"].as_array_mut()
    {
        namespaces.push(json!({"type": "user"}));
        let ids = json!([{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]);
        linux["uidMappings"] = ids.clone();
        linux["gidMappings"] = ids;
    }
    if variant.limits {
        linux["resources"]["memory"] = json!({"limit": 64 << 20});
        linux["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000});
        linux["resources"]["pids"] = json!({"limit": 100});
    }
    if let Some(kib) = variant.memory {
        linux["resources"]["memory"] = json!({"limit": kib << 10});
    }
    if variant.seccomp {
        linux["seccomp"] = profile(cold);
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.extend((0..variant.mounts).map(|number| {
            json!({"destination": format!("/m/{number}"), "type": "bind", "source": host.run, "options": ["bind"]})
        }));
    }
    Ok(config)
}

/// What engines forbid in their default profiles, more or less.
const FORBIDDEN: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "migrate_pages",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "setdomainname",
    "setns",
    "settimeofday",
    "sethostname",
    "swapoff",
    "swapon",
    "sysfs",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vm86",
    "vm86old",
    "clone3",
    "personality",
    "clone",
    "socket",
];

/// A profile like the default ones of engines: all but some system calls of three architectures, some by their arguments.
/// Another profile for each number, so that no cache knows it.
pub(crate) fn profile(cold: usize) -> Value {
    let native = cfg!(target_arch = "x86_64");
    let arches = if native { vec![ScmpArch::X8664, ScmpArch::X86] } else { vec![ScmpArch::native()] };
    let mut names: Vec<String> = arches
        .into_iter()
        .flat_map(|arch| (0..470).map(move |number| ScmpSyscall::from(number).get_name_by_arch(arch)))
        .flatten()
        .filter(|name| !FORBIDDEN.contains(&name.as_str()))
        .collect();
    names.sort();
    names.dedup();
    let only = |name: &str, value: u64, op: &str| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]});
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    rules.extend([0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|value| only("personality", value, "SCMP_CMP_EQ")));
    rules.push(only("socket", 40, "SCMP_CMP_NE"));
    rules.push(json!({
        "names": ["clone"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 0x7e02_0000_u32, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
    }));
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    rules.push(json!({"names": ["vhangup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2 + cold % 4000}));
    let architectures = if native { json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]) } else { json!([]) };
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures, "syscalls": rules})
}
