//! The options of mounts (config.md, "Linux mount options"), one by one.

use std::fs;

use serde_json::{Value, json};

use super::refused;
use crate::binds::on_a_shared_volume;
use crate::harness::{Container, Need, Output};
use crate::mounts::{add, bind, in_a_user_namespace, mount_at, shows, tmpfs};
use crate::{deviates, needs, skip, spec};

/// A test for each option: what it is called with, what the mount then has, and what it has not.
macro_rules! options {
    ($check:ident; $(fn $name:ident { spec!($id:literal) $options:literal => [$($has:literal),*] })+) => {
        $(
            #[test]
            fn $name() {
                spec!($id);
                $check($options, $($has),*);
            }
        )+
    };
}

#[track_caller]
fn check(out: &Output, paths: &[&str], with: &str, without: &str) {
    for path in paths {
        let mount = mount_at(out, path);
        with.split_whitespace().for_each(|o| assert!(mount.has(o), "{path}: no {o}: {mount:?}"));
        without
            .split_whitespace()
            .for_each(|o| assert!(!mount.options.iter().any(|m| m == o), "{path}: {o}: {mount:?}"));
    }
}

/// On a new file system.
#[track_caller]
fn new(options: &str, with: &str, without: &str) {
    if options.contains(' ') {
        deviates!("crun", "it does not undo the option before it, or does not know it");
    }
    let words: Vec<&str> = options.split(' ').collect();
    check(&shows(tmpfs(&words)).run().ok(), &["/mnt"], with, without);
}

/// On a bind mount with another below.
#[track_caller]
fn recursive(options: &str, with: &str, without: &str) {
    if options.contains(' ') {
        deviates!("crun", "it does not undo the option before it, or does not know it");
    }
    let words: Vec<&str> = std::iter::once("rbind").chain(options.split(' ')).collect();
    check(&shows(bind("/dev", &words)).run().ok(), &["/mnt", "/mnt/pts"], with, without);
}

/// On a bind mount of a shared mount.
#[track_caller]
fn propagation(option: &str, want: &str) {
    deviates!("crun", "the mount is private");
    needs!(Need::Program("unshare"));
    let mut c = Container::with(["mountinfo"], |config| config["root"]["readonly"] = json!(false));
    let source = c.path("volume");
    c.edit(|config| add(config, bind(source, &["rbind", option])));
    let mount = mount_at(&on_a_shared_volume(&c, "run").ok(), "/mnt");
    let found = &mount.propagation;
    assert!(found.starts_with(want) && (found.is_empty() == want.is_empty()), "{option}: {mount:?}");
}

options! { new;
    fn option_async { spec!("config/mounts/option/async") "sync async" => ["", "sync"] }
    fn option_atime { spec!("config/mounts/option/atime") "noatime atime" => ["relatime", "noatime"] }
    fn option_defaults { spec!("config/mounts/option/defaults") "defaults" => ["rw relatime", "nosuid noexec"] }
    fn option_dev { spec!("config/mounts/option/dev") "nodev dev" => ["", "nodev"] }
    fn option_diratime { spec!("config/mounts/option/diratime") "nodiratime diratime" => ["", "nodiratime"] }
    fn option_dirsync { spec!("config/mounts/option/dirsync") "dirsync" => ["dirsync", ""] }
    fn option_exec { spec!("config/mounts/option/exec") "noexec exec" => ["", "noexec"] }
    fn option_iversion { spec!("config/mounts/option/iversion") "iversion" => ["rw", ""] }
    fn option_lazytime { spec!("config/mounts/option/lazytime") "lazytime" => ["lazytime", ""] }
    fn option_loud { spec!("config/mounts/option/loud") "silent loud" => ["rw", ""] }
    fn option_noatime { spec!("config/mounts/option/noatime") "noatime" => ["noatime", "relatime"] }
    fn option_nodev { spec!("config/mounts/option/nodev") "nodev" => ["nodev", ""] }
    fn option_nodiratime { spec!("config/mounts/option/nodiratime") "nodiratime" => ["nodiratime", ""] }
    fn option_noexec { spec!("config/mounts/option/noexec") "noexec" => ["noexec", ""] }
    fn option_noiversion { spec!("config/mounts/option/noiversion") "iversion noiversion" => ["rw", ""] }
    fn option_nolazytime { spec!("config/mounts/option/nolazytime") "lazytime nolazytime" => ["rw", "lazytime"] }
    fn option_norelatime { spec!("config/mounts/option/norelatime") "norelatime" => ["rw", "noatime"] }
    fn option_nostrictatime { spec!("config/mounts/option/nostrictatime") "strictatime nostrictatime" => ["relatime", ""] }
    fn option_nosuid { spec!("config/mounts/option/nosuid") "nosuid" => ["nosuid", ""] }
    fn option_nosymfollow { spec!("config/mounts/option/nosymfollow") "nosymfollow" => ["nosymfollow", ""] }
    fn option_relatime { spec!("config/mounts/option/relatime") "relatime" => ["relatime", "noatime"] }
    fn option_ro { spec!("config/mounts/option/ro") "ro" => ["ro", "rw"] }
    fn option_rw { spec!("config/mounts/option/rw") "ro rw" => ["rw", "ro"] }
    fn option_silent { spec!("config/mounts/option/silent") "silent" => ["rw", ""] }
    fn option_strictatime { spec!("config/mounts/option/strictatime") "strictatime" => ["", "relatime noatime"] }
    fn option_suid { spec!("config/mounts/option/suid") "nosuid suid" => ["", "nosuid"] }
    fn option_symfollow { spec!("config/mounts/option/symfollow") "nosymfollow symfollow" => ["", "nosymfollow"] }
    fn option_sync { spec!("config/mounts/option/sync") "sync" => ["sync", ""] }
}

