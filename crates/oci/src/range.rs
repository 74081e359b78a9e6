use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::Malformed;

/// What a `Range` request header asks of a representation of known size (RFC 9110 section 14.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeRequest {
    /// Everything: no header, another unit, several ranges or a text that cannot be read, all of which a server may
    /// ignore.
    Whole,
    /// These bytes, end exclusive.
    Part(Range<u64>),
    /// Nothing that exists: answer 416.
    Unsatisfiable,
}

/// Reads a `Range` header for content of `size` bytes.
pub fn parse_range(header: &str, size: u64) -> RangeRequest {
    let Some(spec) = header.trim().strip_prefix("bytes=") else { return RangeRequest::Whole };
    let Some((first, last)) = spec.split_once('-') else { return RangeRequest::Whole };
    match (number(first.trim()), number(last.trim())) {
        (Some(first), None) if last.trim().is_empty() => part(first, size, size),
        (Some(first), Some(last)) if first <= last => part(first, last.saturating_add(1).min(size), size),
        (Some(_), Some(_)) => RangeRequest::Unsatisfiable,
        (None, Some(length)) if first.trim().is_empty() => {
            if length == 0 {
                RangeRequest::Unsatisfiable
            } else {
                part(size.saturating_sub(length), size, size)
            }
        }
        _ => RangeRequest::Whole,
    }
}

fn part(start: u64, end: u64, size: u64) -> RangeRequest {
    if start >= size { RangeRequest::Unsatisfiable } else { RangeRequest::Part(start..end) }
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The `Content-Range` of a 206 answer: `bytes 0-99/1000` (RFC 9110 section 14.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes sent, end exclusive.
    pub range: Range<u64>,
    /// Size of the whole, if the sender knows it.
    pub total: Option<u64>,
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.range.start, self.range.end.saturating_sub(1))?;
        match self.total {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

impl FromStr for ContentRange {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let read = || {
            let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
            let range = range.trim().parse::<UploadRange>().ok()?.0;
            let total = match total.trim() {
                "*" => None,
                total => Some(number(total)?),
            };
            (total.is_none_or(|total| range.end <= total)).then_some(Self { range, total })
        };
        read().ok_or_else(|| Malformed::new("Content-Range header", text, "it is bytes FIRST-LAST/SIZE"))
    }
}

/// The range of an upload, end exclusive here and inclusive on the wire: `0-99`, without unit or total
/// (distribution-spec, "Pushing a blob in chunks").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRange(pub Range<u64>);

impl fmt::Display for UploadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start, self.0.end.saturating_sub(1))
    }
}

impl FromStr for UploadRange {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let read = || {
            let (first, last) = text.trim().split_once('-')?;
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Self(first..last.checked_add(1)?))
        };
        read().ok_or_else(|| Malformed::new("upload range", text, "it is FIRST-LAST, both inclusive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        use RangeRequest::{Part, Unsatisfiable, Whole};
        for (header, expected) in [
            ("bytes=0-4", Part(0..5)),
            ("bytes=5-", Part(5..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-30", Part(0..10)),
            ("bytes=8-100", Part(8..10)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=4-3", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=0-1,3-4", Whole),
            ("items=0-1", Whole),
            ("bytes=x-", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
        ] {
            assert_eq!(parse_range(header, 10), expected, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Unsatisfiable);
    }

    #[test]
    fn content_ranges() {
        let range: ContentRange = "bytes 5-9/10".parse().unwrap();
        assert_eq!(range, ContentRange { range: 5..10, total: Some(10) });
        assert_eq!(range.to_string(), "bytes 5-9/10");
        assert_eq!("bytes 0-0/*".parse::<ContentRange>().unwrap().total, None);
        for bad in
            ["", "bytes 9-5/10", "bytes 0-10/10", "0-1/2", "bytes */10", "bytes 0-18446744073709551615/*"]
        {
            assert!(bad.parse::<ContentRange>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_part_is_inside(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in proptest::num::u64::ANY) {
            if let RangeRequest::Part(range) = parse_range(&header, size) {
                proptest::prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn upload_ranges_round_trip(start in 0u64..1 << 50, length in 1u64..1 << 50) {
            let range = UploadRange(start..start + length);
            proptest::prop_assert_eq!(range.to_string().parse::<UploadRange>().unwrap(), range);
        }
    }
}
