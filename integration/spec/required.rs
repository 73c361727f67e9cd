//! What is REQUIRED in config.json: complete it is taken, and without that part it is not.

use serde_json::{Value, json};

use super::{container, refused, take};
use crate::harness::{ConsoleSocket, Container, runtime_kind};
use crate::{skip, spec};

/// A test for each: the parts that a configuration gets, and the one that it must have.
macro_rules! required {
    ($check:ident; $(fn $name:ident { spec!($id:literal) $pointer:literal in $parts:expr })+) => {
        $(
            #[test]
            fn $name() {
                spec!($id);
                $check(&$parts, $pointer);
            }
        )+
    };
}

/// With these parts the container runs, and without one it is refused.
#[track_caller]
fn runs_only_with(parts: &[(&str, Value)], pointer: &str) {
    let mut c = container(&["exit", "0"], parts);
    c.run().ok();
    c.edit(|config| take(config, pointer));
    refused(&c.run());
}

/// The same of what not every machine can do: the configuration alone is looked at.
#[track_caller]
fn is_right_only_with(parts: &[(&str, Value)], pointer: &str) {
    if runtime_kind() != "vessel" {
        skip!("no way to check a configuration alone");
    }
    let mut c = container(&["exit", "0"], parts);
    let check = |c: &Container| c.command("check", ["--bundle"]).arg(c.bundle()).run();
    check(&c).ok();
    c.edit(|config| take(config, pointer));
    refused(&check(&c));
}

fn limit() -> Value {
    json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}])
}

fn mapped() -> [(&'static str, Value); 3] {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    [
        ("/linux/namespaces/-", json!({"type": "user"})),
        ("/linux/uidMappings", maps.clone()),
        ("/linux/gidMappings", maps),
    ]
}

fn device() -> [(&'static str, Value); 1] {
    [("/linux/devices", json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5}]))]
}

