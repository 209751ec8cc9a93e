//! Medians, their spread, and ratios, for people or machines.

use std::collections::HashMap;
use std::{fs, io};

use serde_json::{Value, json};

use crate::scenario::{Sample, Scenario};
use crate::world::Variant;

/// What was measured so far.
pub(crate) struct Report {
    json: bool,
    variants: Vec<Variant>,
    samples: HashMap<(Scenario, Variant), Vec<Sample>>,
    failures: Vec<String>,
    document: Vec<Value>,
    /// Load average at the start: figures of a busy machine say little.
    load: String,
    /// adit against the stock relay, more being better.
    ratios: Vec<f64>,
}

/// The figures of one kind of proxy in one scenario.
struct Figures {
    median: f64,
    least: f64,
    most: f64,
    /// Seconds per piece of work.
    user: f64,
    system: f64,
}

impl Report {
    pub(crate) fn new(json: bool, variants: &[Variant]) -> Self {
        Self {
            json,
            variants: variants.to_vec(),
            samples: HashMap::new(),
            failures: Vec::new(),
            document: Vec::new(),
            load: load_average(),
            ratios: Vec::new(),
        }
    }

    pub(crate) fn begin(&self, scenario: Scenario) {
        self.say(&format!("\n{}: {} ({})", scenario.name(), scenario.title(), scenario.unit()));
    }

    pub(crate) fn progress(&self, scenario: Scenario, round: u32) {
        eprint!("\r{} {round} ", scenario.name());
    }

    pub(crate) fn add(&mut self, scenario: Scenario, variant: Variant, run: io::Result<Sample>) {
        match run {
            Ok(sample) => self.samples.entry((scenario, variant)).or_default().push(sample),
            Err(error) => {
                self.failures.push(format!("{} of {}: {error}", scenario.name(), variant.name()));
            }
        }
    }

    /// A run was not begun because the time is over.
    pub(crate) fn late(&mut self) {
        let words = "the time was over before all runs were done";
        if !self.failures.iter().any(|failure| failure == words) {
            self.failures.push(words.to_owned());
        }
    }

    /// Tells what a scenario gave.
    pub(crate) fn end(&mut self, scenario: Scenario) {
        eprint!("\r{:30}\r", "");
        let figures: HashMap<Variant, Figures> = self
            .variants
            .iter()
            .filter_map(|&variant| {
                let samples = self.samples.get(&(scenario, variant))?;
                Some((variant, Figures::of(samples)?))
            })
            .collect();
        let adit = figures.get(&Variant::Adit);
        let mut entry = json!({"scenario": scenario.name(), "unit": scenario.unit()});
        for variant in self.variants.clone() {
            let Some(of) = figures.get(&variant) else { continue };
            let ratio = adit.map(|adit| better(scenario, adit.median, of.median));
            if let (Variant::Stock, Some(ratio)) = (variant, ratio) {
                self.ratios.push(ratio);
            }
            self.say(&line(scenario, variant, of, ratio.filter(|_| variant != Variant::Adit)));
            entry[variant.name()] = json!({
                "median": of.median, "min": of.least, "max": of.most,
                "cpu_user": of.user, "cpu_system": of.system, "adit_is_better_by": ratio,
            });
        }
        if scenario == Scenario::KeepAlive {
            self.added(&figures, &mut entry);
        }
        self.document.push(entry);
    }

    /// What proxies add to a request that takes some time without any.
    fn added(&self, figures: &HashMap<Variant, Figures>, entry: &mut Value) {
        let median = |variant| figures.get(&variant).map(|of| of.median);
        let (Some(adit), Some(stock), Some(none)) =
            (median(Variant::Adit), median(Variant::Stock), median(Variant::None))
        else {
            return;
        };
        let ratio = (adit - none) / (stock - none);
        entry["added_ratio"] = json!(ratio);
        self.say(&format!(
            "  added: adit {:.1} us, stock {:.1} us: {ratio:.2} of it",
            adit - none,
            stock - none
        ));
    }

    /// Tells what is left to tell.
    pub(crate) fn finish(&self) {
        for failure in &self.failures {
            eprintln!("failed: {failure}");
        }
        let (before, after) = (&self.load, load_average());
        let cpus = adit::sys::process::available_cpus();
        self.say(&format!("\nload average: {before} before, {after} after, on {cpus} CPUs"));
        if self.json {
            let document = json!({
                "scenarios": self.document, "failures": self.failures,
                "load": {"before": before, "after": after, "cpus": cpus},
            });
            println!("{document:#}");
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// Whether adit is nowhere worse than this many times the stock relay.
    pub(crate) fn is_at_least(&self, ratio: f64) -> bool {
        !self.ratios.is_empty() && self.ratios.iter().all(|&found| found >= ratio)
    }

    fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }
}

impl Figures {
    fn of(samples: &[Sample]) -> Option<Self> {
        let mut values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let work: f64 = samples.iter().map(|sample| sample.work).sum();
        let per_work = |seconds: f64| if work > 0.0 { seconds / work } else { 0.0 };
        Some(Self {
            median: *values.get(values.len() / 2)?,
            least: *values.first()?,
            most: *values.last()?,
            user: per_work(samples.iter().map(|sample| sample.cpu.user).sum()),
            system: per_work(samples.iter().map(|sample| sample.cpu.system).sum()),
        })
    }
}

/// How many times better `ours` is.
fn better(scenario: Scenario, ours: f64, theirs: f64) -> f64 {
    if scenario.more_is_better() { ours / theirs } else { theirs / ours }
}

fn line(scenario: Scenario, variant: Variant, of: &Figures, ratio: Option<f64>) -> String {
    let mut text =
        format!("  {:<6}{:>9.2}  ({:.2} to {:.2})", variant.name(), of.median, of.least, of.most);
    if let Some((unit, scale)) = scenario.cpu_unit().filter(|_| of.user + of.system > 0.0) {
        let (user, system) = (of.user * scale, of.system * scale);
        text += &format!("  {:>7.2} {unit} ({user:.2} user, {system:.2} system)", user + system);
    }
    if let Some(ratio) = ratio {
        text += &format!("  adit is {ratio:.2} times as good");
    }
    text
}

/// Of the last minute.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
