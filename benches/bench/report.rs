//! The results as a page of Markdown, with plots beside it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use vessel::error::{Context, Error, Result};

use crate::Options;
use crate::host::{self, Host};
use crate::plot;
use crate::runtime::Runtime;
use crate::stats::{median, ratio};

/// A case: the samples of each runtime.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    steps: &'static [&'static str],
    /// By runtime and step, in milliseconds.
    samples: Vec<Vec<Vec<f64>>>,
}

impl Row {
    pub(crate) fn new(name: &str, steps: &'static [&'static str], runtimes: usize) -> Row {
        Row { name: name.to_string(), steps, samples: vec![vec![Vec::new(); steps.len()]; runtimes] }
    }

    pub(crate) fn add(&mut self, runtime: usize, steps: &[f64]) {
        for (all, took) in self.samples[runtime].iter_mut().zip(steps) {
            all.push(*took);
        }
    }

    /// The samples of a runtime, the steps added up.
    pub(crate) fn sums(&self, runtime: usize) -> Vec<f64> {
        let steps = &self.samples[runtime];
        (0..steps.first().map_or(0, Vec::len)).map(|n| steps.iter().map(|step| step[n]).sum()).collect()
    }

    /// The medians of the steps, where there are several.
    fn parts(&self, runtime: usize) -> String {
        if self.steps.len() < 2 || self.samples[runtime].iter().any(Vec::is_empty) {
            return String::new();
        }
        let parts: Vec<String> = self.samples[runtime].iter().map(|step| short(median(step))).collect();
        format!(" ({})", parts.join(" + "))
    }
}

