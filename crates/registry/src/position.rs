//! How far a listing has got. A cursor carries it all, so that a registry that never comes to an end is noticed whoever
//! follows it.

use ferry_store::{Cursor, Kind};

use crate::error::{Tried, What};

/// The longest listing.
pub(crate) const MAX_ENTRIES: usize = 1_000_000;
/// So many entries count as a page, and a page counts however few it has.
const PAGE: u64 = 100;
/// The most pages.
const MAX_PAGES: u64 = MAX_ENTRIES as u64 / PAGE;

/// A place in a listing: what was seen, items of the next page to pass over, and what the registry wants to hear for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pages: u64,
    pub(crate) skip: usize,
    pub(crate) at: Option<String>,
}

impl Position {
    /// Reads a cursor. One that is not ours is the name after which to begin.
    pub(crate) fn read(cursor: Option<&Cursor>) -> Self {
        let Some(cursor) = cursor else { return Self::default() };
        let ours = || {
            let (counts, at) = cursor.as_str().split_once('?')?;
            let (pages, skip) = counts.split_once('.')?;
            let at = Some(at.to_owned()).filter(|at| !at.is_empty());
            Some(Self { pages: pages.parse().ok()?, skip: skip.parse().ok()?, at })
        };
        let named = || Self { at: Some(cursor.as_str().to_owned()), ..Self::default() };
        ours().unwrap_or_else(named)
    }

    /// The cursor of what comes after a page of so many entries.
    pub(crate) fn next(&self, what: &What, seen: usize, skip: usize, at: &str) -> Tried<Cursor> {
        let pages = self.pages.saturating_add(1 + seen as u64 / PAGE);
        if pages > MAX_PAGES {
            return Err(what.failure(Kind::Invalid, format!("the listing has no end: {pages} pages so far")));
        }
        Ok(Cursor::after(format!("{pages}.{skip}?{at}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_back() {
        assert_eq!(Position::read(None), Position::default());
        let what = What::new("list", "x");
        let cursor = Position::default().next(&what, 250, 7, "n=1&last=a?b").unwrap();
        let position = Position { pages: 3, skip: 7, at: Some("n=1&last=a?b".to_owned()) };
        assert_eq!(Position::read(Some(&cursor)), position);
        let named = Position { at: Some("v1.0".to_owned()), ..Position::default() };
        assert_eq!(Position::read(Some(&Cursor::after("v1.0"))), named);
    }

    #[test]
    fn every_listing_ends() {
        let what = What::new("list", "x");
        for seen in [0, 1, 1000, usize::MAX] {
            let (mut position, mut entries) = (Position::default(), 0u64);
            while let Ok(cursor) = position.next(&what, seen, 0, "a") {
                position = Position::read(Some(&cursor));
                entries = entries.saturating_add(seen as u64);
            }
            assert!(position.pages <= MAX_PAGES && entries <= MAX_PAGES * PAGE, "{seen}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_cursor_is_read(text: String, seen: usize, at: String) {
            let position = Position::read(Some(&Cursor::after(text)));
            if let Ok(cursor) = position.next(&What::new("list", "x"), seen, 3, &at) {
                let next = Position::read(Some(&cursor));
                proptest::prop_assert!(next.pages > position.pages && next.skip == 3);
                proptest::prop_assert_eq!(next.at.unwrap_or_default(), at);
            }
        }
    }
}