fn seccomp() -> [(&'static str, Value); 1] {
    let condition = json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"});
    let rule = json!({"names": ["dup3"], "action": "SCMP_ACT_ERRNO", "args": [condition]});
    [("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))]
}

fn throttled(name: &'static str) -> [(&'static str, Value); 1] {
    [("/linux/resources/blockIO", json!({name: [{"major": 7, "minor": 0, "rate": 1000}]}))]
}

required! { runs_only_with;
    fn oci_version { spec!("config/oci-version") "/ociVersion" in [] }
    fn root { spec!("config/root") "/root" in [] }
    fn root_path { spec!("config/root/path") "/root/path" in [] }
    fn mount_destination { spec!("config/mounts/destination") "/mounts/0/destination" in [] }
    fn cwd { spec!("config/process/cwd") "/process/cwd" in [] }
    fn uid { spec!("config/process/user/uid") "/process/user/uid" in [] }
    fn limit_type { spec!("config/process/rlimits/type") "/process/rlimits/0/type" in [("/process/rlimits", limit())] }
    fn limit_soft { spec!("config/process/rlimits/soft") "/process/rlimits/0/soft" in [("/process/rlimits", limit())] }
    fn limit_hard { spec!("config/process/rlimits/hard") "/process/rlimits/0/hard" in [("/process/rlimits", limit())] }
    fn policy { spec!("config/process/scheduler/policy") "/process/scheduler/policy"
        in [("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 1}))] }
    fn io_class { spec!("config/process/io-priority/class") "/process/ioPriority/class"
        in [("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 4}))] }
    fn namespace_type { spec!("config-linux/namespaces/type") "/linux/namespaces/0/type" in [] }
    fn container_id { spec!("config-linux/mappings/container-id") "/linux/uidMappings/0/containerID" in mapped() }
    fn host_id { spec!("config-linux/mappings/host-id") "/linux/uidMappings/0/hostID" in mapped() }
    fn size { spec!("config-linux/mappings/size") "/linux/uidMappings/0/size" in mapped() }
    fn device_type { spec!("config-linux/devices/type") "/linux/devices/0/type" in device() }
    fn device_path { spec!("config-linux/devices/path") "/linux/devices/0/path" in device() }
    fn device_major { spec!("config-linux/devices/numbers") "/linux/devices/0/major" in device() }
    fn device_minor { spec!("config-linux/devices/numbers") "/linux/devices/0/minor" in device() }
    fn allow { spec!("config-linux/device-rules/allow") "/linux/resources/devices/0/allow" in [] }
    fn default_action { spec!("config-linux/seccomp/default-action") "/linux/seccomp/defaultAction" in seccomp() }
    fn names { spec!("config-linux/seccomp/names") "/linux/seccomp/syscalls/0/names" in seccomp() }
    fn action { spec!("config-linux/seccomp/action") "/linux/seccomp/syscalls/0/action" in seccomp() }
    fn index { spec!("config-linux/seccomp/index") "/linux/seccomp/syscalls/0/args/0/index" in seccomp() }
    fn value { spec!("config-linux/seccomp/value") "/linux/seccomp/syscalls/0/args/0/value" in seccomp() }
    fn operator { spec!("config-linux/seccomp/operator") "/linux/seccomp/syscalls/0/args/0/op" in seccomp() }
    fn domain { spec!("config-linux/personality/domain") "/linux/personality/domain"
        in [("/linux/personality", json!({"domain": "LINUX", "flags": []}))] }
}

required! { is_right_only_with;
    fn mode { spec!("config-linux/memory-policy/mode") "/linux/memoryPolicy/mode"
        in [("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"}))] }
    fn weight_major { spec!("config-linux/block-io/weight-device-numbers") "/linux/resources/blockIO/weightDevice/0/major"
        in [("/linux/resources/blockIO", json!({"weightDevice": [{"major": 7, "minor": 0, "weight": 100}]}))] }
    fn weight_minor { spec!("config-linux/block-io/weight-device-numbers") "/linux/resources/blockIO/weightDevice/0/minor"
        in [("/linux/resources/blockIO", json!({"weightDevice": [{"major": 7, "minor": 0, "weight": 100}]}))] }
    fn bps_major { spec!("config-linux/block-io/bps-numbers") "/linux/resources/blockIO/throttleReadBpsDevice/0/major"
        in throttled("throttleReadBpsDevice") }
    fn bps_minor { spec!("config-linux/block-io/bps-numbers") "/linux/resources/blockIO/throttleWriteBpsDevice/0/minor"
        in throttled("throttleWriteBpsDevice") }
    fn bps_rate { spec!("config-linux/block-io/bps-rate") "/linux/resources/blockIO/throttleWriteBpsDevice/0/rate"
        in throttled("throttleWriteBpsDevice") }
    fn iops_major { spec!("config-linux/block-io/iops-numbers") "/linux/resources/blockIO/throttleReadIOPSDevice/0/major"
        in throttled("throttleReadIOPSDevice") }
    fn iops_minor { spec!("config-linux/block-io/iops-numbers") "/linux/resources/blockIO/throttleWriteIOPSDevice/0/minor"
        in throttled("throttleWriteIOPSDevice") }
    fn iops_rate { spec!("config-linux/block-io/iops-rate") "/linux/resources/blockIO/throttleWriteIOPSDevice/0/rate"
        in throttled("throttleWriteIOPSDevice") }
    fn page_size { spec!("config-linux/huge-pages/page-size") "/linux/resources/hugepageLimits/0/pageSize"
        in [("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 0}]))] }
    fn page_limit { spec!("config-linux/huge-pages/limit") "/linux/resources/hugepageLimits/0/limit"
        in [("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 0}]))] }
    fn interface_name { spec!("config-linux/network/name") "/linux/resources/network/priorities/0/name"
        in [("/linux/resources/network", json!({"priorities": [{"name": "lo", "priority": 5}]}))] }
    fn interface_priority { spec!("config-linux/network/priority") "/linux/resources/network/priorities/0/priority"
        in [("/linux/resources/network", json!({"priorities": [{"name": "lo", "priority": 5}]}))] }
}

#[test]
fn args_have_an_entry() {
    spec!("config/process/args");
    refused(&container(&["exit", "0"], &[("/process/args", json!([]))]).run());
    refused(&Container::with(["exit", "0"], |config| take(config, "/process/args")).run());
}

#[test]
fn a_rule_of_seccomp_has_a_name() {
    spec!("config-linux/seccomp/names-empty");
    let rule = json!({"names": [], "action": "SCMP_ACT_ERRNO"});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    refused(&container(&["exit", "0"], &[("/linux/seccomp", profile)]).run());
}

/// A terminal whose size lacks one of its numbers.
#[track_caller]
fn size_without(name: &str) {
    let mut c = container(
        &["winsize"],
        &[("/process/terminal", json!(true)), ("/process/consoleSize", json!({"height": 25, "width": 80}))],
    );
    c.edit(|config| take(config, &format!("/process/consoleSize/{name}")));
    let socket = ConsoleSocket::new(&c.path("console"));
    refused(&c.create_cmd_with(&["--console-socket", socket.path.to_str().unwrap()]).run());
}

#[test]
fn a_console_has_a_height() {
    spec!("config/process/console-height");
    size_without("height");
}

#[test]
fn a_console_has_a_width() {
    spec!("config/process/console-width");
    size_without("width");
}