/// What does not depend on the clock, of one runtime; 0 where it is not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) run: u64,
    pub(crate) run_seccomp: u64,
    pub(crate) life: u64,
    pub(crate) exec: u64,
    pub(crate) peak: u64,
    pub(crate) peak_seccomp: u64,
    pub(crate) peak_exec: u64,
    pub(crate) limit: Option<u64>,
}

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    host: &'a Host,
    options: &'a Options,
    names: Vec<String>,
    /// The runtimes beside vessel and the floor.
    peers: Vec<usize>,
    floor: usize,
    rows: Vec<Row>,
    /// By number of containers: the number, the command, and its row.
    scale: Vec<(usize, &'static str, Row)>,
    sizes: Vec<(usize, Size)>,
    notes: Vec<String>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(host: &'a Host, options: &'a Options, runtimes: &[Runtime]) -> Report<'a> {
        let floor = runtimes.len() - 1;
        Report {
            host,
            options,
            names: runtimes.iter().map(|r| r.name.clone()).collect(),
            peers: (1..floor).collect(),
            floor,
            rows: Vec::new(),
            scale: Vec::new(),
            sizes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Keeps a row, and shows it.
    pub(crate) fn row(&mut self, row: Row) {
        eprintln!("{}", self.line(&row, true));
        self.rows.push(row);
    }

    pub(crate) fn scale(&mut self, count: usize, command: &'static str, row: Row) {
        eprintln!("{}", self.line(&row, false));
        self.scale.push((count, command, row));
    }

    pub(crate) fn size(&mut self, runtime: usize, size: Size) {
        self.sizes.push((runtime, size));
    }

    /// Something that went wrong, and is to be told beside the figures.
    pub(crate) fn note(&mut self, note: String) {
        eprintln!("bench: {note}");
        self.notes.push(note);
    }

    /// A line of a table: vessel, the floor with vessel's multiple of it, the others with vessel's share of their time.
    fn line(&self, row: &Row, floor: bool) -> String {
        let own = row.sums(0);
        let mut line = format!("| {} | {}{} |", row.name, time(&own), row.parts(0));
        if floor {
            let samples = row.sums(self.floor);
            let _ = write!(line, " {}{}{} |", time(&samples), row.parts(self.floor), multiple(&own, &samples));
        }
        for peer in &self.peers {
            let samples = row.sums(*peer);
            let _ = write!(line, " {}{} |", time(&samples), share(&own, &samples));
        }
        line
    }

    fn head(&self, first: &str, floor: bool) -> String {
        let mut names = vec![first, self.names[0].as_str()];
        if floor {
            names.push("floor (vessel is … times it)");
        }
        let peers: Vec<String> =
            self.peers.iter().map(|p| format!("{} (vessel takes … of it)", self.names[*p])).collect();
        names.extend(peers.iter().map(String::as_str));
        format!("| {} |\n|{}", names.join(" | "), "---|".repeat(names.len()))
    }

    fn page(&self, plots: &[String]) -> String {
        let mut page = String::new();
        let _ = writeln!(page, "### {}\n", title(self.host.name()));
        let _ = writeln!(page, "{}; {} rounds.\n", host::describe(), self.options.rounds);
        if !self.rows.is_empty() {
            let _ = writeln!(page, "Medians in milliseconds.\n\n{}", self.head("case", true));
            self.rows.iter().for_each(|row| page += &format!("{}\n", self.line(row, true)));
            page.push('\n');
        }
        if !self.scale.is_empty() {
            let _ = writeln!(page, "With so many containers there, milliseconds:\n\n{}", self.head("command", false));
            self.scale.iter().for_each(|(_, _, row)| page += &format!("{}\n", self.line(row, false)));
            page.push('\n');
        }
        if !self.sizes.is_empty() {
            self.size_table(&mut page);
        }
        for plot in plots {
            let _ = writeln!(page, "![{plot}]({plot})\n");
        }
        if !self.notes.is_empty() {
            let mut notes: Vec<(&String, usize)> = Vec::new();
            for note in &self.notes {
                match notes.iter_mut().find(|(n, _)| *n == note) {
                    Some((_, count)) => *count += 1,
                    None => notes.push((note, 1)),
                }
            }
            page.push_str("Not measured, or failed once or more:\n\n");
            notes.iter().for_each(|(note, count)| page += &format!("* {note} ({count} times)\n"));
            page.push('\n');
        }
        page
    }

    fn size_table(&self, page: &mut String) {
        let names: Vec<&str> = self.sizes.iter().map(|(number, _)| self.names[*number].as_str()).collect();
        let _ = writeln!(page, "| without the clock | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
        let mut line = |what: &str, of: &dyn Fn(&Size) -> String| {
            let values: Vec<String> = self.sizes.iter().map(|(_, size)| of(size)).collect();
            let _ = writeln!(page, "| {what} | {} |", values.join(" | "));
        };
        let known = |n: u64| if n == 0 { "–".to_string() } else { n.to_string() };
        line("system calls of run", &|s| known(s.run));
        line("of run with seccomp", &|s| known(s.run_seccomp));
        line("of create + start + delete", &|s| known(s.life));
        line("of exec", &|s| known(s.exec));
        line("peak memory of its largest process in run, KiB", &|s| known(s.peak));
        line("in run with seccomp, KiB", &|s| known(s.peak_seccomp));
        line("in exec, KiB", &|s| known(s.peak_exec));
        line("least memory limit to start with, KiB", &|s| s.limit.map_or("–".into(), |kib| kib.to_string()));
        line("the program, KiB", &|s| (s.bytes >> 10).to_string());
        page.push('\n');
    }

    /// Writes page and plots, and prints the page.
    pub(crate) fn write(&self) -> Result<()> {
        let dir = match &self.options.docs {
            Some(docs) => docs.parent().unwrap_or(Path::new(".")).to_path_buf(),
            None => PathBuf::from("build/bench"),
        };
        fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
        let mut plots = Vec::new();
        for (kind, drawing) in [("cases", self.draw_cases()), ("scale", self.draw_scale())] {
            if let Some(drawing) = drawing {
                let name = format!("bench-{}-{kind}.svg", self.host.name());
                fs::write(dir.join(&name), drawing).context(|| format!("cannot write {name}"))?;
                plots.push(name);
            }
        }
        let page = self.page(&plots);
        print!("{page}");
        match &self.options.docs {
            Some(docs) => self.insert(docs, &page),
            None => fs::write(dir.join(format!("{}.md", self.host.name())), page).context(|| "cannot write the table"),
        }
    }

    /// Puts the page between the markers of its set-up.
    fn insert(&self, docs: &Path, page: &str) -> Result<()> {
        let text = fs::read_to_string(docs).context(|| format!("cannot read {}", docs.display()))?;
        let (begin, end) =
            (format!("<!-- bench {} -->\n", self.host.name()), format!("<!-- end {} -->", self.host.name()));
        let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) =
            parts.ok_or_else(|| Error::new(format!("{} has no {:?}", docs.display(), begin.trim())))?;
        let text = format!("{before}{begin}{page}{end}{after}");
        fs::write(docs, text).context(|| format!("cannot write {}", docs.display()))
    }

    fn draw_cases(&self) -> Option<String> {
        let rows: Vec<(String, Vec<Vec<f64>>)> =
            self.rows.iter().map(|r| (r.name.clone(), (0..self.names.len()).map(|n| r.sums(n)).collect())).collect();
        (!rows.is_empty()).then(|| plot::dots(&self.names, &rows))
    }

    fn draw_scale(&self) -> Option<String> {
        let mut panels: Vec<plot::Panel> = Vec::new();
        for (count, command, row) in &self.scale {
            let place = panels.iter().position(|(name, _)| name == command).unwrap_or_else(|| {
                panels.push((command.to_string(), vec![Vec::new(); self.floor]));
                panels.len() - 1
            });
            for (number, line) in panels[place].1.iter_mut().enumerate() {
                let samples = row.sums(number);
                if !samples.is_empty() {
                    line.push((*count as f64, median(&samples)));
                }
            }
        }
        (!panels.is_empty()).then(|| plot::lines(&self.names[..self.floor], &panels))
    }
}

fn title(name: &str) -> &str {
    match name {
        "v1" => "cgroup v1",
        "v2-systemd" => "cgroup v2 with systemd (test bed)",
        _ => "cgroup v2",
    }
}

/// Three digits at least, but none that means nothing.
fn short(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.2}")
    } else if ms < 100.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

fn time(samples: &[f64]) -> String {
    if samples.is_empty() { "–".into() } else { short(median(samples)) }
}

fn multiple(own: &[f64], floor: &[f64]) -> String {
    if own.is_empty() || floor.is_empty() {
        return String::new();
    }
    let (middle, ..) = ratio(own, floor);
    format!(" ({middle:.2})")
}

fn share(own: &[f64], peer: &[f64]) -> String {
    if own.is_empty() || peer.is_empty() {
        return String::new();
    }
    let (middle, low, high) = ratio(own, peer);
    format!(" (**{middle:.2}**, {low:.2} to {high:.2})")
}
