//! The situations that are measured, and what is wanted of ferry in each.

use std::time::Duration;

use ferry_testkit::link::{LinkOptions, Reset};

use crate::measure::{Figures, direct};

/// On which side the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The image set.
    Images,
    /// One image with one layer of so many bytes.
    Layer(u64),
}

/// What is done with a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It copies.
    Copy,
    /// It is killed when nine tenths have come, and copies again.
    Killed,
}

/// A bound for a figure of ferry.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub of: fn(&Figures) -> Option<f64>,
    /// The bound: of the best opponent's figure, or of the figure itself.
    pub most: f64,
    pub ratio: bool,
}

/// One situation.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: &'static str,
    pub title: String,
    pub load: Load,
    pub side: Side,
    pub link: LinkOptions,
    pub course: Course,
    /// Opponents take minutes: one run of each has to do.
    pub slow: bool,
    pub targets: Vec<Target>,
}

const MIB: u64 = 1 << 20;

const fn ratio(name: &'static str, of: fn(&Figures) -> Option<f64>, most: f64) -> Target {
    Target { name, of, most, ratio: true }
}

const fn bound(name: &'static str, of: fn(&Figures) -> Option<f64>, most: f64) -> Target {
    Target { name, of, most, ratio: false }
}

const MEMORY: Target = bound("peak MiB", |f| Some(f.memory), 64.0);

/// All cases. With `full` the layers on links have 1 GiB.
pub fn all(full: bool) -> Vec<Case> {
    let layer = Load::Layer(if full { 1024 * MIB } else { 128 * MIB });
    let wall: fn(&Figures) -> Option<f64> = |f| Some(f.wall);
    let case = |name, title: &str, load, link| Case {
        name,
        title: title.to_owned(),
        load,
        side: Side::Source,
        link,
        course: Course::Copy,
        slow: false,
        targets: vec![MEMORY],
    };
    let far = LinkOptions { latency: Duration::from_millis(50), rate: Some(2_500_000), ..direct() };
    let near = LinkOptions { latency: Duration::from_millis(25), ..direct() };
    let thin = LinkOptions { total_rate: Some(625_000), ..direct() };
    let breaking = LinkOptions { reset: Reset::Every(8_000_000), ..far.clone() };
    let cpu = ratio("CPU s", |f| Some(f.cpu), 0.6);
    let loopback = vec![ratio("wall s", wall, 0.6), cpu, MEMORY];
    let read = bound("MB read / size", |f| f.fetched, 1.02);
    let thin_layer = Load::Layer(32 * MIB);
    vec![
        Case { targets: loopback, ..case("images-loopback", "20 images, loopback", Load::Images, direct()) },
        Case {
            targets: vec![ratio("wall s", wall, 0.4), MEMORY],
            ..case("images-50ms", "20 images, 50 ms", Load::Images, near)
        },
        case("layer-loopback", "one layer of 1 GiB, loopback", Load::Layer(1024 * MIB), direct()),
        Case {
            slow: true,
            targets: vec![ratio("wall s", wall, 0.3), MEMORY],
            ..case("layer-slow", "one layer, 100 ms, 20 Mbit/s per connection", layer, far.clone())
        },
        Case {
            slow: true,
            targets: vec![read, MEMORY],
            ..case("layer-resets", "the same, a reset every 8 MB", layer, breaking)
        },
        Case {
            slow: true,
            course: Course::Killed,
            ..case("layer-killed", "the same without resets, SIGKILL at 90 %, run again", layer, far)
        },
        Case {
            slow: true,
            side: Side::Target,
            ..case("slow-target", "one layer of 32 MiB, target of 5 Mbit/s", thin_layer, thin.clone())
        },
        Case {
            slow: true,
            ..case("slow-source", "one layer of 32 MiB, source of 5 Mbit/s", thin_layer, thin)
        },
    ]
}
