//! Orders to fetch images, which go on whoever waits for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_policy::platforms::Selection;
use ferry_serve::{WarmImage, WarmOrder, WarmState, Warming};
use ferry_transfer::{PullThrough, Warm};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Images that are fetched at once, of all orders.
const AT_ONCE: usize = 3;

/// Orders that can be asked about; those that are over give way to new ones.
const MOST: usize = 200;

/// Fetches images in the background.
pub(crate) struct Warmer {
    orders: Mutex<VecDeque<Arc<Order>>>,
    numbers: AtomicU64,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

struct Order {
    id: u64,
    images: Vec<Image>,
}

struct Image {
    bytes: AtomicU64,
    seen: Mutex<WarmImage>,
}

/// Where an image comes from, or why it does not.
pub(crate) type Source = Result<Arc<PullThrough>, String>;

impl Warmer {
    /// Nothing begins, and what has begun is left, once `stop` is cancelled.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self {
            orders: Mutex::default(),
            numbers: AtomicU64::new(1),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            stop,
        }
    }

    /// Begins an order; `sources` are those of its images. `None` if too many are under way.
    pub(crate) fn begin(&self, order: WarmOrder, sources: Vec<Source>) -> Option<Warming> {
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let image = |image| {
            let seen = WarmImage { image, state: WarmState::Waiting, bytes: 0 };
            Image { bytes: AtomicU64::new(0), seen: Mutex::new(seen) }
        };
        let begun = Arc::new(Order { id, images: order.images.into_iter().map(image).collect() });
        {
            let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
            if orders.len() >= MOST {
                orders.retain(|order| !order.seen().is_over());
            }
            if orders.len() >= MOST {
                return None;
            }
            orders.push_back(Arc::clone(&begun));
        }
        let seen = begun.seen();
        let (places, stop, platforms) = (Arc::clone(&self.places), self.stop.clone(), order.platforms);
        tokio::spawn(async move {
            let all = begun.run(sources, platforms.as_ref(), &places);
            stop.run_until_cancelled(all).await;
        });
        Some(seen)
    }

    /// How far an order is.
    pub(crate) fn seen(&self, id: u64) -> Option<Warming> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.iter().find(|order| order.id == id).map(|order| order.seen())
    }
}

impl Order {
    fn seen(&self) -> Warming {
        Warming { id: self.id, images: self.images.iter().map(Image::seen).collect() }
    }

    async fn run(&self, sources: Vec<Source>, platforms: Option<&Selection>, places: &Semaphore) {
        let each = self.images.iter().zip(sources).map(async |(image, source)| {
            // The semaphore is never closed.
            let _place = places.acquire().await;
            image.tell(WarmState::Running);
            let state = match source {
                Ok(store) => image.fetch(&store, platforms).await,
                Err(why) => WarmState::Failed(why),
            };
            image.tell(state);
        });
        futures_util::future::join_all(each).await;
    }
}

impl Image {
    fn seen(&self) -> WarmImage {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        WarmImage { bytes: self.bytes.load(Ordering::Relaxed), ..seen }
    }

    fn tell(&self, state: WarmState) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).state = state;
    }

    async fn fetch(&self, store: &PullThrough, platforms: Option<&Selection>) -> WarmState {
        let image = self.seen().image;
        let warm = Warm { name: &image.repository, reference: &image.reference(), platforms };
        let kept = |bytes| {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        match store.warm(warm, &kept).await {
            Ok(()) => WarmState::Done,
            Err(error) => WarmState::Failed(error.to_string()),
        }
    }
}
