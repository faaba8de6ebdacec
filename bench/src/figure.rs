//! Figures and how they are measured.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What a group reports its figures to.
#[expect(missing_debug_implementations, reason = "holds a writer")]
pub struct Bench<'w> {
    pace: Pace,
    only: Vec<String>,
    out: &'w mut dyn Write,
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// 21 rounds of 15 ms, or of one run of a long operation, but no new one after 10 s: figures to compare.
    Full,
    /// 5 rounds of 1.5 ms, or 3 of one run: shows that the benchmark works.
    Quick,
}

impl Pace {
    /// How long an operation is repeated in one round.
    const fn round(self) -> Duration {
        match self {
            Self::Full => Duration::from_millis(15),
            Self::Quick => Duration::from_micros(1_500),
        }
    }

    /// After how long a figure of three rounds or more has enough.
    const fn patience(self) -> Duration {
        match self {
            Self::Full => Duration::from_secs(10),
            Self::Quick => Duration::from_secs(1),
        }
    }
}

/// One figure under way: a subject, and yardsticks to hold it to.
#[must_use = "`report` measures"]
#[expect(missing_debug_implementations, reason = "holds closures")]
pub struct Figure<'b, 'w, 'f> {
    bench: &'b mut Bench<'w>,
    name: Cow<'static, str>,
    unit: &'static str,
    contenders: Vec<Contender<'f>>, // the first is the subject
}

impl<'w> Bench<'w> {
    /// Reports to `out`, a line per figure.
    pub fn new(pace: Pace, out: &'w mut dyn Write) -> Self {
        Self { pace, only: Vec::new(), out }
    }

    /// Reports only figures whose names begin with one of these; all, if there are none.
    pub fn only(self, only: Vec<String>) -> Self {
        Self { only, ..self }
    }

    /// Whether a figure of this name, or of one that begins so, is to be reported: asked before what takes long.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()) || only.starts_with(name))
    }

    /// How long to measure, for groups whose preparation takes long.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Begins the figure `name` (`group/what`) in `unit`: `ns`, `us`, `ms` or `s` of time per operation, or, with
    /// [`rate`](Figure::rate), what is counted, per second.
    pub fn figure<'f>(&mut self, name: impl Into<Cow<'static, str>>, unit: &'static str) -> Figure<'_, 'w, 'f> {
        Figure { bench: self, name: name.into(), unit, contenders: Vec::new() }
    }
}

impl<'f> Figure<'_, '_, 'f> {
    /// The subject: one short operation per call. It is given a running number, to choose among prepared inputs with:
    /// a subject that sees one input only flatters the branch predictor.
    pub fn each(self, operation: impl FnMut(usize) + 'f) -> Self {
        self.contender("", Run::each(operation))
    }

    /// The subject: one operation of a millisecond or more per call, the inputs made by `prepare` outside the measurement.
    /// What it returns is dropped outside, too.
    pub fn once<I, O>(self, prepare: impl FnMut() -> I + 'f, operation: impl FnMut(I) -> O + 'f) -> Self {
        self.contender("", Run::once(prepare, operation))
    }

    /// The subject: counts what it does, per second, so that more is better. Takes one call per round and gives the count.
    pub fn rate(self, operation: impl FnMut() -> u64 + 'f) -> Self {
        self.contender("", Run::rate(operation))
    }

    /// The subject: a tool that measures by itself. Each call, one per round, gives its figure in the unit.
    pub fn reading(self, tool: impl FnMut() -> f64 + 'f) -> Self {
        self.contender("", Run::Reading(Box::new(tool)))
    }

    /// The subject: a number that was found otherwise, on a virtual clock say, in the figure's unit.
    pub fn value(self, value: f64) -> Self {
        self.contender("", Run::Value(value))
    }

    /// A number to compare with; as [`value`](Self::value).
    pub fn yardstick_value(self, name: &'static str, value: f64) -> Self {
        self.contender(name, Run::Value(value))
    }

    /// The subject: something that measures itself, and gives seconds, or what it counted per second. Once per round.
    pub fn measured(self, operation: impl FnMut() -> f64 + 'f) -> Self {
        self.contender("", Run::Measured(Box::new(operation)))
    }

    /// A short operation to compare with.
    pub fn yardstick(self, name: &'static str, operation: impl FnMut(usize) + 'f) -> Self {
        self.contender(name, Run::each(operation))
    }

    /// A long operation to compare with; as [`once`](Self::once).
    pub fn yardstick_once<I, O>(
        self,
        name: &'static str,
        prepare: impl FnMut() -> I + 'f,
        operation: impl FnMut(I) -> O + 'f,
    ) -> Self {
        self.contender(name, Run::once(prepare, operation))
    }

