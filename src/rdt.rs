//! Resource control (Intel RDT and its kin): a container's group in the resctrl file system (config-linux.md, "IntelRdt").

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// The place of a container in resctrl, and what of it was made for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// The directory of its class of service.
    dir: PathBuf,
    /// Whether the directory goes with the container.
    own: bool,
    /// The directory of its monitoring group.
    monitoring: Option<PathBuf>,
}

/// What the kernel has beside the classes of service.
const KERNELS: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// Where resctrl is mounted.
pub fn mountpoint() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context(|| "cannot read /proc/self/mounts")?;
    find(&mounts).ok_or_else(|| {
        Error::new("no resctrl file system is mounted")
            .hint("on a processor that has resource control: mount -t resctrl resctrl /sys/fs/resctrl")
    })
}

fn find(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "resctrl").then(|| PathBuf::from(path))
    })
}

impl Group {
    /// The group that the configuration asks for, below `root`, where resctrl is mounted. Nothing is made yet: what
    /// removes it can be told before.
    pub fn plan(root: &Path, id: &str, config: &LinuxIntelRdt) -> Result<Group> {
        let closid = config.clos_id().as_deref().filter(|c| !c.is_empty());
        let name = closid.unwrap_or(id);
        if KERNELS.contains(&name) {
            return Err(Error::from_errno(
                libc::EINVAL,
                format!("{name} is a directory of the kernel's own in resctrl"),
            )
            .hint("name another in closID"));
        }
        let dir = if name == "/" { root.to_path_buf() } else { root.join(name) };
        // The container's own would be that of others.
        if closid.is_none() && dir.exists() {
            return Err(Error::from_errno(libc::EEXIST, format!("cannot make {}", dir.display()))
                .hint("give the container another id, or name the directory in closID"));
        }
        let monitoring = (config.enable_monitoring() == &Some(true)).then(|| dir.join("mon_groups").join(id));
        if let Some(dir) = monitoring.as_ref().filter(|dir| dir.exists()) {
            return Err(Error::from_errno(libc::EEXIST, format!("enableMonitoring: cannot make {}", dir.display())));
        }
        Ok(Group { dir, own: closid.is_none(), monitoring })
    }

    /// Makes it, or checks that it is as the configuration asks for. What was made before a failure is removed.
    pub fn make(&self, root: &Path, config: &LinuxIntelRdt) -> Result<()> {
        let lines = lines(config);
        if !self.own && self.dir.is_dir() {
            compare(&self.dir, &lines)?;
            return self.make_monitoring(root);
        }
        if !self.own && lines.is_empty() {
            return Err(Error::from_errno(libc::ENOENT, format!("closID: there is no {}", self.dir.display())))
                .map_err(|e| e.hint("make it first, or say with schemata what it is to be"));
        }
        make_dir(root, &self.dir)?;
        let filled = self.set(root, &lines).and_then(|()| self.make_monitoring(root));
        filled.inspect_err(|_| {
            // What fails here is not what went wrong.
            let _ = fs::remove_dir(&self.dir);
        })
    }

    fn make_monitoring(&self, root: &Path) -> Result<()> {
        let make = |dir| make_dir(root, dir).map_err(|e| e.context("enableMonitoring"));
        self.monitoring.as_deref().map_or(Ok(()), make)
    }

    /// The limits that hold, as lines of the schemata file.
    pub fn schemata(&self) -> Result<String> {
        schemata(&self.dir)
    }

    /// Sets limits, each a line of the schemata file; `root` is where resctrl is mounted.
    pub fn set(&self, root: &Path, lines: &[&str]) -> Result<()> {
        let path = self.dir.join("schemata");
        for line in lines {
            write(&path, line).map_err(|e| explain(root, e))?;
        }
        Ok(())
    }

