//! What is printed of one case.

use serde_json::{Value, json};

use crate::table::spread;

/// The figures of one run, by name.
pub type Figures = Vec<(&'static str, f64)>;

/// The runs of one program; those that failed are none.
#[derive(Default)]
pub struct Column {
    pub program: String,
    pub runs: Vec<Option<Figures>>,
}

/// What is wanted.
#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// The figures of one case: a column for each program, ferry first.
pub struct Table {
    pub title: String,
    pub columns: Vec<Column>,
    verdicts: Vec<Verdict>,
}

struct Verdict {
    what: String,
    bound: Bound,
    /// One for each run of ferry, unless something failed.
    values: Option<Vec<f64>>,
}

impl Table {
    pub fn new(title: impl Into<String>, programs: impl IntoIterator<Item = impl ToString>) -> Self {
        let column = |program: _| Column { program: ToString::to_string(&program), runs: Vec::new() };
        let columns = programs.into_iter().map(column).collect();
        Self { title: title.into(), columns, verdicts: Vec::new() }
    }

    /// Adds a run of a program.
    pub fn add(&mut self, program: impl ToString, figures: anyhow::Result<Figures>) {
        let program = program.to_string();
        let figures = figures.inspect_err(|error| eprintln!("{program} failed: {error:#}")).ok();
        match self.columns.iter_mut().find(|column| column.program == program) {
            Some(column) => column.runs.push(figures),
            None => self.columns.push(Column { program, runs: vec![figures] }),
        }
    }

    /// Bounds a figure of ferry.
    pub fn bound(&mut self, figure: &'static str, bound: Bound) {
        let values = self.columns.first().and_then(|ferry| values(ferry, figure));
        self.verdicts.push(Verdict { what: figure.to_owned(), bound, values });
    }

    /// Bounds a figure of ferry divided by that of an opponent, run by run; who ran less often counts with the last run.
    pub fn ratio(&mut self, figure: &'static str, opponent: &str, bound: Bound) {
        let other = self.columns.iter().find(|column| column.program == opponent);
        let ferry = self.columns.first().and_then(|ferry| values(ferry, figure));
        let values = ferry.zip(other.and_then(|other| values(other, figure))).and_then(|(ours, theirs)| {
            let last = *theirs.last()?;
            let theirs = theirs.into_iter().chain(std::iter::repeat(last));
            Some(ours.into_iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
        });
        self.verdicts.push(Verdict { what: format!("{figure} / {opponent}"), bound, values });
    }

    pub fn render(&self) -> String {
        let heads: Vec<&str> = self.columns.iter().map(|column| column.program.as_str()).collect();
        let mut text =
            format!("| {} | {} |\n|{}\n", self.title, heads.join(" | "), " --- |".repeat(heads.len() + 1));
        for name in self.names() {
            let cells: Vec<String> = self.columns.iter().map(|column| cell(column, name)).collect();
            text += &format!("| {name} | {} |\n", cells.join(" | "));
        }
        text.push('\n');
        self.verdicts.iter().for_each(|verdict| text += &verdict.render());
        text
    }

    /// All figures, in the order in which they come first.
    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (name, _) in self.columns.iter().flat_map(|column| &column.runs).flatten().flatten() {
            if !names.contains(name) {
                names.push(*name);
            }
        }
        names
    }

    pub fn json(&self) -> Value {
        let run = |figures: &Option<Figures>| {
            let figures = figures.as_ref()?;
            Some(figures.iter().map(|(n, v)| ((*n).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>())
        };
        let runs = |column: &Column| json!(column.runs.iter().map(run).collect::<Vec<_>>());
        let columns: serde_json::Map<_, _> =
            self.columns.iter().map(|column| (column.program.clone(), runs(column))).collect();
        let verdicts: Vec<Value> = self.verdicts.iter().map(Verdict::json).collect();
        json!({"title": self.title, "runs": columns, "targets": verdicts})
    }
}

impl Verdict {
    fn is_met(&self) -> bool {
        let middle = self.values.as_deref().and_then(spread).map(|(_, middle, _)| middle);
        middle.is_some_and(|middle| match self.bound {
            Bound::AtMost(most) => middle <= most,
            Bound::AtLeast(least) => middle >= least,
        })
    }

    fn render(&self) -> String {
        let wanted = match self.bound {
            Bound::AtMost(most) => format!("<= {most}"),
            Bound::AtLeast(least) => format!(">= {least}"),
        };
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        match self.values.as_deref().and_then(spread) {
            Some((low, middle, high)) => {
                format!("- {} {wanted}: {verdict}, {middle:.2} ({low:.2}..{high:.2})\n", self.what)
            }
            None => format!(
                "- {} {wanted}: {verdict}, a run failed or there is nobody to compare with\n",
                self.what
            ),
        }
    }

    fn json(&self) -> Value {
        let (kind, bound) = match self.bound {
            Bound::AtMost(most) => ("at_most", most),
            Bound::AtLeast(least) => ("at_least", least),
        };
        json!({"what": self.what, kind: bound, "values": self.values, "met": self.is_met()})
    }
}

/// The figure of every run, unless there is none or one failed.
fn values(column: &Column, figure: &str) -> Option<Vec<f64>> {
    let of = |figures: &Option<Figures>| {
        figures.as_ref()?.iter().find(|(name, _)| *name == figure).map(|(_, value)| *value)
    };
    column.runs.iter().map(of).collect::<Option<Vec<f64>>>().filter(|values| !values.is_empty())
}

fn cell(column: &Column, figure: &str) -> String {
    if column.runs.iter().any(Option::is_none) {
        return "failed".to_owned();
    }
    let middle = values(column, figure).as_deref().and_then(spread);
    middle.map_or_else(|| "–".to_owned(), |(_, middle, _)| format!("{middle:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_run_by_run_and_failures_count() {
        let mut table = Table::new("t", ["ferry", "a", "b"]);
        for (ferry, a) in [(8.0, 10.0), (9.0, 10.0), (20.0, 10.0)] {
            table.add("ferry", Ok(vec![("GiB/s", ferry)]));
            table.add("a", Ok(vec![("GiB/s", a)]));
        }
        table.add("b", Err(anyhow::anyhow!("it failed")));
        table.ratio("GiB/s", "a", Bound::AtLeast(0.85));
        table.ratio("GiB/s", "b", Bound::AtLeast(0.85));
        table.ratio("GiB/s", "c", Bound::AtMost(1.0));
        table.bound("GiB/s", Bound::AtMost(1.0));
        let text = table.render();
        assert!(text.contains("| GiB/s | 9.00 | 10.00 | failed |"), "{text}");
        assert!(text.contains("- GiB/s / a >= 0.85: met, 0.90 (0.80..2.00)"), "{text}");
        assert!(text.contains("- GiB/s / b >= 0.85: MISSED, a run failed"), "{text}");
        assert!(text.contains("- GiB/s / c <= 1: MISSED, a run failed"), "{text}");
        assert!(text.contains("- GiB/s <= 1: MISSED, 9.00"), "{text}");
    }
}
