//! Lines over the last hour, drawn as SVG paths.

use std::fmt::Write;

use super::history::INTERVALS;

/// The drawing in its own units; it is stretched to the width that there is.
pub(super) const WIDTH: usize = 480;
/// See [`WIDTH`].
pub(super) const HEIGHT: usize = 120;

/// The path of a line that ends now, at the right; `top` is the value at the upper edge. It is broken where there is no
/// value.
pub(super) fn line(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (x, value) in placed(values) {
        match value {
            None => drawing = false,
            Some(value) => {
                let command = if drawing { 'L' } else { 'M' };
                // Writing to a string cannot fail.
                let _ = write!(path, "{command}{x} {:.1}", height(value, top));
                // A value between two gaps is a dot.
                if !drawing {
                    path += "h.01";
                }
                drawing = true;
            }
        }
    }
    path
}

/// The area below such a line without gaps.
pub(super) fn area(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    for (x, value) in placed(values) {
        let command = if path.is_empty() { format!("M{x} {HEIGHT}L") } else { "L".to_owned() };
        let _ = write!(path, "{command}{x} {:.1}", height(value.unwrap_or_default(), top));
    }
    if !path.is_empty() {
        let _ = write!(path, "L{WIDTH} {HEIGHT}Z");
    }
    path
}

/// Each value with its place from the left.
fn placed(values: &[Option<f64>]) -> impl Iterator<Item = (usize, Option<f64>)> {
    let step = WIDTH / INTERVALS;
    let values = &values[values.len().saturating_sub(INTERVALS)..];
    let before = INTERVALS - values.len();
    values.iter().enumerate().map(move |(at, value)| ((before + at + 1) * step, *value))
}

/// How far from the upper edge a value is.
fn height(value: f64, top: f64) -> f64 {
    let share = if top > 0.0 { (value / top).clamp(0.0, 1.0) } else { 0.0 };
    (1.0 - share) * HEIGHT as f64
}

/// A round number that nothing is above: 1, 2 or 5 times a power of ten.
pub(super) fn top(values: impl IntoIterator<Item = f64>) -> f64 {
    let most = values.into_iter().fold(0.0, f64::max).max(1.0);
    let unit = 10_f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|times| times * unit).find(|top| *top >= most).unwrap_or(10.0 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_right_and_are_broken_where_nothing_is_known() {
        assert_eq!(
            line(&[Some(0.0), Some(5.0), None, Some(10.0)], 10.0),
            "M474 120.0h.01L476 60.0M480 0.0h.01"
        );
        assert_eq!(area(&[Some(5.0), Some(10.0)], 10.0), "M478 120L478 60.0L480 0.0L480 120Z");
        assert_eq!((line(&[], 1.0), area(&[], 1.0)), (String::new(), String::new()));
        let many = vec![Some(1.0); 1000];
        assert!(line(&many, 1.0).starts_with("M2 0.0h.01L4 0.0"));
    }

    #[test]
    fn the_top_is_round() {
        for (most, expected) in [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (4200.0, 5000.0), (5001.0, 10_000.0)] {
            assert_eq!(top([0.0, most]), expected);
        }
    }
}
