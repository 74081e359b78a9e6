use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use ferry_layout::Layout;
use ferry_oci::{Name, Reference, Registry};
use ferry_policy::naming;
use ferry_registry::{Client, ClientOptions, Lane, Quota};
use ferry_store::{PageRequest, Repository, RepositoryMut, Scope, Side, Store};
use ferry_transfer::{Job, Mirror, Mirrors, Place};

use crate::Environment;
use crate::config::Registries;
use crate::credentials::OfSides;
use crate::endpoint::{Endpoint, LayoutImage};
use crate::remote;
use crate::settings::{Copy, MirrorOf, Pair};

/// Opens the stores that endpoints name, each once.
pub(crate) struct Stores {
    client: Arc<Client>,
    mirrors: Vec<MirrorOf>,
    opened: HashMap<(Arc<str>, Role), Arc<dyn Store>>,
    /// A layout has one repository, which needs no name.
    layout_name: Name,
}

/// What a store is opened for: mirrors are only read from, and only layouts that are written to are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Source,
    Target,
}

/// Connections to one registry beside those that content is fetched over.
const MORE_CONNECTIONS: usize = 8;

impl Stores {
    /// The stores of a copy.
    pub(crate) fn of_copy(
        settings: &Copy,
        registries: Registries,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        let connections_per_host = settings.jobs + MORE_CONNECTIONS;
        let limit_rate = settings.limit_rate;
        let options = ClientOptions { connections_per_host, limit_rate, ..remote::options(&registries) };
        let client = remote::client(options, settings.of_sides.clone(), registries, environment)?;
        Self::over(client, settings.mirrors.clone())
    }

    /// Stores that are looked at or tidied up: mirrors are no matter here.
    pub(crate) fn of(
        of_sides: OfSides,
        registries: Registries,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        Self::over(
            remote::client(remote::options(&registries), of_sides, registries, environment)?,
            Vec::new(),
        )
    }

    fn over(client: Arc<Client>, mirrors: Vec<MirrorOf>) -> anyhow::Result<Self> {
        Ok(Self { client, mirrors, opened: HashMap::new(), layout_name: "layout".parse()? })
    }

    /// The repository of an endpoint, to look at it.
    pub(crate) fn reader(&mut self, endpoint: &Endpoint) -> anyhow::Result<Arc<dyn Repository>> {
        let place = self.place(endpoint, Role::Source)?;
        Ok(place.store.repository(&Scope::Hosted, &place.repository))
    }

    /// The repository of an endpoint, to remove from it. A layout is not created for that.
    pub(crate) fn writer(&mut self, endpoint: &Endpoint) -> anyhow::Result<Arc<dyn RepositoryMut>> {
        let place = match endpoint {
            Endpoint::Registry(_) => self.place(endpoint, Role::Target)?,
            Endpoint::Layout(_) => self.place(endpoint, Role::Source)?,
        };
        let writable = place.store.writable(&Scope::Hosted, &place.repository);
        writable.with_context(|| format!("{endpoint}: it can only be read"))
    }

