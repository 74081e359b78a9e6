use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use ferry_layout::{ArchiveOptions, ImageEntry, Layout};
use ferry_oci::{Name, Reference, Registry, artifact_tag, is_fallback_tag};
use ferry_policy::naming;
use ferry_registry::{Client, ClientOptions, Lane, Quota};
use ferry_store::{MemoryStore, PageRequest, Repository, RepositoryMut, Scope, Side, Store};
use ferry_transfer::{Job, Place};

use crate::Environment;
use crate::config::Registries;
use crate::credentials::OfSides;
use crate::endpoint::{Endpoint, Form, LayoutImage};
use crate::remote;
use crate::settings::{Archives, Copy, MirrorOf, Pair};

/// Opens the stores that endpoints name, each once.
pub(crate) struct Stores {
    client: Arc<Client>,
    mirrors: Vec<MirrorOf>,
    /// How what is written to is opened; `None` where only reading is meant.
    writing: Option<Writing>,
    registries: HashMap<(Registry, Role), Arc<dyn Store>>,
    layouts: HashMap<(Arc<str>, Role), Layout>,
    /// A layout has one repository, which needs no name.
    layout_name: Name,
}

/// What a store is opened for: mirrors are only read from, and only layouts that are written to are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Source,
    Target,
}

/// How layouts are written.
struct Writing {
    archives: Archives,
    /// Nothing is written after all.
    dry: bool,
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
        let writing = Writing { archives: settings.archives.clone(), dry: settings.dry_run };
        Self::over(client, settings.mirrors.clone(), Some(writing))
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
            None,
        )
    }

    fn over(client: Arc<Client>, mirrors: Vec<MirrorOf>, writing: Option<Writing>) -> anyhow::Result<Self> {
        let (registries, layouts) = (HashMap::new(), HashMap::new());
        Ok(Self { client, mirrors, writing, registries, layouts, layout_name: "layout".parse()? })
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
        let Endpoint::Layout(layout) = &endpoint else { bail!("{endpoint}: it names no image") };
        let images: Vec<LayoutImage> =
            self.entries(layout, Role::Source)?.into_iter().map(|entry| layout.at(entry)).collect();
        let tagged: Vec<&LayoutImage> = images.iter().filter(|image| image.tag.is_some()).collect();
        match (&tagged[..], &images[..]) {
            ([only], _) => self.known(Endpoint::Layout((*only).clone())),
            ([], [only]) => self.known(Endpoint::Layout(only.clone())),
            _ => {
                let names: Vec<String> = tagged.iter().take(10).map(|image| image.short()).collect();
                bail!(
                    "{endpoint}: it holds {} tagged images ({}); add :TAG or :NAME:TAG, or @DIGEST for one without tag",
                    tagged.len(),
                    names.join(", ")
                );
            }
        }
    }

    fn known(&self, endpoint: Endpoint) -> anyhow::Result<(Endpoint, Reference)> {
        let reference = endpoint.reference().with_context(|| format!("{endpoint}: it names no image"))?;
        Ok((endpoint, reference))
    }

    /// All images of a repository or a layout, without what belongs to others and follows them.
    pub(crate) async fn all_of(&mut self, endpoint: &Endpoint) -> anyhow::Result<Vec<Endpoint>> {
        let mut found = match endpoint {
            Endpoint::Registry(_) => self.tags_of(endpoint).await?,
            Endpoint::Layout(layout) => self.images_of(layout).await?,
        };
        found.retain(|image| {
            image.tag().is_some_and(|tag| !is_fallback_tag(tag) && artifact_tag(tag).is_none())
        });
        Ok(found)
    }

    async fn tags_of(&mut self, endpoint: &Endpoint) -> anyhow::Result<Vec<Endpoint>> {
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

    async fn images_of(&mut self, layout: &LayoutImage) -> anyhow::Result<Vec<Endpoint>> {
        let repository = self.reader(&Endpoint::Layout(layout.clone()))?;
        let mut found = Vec::new();
        for entry in self.entries(layout, Role::Source)? {
            if entry.tag.is_none() {
                let manifest = repository.manifest(&Reference::Digest(entry.digest)).await?;
                if manifest.subject().is_none() {
                    note!("warning: {layout}: {} has no tag and is left out", entry.digest);
                }
            }
            found.push(Endpoint::Layout(layout.at(entry)));
        }
        Ok(found)
    }

    /// The entries of a layout, of one name if that was given.
    fn entries(&mut self, layout: &LayoutImage, role: Role) -> anyhow::Result<Vec<ImageEntry>> {
        let (_, opened) = self.layout(layout, role)?;
        let mut entries = tokio::task::block_in_place(|| opened.images())?;
        entries.retain(|entry| layout.name.is_none() || entry.name == layout.name);
        Ok(entries)
    }

    fn place(&mut self, endpoint: &Endpoint, role: Role) -> anyhow::Result<Place> {
        match endpoint {
            Endpoint::Registry(image) => {
                let key = (image.registry.clone(), role);
                let store = match (self.registries.get(&key), role) {
                    (Some(store), _) => Arc::clone(store),
                    (None, Role::Source) => self.mirrored(&image.registry)?,
                    (None, Role::Target) => self.registry(&image.registry, Side::Target)?,
                };
                self.registries.insert(key, Arc::clone(&store));
                Ok(Place { id: image.registry.as_str().into(), store, repository: image.repository.clone() })
            }
            Endpoint::Layout(image) => {
                let repository = self.layout_name.clone();
                if role == Role::Target
                    && self.is_dry()
                    && image.form == Form::Directory
                    && !image.path.exists()
                {
                    let id = format!("oci:{}", image.path.display()).into();
                    return Ok(Place { id, store: Arc::new(MemoryStore::new()), repository });
                }
                let (id, layout) = self.layout(image, role)?;
                Ok(Place { id, store: Arc::new(layout.named(image.name.as_ref())), repository })
            }
        }
    }

    fn is_dry(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.dry)
    }

    /// A layout, opened once, and what names it.
    fn layout(&mut self, image: &LayoutImage, role: Role) -> anyhow::Result<(Arc<str>, Layout)> {
        let absolute = std::path::absolute(&image.path).context("the current directory is gone")?;
        let id: Arc<str> = format!("oci:{}", absolute.display()).into();
        let key = (Arc::clone(&id), role);
        if let Some(layout) = self.layouts.get(&key) {
            return Ok((id, layout.clone()));
        }
        let layout = tokio::task::block_in_place(|| self.open_layout(image, role))?;
        self.layouts.insert(key, layout.clone());
        Ok((id, layout))
    }

    fn open_layout(&self, image: &LayoutImage, role: Role) -> anyhow::Result<Layout> {
        let writing = self.writing.as_ref().filter(|_| role == Role::Target);
        Ok(match (image.form, writing) {
            (Form::Directory, Some(writing)) if !writing.dry => {
                Layout::create(&image.path)?.sparse(writing.archives.sparse)
            }
            (Form::Directory, _) => Layout::open(&image.path)?,
            (Form::OciArchive | Form::DockerArchive, None) => Layout::open_archive(&image.path)?,
            (form, Some(Writing { archives, .. })) => {
                let except = archives.except.iter().map(|before| self.open_layout(before, Role::Source));
                let options = ArchiveOptions {
                    docker: (form == Form::DockerArchive).then(|| archives.platform.clone()),
                    except: except.collect::<anyhow::Result<_>>().context("--except")?,
                };
                Layout::create_archive(&image.path, options)?.sparse(archives.sparse)
            }
        })
    }

    /// Gives the archives that were written their names.
    pub(crate) fn finish(&self) -> ferry_store::Result<()> {
        let written = self.layouts.iter().filter(|((_, role), _)| *role == Role::Target);
        tokio::task::block_in_place(|| {
            written.map(|(_, layout)| layout.finish()).try_for_each(|end| end.map(drop))
        })
    }

    fn registry(&self, registry: &Registry, side: Side) -> ferry_store::Result<Arc<dyn Store>> {
        self.client.registry_for(registry, Lane::Background, Some(side))
    }

    /// A registry behind the mirrors of it that were named.
    fn mirrored(&self, registry: &Registry) -> anyhow::Result<Arc<dyn Store>> {
        Ok(remote::mirrored(&self.mirrors, registry, |host| self.registry(host, Side::Source))?)
    }
}
