//! Bodies of requests.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ferry_oci::MAX_MANIFEST_SIZE;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::timeout;

use crate::body::BoxError;
use crate::error::Failure;
use crate::limits::Pace;

/// At most so many bytes of a body that nobody wants are still taken, and for so long: a client that writes all before
/// it reads would otherwise meet a reset instead of the answer.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// The body of a request, given up when nothing arrives for a while.
pub(crate) struct RequestBody {
    incoming: UnsyncBoxBody<Bytes, BoxError>,
    idle: Duration,
    pace: Option<Pace>,
    /// No more can be read.
    over: bool,
}

impl RequestBody {
    pub(crate) fn new<B>(incoming: B, idle: Duration) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self { incoming: incoming.map_err(Into::into).boxed_unsync(), idle, pace: None, over: false }
    }

    /// Takes further bytes only at this pace.
    pub(crate) fn keep_to(&mut self, pace: Option<Pace>) {
        self.pace = pace;
    }

    /// How many bytes are still to come, if the client said so.
    pub(crate) fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// The next bytes; `None` once all have arrived that the client promised.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = timeout(self.idle, self.incoming.frame()).await;
            let data = match frame {
                Ok(Some(Ok(frame))) => frame.into_data(),
                Ok(None) => {
                    self.over = true;
                    return Ok(None);
                }
                Ok(Some(Err(_))) => {
                    self.over = true;
                    return Err(Failure::BodyCut);
                }
                Err(_) => {
                    self.over = true;
                    return Err(Failure::BodyIdle);
                }
            };
            // Trailers mean nothing here.
            if let Ok(bytes) = data {
                if let Some(pace) = &self.pace {
                    pace.take(bytes.len()).await;
                }
                return Ok(Some(bytes));
            }
        }
    }

    /// The whole body of a manifest.
    pub(crate) async fn manifest(&mut self) -> Result<Bytes, Failure> {
        self.whole(MAX_MANIFEST_SIZE as usize).await
    }

    /// The whole body, which has at most so many bytes.
    pub(crate) async fn whole(&mut self, limit: usize) -> Result<Bytes, Failure> {
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(Failure::TooLarge { most: limit });
        }
        let mut all = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(Failure::TooLarge { most: limit });
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// Takes what is left of a body that did not interest.
    pub(crate) async fn discard(&mut self) {
        let take = async {
            let mut taken = 0;
            while !self.over && taken < DISCARD_BYTES {
                match self.next().await {
                    Ok(Some(bytes)) => taken += bytes.len(),
                    Ok(None) | Err(_) => break,
                }
            }
        };
        // Running out of time only means that the connection ends less politely.
        let _ = timeout(DISCARD_TIME, take).await;
    }
}