options! { recursive;
    fn option_ratime { spec!("config/mounts/option/ratime") "rnoatime ratime" => ["", "noatime"] }
    fn option_rdev { spec!("config/mounts/option/rdev") "rnodev rdev" => ["", "nodev"] }
    fn option_rdiratime { spec!("config/mounts/option/rdiratime") "rnodiratime rdiratime" => ["", "nodiratime"] }
    fn option_rexec { spec!("config/mounts/option/rexec") "rnoexec rexec" => ["", "noexec"] }
    fn option_rnoatime { spec!("config/mounts/option/rnoatime") "rnoatime" => ["noatime", "relatime"] }
    fn option_rnodiratime { spec!("config/mounts/option/rnodiratime") "rnodiratime" => ["nodiratime", ""] }
    fn option_rnoexec { spec!("config/mounts/option/rnoexec") "rnoexec" => ["noexec", ""] }
    fn option_rnorelatime { spec!("config/mounts/option/rnorelatime") "rstrictatime rnorelatime" => ["", "noatime"] }
    fn option_rnostrictatime { spec!("config/mounts/option/rnostrictatime") "rstrictatime rnostrictatime" => ["relatime", ""] }
    fn option_rnosuid { spec!("config/mounts/option/rnosuid") "rnosuid" => ["nosuid", ""] }
    fn option_rnosymfollow { spec!("config/mounts/option/rnosymfollow") "rnosymfollow" => ["nosymfollow", ""] }
    fn option_rrelatime { spec!("config/mounts/option/rrelatime") "rrelatime" => ["relatime", "noatime"] }
    fn option_rro { spec!("config/mounts/option/rro") "rro" => ["ro", "rw"] }
    fn option_rrw { spec!("config/mounts/option/rrw") "rro rrw" => ["rw", "ro"] }
    fn option_rstrictatime { spec!("config/mounts/option/rstrictatime") "rstrictatime" => ["", "relatime noatime"] }
    fn option_rsuid { spec!("config/mounts/option/rsuid") "rnosuid rsuid" => ["", "nosuid"] }
    fn option_rsymfollow { spec!("config/mounts/option/rsymfollow") "rnosymfollow rsymfollow" => ["", "nosymfollow"] }
}

options! { propagation;
    fn option_private { spec!("config/mounts/option/private") "private" => [""] }
    fn option_rprivate { spec!("config/mounts/option/rprivate") "rprivate" => [""] }
    fn option_shared { spec!("config/mounts/option/shared") "shared" => ["shared:"] }
    fn option_rshared { spec!("config/mounts/option/rshared") "rshared" => ["shared:"] }
    fn option_slave { spec!("config/mounts/option/slave") "slave" => ["master:"] }
    fn option_rslave { spec!("config/mounts/option/rslave") "rslave" => ["master:"] }
    fn option_unbindable { spec!("config/mounts/option/unbindable") "unbindable" => ["unbindable"] }
    fn option_runbindable { spec!("config/mounts/option/runbindable") "runbindable" => ["unbindable"] }
}

#[test]
fn option_bind() {
    spec!("config/mounts/option/bind");
    let out = shows(bind("/dev", &["bind"])).run().ok();
    mount_at(&out, "/mnt");
    assert!(!out.stdout.lines().any(|l| l.split(' ').nth(4) == Some("/mnt/pts")), "{out}");
}

#[test]
fn option_rbind() {
    spec!("config/mounts/option/rbind");
    let out = shows(bind("/dev", &["rbind"])).run().ok();
    mount_at(&out, "/mnt/pts");
}

#[test]
fn option_remount() {
    spec!("config/mounts/option/remount");
    let mut c = shows(tmpfs(&["nosuid", "size=64k"]));
    c.edit(|config| add(config, json!({"destination": "/mnt", "options": ["bind", "remount", "ro", "nodev"]})));
    let out = c.run().ok();
    check(&out, &["/mnt"], "ro nodev", "rw");
    assert_eq!(out.stdout.lines().filter(|l| l.split(' ').nth(4) == Some("/mnt")).count(), 1, "{out}");
}

fn mappings(host: u32) -> Value {
    json!([{"containerID": 0, "hostID": host, "size": 10}])
}

/// Whether the kernel cannot map the ids of the file system.
fn unmappable(out: &Output) -> bool {
    out.code != 0 && out.stderr.to_lowercase().contains("invalid argument")
}

