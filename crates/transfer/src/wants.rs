use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Where readers of a blob wait for bytes that are not on their way yet.
#[derive(Default)]
pub(crate) struct Wants {
    waiting: Mutex<VecDeque<u64>>,
    came: Notify,
}

impl Wants {
    /// Somebody waits for the byte at `offset`.
    pub(crate) fn want(&self, offset: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.contains(&offset) {
            waiting.push_back(offset);
            self.came.notify_one();
        }
    }

    /// The next place where somebody waits.
    pub(crate) async fn next(&self) -> u64 {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(offset) => return offset,
                None => self.came.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_place_is_told_once() {
        let wants = Wants::default();
        for offset in [5, 7, 5] {
            wants.want(offset);
        }
        assert_eq!((wants.next().await, wants.next().await), (5, 7));
        assert!(futures_util::FutureExt::now_or_never(wants.next()).is_none());
        wants.want(5);
        assert_eq!(wants.next().await, 5);
    }
}
