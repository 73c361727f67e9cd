//! The holes that runtimes had in setting up a root filesystem that is hostile: each must stay closed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deviates;
use crate::harness::Container;
use crate::mounts::{add, mount_at};

/// A directory of the host that no container may touch.
struct Canary {
    path: PathBuf,
    before: Vec<String>,
}

impl Canary {
    fn new(c: &Container) -> Canary {
        let path = c.path("canary");
        fs::create_dir_all(path.join("dir")).unwrap();
        fs::write(path.join("ptmx"), "keep").unwrap();
        fs::write(path.join("dir/file"), "keep").unwrap();
        let before = listing(&path);
        Canary { path, before }
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(listing(&self.path), self.before);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path.to_str().unwrap()), "mounted on the host: {mounts}");
    }
}

/// All that is below a directory: names, inodes, modes, sizes, times of change.
fn listing(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        all.push(format!("{} {} {:o} {} {}", path.display(), meta.ino(), meta.mode(), meta.len(), meta.mtime_nsec()));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    all.sort();
    all
}

fn remove_mount(config: &mut Value, destination: &str) {
    config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with(destination));
}

/// CVE-2019-16884: a volume on /proc leads the writing of labels astray.
#[test]
fn only_a_procfs_may_lie_on_proc() {
    deviates!("runc" before 1.4, "has other words");
    deviates!("crun", "has other words");
    let container = |mount: Value, keep: bool| {
        Container::with(["mountinfo"], |config| {
            config["root"]["readonly"] = json!(false);
            if !keep {
                remove_mount(config, "/proc");
                config["linux"]["maskedPaths"] = json!([]);
                config["linux"]["readonlyPaths"] = json!([]);
            }
            add(config, mount);
        })
    };
    for keep in [true, false] {
        let tmpfs = |at: &str| json!({"destination": at, "type": "tmpfs", "source": "tmpfs"});
        container(tmpfs("/proc"), keep).run().exits(1).fails("cannot be mounted because it is not of type proc");
        container(tmpfs("/proc/../proc/sys/"), keep)
            .run()
            .exits(1)
            .fails("cannot be mounted because it is inside /proc");
        let bound = |at: &str| json!({"destination": at, "source": "/etc", "options": ["bind"]});
        container(bound("/proc"), keep).run().exits(1).fails("cannot be mounted because it is not of type proc");
        let c = container(tmpfs("/way"), keep);
        symlink("proc", c.rootfs().join("way")).unwrap();
        c.run().exits(1).fails("cannot be mounted because it is not of type proc");
    }
}

/// What lxcfs emulates may lie below /proc.
#[test]
fn files_of_lxcfs_may_lie_below_proc() {
    let mut c = Container::new(["cat", "/proc/uptime", "--", "cat", "/proc/meminfo"]);
    fs::write(c.path("emulated"), "emulated\n").unwrap();
    let source = c.path("emulated");
    c.edit(|config| {
        for name in ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg"] {
            add(config, json!({"destination": format!("/proc/{name}"), "source": source, "options": ["bind"]}));
        }
    });
    assert_eq!(c.run().ok().stdout, "emulated\nemulated\n");
}

/// A procfs bound on /proc is one too.
#[test]
fn a_bound_procfs_may_lie_on_proc() {
    let c = Container::with(["mountinfo"], |config| {
        config["mounts"][0] = json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]});
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
    });
    assert_eq!(mount_at(&c.run().ok(), "/proc").kind, "proc");
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: the image's /proc or /sys is a link.
#[test]
fn proc_and_sysfs_are_mounted_on_ordinary_directories_only() {
    deviates!("crun", "has other words");
    for name in ["proc", "sys"] {
        for link in [true, false] {
            let mut c = Container::new(["echo", "here"]);
            let canary = Canary::new(&c);
            fs::remove_dir(c.rootfs().join(name)).unwrap();
            fs::create_dir(c.rootfs().join("inside")).unwrap();
            if link {
                symlink("/inside", c.rootfs().join(name)).unwrap();
            } else {
                fs::write(c.rootfs().join(name), "").unwrap();
            }
            c.edit(|config| config["root"]["readonly"] = json!(false));
            c.run().exits(1).fails("must be mounted on ordinary directory");
            c.nothing_left();
            canary.untouched();
        }
    }
}

