use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::network;

/// Counts the connections of each address.
#[derive(Clone)]
pub(crate) struct Places {
    most: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The place of a connection, free again when this is dropped.
pub(crate) struct Place {
    places: Places,
    network: IpAddr,
}

impl Places {
    /// `most` for each address; `None` for as many as it likes.
    pub(crate) fn new(most: Option<NonZeroUsize>) -> Self {
        Self { most: most.map_or(usize::MAX, NonZeroUsize::get), taken: Arc::default() }
    }

    /// A place for a connection from there, if there is one left.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own() {
        let places = Places::new(NonZeroUsize::new(2));
        let take = |text: &str| places.take(text.parse().unwrap());
        let held = [take("192.0.2.1").unwrap(), take("192.0.2.1").unwrap()];
        assert!(take("192.0.2.1").is_none() && take("192.0.2.2").is_some());
        let [one, _other] = held;
        drop(one);
        assert!(take("192.0.2.1").is_some());
        assert_eq!(places.taken.lock().unwrap().len(), 1);
    }
}