    /// A counting operation to compare with; as [`rate`](Self::rate).
    pub fn yardstick_rate(self, name: &'static str, operation: impl FnMut() -> u64 + 'f) -> Self {
        self.contender(name, Run::rate(operation))
    }

    /// A tool that measures by itself to compare with; as [`reading`](Self::reading).
    pub fn yardstick_reading(self, name: &'static str, tool: impl FnMut() -> f64 + 'f) -> Self {
        self.contender(name, Run::Reading(Box::new(tool)))
    }

    /// Something that measures itself to compare with; as [`measured`](Self::measured).
    pub fn yardstick_measured(self, name: &'static str, operation: impl FnMut() -> f64 + 'f) -> Self {
        self.contender(name, Run::Measured(Box::new(operation)))
    }

    /// Measures, and writes the line; neither, if it is not [wanted](Bench::wants).
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn report(mut self) -> io::Result<()> {
        if !self.bench.wants(&self.name) {
            return Ok(());
        }
        for contender in &mut self.contenders {
            contender.warm_up(self.bench.pace);
        }
        let start = now();
        for round in 0..self.rounds() {
            if round >= 3 && start.elapsed() > self.bench.pace.patience() {
                break;
            }
            for contender in &mut self.contenders {
                contender.round();
            }
        }
        let unit = self.unit;
        let mut values = self.contenders.iter_mut().map(|contender| (contender.name, contender.median(unit)));
        let Some((_, value)) = values.next() else { return Ok(()) };
        let mut yardsticks =
            values.map(|(name, other)| (Yardstick { name, value: round(other) }, round(value / other)));
        let (yardstick, ratio) = yardsticks.next().unzip();
        let also = yardsticks.map(|(yardstick, ratio)| Also { yardstick, ratio }).collect();
        let line = Line { bench: &self.name, value: round(value), unit: self.unit, yardstick, ratio, also };
        serde_json::to_writer(&mut self.bench.out, &line)?;
        writeln!(self.bench.out)?;
        self.bench.out.flush()
    }

    fn rounds(&self) -> usize {
        if self.contenders.iter().all(|contender| matches!(contender.run, Run::Value(_))) {
            return 1;
        }
        let repeats = self.contenders.iter().any(|contender| matches!(contender.run, Run::Each(_)));
        match self.bench.pace {
            Pace::Full => 21,
            Pace::Quick if repeats => 5,
            Pace::Quick => 3,
        }
    }

    fn contender(mut self, name: &'static str, run: Run<'f>) -> Self {
        self.contenders.push(Contender { name, run, count: 1, samples: Vec::new() });
        self
    }
}

/// A subject or yardstick.
struct Contender<'f> {
    name: &'static str,
    run: Run<'f>,
    count: u64,
    samples: Vec<f64>, // seconds per operation, operations per second, or readings
}

impl Contender<'_> {
    /// Runs until caches and frequency have settled, and finds how many operations fill a round.
    fn warm_up(&mut self, pace: Pace) {
        let round = pace.round();
        let Run::Each(batch) = &mut self.run else {
            self.run.sample(1);
            return;
        };
        loop {
            let took = batch(self.count);
            if took >= round / 2 {
                let fill = self.count as f64 * round.as_secs_f64() / took.as_secs_f64();
                self.count = (fill as u64).max(1);
                return;
            }
            self.count *= 2;
        }
    }

    fn round(&mut self) {
        self.samples.push(self.run.sample(self.count));
    }

    fn median(&mut self, unit: &str) -> f64 {
        let scale = if matches!(self.run, Run::Reading(_) | Run::Value(_)) { 1.0 } else { scale(unit) };
        self.samples.sort_by(f64::total_cmp);
        let middle = self.samples.get(self.samples.len() / 2).copied().unwrap_or(f64::NAN);
        middle * scale
    }
}

