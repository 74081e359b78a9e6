//! Registries, clients, engines and proxies that nobody here wrote, as Debian packages them. Each gets a directory of its own,
//! listens on a free loopback port or a socket in that directory, and ends with the value that started it.

mod docker_registry;
mod engines;
mod pebble;
mod peers_s3;
mod proxies;

use std::io;
use std::process::Child;
use std::time::Duration;

pub use docker_registry::{DockerRegistry, PASSWORD, RegistryOptions, TokenAuth, USER, skopeo};
pub use engines::Engine;
pub use pebble::{Pebble, PebbleOptions};
pub use peers_s3::{BUCKET, KEY, S3Server, SECRET};
pub use proxies::{Microsocks, Squid};

/// How long a program may take to start or to end, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn missing(error: io::Error, program: &str, package: &str) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let text = format!("{program} is missing; install the Debian package {package}");
            io::Error::new(io::ErrorKind::NotFound, text)
        }
        _ => error,
    }
}

/// A process that ends with the value.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
