//! What is printed.

use serde_json::{Value, json};

use crate::cases::{Case, Load, Target};
use crate::measure::Figures;

/// The runs of one program in one case: those that failed are none.
pub struct Runs {
    pub program: String,
    pub figures: Vec<Option<Figures>>,
}

type Row = (&'static str, fn(&Figures) -> Option<f64>);

const ROWS: [Row; 7] = [
    ("wall s", |f| Some(f.wall)),
    ("CPU s", |f| Some(f.cpu)),
    ("peak MiB", |f| Some(f.memory)),
    ("disk MiB", |f| f.disk),
    ("requests", |f| Some(f.requests)),
    ("MB over the link", |f| Some(f.delivered)),
    ("MB read", |f| f.fetched),
];

/// The figures of one case: a column for each program, ferry first.
pub fn render(case: &Case, runs: &[Runs]) -> String {
    let heads: Vec<&str> = runs.iter().map(|runs| runs.program.as_str()).collect();
    let mut text =
        format!("| {} | {} |\n|{}\n", case.title, heads.join(" | "), " --- |".repeat(heads.len() + 1));
    for (name, of) in ROWS {
        let cells: Vec<String> = runs.iter().map(|runs| cell(runs, of)).collect();
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    text.push('\n');
    for target in &case.targets {
        text += &verdict(case, target, runs);
    }
    text
}

fn cell(runs: &Runs, of: fn(&Figures) -> Option<f64>) -> String {
    if runs.figures.iter().any(Option::is_none) {
        return "failed".to_owned();
    }
    let values: Vec<f64> = runs.figures.iter().flatten().filter_map(of).collect();
    spread(&values).map_or_else(|| "–".to_owned(), |(_, middle, _)| format!("{middle:.2}"))
}

/// Whether ferry keeps to a target.
fn verdict(case: &Case, target: &Target, runs: &[Runs]) -> String {
    let Some((ferry, peers)) = runs.split_first() else { return String::new() };
    let values: Vec<f64> =
        (0..ferry.figures.len()).filter_map(|run| value(case, target, ferry, peers, run)).collect();
    let what = if target.ratio { " / best opponent" } else { "" };
    match spread(&values) {
        Some((low, middle, high)) if values.len() == ferry.figures.len() => {
            let met = if middle <= target.most { "met" } else { "MISSED" };
            format!("- {}{what} <= {}: {met}, {middle:.2} ({low:.2}..{high:.2})\n", target.name, target.most)
        }
        _ => format!(
            "- {}{what} <= {}: MISSED, a run failed or there is nobody to compare with\n",
            target.name, target.most
        ),
    }
}

/// The figure of one run that a target bounds. Opponents that ran less often count with their last run.
fn value(case: &Case, target: &Target, ferry: &Runs, peers: &[Runs], run: usize) -> Option<f64> {
    let ours = (target.of)(ferry.figures.get(run)?.as_ref()?)?;
    if !target.ratio {
        return Some(match (target.name, case.load) {
            ("MB read / size", Load::Layer(size)) => ours * 1e6 / size as f64,
            _ => ours,
        });
    }
    let of_run = |runs: &Runs| {
        let figures = runs.figures.get(run).or_else(|| runs.figures.last())?;
        (target.of)(figures.as_ref()?)
    };
    let best = peers.iter().filter_map(of_run).min_by(f64::total_cmp)?;
    Some(ours / best)
}

/// The same for programs.
pub fn json(runs: &[Runs]) -> Value {
    let of_run = |figures: &Option<Figures>| {
        let figures = figures.as_ref()?;
        Some(
            ROWS.iter()
                .map(|(name, of)| ((*name).to_owned(), json!(of(figures))))
                .collect::<serde_json::Map<_, _>>(),
        )
    };
    let of = |runs: &Runs| json!(runs.figures.iter().map(of_run).collect::<Vec<_>>());
    Value::Object(runs.iter().map(|runs| (runs.program.clone(), of(runs))).collect())
}

/// Least, median and greatest.
pub fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((*sorted.first()?, *sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn runs(program: &str, walls: &[f64]) -> Runs {
        let run = |wall: &f64| {
            wall.is_finite().then_some(Figures {
                wall: *wall,
                cpu: 1.0,
                memory: 1.0,
                disk: None,
                requests: 1.0,
                delivered: 1.0,
                fetched: None,
            })
        };
        Runs { program: program.to_owned(), figures: walls.iter().map(run).collect() }
    }

    #[test]
    fn ratios_are_taken_run_by_run_against_the_best() {
        let case = &cases::all(false)[0];
        let all = [runs("ferry", &[1.0, 4.0, 3.0]), runs("a", &[5.0, 8.0, 12.0]), runs("b", &[2.0])];
        let text = render(case, &all);
        assert!(text.contains("| wall s | 3.00 | 8.00 | 2.00 |"), "{text}");
        assert!(text.contains("- wall s / best opponent <= 0.6: MISSED, 1.50 (0.50..2.00)"), "{text}");
        assert!(text.contains("- peak MiB <= 64: met"), "{text}");
    }

    #[test]
    fn a_run_that_failed_is_not_left_out() {
        let case = &cases::all(false)[0];
        let text = render(case, &[runs("ferry", &[1.0, f64::NAN]), runs("a", &[f64::NAN, f64::NAN])]);
        assert!(
            text.contains("| wall s | failed | failed |") && text.contains("MISSED, a run failed"),
            "{text}"
        );
    }
}
