//! The main job on this machine alone: no account, no internet, nothing to configure.
//!
//! Two embedded registries with a slow and breaking link between them. A set of multi-platform images with shared layers
//! is copied, the copy is killed half-way, started again, and every digest at the target is computed anew.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferry_oci::Reference;
use ferry_serve::{Limits, RegistryService};
use ferry_storage::Storage;
use ferry_store::{Scope, Store};
use ferry_testkit::images::{Inventory, NamedImage, SetSpec, image_set, verify};
use ferry_testkit::link::{Link, LinkOptions, Reset};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// With this argument the demo is ferry itself: a process of its own that can be killed.
const AS_FERRY: &str = "as-ferry";

const IMAGES: SetSpec = SetSpec { images: 12, seed: 1, base_size: 20 << 20, own_size: 1 << 20 };

fn link() -> LinkOptions {
    LinkOptions {
        latency: Duration::from_millis(25),
        rate: Some(4_000_000),
        total_rate: Some(16_000_000),
        reset: Reset::Every(5_000_000),
    }
}

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == AS_FERRY) {
        arguments.remove(1);
        return ferry::run(arguments, ferry::Environment::of_this_process());
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(demo()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("demo: {error}");
    ExitCode::FAILURE
}

async fn demo() -> Result<()> {
    let directory = tempfile::tempdir()?;
    println!(
        "Two registries on this machine, and a link between them: 25 ms one way, 4 MB/s per connection, 16 MB/s in"
    );
    println!("all, and every connection breaks after 5 MB.\n");
    let images = image_set(&IMAGES);
    let (source, source_address) = registry(&directory.path().join("source")).await?;
    let (target, target_address) = registry(&directory.path().join("target")).await?;
    let expected = fill(&*source, &images).await?;
    println!(
        "source     {} images of 3 platforms, {} manifests and {} blobs, {} once shared layers are counted once",
        images.len(),
        expected.manifests.len(),
        expected.blobs.len(),
        megabytes(expected.bytes())
    );

    let link = Link::start(source_address, link()).await?;
    let list = directory.path().join("images.txt");
    let line = |named: &NamedImage| {
        let NamedImage { repository, tag, .. } = named;
        format!("{}/{repository}:{tag} {target_address}/mirror/{repository}:{tag}\n", link.host())
    };
    std::fs::write(&list, images.iter().map(line).collect::<String>())?;

    let started = Instant::now();
    let mut first = start_ferry(&list, directory.path())?;
    while link.stats().bytes_down < expected.bytes() / 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(status) = first.try_wait()? {
            return Err(format!("the first run ended before it could be killed: {status}").into());
        }
    }
    first.kill()?;
    first.wait()?;
    let before = link.stats();
    println!(
        "first run  killed after {:.1} s and {} over the link, {} connections broken",
        started.elapsed().as_secs_f64(),
        megabytes(before.bytes_down),
        before.resets
    );

    link.reset_stats();
    let started = Instant::now();
    let status = start_ferry(&list, directory.path())?.wait()?;
    if !status.success() {
        return Err(format!("the second run failed: {status}").into());
    }
    let after = link.stats();
    println!(
        "second run finished after {:.1} s and {} over the link, {} connections broken",
        started.elapsed().as_secs_f64(),
        megabytes(after.bytes_down),
        after.resets
    );

    let arrived = inventory(&*target, &images, "mirror/").await?;
    if arrived != expected {
        return Err("the target does not hold what the source holds".into());
    }
    println!(
        "verified   {} manifests and {} blobs at the target: every digest computed anew and equal",
        arrived.manifests.len(),
        arrived.blobs.len()
    );
    let total = before.bytes_down + after.bytes_down;
    println!(
        "fetched    {} for {} of content: {:.2} x, the kill and {} broken connections included",
        megabytes(total),
        megabytes(expected.bytes()),
        total as f64 / expected.bytes() as f64,
        before.resets + after.resets
    );
    Ok(())
}

/// A registry as `ferry serve` runs it, for as long as this process lives.
async fn registry(directory: &Path) -> Result<(Arc<Storage>, std::net::SocketAddr)> {
    let storage = Storage::open(directory).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = RegistryService::new(Arc::clone(&storage) as Arc<dyn Store>);
    tokio::spawn(ferry_serve::serve(listener, service, Limits::default(), CancellationToken::new()));
    Ok((storage, address))
}

async fn fill(store: &dyn Store, images: &[NamedImage]) -> Result<Inventory> {
    for named in images {
        let repository =
            store.writable(&Scope::Hosted, &named.repository).ok_or("the source cannot be written")?;
        named.image.push_to(&*repository, Some(&named.tag)).await?;
    }
    inventory(store, images, "").await
}

async fn inventory(store: &dyn Store, images: &[NamedImage], prefix: &str) -> Result<Inventory> {
    let mut all = Inventory::default();
    for named in images {
        let name = format!("{prefix}{}", named.repository).parse()?;
        let repository = store.repository(&Scope::Hosted, &name);
        all.merge(verify(&*repository, &Reference::Tag(named.tag.clone())).await?);
    }
    Ok(all)
}

fn start_ferry(list: &Path, state: &Path) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([AS_FERRY, "copy", "--from-file"]).arg(list).arg("--state-dir").arg(state.join("state"));
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
