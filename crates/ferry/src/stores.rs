use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use ferry_layout::{ArchiveOptions, ImageEntry, Layout};
use ferry_oci::{Digest, Name, Reference, Registry, artifact_tag, is_fallback_tag};
use ferry_policy::naming;
use ferry_registry::{Client, ClientOptions, Lane, Quota};
use ferry_store::{Error, Kind, MemoryStore, PageRequest, Repository, RepositoryMut, Scope, Side, Store};
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

/// What names a layout: two paths with the same are the same place.
fn layout_id(path: &Path) -> std::io::Result<Arc<str>> {
    Ok(format!("oci:{}", std::path::absolute(path)?.display()).into())
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
        Ok(Self { client, mirrors, writing, registries, layouts })
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
        writable.with_context(|| {
            format!("{endpoint}: nothing is removed from an archive; copy what is to stay into a new one")
        })
    }

    /// Opens the layouts that images come from, so that each can be read with the others beside it.
    pub(crate) fn open_sources(&mut self, pairs: &[Pair]) -> anyhow::Result<()> {
        for pair in pairs {
            if let Endpoint::Layout(image) = &pair.source {
                self.layout(image, Role::Source)?;
            }
        }
        Ok(())
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
            true => {
                let tag = naming::target_tag(&reference, pair.target.tag());
                pair.target.named_after(&source).with_tag(tag)
            }
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
                    "{endpoint}: it holds {} tagged images ({}); add :TAG, :NAME:TAG or @DIGEST for one; ferry copy --to takes all",
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

    /// The tagged images with a name of their own that a layout holds beside those without.
    pub(crate) fn named(&mut self, endpoint: &Endpoint) -> anyhow::Result<Vec<(LayoutImage, Digest)>> {
        let Endpoint::Layout(layout) = endpoint else { return Ok(Vec::new()) };
        let mut entries = self.entries(layout, Role::Source)?;
        entries.retain(|entry| entry.name.is_some() && entry.tag.is_some());
        Ok(entries.into_iter().map(|entry| (layout.at(entry.clone()), entry.digest)).collect())
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
                let repository = repository_of(image)?;
                if role == Role::Target
                    && self.is_dry()
                    && image.form == Form::Directory
                    && !image.path.exists()
                {
                    let id = format!("oci:{}", image.path.display()).into();
                    return Ok(Place { id, store: Arc::new(MemoryStore::new()), repository });
                }
                let (id, layout) = self.layout(image, role)?;
                let layout = match role {
                    Role::Source => layout.backed_by(&self.sources_beside(&id)),
                    Role::Target => layout,
                };
                Ok(Place { id, store: Arc::new(layout.named(image.name.as_ref())), repository })
            }
        }
    }

    /// The layouts that are read in this run, except that one.
    fn sources_beside(&self, id: &Arc<str>) -> Vec<Layout> {
        let others = self.layouts.iter().filter(|((other, role), _)| *role == Role::Source && other != id);
        others.map(|(_, layout)| layout.clone()).collect()
    }

    fn is_dry(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.dry)
    }

    /// A layout, opened once, and what names it.
    fn layout(&mut self, image: &LayoutImage, role: Role) -> anyhow::Result<(Arc<str>, Layout)> {
        let id = layout_id(&image.path).context("the current directory is gone")?;
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
            (form, Some(Writing { archives, dry })) => {
                let except = archives.except.iter().map(|before| self.open_layout(before, Role::Source));
                let options = ArchiveOptions {
                    docker: (form == Form::DockerArchive).then(|| archives.platform.clone()),
                    except: except.collect::<anyhow::Result<_>>().context("--except")?,
                };
                let open = if *dry { Layout::preview_archive } else { Layout::create_archive };
                open(&image.path, options)?.sparse(archives.sparse)
            }
        })
    }

    /// Gives these archives that were written their names. What fails does not hold up the others.
    pub(crate) fn finish(&self, archives: &HashSet<PathBuf>) -> Vec<Error> {
        let ids: HashSet<Arc<str>> = archives.iter().filter_map(|path| layout_id(path).ok()).collect();
        let written = self.layouts.iter().filter(|((id, role), _)| *role == Role::Target && ids.contains(id));
        let failed = |(id, layout): (&Arc<str>, &Layout)| {
            let finished = match layout.images() {
                // Not under a name where nobody finds anything in it.
                Ok(images) if images.is_empty() => {
                    let detail = "no image is entered in it; give the image a tag";
                    Err(Error::new(Kind::Incomplete, "finish archive", id, detail))
                }
                Ok(_) => layout.finish(),
                Err(error) => Err(error),
            };
            finished.err().map(|error| error.on(Side::Target))
        };
        tokio::task::block_in_place(|| written.filter_map(|((id, _), layout)| failed((id, layout))).collect())
    }

    fn registry(&self, registry: &Registry, side: Side) -> ferry_store::Result<Arc<dyn Store>> {
        self.client.registry_for(registry, Lane::Background, Some(side))
    }

    /// A registry behind the mirrors of it that were named.
    fn mirrored(&self, registry: &Registry) -> anyhow::Result<Arc<dyn Store>> {
        Ok(remote::mirrored(&self.mirrors, registry, |host| self.registry(host, Side::Source))?)
    }
}

/// A layout has one repository for each name in it; what is known of one must not be taken for the others.
fn repository_of(image: &LayoutImage) -> anyhow::Result<Name> {
    let name = match &image.name {
        Some(name) => format!("layout/{}", Digest::sha256(name.to_string().as_bytes()).hex()),
        None => "layout".to_owned(),
    };
    Ok(name.parse()?)
}
