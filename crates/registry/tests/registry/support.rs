//! Clients with short time-outs, and shorthands.

use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Digest, Name, Reference, Registry};
use ferry_registry::{Anonymous, Asked, Client, ClientOptions, Credential, Credentials, Secret, Site, Tls};
use ferry_store::{Begun, Expect, Kind, Mount, Repository, RepositoryMut, Result, Scope, Store, Upload};

pub const NAME: &str = "team/app";

/// Options with which nothing takes long, and a busy machine has time.
pub fn quick() -> ClientOptions {
    ClientOptions {
        connect_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        attempts: 3,
        backoff: Duration::from_millis(1),
        ..ClientOptions::default()
    }
}

/// Options for a peer that is to be given up.
pub fn impatient() -> ClientOptions {
    ClientOptions { idle_timeout: Duration::from_secs(2), ..quick() }
}

pub fn client(options: ClientOptions, credentials: impl Credentials + 'static) -> Arc<Client> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    });
    Client::new(options, Arc::new(credentials)).unwrap()
}

/// Trusts an authority that the system does not know.
pub fn trusting(certificate: &[u8]) -> Site {
    Site { tls: Tls { roots: vec![certificate.to_vec()], ..Tls::default() }, ..Site::default() }
}

/// A registry read by nobody in particular.
pub fn anonymous(registry: &Registry) -> Arc<dyn Store> {
    client(quick(), Anonymous).registry(registry).unwrap()
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn reader(store: &Arc<dyn Store>) -> Arc<dyn Repository> {
    store.repository(&Scope::Hosted, &name(NAME))
}

pub fn writer(store: &Arc<dyn Store>) -> Arc<dyn RepositoryMut> {
    store.writable(&Scope::Hosted, &name(NAME)).unwrap()
}

pub fn tag(text: &str) -> Reference {
    Reference::Tag(text.parse().unwrap())
}

/// The same credential for every registry.
pub struct Fixed(pub Credential);

#[async_trait]
impl Credentials for Fixed {
    async fn find(&self, _: &Asked<'_>) -> Result<Vec<Credential>> {
        Ok(vec![self.0.clone()])
    }
}

pub fn password(username: &str, password: &str) -> Fixed {
    Fixed(Credential::Password { username: username.to_owned(), password: Secret::new(password) })
}

/// Bytes that no compression shortens and that depend on `seed`.
pub fn content(seed: u8, length: usize) -> Bytes {
    let mut state = u32::from(seed) + 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub fn promised(content: &Bytes, mount: Mount) -> Expect {
    Expect { digest: Some(Digest::sha256(content)), size: Some(content.len() as u64), mount }
}

pub fn opened(begun: Begun) -> Box<dyn Upload> {
    match begun {
        Begun::Upload(upload) => upload,
        other => panic!("an upload was to be opened, not {other:?}"),
    }
}

pub async fn begin(repository: &Arc<dyn RepositoryMut>, content: &Bytes) -> Box<dyn Upload> {
    opened(repository.begin(promised(content, Mount::No)).await.unwrap())
}

/// Sends `content` in pieces and commits.
pub async fn push(repository: &Arc<dyn RepositoryMut>, content: &Bytes) -> Digest {
    let mut upload = begin(repository, content).await;
    for piece in content.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let digest = Digest::sha256(content);
    upload.commit(&digest).await.unwrap();
    digest
}

pub fn kind<T>(result: Result<T>) -> Kind {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.kind(),
    }
}
