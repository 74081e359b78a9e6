//! What is printed.

use serde_json::{Value, json};

use crate::measure::Figures;

type Column = (&'static str, fn(&Figures) -> f64);

const COLUMNS: [Column; 5] = [
    ("wall s", |f| f.wall),
    ("CPU s", |f| f.cpu),
    ("peak MiB", |f| f.memory),
    ("requests", |f| f.requests),
    ("MB fetched", |f| f.bytes / 1e6),
];

/// The figures of one case as a table: ferry first, then skopeo.
pub fn render(case: &str, [ferry, skopeo]: &[Vec<Figures>; 2]) -> String {
    let mut text = format!("| {case} | ferry | skopeo | ratio |\n| --- | --- | --- | --- |\n");
    for (name, figure) in COLUMNS {
        let of = |runs: &[Figures]| runs.iter().map(figure).collect::<Vec<f64>>();
        let (ours, theirs) = (of(ferry), of(skopeo));
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        let (low, middle, high) = spread(&ratios);
        text += &format!(
            "| {name} | {:.2} | {:.2} | {middle:.2} ({low:.2}..{high:.2}) |\n",
            spread(&ours).1,
            spread(&theirs).1
        );
    }
    text
}

/// The same for programs.
pub fn json(figures: &[Vec<Figures>; 2]) -> Value {
    let runs = |runs: &Vec<Figures>| {
        let run = |f: &Figures| {
            COLUMNS
                .iter()
                .map(|(name, of)| ((*name).to_owned(), json!(of(f))))
                .collect::<serde_json::Map<_, _>>()
        };
        runs.iter().map(run).collect::<Vec<_>>()
    };
    json!({"ferry": runs(&figures[0]), "skopeo": runs(&figures[1])})
}

/// Least, median and greatest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(low), Some(middle), Some(high)) => (*low, *middle, *high),
        _ => (f64::NAN, f64::NAN, f64::NAN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let run = |wall| Figures { wall, cpu: 1.0, memory: 1.0, requests: 1.0, bytes: 1.0 };
        let text = render("case", &[vec![run(1.0), run(4.0), run(3.0)], vec![run(2.0), run(4.0), run(12.0)]]);
        assert!(text.contains("| wall s | 3.00 | 4.00 | 0.50 (0.25..1.00) |"), "{text}");
    }
}
