//! systemd as the init of a container: cgroups that are the container's own to divide, right under the runtime and (in
//! `engines`) under podman. The root filesystem is the machine's own, with a layer of the test's above it.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::harness::{Cmd, Container, Need, Output, eventually};
use crate::needs;

/// A root filesystem with systemd, whose changes go to memory. Unmounted when this is dropped, which must be before the
/// container's end.
pub struct Machine {
    top: PathBuf,
}

impl Machine {
    /// Below `dir`. `ids` are the mappings of the user namespace that it is for, as mount(8) reads them.
    pub fn new(dir: &Path, ids: Option<&str>) -> Machine {
        let machine = Machine { top: dir.join("machine") };
        let at = |name: &str| machine.top.join(name);
        fs::create_dir(&machine.top).unwrap();
        let none = None::<&str>;
        mount(Some("tmpfs"), &machine.top, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        for name in ["lower", "upper", "work", "root"] {
            fs::create_dir(at(name)).unwrap();
        }
        match ids {
            None => mount(Some("/"), &at("lower"), none, MsFlags::MS_BIND, none).unwrap(),
            Some(ids) => {
                let option = format!("X-mount.idmap={ids}");
                _ = Cmd::new("mount").args(["--bind", "-o", &option, "/"]).arg(at("lower")).run().ok();
            }
        }
        // As a peer of the machine's own it would take along what other tests have mounted meanwhile, when it goes.
        for private in [at(""), at("lower")] {
            mount(none, &private, none, MsFlags::MS_PRIVATE, none).unwrap();
        }
        // Nothing of what this machine starts beside the usual, and no sessions that last.
        for name in ["etc/systemd/system", "var/lib/systemd/linger"] {
            fs::create_dir_all(at("upper").join(name)).unwrap();
            opaque(&at("upper").join(name));
        }
        let units = at("upper/etc/systemd/system");
        symlink("/usr/lib/systemd/system/multi-user.target", units.join("default.target")).unwrap();
        fs::write(units.join("told.service"), "[Service]\nType=oneshot\nExecStart=sh -c 'echo yes >/run/told'\n")
            .unwrap();
        fs::write(at("upper/etc/machine-id"), "").unwrap();
        // The disks of this machine are not to be mounted there.
        fs::write(at("upper/etc/fstab"), "").unwrap();
        let owner = ids.map_or(0, |ids| ids.split(':').nth(2).unwrap().parse().unwrap());
        own(&at("upper"), owner);
        let layers = ["lower", "upper", "work"].map(|name| at(name).display().to_string());
        let data = format!("lowerdir={},upperdir={},workdir={}", layers[0], layers[1], layers[2]);
        mount(Some("overlay"), &at("root"), Some("overlay"), MsFlags::empty(), Some(&*data)).unwrap();
        machine
    }

    pub fn root(&self) -> PathBuf {
        self.top.join("root")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for name in ["root", "lower", ""] {
            let _ = umount2(&self.top.join(name), MntFlags::MNT_DETACH);
        }
    }
}

/// Hides what lower layers have in a directory.
fn opaque(dir: &Path) {
    let (path, name) = (CString::new(dir.to_str().unwrap()).unwrap(), c"trusted.overlay.opaque");
    // SAFETY: texts that live, and a value of one byte.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), c"y".as_ptr().cast(), 1, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn own(path: &Path, uid: u32) {
    lchown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().flatten().for_each(|e| own(&e.path(), uid));
    }
}