/// The owners that a container sees of a file that belongs to 7, in a mount with this option and these mappings.
fn owner_through(option: &str, uids: Option<u32>, below: bool) -> Output {
    let file = if below { "/mnt/sub/seven" } else { "/mnt/seven" };
    let mut c = Container::new(["stat", file]);
    let source = c.path("volume");
    c.edit(|config| {
        config["root"]["readonly"] = json!(false);
        let mut mount = bind(source, &["rbind", option]);
        match uids {
            Some(first) => {
                mount["uidMappings"] = mappings(first);
                mount["gidMappings"] = mappings(first + 1000);
            }
            None => in_a_user_namespace(config),
        }
        add(config, mount);
    });
    fs::create_dir(c.rootfs().join("mnt")).unwrap();
    let make = "mount -t tmpfs tmpfs $V/sub; for d in $V $V/sub; do echo >$d/seven; chown 7:7 $d/seven; done; run";
    on_a_shared_volume(&c, make)
}

#[test]
fn option_idmap() {
    spec!(
        "config/mounts/option/idmap",
        "config/mounts/idmap-mappings",
        "config/mounts/idmap-not-data",
        "config/mounts/uid-mappings",
        "config/mounts/gid-mappings"
    );
    needs!(Need::Program("unshare"));
    deviates!("runc" before 1.2, "maps no mounts");
    let out = owner_through("idmap", Some(3000), false);
    if unmappable(&out) {
        skip!("the kernel cannot map the ids of a tmpfs");
    }
    assert!(out.clone().ok().stdout.contains("uid=3007 gid=4007"), "{out}");
    // And those below are not.
    let out = owner_through("idmap", Some(3000), true).ok();
    assert!(out.stdout.contains("uid=7 gid=7"), "{out}");
}

#[test]
fn option_ridmap() {
    spec!("config/mounts/option/ridmap", "config/mounts/ridmap-mappings", "config/mounts/ridmap-not-data");
    needs!(Need::Program("unshare"));
    deviates!("runc" before 1.2, "maps no mounts");
    for below in [false, true] {
        let out = owner_through("ridmap", Some(3000), below);
        if unmappable(&out) {
            skip!("the kernel cannot map the ids of a tmpfs");
        }
        assert!(out.clone().ok().stdout.contains("uid=3007 gid=4007"), "{out}");
    }
}

#[test]
fn idmap_needs_mappings() {
    spec!("config/mounts/idmap-without-mappings");
    refused(&shows(bind("/etc", &["bind", "idmap"])).run());
}

#[test]
fn ridmap_needs_mappings() {
    spec!("config/mounts/ridmap-without-mappings");
    refused(&shows(bind("/etc", &["rbind", "ridmap"])).run());
}

#[track_caller]
fn needs_both(name: &str) {
    let mut mount = bind("/etc", &["bind", "idmap"]);
    mount[name] = mappings(3000);
    refused(&shows(mount).run());
}

#[test]
fn uids_of_a_mount_come_with_gids() {
    spec!("config/mounts/uid-mappings-alone");
    needs_both("uidMappings");
}

#[test]
fn gids_of_a_mount_come_with_uids() {
    spec!("config/mounts/gid-mappings-alone");
    needs_both("gidMappings");
}

/// mand and nomand are those of mount(8) that are in no list of the specification.
#[test]
fn other_options_are_as_in_mount() {
    spec!("config/mounts/like-mount");
    new("mand nomand nosuid", "nosuid", "");
}

#[test]
fn unknown_options_are_the_file_systems() {
    spec!("config/mounts/unknown-is-data");
    new("size=4096k mode=700", "size=4096k mode=700", "");
    let out = shows(tmpfs(&["no-such-option"])).run();
    refused(&out);
}

#[test]
fn mounts_are_made_in_their_order() {
    spec!("config/mounts/order");
    let mut c = shows(tmpfs(&["size=4096k"]));
    c.edit(|config| {
        let below = |path: &str| json!({"destination": path, "type": "tmpfs", "source": "tmpfs"});
        add(config, below("/mnt/a"));
        add(config, below("/mnt/a/b"));
        // And this one hides them.
        add(config, json!({"destination": "/mnt/a", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}));
    });
    let out = c.run().ok();
    let places: Vec<&str> = out.stdout.lines().filter_map(|l| l.split(' ').nth(4)).collect();
    let places: Vec<&str> = places.into_iter().filter(|p| p.starts_with("/mnt")).collect();
    assert_eq!(places, ["/mnt", "/mnt/a", "/mnt/a/b", "/mnt/a"]);
    assert!(mount_at(&out, "/mnt/a").has("size=64k"), "{out}");
}

#[test]
fn a_relative_destination_is_below_the_root() {
    spec!("config/mounts/relative");
    let mut c = shows(tmpfs(&[]));
    c.edit(|config| add(config, json!({"destination": "rel/ative", "type": "tmpfs", "source": "tmpfs"})));
    mount_at(&c.run().ok(), "/rel/ative");
}