/// Links above the last part of the path are followed within the root.
#[test]
fn the_place_of_a_procfs_may_be_reached_through_links() {
    deviates!("runc" before 1.2, "looks for them on the host");
    for (target, place, made) in
        [("inside", "/inside/proc", true), ("/inside", "/inside/proc", false), ("/inside/new/..", "/inside/proc", true)]
    {
        let mut c = Container::new(["mountinfo"]);
        let canary = Canary::new(&c);
        fs::create_dir_all(c.rootfs().join("inside/new")).unwrap();
        if made {
            fs::create_dir(c.rootfs().join("inside/proc")).unwrap();
        }
        symlink(target, c.rootfs().join("way")).unwrap();
        c.edit(|config| {
            config["root"]["readonly"] = json!(false);
            add(config, json!({"destination": "/way/proc/", "type": "proc", "source": "proc"}));
        });
        assert_eq!(mount_at(&c.run().ok(), place).kind, "proc", "{target}");
        canary.untouched();
    }
}

/// Neither what is below /proc nor the root can be hidden through a link.
#[test]
fn links_above_lead_no_sysfs_into_proc() {
    deviates!("crun", "mounts it");
    deviates!("runc" before 1.2, "looks for links on the host");
    for (target, destination, words) in
        [("proc", "/way/sys", "is inside /proc"), ("/", "/way/proc", "is not of type proc")]
    {
        let mut c = Container::new(["echo", "here"]);
        symlink(target, c.rootfs().join("way")).unwrap();
        c.edit(|config| {
            config["root"]["readonly"] = json!(false);
            add(config, json!({"destination": destination, "type": "sysfs", "source": "sysfs"}));
        });
        c.run().exits(1).fails(words);
        c.nothing_left();
    }
}