    /// Puts a process, which has one thread, into the group. Its children will be in it too.
    pub fn add(&self, pid: i32) -> Result<()> {
        for dir in std::iter::once(&self.dir).chain(&self.monitoring) {
            write(&dir.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Removes what was made for the container; not a class of service that has a name of its own.
    pub fn remove(&self) -> Result<()> {
        for dir in self.monitoring.iter().chain(self.own.then_some(&self.dir)) {
            match fs::remove_dir(dir) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                done => done.context(|| format!("cannot remove {}", dir.display()))?,
            }
        }
        Ok(())
    }
}

fn schemata(dir: &Path) -> Result<String> {
    let path = dir.join("schemata");
    fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
}

fn make_dir(root: &Path, dir: &Path) -> Result<()> {
    fs::create_dir(dir).context(|| format!("cannot make {}", dir.display())).map_err(|e| explain(root, e))
}

/// What is to be written to the schemata file, in this order.
fn lines(config: &LinuxIntelRdt) -> Vec<&str> {
    let single = [config.l3_cache_schema(), config.mem_bw_schema()];
    let single = single.into_iter().flatten().filter(|line| !line.is_empty());
    single.chain(config.schemata().iter().flatten()).map(String::as_str).collect()
}

/// Checks that a group has the limits that are asked for.
fn compare(dir: &Path, lines: &[&str]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let text = schemata(dir)?;
    let there: BTreeMap<_, _> = text.lines().filter_map(parse).collect();
    for line in lines {
        let Some((name, wanted)) = parse(line) else {
            return Err(Error::new(format!("{line:?} has not the form NAME:ID=VALUE;...")));
        };
        let held = there.get(&name);
        if !wanted.iter().all(|(id, value)| held.and_then(|held| held.get(id)) == Some(value)) {
            return Err(Error::new(format!("closID: {} is there, but has not {line:?}", dir.display())));
        }
    }
    Ok(())
}

/// A line of a schemata file: its name, and the values by cache. The kernel writes more zeros and blanks than people do.
fn parse(line: &str) -> Option<(String, BTreeMap<u32, u64>)> {
    let (name, values) = line.trim().split_once(':')?;
    let radix = if name.starts_with("MB") || name.starts_with("SMBA") { 10 } else { 16 };
    let value = |pair: &str| {
        let (id, value) = pair.split_once('=')?;
        Some((id.trim().parse().ok()?, u64::from_str_radix(value.trim().trim_start_matches("0x"), radix).ok()?))
    };
    Some((name.trim().to_string(), values.split(';').map(value).collect::<Option<_>>()?))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes()))
        .context(|| format!("cannot write {text:?} to {}", path.display()))
}