/// How one round is run.
enum Run<'f> {
    /// So many operations; gives their time together.
    Each(Box<dyn FnMut(u64) -> Duration + 'f>),
    /// One operation; gives its time.
    Once(Box<dyn FnMut() -> Duration + 'f>),
    /// Measures itself: seconds, or what was counted per second.
    Measured(Box<dyn FnMut() -> f64 + 'f>),
    /// Gives how many operations there were, and their time together.
    Rate(Box<dyn FnMut() -> (u64, Duration) + 'f>),
    /// Gives the figure itself.
    Reading(Box<dyn FnMut() -> f64 + 'f>),
    /// Nothing to run.
    Value(f64),
}

impl<'f> Run<'f> {
    fn each(mut operation: impl FnMut(usize) + 'f) -> Self {
        Self::Each(Box::new(move |count| {
            let start = now();
            for n in 0..count {
                operation(n as usize);
            }
            start.elapsed()
        }))
    }

    fn once<I, O>(mut prepare: impl FnMut() -> I + 'f, mut operation: impl FnMut(I) -> O + 'f) -> Self {
        Self::Once(Box::new(move || {
            let input = prepare();
            let start = now();
            let output = operation(input);
            let took = start.elapsed();
            drop(std::hint::black_box(output));
            took
        }))
    }

    fn rate(mut operation: impl FnMut() -> u64 + 'f) -> Self {
        Self::Rate(Box::new(move || {
            let start = now();
            let count = operation();
            (count, start.elapsed())
        }))
    }

    fn sample(&mut self, count: u64) -> f64 {
        match self {
            Self::Each(batch) => batch(count).as_secs_f64() / count as f64,
            Self::Once(operation) => operation().as_secs_f64(),
            Self::Measured(operation) => operation(),
            Self::Rate(operation) => {
                let (count, took) = operation();
                count as f64 / took.as_secs_f64()
            }
            Self::Reading(tool) => tool(),
            Self::Value(value) => *value,
        }
    }
}

#[derive(Serialize)]
struct Line<'l> {
    bench: &'l str,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    yardstick: Option<Yardstick>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<Also>,
}

#[derive(Serialize)]
struct Yardstick {
    name: &'static str,
    value: f64,
}

#[derive(Serialize)]
struct Also {
    #[serde(flatten)]
    yardstick: Yardstick,
    ratio: f64,
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Units of time are multiples of a second; everything else is counted per second.
fn scale(unit: &str) -> f64 {
    match unit {
        "ns" => 1e9,
        "us" => 1e6,
        "ms" => 1e3,
        _ => 1.0,
    }
}

/// Four significant digits: more would be noise.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let unit = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn a_line_has_the_yardstick_and_the_ratio_to_it() {
        let line = report(|bench| {
            let work = |n: usize| move |_| assert!((0..n).all(|m| black_box(m) < n));
            bench
                .figure("a/b", "ns")
                .each(work(400))
                .yardstick("short", work(100))
                .yardstick("long", work(1_000))
                .report()
        });
        assert_eq!((line["bench"].as_str(), line["unit"].as_str()), (Some("a/b"), Some("ns")));
        assert_eq!(line["yardstick"]["name"], "short");
        assert_eq!(line["also"][0]["name"], "long");
        let ratio = line["value"].as_f64().unwrap() / line["yardstick"]["value"].as_f64().unwrap();
        assert!((line["ratio"].as_f64().unwrap() / ratio - 1.0).abs() < 0.01, "{line}");
    }

    #[test]
    fn without_a_yardstick_there_is_no_ratio() {
        let line = report(|bench| bench.figure("a/b", "ms").once(|| 1, |n| n + 1).report());
        assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), ["bench", "unit", "value"]);
    }

    #[test]
    fn a_rate_counts_per_second() {
        let line =
            report(|bench| bench.figure("a/b", "op/s").rate(|| (0..1_000_u64).map(black_box).count() as u64).report());
        assert!(line["value"].as_f64().unwrap() > 1_000.0, "{line}");
    }

    #[test]
    fn a_reading_is_taken_as_it_is() {
        let mut readings = [9.0, 1.0, 2.0, 3.0].into_iter(); // the first is to warm up
        let line = report(|bench| bench.figure("a/b", "ms").reading(|| readings.next().unwrap_or(0.0)).report());
        assert_eq!(line["value"], 2.0, "{line}");
    }

    #[test]
    fn a_value_is_reported_as_it_is() {
        let line =
            report(|bench| bench.figure(format!("a/{}", 7), "ms").value(3.0).yardstick_value("other", 6.0).report());
        assert_eq!((line["bench"].as_str(), line["value"].as_f64()), (Some("a/7"), Some(3.0)));
        assert_eq!((line["yardstick"]["value"].as_f64(), line["ratio"].as_f64()), (Some(6.0), Some(0.5)));
    }

    #[test]
    fn values_have_four_digits() {
        assert_eq!([12_345.6, 1.234_56, 0.012_345_6].map(round), [12_350.0, 1.235, 0.012_35]);
    }

    fn report(group: impl FnOnce(&mut Bench<'_>) -> io::Result<()>) -> serde_json::Value {
        let mut out = Vec::new();
        group(&mut Bench::new(Pace::Quick, &mut out)).unwrap();
        serde_json::from_slice(&out).unwrap()
    }
}