    /// What the registry at an end of a pair still allows.
    pub(crate) fn quota<'a>(&self, endpoint: &'a Endpoint) -> Option<(&'a Registry, Quota)> {
        match endpoint {
            Endpoint::Registry(image) => Some((&image.registry, self.client.quota(&image.registry)?)),
            Endpoint::Layout(_) => None,
        }
    }

    /// The job that a pair means, and the pair with the tag of a layout that was named alone filled in.
    pub(crate) async fn job(&mut self, pair: Pair) -> anyhow::Result<(Pair, Job)> {
        let alone = pair.source.reference().is_none();
        let (source, reference) = self.image(pair.source).await?;
        let target = match alone {
            true => pair.target.with_tag(naming::target_tag(&reference, pair.target.tag())),
            false => pair.target,
        };
        let pair = Pair { source, target, platforms: pair.platforms };
        let source = self.place(&pair.source, Role::Source)?;
        let target = self.place(&pair.target, Role::Target)?;
        let tag = pair.target.tag().cloned();
        let platforms = pair.platforms.clone();
        Ok((pair, Job { source, reference, target, tag, platforms }))
    }

    /// What an endpoint names. A layout that was named alone is its only image.
    pub(crate) async fn image(&mut self, endpoint: Endpoint) -> anyhow::Result<(Endpoint, Reference)> {
        if let Some(reference) = endpoint.reference() {
            return Ok((endpoint, reference));
        }
        let tags = self.reader(&endpoint)?.tags(PageRequest::default()).await?.items;
        let [only] = &tags[..] else {
            let names: Vec<String> = tags.iter().take(10).map(|entry| entry.tag.to_string()).collect();
            bail!(
                "{endpoint}: it holds {} tagged images ({}); add :TAG, or @DIGEST for one without tag",
                tags.len(),
                names.join(", ")
            );
        };
        Ok((endpoint.with_tag(Some(only.tag.clone())), Reference::Tag(only.tag.clone())))
    }

    /// All images of a repository or a layout.
    pub(crate) async fn all_of(&mut self, endpoint: &Endpoint) -> anyhow::Result<Vec<Endpoint>> {
        let repository = self.reader(endpoint)?;
        let (mut found, mut page) = (Vec::new(), PageRequest::default());
        loop {
            let listed = repository.tags(page).await?;
            found.extend(listed.items.into_iter().map(|entry| endpoint.with_tag(Some(entry.tag))));
            match listed.next {
                Some(next) => page = PageRequest { after: Some(next), limit: None },
                None => return Ok(found),
            }
        }
    }

    fn place(&mut self, endpoint: &Endpoint, role: Role) -> anyhow::Result<Place> {
        let (id, repository): (Arc<str>, Name) = match endpoint {
            Endpoint::Registry(image) => (image.registry.as_str().into(), image.repository.clone()),
            Endpoint::Layout(LayoutImage { path, .. }) => {
                let absolute = std::path::absolute(path).context("the current directory is gone")?;
                (format!("oci:{}", absolute.display()).into(), self.layout_name.clone())
            }
        };
        let key = (id, role);
        let store = match (self.opened.get(&key), endpoint) {
            (Some(store), _) => Arc::clone(store),
            (None, Endpoint::Registry(image)) if role == Role::Source => self.mirrored(&image.registry)?,
            (None, Endpoint::Registry(image)) => self.registry(&image.registry, Side::Target)?,
            (None, Endpoint::Layout(image)) => layout(&image.path, role)?,
        };
        self.opened.insert(key.clone(), Arc::clone(&store));
        Ok(Place { id: key.0, store, repository })
    }

    fn registry(&self, registry: &Registry, side: Side) -> ferry_store::Result<Arc<dyn Store>> {
        self.client.registry_for(registry, Lane::Background, Some(side))
    }

    /// A registry behind the mirrors of it that were named.
    fn mirrored(&self, registry: &Registry) -> anyhow::Result<Arc<dyn Store>> {
        let itself = self.registry(registry, Side::Source)?;
        let of_it = self.mirrors.iter().filter(|(of, _)| of == registry);
        let mirrors = of_it
            .map(|(_, place)| {
                Ok(Mirror {
                    store: self.registry(&place.registry, Side::Source)?,
                    prefix: place.prefix.clone(),
                })
            })
            .collect::<anyhow::Result<Vec<Mirror>>>()?;
        Ok(if mirrors.is_empty() { itself } else { Arc::new(Mirrors::new(mirrors, itself)) })
    }
}

fn layout(directory: &Path, role: Role) -> anyhow::Result<Arc<dyn Store>> {
    let directory = PathBuf::from(directory);
    let layout = if role == Role::Target { Layout::create(directory)? } else { Layout::open(directory)? };
    Ok(Arc::new(layout))
}
