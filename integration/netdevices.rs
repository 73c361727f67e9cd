//! Network devices that move into the container (config-linux.md, "Network Devices").

use serde_json::{Value, json};

use crate::harness::{Cmd, Container, Need, Output, suite};
use crate::{deviates, needs};

/// Runs a container in a network namespace of its own with a pair of devices, `v0` and `v1`; then `after`.
pub fn run(c: &Container, before: &str, after: &str) -> Output {
    let script = format!(
        "set -e; ip link add v0 type veth peer name v1; {before}\n{runtime} --root {root} run --bundle {bundle} {id}{after}",
        runtime = suite().runtime.display(),
        root = c.root().display(),
        bundle = c.bundle().display(),
        id = c.id,
    );
    Cmd::new("unshare").args(["-n", "sh", "-c", &script]).env("VESSEL_TEST", c.dir.as_os_str()).run()
}

fn with_devices(devices: Value) -> Container {
    Container::with(["interfaces"], |config| config["linux"]["netDevices"] = devices)
}

fn needs_devices() -> Option<&'static str> {
    let made = Cmd::new("unshare").args(["-n", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]).run();
    (made.code != 0).then_some("no veth devices")
}

#[test]
fn a_device_moves_with_what_it_has() {
    deviates!("runc" before 1.4, "moves none");
    deviates!("crun" before 1.24, "moves none");
    needs!(Need::Program("unshare"), Need::Program("ip"), Need::Busybox);
    if let Some(reason) = needs_devices() {
        crate::skip!("{reason}");
    }
    let mut c = with_devices(json!({"v0": {"name": "inside"}, "v1": {}}));
    c.busybox();
    c.edit(|config| config["process"]["args"] = json!(["/bin/busybox", "ip", "addr"]));
    let before = "ip link set v0 mtu 1789 address 02:00:00:00:00:07; ip addr add 192.0.2.7/24 dev v0; \
        ip addr add 127.0.0.33/32 scope host dev v0; ip link set v0 up";
    let out = run(&c, before, "").ok();
    for word in [" inside@", "mtu 1789", "02:00:00:00:00:07", "192.0.2.7/24", " v1@", ",UP,"] {
        assert!(out.stdout.contains(word), "{word}: {out}");
    }
    assert!(!out.stdout.contains("127.0.0.33") && !out.stdout.contains(" v0@"), "{out}");
}

#[test]
fn a_new_name_may_leave_the_number_to_the_kernel() {
    deviates!("crun" before 1.24, "moves none");
    needs!(Need::Program("unshare"), Need::Program("ip"));
    deviates!("runc", "looks for the name as it is written");
    if let Some(reason) = needs_devices() {
        crate::skip!("{reason}");
    }
    let c = with_devices(json!({"v0": {"name": "net%d"}, "v1": {"name": "net%d"}}));
    let out = run(&c, "", "").ok().line("net0").line("net1");
    assert!(!out.stdout.contains('v'), "{out}");
}

#[test]
fn a_device_that_cannot_move_is_an_error_and_stays() {
    deviates!("runc" before 1.4, "moves none");
    deviates!("crun" before 1.24, "moves none");
    needs!(Need::Program("unshare"), Need::Program("ip"));
    if let Some(reason) = needs_devices() {
        crate::skip!("{reason}");
    }
    for (devices, words) in [
        (json!({"missing": {}}), "there is no such device"),
        (json!({"v0": {"name": "lo"}}), "the container has a device lo already"),
    ] {
        if words.ends_with("already") {
            deviates!("runc", "loses it");
        }
        let c = with_devices(devices);
        let out = run(&c, "", " || { ip link show v0; exit 1; }").exits(1);
        assert!(out.stdout.contains("v0@v1"), "{out}");
        if crate::harness::runtime_kind() == "vessel" {
            out.fails("linux.netDevices").fails(words);
        }
        c.nothing_left();
    }
}
