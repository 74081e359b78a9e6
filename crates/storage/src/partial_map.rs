//! The map of a partial blob: which bytes are there, as a small text that grows by a line with every write.
//!
//! ```text
//! ferry-partial 1
//! size 31457280
//! 0-8388608
//! 16777216-25165824
//! ```
//! Extents are half-open, in the order in which they came. A last line without its end is one that a kill cut off: its
//! bytes count as not there. A map that is otherwise not exactly this is worthless, and so are the bytes then.

use std::ops::Range;

use ferry_store::Extents;

const FORMAT: &str = "ferry-partial 1";

/// The map of a blob of `size` bytes of which `extents` are there.
pub(crate) fn format_map(size: u64, extents: &Extents) -> String {
    let lines = extents.iter().map(format_extent);
    format!("{FORMAT}\nsize {size}\n") + &lines.collect::<String>()
}

/// The line by which the map tells of further bytes.
pub(crate) fn format_extent(extent: &Range<u64>) -> String {
    format!("{}-{}\n", extent.start, extent.end)
}

/// Reads the map of a blob of `size` bytes, of which `length` are in the file at most.
pub(crate) fn parse_map(text: &str, size: u64, length: u64) -> Option<Extents> {
    let whole = &text[..=text.rfind('\n')?];
    let mut lines = whole.strip_suffix('\n')?.split('\n');
    if lines.next()? != FORMAT || lines.next()?.strip_prefix("size ")?.parse() != Ok(size) {
        return None;
    }
    lines
        .map(|line| {
            let (start, end) = line.split_once('-')?;
            let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
            (start < end && end <= size.min(length)).then_some(start..end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let extents: Extents = [0..10, 20..30].into_iter().collect();
        assert_eq!(parse_map(&format_map(30, &extents), 30, 30), Some(extents));
        assert_eq!(parse_map(&format_map(0, &Extents::new()), 0, 0), Some(Extents::new()));
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_count() {
        let begun = "ferry-partial 1\nsize 30\n0-10\n20-25\n10-1";
        let expected: Extents = [0..10, 20..25].into_iter().collect();
        assert_eq!(parse_map(begun, 30, 30), Some(expected));
        assert_eq!(parse_map("ferry-partial 1\nsize 3", 30, 30), None);
    }

    #[test]
    fn anything_else_is_nothing() {
        let good = "ferry-partial 1\nsize 30\n0-10\n";
        assert!(parse_map(good, 30, 10).is_some());
        assert!(parse_map(good, 31, 10).is_none(), "another size");
        assert!(parse_map(good, 30, 9).is_none(), "more than the file holds");
        for bad in [
            "",
            "\0\0\0\0",
            "ferry-partial 2\nsize 30\n",
            "ferry-partial 1\nsize 30\n0-31\n",
            "ferry-partial 1\nsize 30\n9-3\n",
            "ferry-partial 1\nsize 30\n0 - 3\n",
            "ferry-partial 1\nsize 30\n\n",
            "ferry-partial 1\n",
        ] {
            assert!(parse_map(bad, 30, 1000).is_none(), "{bad:?}");
        }
    }
}