/// Waits until systemd has started all, and has it start more; `inside` runs a program in the container.
pub fn uses(inside: &dyn Fn(&[&str]) -> Output) {
    let end = Instant::now() + Duration::from_secs(180);
    loop {
        let out = inside(&["systemctl", "is-system-running"]);
        if ["running", "degraded"].contains(&out.stdout.trim()) {
            break;
        }
        assert!(Instant::now() < end, "systemd does not come up: {out}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let failed = inside(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).ok();
    assert_eq!(failed.stdout, "", "{failed}");
    inside(&["systemctl", "start", "told.service"]).ok();
    inside(&["cat", "/run/told"]).ok().line("yes");
    // exec lands where init is, as the container's own cgroup has none of its processes any more.
    assert_eq!(inside(&["cat", "/proc/self/cgroup"]).ok().stdout, "0::/init.scope\n");
    let script =
        "cat /proc/self/cgroup; d=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cat $d/memory.max $d/pids.max";
    let limits = ["-p", "MemoryMax=24M", "-p", "TasksMax=20"];
    let unit = ["systemd-run", "--quiet", "--wait", "--pipe", "--unit", "limited.service"];
    let out = inside(&[&unit[..], &limits, &["sh", "-c", script]].concat()).ok();
    out.line("0::/system.slice/limited.service").line("25165824").line("20");
}

/// A bundle with systemd as its program.
fn bundle(scope: bool) -> Container {
    let mut c = Container::with(["sleep"], |config| {
        let tmpfs = |at: &str| json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]});
        config["process"]["args"] = json!(["/sbin/init"]);
        config["process"]["env"].as_array_mut().unwrap().push(json!("container=oci"));
        config["process"]["noNewPrivileges"] = json!(false);
        config["root"]["readonly"] = json!(false);
        let usual = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";
        let usual: Vec<_> = usual.split(' ').map(|name| format!("CAP_{name}")).collect();
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(usual);
        }
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| m["destination"] != "/sys/fs/cgroup");
        mounts.extend(["/run", "/run/lock", "/tmp"].map(tmpfs));
        let options = json!(["nosuid", "noexec", "nodev", "rw"]);
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        config["linux"]["resources"] = json!({"memory": {"limit": 536_870_912}, "pids": {"limit": 200}});
    });
    if scope {
        let path = format!("vesseltest-boot.slice:boot:{}", c.id);
        c.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
        c.global(&["--systemd-cgroup"]);
    }
    c
}

/// In a user namespace whose root is that uid of the host.
fn in_user_namespace(config: &mut Value, root: u32) {
    let linux = &mut config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for which in ["uidMappings", "gidMappings"] {
        linux[which] = json!([{"containerID": 0, "hostID": root, "size": 65536}]);
    }
}

/// From start to the end, with what the container may write of its cgroup.
fn boots(c: &Container, owner: u32) {
    c.started();
    let cgroup = Container::cgroup_of(c.pid(), "");
    // systemd moves itself out of the way.
    let cgroup = if cgroup.ends_with("init.scope") { cgroup.parent().unwrap().to_owned() } else { cgroup };
    let inside = |args: &[&str]| args.iter().fold(c.command("exec", [&c.id]), |cmd, arg| cmd.arg(arg)).run();
    uses(&inside);
    let uid = |name: &str| fs::metadata(cgroup.join(name)).unwrap().uid();
    assert_eq!(uid(""), owner, "{}", cgroup.display());
    let delegated = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    for name in delegated.lines().filter(|name| cgroup.join(name).exists()) {
        assert_eq!(uid(name), owner, "{name}");
    }
    for name in ["memory.max", "pids.max", "cgroup.events"] {
        assert_eq!(uid(name), 0, "{name}");
    }
    assert_eq!(fs::read_to_string(cgroup.join("pids.max")).unwrap(), "200\n");
    // What the container's own limits are is not its own to change.
    if owner != 0 {
        inside(&["sh", "-c", "echo max >/sys/fs/cgroup/pids.max"]).fails("Permission denied");
    }
    c.command("pause", [&c.id]).run().ok();
    c.command("resume", [&c.id]).run().ok();
    inside(&["true"]).ok();
    c.kill("RTMIN+3").ok();
    assert_eq!(c.wait_exit(), 0);
    c.delete().ok();
    eventually("the end of the cgroup", || (!cgroup.exists()).then_some(()));
}

#[test]
fn under_the_runtime() {
    needs!(Need::CgroupV2, Need::Systemd, Need::Filesystem("overlay"));
    let _calm = crate::systemd::calm();
    for scope in [false, true] {
        let mut c = bundle(scope);
        let machine = Machine::new(&c.dir, None);
        c.edit(|config| config["root"]["path"] = json!(machine.root()));
        boots(&c, 0);
    }
}

#[test]
fn under_the_runtime_in_a_user_namespace() {
    needs!(Need::CgroupV2, Need::Systemd, Need::Filesystem("overlay"));
    let _calm = crate::systemd::calm();
    for scope in [false, true] {
        let mut c = bundle(scope);
        let machine = Machine::new(&c.dir, Some("b:0:300000:65536"));
        c.edit(|config| {
            config["root"]["path"] = json!(machine.root());
            in_user_namespace(config, 300_000);
        });
        boots(&c, 300_000);
    }
}