/// The kernel says in a file of its own what was wrong with the last command.
fn explain(root: &Path, error: Error) -> Error {
    match fs::read_to_string(root.join("info/last_cmd_status")) {
        Ok(status) if !status.trim().is_empty() && status.trim() != "ok" => error.hint(status.trim()),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A directory that has what resctrl has; removed at the end.
    struct Resctrl(PathBuf);

    impl Resctrl {
        fn new(name: &str) -> Resctrl {
            let root = std::env::temp_dir().join(format!("vessel-resctrl-{name}-{}", std::process::id()));
            let resctrl = Resctrl(root);
            resctrl.group("", "    L3:0=fffff;1=fffff\n    MB:0=  100;1=100\n");
            fs::create_dir(resctrl.0.join("info")).unwrap();
            fs::write(resctrl.0.join("info/last_cmd_status"), "ok\n").unwrap();
            resctrl
        }

        /// Makes a group, as the kernel fills a directory that is made.
        fn group(&self, name: &str, schemata: &str) {
            let dir = self.0.join(name);
            fs::create_dir_all(dir.join("mon_groups")).unwrap();
            fs::write(dir.join("schemata"), schemata).unwrap();
            fs::write(dir.join("tasks"), "").unwrap();
        }

        fn make(&self, config: serde_json::Value) -> Result<Group> {
            self.make_for("c1", config)
        }

        fn make_for(&self, id: &str, config: serde_json::Value) -> Result<Group> {
            let config = serde_json::from_value(config).unwrap();
            let group = Group::plan(&self.0, id, &config)?;
            group.make(&self.0, &config)?;
            Ok(group)
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path)).unwrap()
        }
    }

    impl Drop for Resctrl {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_group_without_a_name_is_the_containers_own() {
        // spec!("config-linux/intel-rdt/own-class", "config-linux/intel-rdt/removed",
        // "config-linux/intel-rdt/no-schema");
        let resctrl = Resctrl::new("own");
        let group = resctrl.make(json!({})).unwrap();
        assert!(resctrl.0.join("c1").is_dir());
        assert!(!resctrl.0.join("c1/schemata").exists(), "written without being asked");
        group.remove().unwrap();
        assert!(!resctrl.0.join("c1").exists());
        // Not made for the container: it stays as it is.
        resctrl.group("c1", "L3:0=f\n");
        let error = resctrl.make(json!({"schemata": ["L3:0=1"]})).unwrap_err();
        assert_eq!(error.errno(), libc::EEXIST, "{error}");
        assert_eq!(resctrl.read("c1/schemata"), "L3:0=f\n");
    }

    #[test]
    fn directories_of_the_kernel_are_no_groups() {
        let resctrl = Resctrl::new("kernels");
        for name in KERNELS {
            let error = resctrl.make(json!({"closID": name})).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is a directory of the kernel's")), "{error}");
            Group::plan(&resctrl.0, name, &LinuxIntelRdt::default()).unwrap_err();
        }
    }

    #[test]
    fn processes_and_limits_are_written() {
        // spec!("config-linux/intel-rdt/tasks", "config-linux/intel-rdt/both-schemas",
        // "config-linux/intel-rdt/one-schema", "config-linux/intel-rdt/schemata");
        let resctrl = Resctrl::new("write");
        let group = resctrl.make(json!({})).unwrap();
        resctrl.group("c1", "");
        let config = serde_json::from_value(json!({"memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f"})).unwrap();
        group.set(&resctrl.0, &lines(&config)).unwrap();
        group.add(77).unwrap();
        assert_eq!(resctrl.read("c1/tasks"), "77\n");
        // A file that is no file of the kernel's keeps what was written last: memBwSchema comes after l3CacheSchema.
        assert_eq!(resctrl.read("c1/schemata"), "MB:0=20\n");
        let all = json!({"schemata": ["L2:0=f", "MB:0=5"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f"});
        assert_eq!(lines(&serde_json::from_value(all).unwrap()), ["L3:0=f", "MB:0=20", "L2:0=f", "MB:0=5"]);
    }

    #[test]
    fn the_root_group_takes_processes() {
        // spec!("config-linux/intel-rdt/default-class");
        let resctrl = Resctrl::new("root");
        let group = resctrl.make(json!({"closID": "/"})).unwrap();
        group.add(5).unwrap();
        group.remove().unwrap();
        assert_eq!(resctrl.read("tasks"), "5\n");
    }

    #[test]
    fn a_named_group_must_be_there_or_be_described() {
        // spec!("config-linux/intel-rdt/class-alone", "config-linux/intel-rdt/class-compared",
        // "config-linux/intel-rdt/kept");
        let resctrl = Resctrl::new("named");
        let error = resctrl.make(json!({"closID": "gold"})).unwrap_err().to_string();
        assert!(error.starts_with("closID: there is no "), "{error}");
        resctrl.group("gold", "    L3:0=0000f;1=fffff\n    MB:0=   20;1=  100\n");
        resctrl.make(json!({"closID": "gold"})).unwrap().remove().unwrap();
        let fits = json!({"closID": "gold", "l3CacheSchema": "L3:0=f", "schemata": ["MB:1=100;0=20"]});
        resctrl.make(fits).unwrap().remove().unwrap();
        assert_eq!(resctrl.read("gold/schemata").lines().count(), 2, "written to where it was only to be compared");
        for other in ["L3:0=ff", "L3:2=f", "L2:0=f", "nonsense"] {
            resctrl.make(json!({"closID": "gold", "schemata": [other]})).unwrap_err();
        }
        assert!(resctrl.0.join("gold").is_dir(), "a named group is not the container's to remove");
    }

    #[test]
    fn a_monitoring_group_is_made_and_removed() {
        // spec!("config-linux/intel-rdt/monitoring", "config-linux/intel-rdt/monitoring-removed",
        // "config-linux/intel-rdt/monitoring-fails");
        let resctrl = Resctrl::new("monitor");
        resctrl.group("gold", "");
        let group = resctrl.make(json!({"closID": "gold", "enableMonitoring": true})).unwrap();
        fs::write(resctrl.0.join("gold/mon_groups/c1/tasks"), "").unwrap();
        group.add(9).unwrap();
        assert_eq!(resctrl.read("gold/mon_groups/c1/tasks"), "9\n");
        fs::remove_file(resctrl.0.join("gold/mon_groups/c1/tasks")).unwrap();
        group.remove().unwrap();
        assert!(!resctrl.0.join("gold/mon_groups/c1").exists());
        // No room for one more.
        fs::remove_dir(resctrl.0.join("gold/mon_groups")).unwrap();
        fs::write(resctrl.0.join("info/last_cmd_status"), "out of RMIDs\n").unwrap();
        let error = resctrl.make(json!({"closID": "gold", "enableMonitoring": true})).unwrap_err().to_string();
        assert!(error.contains("enableMonitoring: cannot make") && error.contains("out of RMIDs"), "{error}");
    }

    #[test]
    fn a_failure_leaves_no_group() {
        // spec!("config-linux/intel-rdt/class-made");
        let resctrl = Resctrl::new("failure");
        // The directory that is made here has no schemata file, as that of a kernel would.
        let error = resctrl.make(json!({"closID": "gold", "schemata": ["L3:0=f"]})).unwrap_err().to_string();
        assert!(error.contains("gold/schemata: no such file"), "{error}");
        resctrl.make(json!({"schemata": ["L3:0=f"]})).unwrap_err();
        assert!(!resctrl.0.join("gold").exists() && !resctrl.0.join("c1").exists());
    }

    #[test]
    fn the_mount_is_found() {
        assert_eq!(
            find("proc /proc proc rw 0 0\nresctrl /sys/fs/resctrl resctrl rw 0 0\n"),
            Some("/sys/fs/resctrl".into())
        );
        assert_eq!(find("resctrl /resctrl tmpfs rw 0 0\n"), None);
    }
}
