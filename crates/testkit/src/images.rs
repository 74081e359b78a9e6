//! Real images from a seed: layers are gzipped tars, configurations carry the right `diff_ids`, manifests and indexes
//! are of OCI or Docker media types. The same seed gives the same digests on every machine.

mod builder;
mod inventory;
mod layer;
mod set;

pub use builder::{Image, ImageBuilder, MediaTypes};
pub use inventory::{Inventory, verify};
pub use layer::Layer;
pub use set::{NamedImage, SetSpec, image_set};
