//! What the tests stand on: a [`Container`] with a bundle, a state root and a cgroup of its own, which checks at its end
//! that nothing is left; [`Cmd`], a command that cannot hang the suite; and [`Need`], what a test asks of the machine.
//!
//! The program inside the containers is the probe (`integration/probe.rs`), at `/probe`.

mod check;
mod cmd;
mod container;
mod need;
mod suite;
mod term;

pub use check::hierarchies;
pub use cmd::{Cmd, Output, Running};
pub use container::Container;
pub use need::{Need, deviation, in_any_vm, in_vm, measuring, missing, on_v2, recorded_deviation, skip};
pub use suite::{CGROUP_ROOT, User, eventually, reap_orphan, runtime, runtime_is_before, runtime_kind, suite};
pub use term::{ConsoleSocket, Pty, read_until, receive_fd};

/// Ends the test as skipped, with a reason: `skip!("the kernel has no {what}")`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::harness::skip(&format!($($reason)*));
        return;
    }};
}

/// Skips the test unless the machine has all that it needs: `needs!(Need::CgroupV2, Need::Controller("memory"))`.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {
        if let Some(reason) = $crate::harness::missing(&[$($need),+]) {
            $crate::skip!("{reason}");
        }
    };
}

/// Names the clauses of the runtime-spec that a test shows, by their ids in `integration/spec/clauses.txt`, for
/// hack/conformance.sh to read. It skips the test under a runtime that is recorded there not to pass it.
#[macro_export]
macro_rules! spec {
    ($($id:literal),+ $(,)?) => {
        if let Some(reason) = $crate::harness::recorded_deviation() {
            $crate::skip!("{reason}");
        }
    };
}

/// The same for what the vm alone has (`make vm`): elsewhere the test is counted apart, and there it has to run.
#[macro_export]
macro_rules! needs_vm {
    ($($need:expr),+ $(,)?) => {
        if let Some(reason) = $crate::harness::missing(&[$($need),+]) {
            assert!(!$crate::harness::in_vm(), "the vm should have it: {reason}");
            $crate::skip!("needs the vm (make vm): {reason}");
        }
    };
}

/// Skips the test under a runtime that is known not to keep the rule: `deviates!("runc", "accepts duplicate limits")`;
/// or under old versions of it: `deviates!("runc" before 1.2, "knows no time namespaces")`.
#[macro_export]
macro_rules! deviates {
    ($kind:literal before $version:literal, $reason:expr) => {
        if $crate::harness::runtime_is_before(stringify!($version)) {
            $crate::deviates!($kind, $reason);
        }
    };
    ($kind:expr, $reason:expr) => {
        if let Some(reason) = $crate::harness::deviation($kind, $reason) {
            $crate::skip!("{reason}");
        }
    };
}
