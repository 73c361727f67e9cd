//! Measures runtimes side by side, in interleaved rounds; docs/benchmarks.md says how, and has the figures.
//!
//! The machine is left as it was: all happens in a mount namespace, below one cgroup and two directories, and a parent
//! process removes these however the measuring ends.

mod budget;
mod bundle;
mod cases;
mod host;
mod many;
mod plot;
mod report;
mod runtime;
mod size;
mod spawn;
mod stats;
mod trace;

use std::path::PathBuf;

use nix::sys::signal::{SigSet, Signal};
use vessel::error::{Context, Error, Result};
use vessel::sys::clone::{Clone, clone3};
use vessel::sys::process::exit;

use host::{Host, View};

const HELP: &str = "bench [OPTION...] VESSEL [RUNTIME...]      needs root

Measures VESSEL beside the other runtimes (paths) and the floor; prints a table, and leaves it with plots in build/bench.

  --cgroup v1|v2    the cgroups to run with (default: those of the host; a hybrid one counts as v1)
  --cases TEXT,...  only cases whose name has one of these in it; --cases list prints the names
  --rounds N        samples of each short case (25); long ones take fewer
  --scale N,...     numbers of containers for state, list, ps, kill and delete (1,100,1000,5000)
  --docs FILE       write the table into FILE between its markers, and the plots beside it
  --floor FILE      the floor (default: beside this program)
  --budget check|renew FILE    nothing of that: count the system calls of VESSEL, and compare them with FILE or write it
";

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    view: Option<View>,
    cases: Vec<String>,
    rounds: usize,
    scale: Vec<usize>,
    docs: Option<PathBuf>,
    floor: PathBuf,
    budget: Option<(String, PathBuf)>,
    runtimes: Vec<PathBuf>,
}

impl Options {
    /// Whether a case was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|c| name.contains(c.as_str()))
    }
}

fn main() {
    let status = run().unwrap_or_else(|e| {
        eprintln!("bench: {e}");
        1
    });
    std::process::exit(status)
}

fn run() -> Result<i32> {
    let options = options(std::env::args().skip(1).collect())?;
    if options.cases == ["list"] {
        cases::names().iter().for_each(|name| println!("{name}"));
        return Ok(0);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new("it needs root"));
    }
    let Some(host) = host::prepare(options.view)? else {
        println!("bench: this machine has no such cgroups, nothing is measured");
        return Ok(0);
    };
    // A child measures, and this process cleans up after it, whatever ends the child.
    let pidfd = match clone3(0, None)? {
        Clone::Child => {
            let done = work(&host, &options);
            exit(done.unwrap_or_else(|e| {
                eprintln!("bench: {e}");
                1
            }))
        }
        Clone::Parent(_, pidfd) => pidfd,
    };
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context(|| "cannot block signals")?;
    let ended = rustix::process::waitid(
        rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
        rustix::process::WaitIdOptions::EXITED,
    );
    host.clean();
    Ok(ended.ok().flatten().and_then(|s| s.exit_status()).unwrap_or(1))
}

fn work(host: &Host, options: &Options) -> Result<i32> {
    if let Some((verb, file)) = &options.budget {
        return budget::run(host, options, verb == "renew", file);
    }
    let runtimes = runtime::all(host, options)?;
    let mut report = report::Report::new(host, options, &runtimes);
    cases::measure(host, options, &runtimes, &mut report)?;
    many::measure(host, options, &runtimes, &mut report)?;
    many::scale(host, options, &runtimes, &mut report)?;
    if options.wants("size") {
        size::measure(host, options, &runtimes, &mut report)?;
    }
    report.write()?;
    Ok(0)
}

fn options(args: Vec<String>) -> Result<Options> {
    let list = |text: String| text.split(',').map(str::to_string).collect::<Vec<_>>();
    let number = |text: &str| text.parse().map_err(|_| Error::new(format!("{text:?} is no number")));
    let mut options = Options { rounds: 25, scale: vec![1, 100, 1000, 5000], ..Options::default() };
    options.floor = std::env::current_exe().context(|| "cannot find this program")?.with_file_name("floor");
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| Error::new(format!("{arg} needs a value")));
        match arg.as_str() {
            "--cgroup" => options.view = Some(value()?.parse()?),
            "--cases" => options.cases = list(value()?),
            "--rounds" => options.rounds = number(&value()?)?,
            "--scale" => options.scale = list(value()?).iter().map(|n| number(n)).collect::<Result<_>>()?,
            "--docs" => options.docs = Some(value()?.into()),
            "--floor" => options.floor = value()?.into(),
            "--budget" => options.budget = Some((value()?, value()?.into())),
            "--help" | "-h" => {
                print!("{HELP}");
                std::process::exit(0)
            }
            flag if flag.starts_with('-') => return Err(Error::new(format!("{flag} is no option (see --help)"))),
            path => options.runtimes.push(path.into()),
        }
    }
    if options.runtimes.is_empty() && options.cases != ["list"] {
        return Err(Error::new("no runtime is given (see --help)"));
    }
    Ok(options)
}
