//! Plots as SVG: dots on a scale of powers of ten for the cases, lines for what depends on a number.

use std::fmt::Write;

use crate::stats::{median, quantile};

/// Told apart by people who see few colours, too (Okabe and Ito); the floor, at the end, is grey.
const COLOURS: [&str; 6] = ["#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00"];
const GREY: &str = "#777777";
const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\"";

fn colour(name: &str, number: usize) -> &'static str {
    if name == "floor" { GREY } else { COLOURS[number % COLOURS.len()] }
}

/// An axis of powers of ten.
struct Axis {
    low: f64,
    high: f64,
    begin: f64,
    length: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, begin: f64, length: f64) -> Axis {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for value in values.filter(|v| *v > 0.0) {
            low = low.min(value.log10());
            high = high.max(value.log10());
        }
        let (low, high) = if low > high { (0.0, 1.0) } else { (low.floor(), high.ceil()) };
        Axis { low, high: if high > low { high } else { low + 1.0 }, begin, length }
    }

    fn at(&self, value: f64) -> f64 {
        self.begin + (value.max(1e-9).log10() - self.low) / (self.high - self.low) * self.length
    }

    /// The powers of ten.
    fn ticks(&self) -> Vec<f64> {
        (self.low as i32..=self.high as i32).map(|power| 10_f64.powi(power)).collect()
    }
}

fn frame(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\" {FONT}>{words}</text>");
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn legend(out: &mut String, names: &[String], x: f64, y: f64) {
    let mut x = x;
    for (number, name) in names.iter().enumerate() {
        let _ =
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{}\"/>", y - 4.0, colour(name, number));
        text(out, x + 9.0, y, "start", name);
        x += 30.0 + 7.0 * name.chars().count() as f64;
    }
}

/// A line for each case, a dot at the median of each runtime, and a bar from the first to the third quartile.
pub(crate) fn dots(names: &[String], rows: &[(String, Vec<Vec<f64>>)]) -> String {
    const ROW: f64 = 22.0;
    let (left, top, width) = (230.0, 60.0, 900.0);
    let bottom = top + ROW * rows.len() as f64;
    let medians = rows.iter().flat_map(|(_, all)| all.iter().filter(|s| !s.is_empty()).map(|s| median(s)));
    let axis = Axis::over(medians, left, width - left - 30.0);
    let mut out = String::new();
    legend(&mut out, names, 20.0, 25.0);
    for tick in axis.ticks() {
        line(&mut out, (axis.at(tick), top - 10.0), (axis.at(tick), bottom), "#ddd", 1.0);
        text(&mut out, axis.at(tick), top - 14.0, "middle", &format!("{tick} ms"));
    }
    for (number, (name, all)) in rows.iter().enumerate() {
        let y = top + ROW * (number as f64 + 0.5);
        text(&mut out, left - 10.0, y + 4.0, "end", name);
        line(&mut out, (left, y), (width - 30.0, y), "#eee", 1.0);
        // Vessel is drawn last, over the others.
        for (runtime, samples) in all.iter().enumerate().rev().filter(|(_, s)| !s.is_empty()) {
            let colour = colour(&names[runtime], runtime);
            let ends = (axis.at(quantile(samples, 0.25)), axis.at(quantile(samples, 0.75)));
            line(&mut out, (ends.0, y), (ends.1, y), colour, 3.0);
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>",
                axis.at(median(samples))
            );
        }
    }
    frame(width, bottom + 20.0, &out)
}

/// A plot of its own within a drawing: its name, and a line of points (number, milliseconds) for each runtime.
pub(crate) type Panel = (String, Vec<Vec<(f64, f64)>>);

/// A small plot for each panel.
pub(crate) fn lines(names: &[String], panels: &[Panel]) -> String {
    const ACROSS: usize = 3;
    let (width, height, gap, top) = (280.0, 190.0, 20.0, 50.0);
    let mut out = String::new();
    legend(&mut out, names, 20.0, 25.0);
    let points = || panels.iter().flat_map(|(_, all)| all.iter().flatten().copied());
    for (number, (name, all)) in panels.iter().enumerate() {
        let x = 50.0 + (number % ACROSS) as f64 * (width + gap);
        let y = top + (number / ACROSS) as f64 * (height + gap);
        let across = Axis::over(points().map(|p| p.0), x, width - 50.0);
        let up = Axis::over(points().map(|p| p.1), 0.0, height - 60.0);
        let base = y + height - 35.0;
        text(&mut out, x + width / 2.0 - 25.0, y + 12.0, "middle", name);
        for tick in up.ticks() {
            line(&mut out, (x, base - up.at(tick)), (x + width - 50.0, base - up.at(tick)), "#ddd", 1.0);
            text(&mut out, x - 5.0, base - up.at(tick) + 4.0, "end", &format!("{tick} ms"));
        }
        for tick in across.ticks() {
            text(&mut out, across.at(tick), base + 16.0, "middle", &tick.to_string());
        }
        for (runtime, points) in all.iter().enumerate().rev() {
            let colour = colour(&names[runtime], runtime);
            let places: Vec<(f64, f64)> = points.iter().map(|p| (across.at(p.0), base - up.at(p.1))).collect();
            for pair in places.windows(2) {
                line(&mut out, pair[0], pair[1], colour, 2.0);
            }
            for place in &places {
                let _ =
                    writeln!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>", place.0, place.1);
            }
        }
    }
    let rows = panels.len().div_ceil(ACROSS) as f64;
    frame(50.0 + ACROSS as f64 * (width + gap), top + rows * (height + gap), &out)
}
