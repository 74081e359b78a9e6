//! The transfer core: moves images between two stores, each blob once, verified, and resumable.
//!
//! A [`Copier`] lives as long as one run. It walks the graph of an image children first and writes the tag last; every
//! blob is moved by one flight, however many images of the run want it at the same time. What the run learns of a
//! target (which repository holds which blob) saves requests and is only ever a hint: being wrong costs a request.
//!
//! A [`PullThrough`] lives as long as a mirror. It makes one of a store and a cache: what is asked for comes from the cache, or
//! from the upstream by flights that no client owns, and is read while it arrives.
//!
//! A target that does not take an image as it is gets one that was rewritten by declared degradations: then the manifests
//! are fetched and rewritten first, and the walk goes over what they have become. The same for an image of which only some
//! platforms were asked for.
//!
//! What belongs to an image (its referrers, and what is under cosign's tags) comes after it, and is looked for even if the
//! image is at its target already. [`Copier::survey`] tells all that without writing anything.

mod belongings;
mod compare;
mod copier;
mod fill;
mod flight;
mod graph;
mod known;
mod lanes;
mod mirrors;
mod plan;
mod platforms;
mod progress;
mod pull;
mod reader;
mod retry;
mod send;
mod sources;
mod spool;
mod survey;
mod wants;
mod work;

pub use copier::{Copier, Options};
pub use graph::{Figures, Job, Outcome, Place};
pub use mirrors::{Mirror, Mirrors};
pub use plan::Degraded;
pub use progress::{Moving, Progress};
pub use pull::{FlightFigures, Freshness, PullFigures, PullOptions, PullThrough, Warm};
pub use retry::Retry;
pub use survey::Survey;
