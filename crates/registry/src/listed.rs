//! What a listing of tags says of the referrers that are listed under tags.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_oci::{Tag, is_fallback_tag};
use ferry_store::{Cursor, Page, TagEntry};

/// So many fallback tags are remembered of a repository. One with more is asked for each.
const MOST: usize = 100_000;

/// The fallback tags of a repository whose tags were listed from the first to the last page. Where there is no referrers
/// API this answers for the subjects that have no such tag, without a request for each.
#[derive(Default)]
pub(crate) struct Listed(Mutex<State>);

#[derive(Default)]
struct State {
    tags: HashSet<Tag>,
    next: Option<Cursor>,
    whole: bool,
}

impl Listed {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves less than was listed at worst, and never what is marked as whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page was listed, or could not be. Only pages that follow each other make a whole.
    pub(crate) fn learn(&self, after: Option<&Cursor>, page: Option<&Page<TagEntry>>) {
        let mut state = self.lock();
        if after.is_none() {
            *state = State::default();
        } else if state.next.as_ref() != after {
            return;
        }
        let Some(page) = page else { return *state = State::default() };
        let tags = page.items.iter().map(|entry| &entry.tag).filter(|tag| is_fallback_tag(tag));
        state.tags.extend(tags.cloned());
        if state.tags.len() > MOST {
            *state = State::default();
            return;
        }
        state.next.clone_from(&page.next);
        state.whole = page.next.is_none();
    }

    /// Whether it is known that there is no such tag.
    pub(crate) fn lacks(&self, tag: &Tag) -> bool {
        let state = self.lock();
        state.whole && !state.tags.contains(tag)
    }

    /// The tags are about to change.
    pub(crate) fn forget(&self) {
        *self.lock() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use ferry_oci::{Digest, fallback_tag};

    use super::*;

    fn page(tags: &[&Tag], next: Option<&str>) -> Page<TagEntry> {
        let entry = |tag: &&Tag| TagEntry { tag: Tag::clone(tag), digest: None, pushed: None };
        Page::new(tags.iter().map(entry).collect(), next.map(Cursor::after))
    }

    #[test]
    fn only_a_whole_listing_says_what_is_not_there() {
        let [one, two, other] = ["1", "2", "3"].map(|text| fallback_tag(&Digest::sha256(text.as_bytes())));
        let listed = Listed::default();
        let first = page(&[&Tag::latest(), &one], Some("x"));
        listed.learn(None, Some(&first));
        assert!(!listed.lacks(&other), "there is more to come");
        listed.learn(Some(&Cursor::after("y")), Some(&page(&[], None)));
        assert!(!listed.lacks(&other), "that was another listing");
        listed.learn(Some(&Cursor::after("x")), Some(&page(&[&two], None)));
        assert!(listed.lacks(&other) && !listed.lacks(&one) && !listed.lacks(&two));
        listed.learn(None, Some(&first));
        assert!(!listed.lacks(&other), "it begins again");
        listed.learn(Some(&Cursor::after("x")), None);
        listed.learn(Some(&Cursor::after("x")), Some(&page(&[], None)));
        assert!(!listed.lacks(&other), "a page is missing");
        listed.learn(None, Some(&page(&[], None)));
        assert!(listed.lacks(&one));
        listed.forget();
        assert!(!listed.lacks(&one));
    }
}