/// CVE-2023-25809: an ordinary user's container without a cgroup namespace could write the cgroups of its user.
#[test]
fn no_cgroup_of_the_host_can_be_written() {
    let mut c = Container::rootless(["mountinfo"]);
    c.edit(|config| config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup"));
    let out = c.run().ok();
    for line in out.stdout.lines().filter(|l| l.contains(" - cgroup")) {
        assert!(line.split(' ').nth(5).unwrap().split(',').any(|o| o == "ro"), "{line}");
    }
}

/// Swaps two names of a directory until it is dropped.
struct Swapper {
    end: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn new(one: PathBuf, two: PathBuf) -> Swapper {
        let end = Arc::new(AtomicBool::new(false));
        let seen = end.clone();
        let thread = std::thread::spawn(move || {
            use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
            while !seen.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &two, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        Swapper { end, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Runs a container again and again while somebody who shares its volume swaps a directory for a link out of it.
fn race(mounts: impl Fn(&Path) -> Vec<Value>, target: impl Fn(&Path) -> PathBuf) {
    let mut c = Container::new(["mountinfo"]);
    let canary = Canary::new(&c);
    let volume = c.path("volume");
    fs::create_dir_all(volume.join("dir")).unwrap();
    symlink(target(&canary.path), volume.join("link")).unwrap();
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        add(config, json!({"destination": "/vol", "source": volume, "options": ["rbind", "rw"]}));
        mounts(&volume).into_iter().for_each(|m| add(config, m));
    });
    let swapper = Swapper::new(volume.join("dir"), volume.join("link"));
    let end = Instant::now() + Duration::from_secs(3);
    let mut runs = 0;
    while Instant::now() < end || runs < 5 {
        let out = c.run();
        runs += 1;
        if out.code == 0 {
            // Whatever it lies on, it is in the container.
            assert!(out.stdout.lines().filter_map(|l| l.split(' ').nth(4)).all(|p| p.starts_with('/')), "{out}");
        }
        canary.untouched();
    }
    drop(swapper);
    canary.untouched();
}

/// CVE-2021-30465: the place of a mount is swapped for a link between check and mount.
#[test]
fn a_swapped_place_of_a_mount_does_not_lead_out() {
    race(
        |_| vec![json!({"destination": "/vol/dir/dir", "type": "tmpfs", "source": "tmpfs"})],
        |canary| canary.to_owned(),
    );
}

/// CVE-2024-45310: while the place of a mount is made, a part of its path is swapped for a link.
#[test]
fn a_swapped_place_that_is_made_does_not_lead_out() {
    race(
        |volume| {
            let file = volume.parent().unwrap().join("config.json");
            fs::write(&file, "").unwrap();
            vec![
                json!({"destination": "/vol/dir/new/dir", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/vol/dir/new/file", "source": file, "options": ["bind"]}),
            ]
        },
        |canary| PathBuf::from("../../../../../../..").join(canary.strip_prefix("/").unwrap()),
    );
}

/// CVE-2025-31133: masks are binds of /dev/null, and the image's is a link to something else.
#[test]
fn masks_do_not_depend_on_the_images_null_device() {
    deviates!("runc" before 1.4, "takes the one of the image");
    let mut c = Container::new(["stat", "/proc/keys"]);
    fs::create_dir_all(c.rootfs().join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", c.rootfs().join("dev/null")).unwrap();
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        remove_mount(config, "/dev");
    });
    c.run().exits(1);
    c.nothing_left();
    // Also where the whole /dev is the image's or a volume's, and nothing is made in it.
    let dev = c.path("dev");
    fs::create_dir(&dev).unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap();
    c.edit(|config| add(config, json!({"destination": "/dev", "source": dev, "options": ["bind"]})));
    let out = c.run();
    if out.code == 0 {
        assert!(out.stdout.contains("rdev=1:3"), "{out}");
    }
}

/// CVE-2026-41579, CVE-2026-47766: the image's /dev, or something in it, is a link to the host.
#[test]
fn devices_and_links_are_made_inside() {
    deviates!("runc" before 1.5, "makes links outside");
    deviates!("crun", "makes links outside");
    for (link, keep_mount) in [("dev", false), ("dev", true), ("dev/pts", true), ("dev/shm", true), ("dev/ptmx", false)]
    {
        let mut c = Container::new(["echo", "here"]);
        let canary = Canary::new(&c);
        let at = c.rootfs().join(link);
        let _ = fs::remove_dir_all(&at);
        symlink(&canary.path, &at).unwrap();
        c.edit(|config| {
            config["root"]["readonly"] = json!(false);
            if !keep_mount {
                remove_mount(config, "/dev");
            }
        });
        c.run();
        c.nothing_left();
        canary.untouched();
    }
}

/// A device node whose place the image has made a link.
#[test]
fn a_link_is_no_device() {
    deviates!("runc", "leaves what is there");
    deviates!("crun", "leaves what is there");
    let mut c = Container::new(["echo", "here"]);
    let canary = Canary::new(&c);
    symlink(canary.path.join("new"), c.rootfs().join("dev/zero")).unwrap();
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        remove_mount(config, "/dev");
    });
    c.run().exits(1).fails("/dev/zero");
    canary.untouched();
}

/// CVE-2019-18837: links of the image in the place of a mount are followed inside.
#[test]
fn links_in_a_destination_stay_inside() {
    deviates!("crun", "fails on a link that begins with a slash");
    for dangling in [true, false] {
        let mut c = Container::new(["mountinfo"]);
        let canary = Canary::new(&c);
        symlink(&canary.path, c.rootfs().join("absolute")).unwrap();
        symlink(format!("../../../../../../../..{}", canary.path.display()), c.rootfs().join("relative")).unwrap();
        let inside = c.rootfs().join(canary.path.strip_prefix("/").unwrap());
        if !dangling {
            fs::create_dir_all(inside.join("dir")).unwrap();
        }
        fs::write(c.path("file"), "").unwrap();
        let file = c.path("file");
        c.edit(|config| {
            config["root"]["readonly"] = json!(false);
            add(config, json!({"destination": "/absolute/dir", "type": "tmpfs", "source": "tmpfs"}));
            add(config, json!({"destination": "/relative/other", "type": "tmpfs", "source": "tmpfs"}));
            add(config, json!({"destination": "/relative/file", "source": file, "options": ["bind"]}));
        });
        let out = c.run();
        canary.untouched();
        let out = out.ok();
        for name in ["dir", "other", "file"] {
            mount_at(&out, canary.path.join(name).to_str().unwrap());
        }
        assert!(inside.join("other").is_dir() && inside.join("file").is_file());
    }
}

/// The place of every mount of the example is a link to the host, a dangling one, a circle, a file: the container is
/// right or refused, and the host is as before.
#[test]
fn hostile_places_do_no_harm() {
    deviates!("runc" before 1.5, "makes links outside");
    for place in ["proc", "sys", "dev", "etc", "tmp", "root"] {
        for target in ["CANARY", "/nowhere/at/all", "SELF", "/", "..", "/proc/1/root", "/proc/self/fd/3", "FILE"] {
            let mut c = Container::new(["echo", "here"]);
            let canary = Canary::new(&c);
            let at = c.rootfs().join(place);
            fs::remove_dir_all(&at).unwrap();
            match target {
                "CANARY" => symlink(&canary.path, &at).unwrap(),
                "SELF" => symlink(place, &at).unwrap(),
                "FILE" => fs::write(&at, "").unwrap(),
                other => symlink(other, &at).unwrap(),
            }
            c.edit(|config| {
                config["root"]["readonly"] = json!(false);
                for at in ["/etc/hosts", "/tmp/deep/er", "/root/x"] {
                    add(config, json!({"destination": at, "source": "/etc/passwd", "options": ["bind", "ro"]}));
                }
            });
            c.run();
            c.nothing_left();
            canary.untouched();
        }
    }
}
