//! The short cases: a container's life, and exec, for each variant of the bundle.

use std::time::Duration;

use vessel::error::Result;

use crate::Options;
use crate::bundle::Variant;
use crate::host::Host;
use crate::report::{Report, Row};
use crate::runtime::Runtime;
use crate::stats::Random;

/// A pause before each sample: the kernel takes network namespaces down in the background, which would be the next
/// sample's burden.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a command may fail in a case before the runtime is passed over.
const FAULTS: usize = 3;

/// What is done in a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Life,
    Exec,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Run, Kind::Life, Kind::Exec];

    fn name(self) -> &'static str {
        match self {
            Kind::Run => "run",
            Kind::Life => "create + start + delete",
            Kind::Exec => "exec",
        }
    }

    fn steps(self) -> &'static [&'static str] {
        match self {
            Kind::Run => &["run"],
            Kind::Life => &["create", "start", "delete"],
            Kind::Exec => &["exec"],
        }
    }
}

#[derive(Debug)]
struct Case {
    name: String,
    kind: Kind,
    variant: Variant,
    /// Another seccomp profile for each sample.
    cold: bool,
}

fn all() -> Vec<Case> {
    let none = Variant::default();
    let variants = [
        ("", none),
        (", seccomp", Variant { seccomp: true, ..none }),
        (", limits", Variant { limits: true, ..none }),
        (", systemd", Variant { systemd: true, ..none }),
        (", user namespace", Variant { user: true, ..none }),
        (", rootless", Variant { rootless: true, ..none }),
    ];
    let mut cases = Vec::new();
    for (suffix, variant) in variants {
        for kind in Kind::ALL {
            cases.push(Case { name: format!("{}{suffix}", kind.name()), kind, variant, cold: false });
        }
        if variant.seccomp {
            for kind in [Kind::Run, Kind::Life] {
                cases.push(Case { name: format!("{}, seccomp cold", kind.name()), kind, variant, cold: true });
            }
        }
    }
    for mounts in [10, 100, 1000] {
        let variant = Variant { mounts, ..none };
        cases.push(Case { name: format!("run, {mounts} mounts"), kind: Kind::Run, variant, cold: false });
    }
    cases
}

/// The names of all cases.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = all().into_iter().map(|case| case.name).collect();
    names.extend(crate::many::names());
    names.push("size".into());
    names
}

/// Measures those that were asked for.
pub(crate) fn measure(host: &Host, options: &Options, runtimes: &[Runtime], report: &mut Report<'_>) -> Result<()> {
    let mut random = Random::new();
    for case in all().into_iter().filter(|case| options.wants(&case.name)) {
        if (case.variant.systemd && !host.systemd) || (case.variant.limits && !host.limits) {
            continue;
        }
        let rounds = if case.variant.mounts == 1000 { options.rounds.div_ceil(3) } else { options.rounds };
        let row = measure_one(host, &case, runtimes, rounds, &mut random, report)?;
        report.row(row);
    }
    Ok(())
}

fn measure_one(
    host: &Host,
    case: &Case,
    runtimes: &[Runtime],
    rounds: usize,
    random: &mut Random,
    report: &mut Report<'_>,
) -> Result<Row> {
    let steps = case.kind.steps();
    let mut row = Row::new(&case.name, steps, runtimes.len());
    let mut faults = vec![0; runtimes.len()];
    let mut cold = 0;
    // The first round is for caches, and to find out who can do it.
    for round in 0..=rounds {
        for number in random.order(runtimes.len()) {
            let runtime = &runtimes[number];
            if faults[number] > FAULTS || (runtime.floor && case.variant.systemd) {
                continue;
            }
            let sleeps = case.kind == Kind::Exec;
            if round == 0 || case.cold {
                cold += 1;
                runtime.prepare(host, &case.variant, 0, sleeps, if case.cold { cold } else { 0 })?;
            }
            if round == 0 && sleeps {
                let made = ["create", "start"]
                    .iter()
                    .try_for_each(|verb| runtime.line(host, &case.variant, 0, sleeps, verb).time().map(drop));
                if let Err(e) = made {
                    report.note(format!("{}: {}: {e}", case.name, runtime.name));
                    faults[number] = FAULTS + 1;
                    runtime.recover(host, &case.variant, 0);
                    continue;
                }
            }
            std::thread::sleep(PAUSE);
            let took: Result<Vec<f64>> =
                steps.iter().map(|verb| runtime.line(host, &case.variant, 0, sleeps, verb).time()).collect();
            match took {
                Ok(_) if round == 0 => {}
                Ok(took) => row.add(number, &took),
                Err(e) => {
                    faults[number] += 1;
                    report.note(format!("{}: {}: {e}", case.name, runtime.name));
                    if round == 0 {
                        faults[number] = FAULTS + 1;
                    }
                    if !sleeps || faults[number] > FAULTS {
                        runtime.recover(host, &case.variant, 0);
                    }
                }
            }
        }
    }
    for (runtime, _) in runtimes.iter().zip(&faults).filter(|(_, faults)| **faults <= FAULTS) {
        if case.kind == Kind::Exec && !(runtime.floor && case.variant.systemd) {
            let deleted = runtime.line(host, &case.variant, 0, true, "delete").time();
            if let Err(e) = deleted {
                report.note(format!("{}: {}: {e}", case.name, runtime.name));
                runtime.recover(host, &case.variant, 0);
            }
        }
    }
    Ok(row)
}
