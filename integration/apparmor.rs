//! AppArmor profiles (config.md, `process.apparmorProfile`; `exec --apparmor`).

use serde_json::{Value, json};

use crate::harness::{Cmd, Container, Need, missing};
use crate::{deviates, needs, skip};

/// A profile that the kernel has while this lives: all is allowed but to write `/forbidden`.
pub struct Profile {
    pub name: String,
    text: String,
}

impl Profile {
    /// The name is the container's with `suffix`.
    #[track_caller]
    pub fn load(c: &Container, suffix: &str) -> Profile {
        let name = format!("{}-{suffix}", c.id);
        let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, dbus, \
                     deny /forbidden w,";
        let rules = rules.replace(", ", ",\n");
        let text = format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{\n{rules}\n}}\n");
        Cmd::new("apparmor_parser").args(["--add", "--skip-cache"]).stdin(text.clone()).run().ok();
        Profile { name, text }
    }

    /// What the kernel shows of a process in the profile.
    pub fn shown(&self) -> String {
        format!("apparmor/current {} (enforce)", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = Cmd::new("apparmor_parser").arg("--remove").stdin(self.text.clone()).run();
    }
}

pub const LOADER: Need = Need::Program("apparmor_parser");
const LOOK: [&str; 6] = ["label", "--", "try-write", "/forbidden", "x", "--"];

fn set(profile: &str) -> impl FnOnce(&mut Value) {
    let profile = json!(profile);
    move |config| {
        config["process"]["apparmorProfile"] = profile;
        config["root"]["readonly"] = json!(false);
    }
}

#[test]
fn the_program_runs_in_the_profile_that_is_asked_for() {
    needs!(Need::AppArmor, LOADER);
    let mut c = Container::new(LOOK.into_iter().chain(["try-write", "/free", "x"]));
    let profile = Profile::load(&c, "own");
    c.edit(set(&profile.name));
    let out = c.run().ok().line(&profile.shown());
    assert_eq!(out.values("write"), ["EACCES", "ok 0"], "{out}");
}

#[test]
fn an_exec_runs_in_the_containers_profile_or_its_own() {
    needs!(Need::AppArmor, LOADER);
    let mut c = Container::new(["label", "--", "sleep"]);
    let (first, second) = (Profile::load(&c, "first"), Profile::load(&c, "second"));
    c.edit(set(&first.name));
    c.started();
    assert!(c.wait_for("apparmor/current").contains(&first.shown()));
    c.exec(["label"]).ok().line(&first.shown());
    let look = ["label", "--", "try-write", "/forbidden", "x"];
    c.exec_cmd(&["--apparmor", &second.name], look).run().ok().line(&second.shown()).line("write EACCES");
    c.finish();
}

#[test]
fn an_exec_enters_a_profile_where_the_container_has_none() {
    needs!(Need::AppArmor, LOADER);
    let c = Container::new(["sleep"]);
    let profile = Profile::load(&c, "exec");
    c.started();
    c.exec(["label"]).ok().line("apparmor/current unconfined");
    c.exec_cmd(&["--apparmor", &profile.name], ["label"]).run().ok().line(&profile.shown());
    c.finish();
}

#[test]
fn a_profile_that_is_not_loaded_is_told_by_its_name() {
    deviates!("runc", "does not name it");
    deviates!("crun", "has other words");
    needs!(Need::AppArmor);
    let c = Container::with(["label"], set("vessel-no-such-profile"));
    c.run().fails("vessel-no-such-profile");
    c.nothing_left();
    let c = Container::with(["label", "--", "sleep"], set("unconfined"));
    c.started();
    c.wait_for("apparmor/current unconfined");
    c.exec_cmd(&["--apparmor", "vessel-no-such-profile"], ["label"]).run().fails("vessel-no-such-profile");
    c.finish();
}

#[test]
fn a_profile_needs_apparmor() {
    if missing(&[Need::AppArmor]).is_none() {
        skip!("AppArmor is on");
    }
    let c = Container::with(["label"], set("docker-default"));
    let out = c.run();
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.to_lowercase().contains("apparmor"), "{out}");
    c.nothing_left();
    let c = Container::new(["sleep"]);
    c.started();
    let out = c.exec_cmd(&["--apparmor", "docker-default"], ["label"]).run();
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.to_lowercase().contains("apparmor"), "{out}");
    c.finish();
}
