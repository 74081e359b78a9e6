use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::daily::Account;
use super::pace::Pace;
use crate::body::{BoxError, ResponseBody};

/// A body that keeps to a pace, and is counted.
pub(super) struct Measured {
    body: ResponseBody,
    pace: Option<Pace>,
    account: Option<Account>,
    /// What has come from `body` and may not go on yet.
    held: Bytes,
    /// So much of it goes next.
    portion: usize,
    /// Until then it waits, if it is `waiting`; kept for the next time.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Measured {
    pub(super) fn new(body: ResponseBody, pace: Option<Pace>, account: Option<Account>) -> Self {
        Self { body, pace, account, held: Bytes::new(), portion: 0, timer: None, waiting: false }
    }

    /// Decides how much of what is held goes next, and when.
    fn reserve(&mut self) {
        let Some(pace) = &self.pace else {
            self.portion = self.held.len();
            return;
        };
        self.portion = self.held.len().min(pace.portion());
        let now = Instant::now();
        let at = pace.reserve(self.portion, now);
        if at > now {
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at),
                None => self.timer = Some(Box::pin(sleep_until(at))),
            }
            self.waiting = true;
        }
    }
}

impl Body for Measured {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.held.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(bytes) => self.held = bytes,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        if self.portion == 0 {
            self.reserve();
        }
        if self.waiting
            && let Some(timer) = &mut self.timer
        {
            ready!(timer.as_mut().poll(context));
            self.waiting = false;
        }
        let portion = std::mem::take(&mut self.portion);
        let bytes = self.held.split_to(portion);
        if let Some(account) = &self.account {
            account.add(bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let held = self.held.len() as u64;
        match hint.exact() {
            Some(rest) => SizeHint::with_exact(rest + held),
            None => {
                hint.set_lower(hint.lower() + held);
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::super::pace::Pacer;
    use super::*;
    use crate::body::full;

    #[tokio::test(start_paused = true)]
    async fn bytes_come_evenly_and_unchanged() {
        let content: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let pacer = Arc::new(Pacer::new(40_000));
        let mut body = Measured::new(full(content.clone()), Pace::new([pacer]), None);
        let begun = Instant::now();
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= 10_000);
            read.extend_from_slice(&data);
            assert_eq!(body.size_hint().exact(), Some((content.len() - read.len()) as u64));
            // Never further than one portion ahead of the rate, give or take what timers lag.
            let due = 40_000.0 * (begun.elapsed() + Duration::from_millis(51)).as_secs_f64();
            assert!(read.len() as f64 <= due + 10_000.0, "{} {due}", read.len());
        }
        assert_eq!(read, content);
        assert!(body.is_end_stream());
        assert!(begun.elapsed() >= Duration::from_millis(2_150), "{:?}", begun.elapsed());
    }
}
