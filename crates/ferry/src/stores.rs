use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use ferry_layout::Layout;
use ferry_oci::{Name, Reference};
use ferry_policy::naming;
use ferry_registry::{Client, ClientOptions};
use ferry_store::{PageRequest, Scope, Store};
use ferry_transfer::{Job, Place};

use crate::Environment;
use crate::credentials::DockerLogin;
use crate::endpoint::Endpoint;
use crate::settings::Pair;

/// Opens the stores that endpoints name, each once.
pub(crate) struct Stores {
    client: Arc<Client>,
    opened: HashMap<Arc<str>, Arc<dyn Store>>,
    /// A layout has one repository, which needs no name.
    layout_name: Name,
}

impl Stores {
    pub(crate) fn new(environment: &Environment) -> anyhow::Result<Self> {
        let login = DockerLogin::new(environment.docker_config_file());
        let client = Client::new(ClientOptions::default(), Arc::new(login))?;
        Ok(Self { client, opened: HashMap::new(), layout_name: "layout".parse()? })
    }

    /// The job that a pair means, and the pair with the tag of a layout that was named alone filled in.
    pub(crate) async fn job(&mut self, pair: Pair) -> anyhow::Result<(Pair, Job)> {
        let source = self.place(&pair.source, false).await?;
        let (reference, pair) = match pair.source.reference() {
            Some(reference) => (reference, pair),
            None => self.only_image(&source, pair).await?,
        };
        let target = self.place(&pair.target, true).await?;
        let tag = pair.target.tag().cloned();
        Ok((pair, Job { source, reference, target, tag }))
    }

    async fn place(&mut self, endpoint: &Endpoint, create: bool) -> anyhow::Result<Place> {
        let (id, repository): (Arc<str>, Name) = match endpoint {
            Endpoint::Registry(image) => (image.registry.as_str().into(), image.repository.clone()),
            Endpoint::Layout { directory, .. } => {
                let absolute = std::path::absolute(directory).context("the current directory is gone")?;
                (format!("oci:{}", absolute.display()).into(), self.layout_name.clone())
            }
        };
        let store = match (self.opened.get(&id), endpoint) {
            (Some(store), _) => Arc::clone(store),
            (None, Endpoint::Registry(image)) => self.client.registry(&image.registry)?,
            (None, Endpoint::Layout { directory, .. }) => layout(directory, create)?,
        };
        self.opened.insert(Arc::clone(&id), Arc::clone(&store));
        Ok(Place { id, store, repository })
    }

    /// The image of a layout that was named without tag, if it holds just one.
    async fn only_image(&self, source: &Place, pair: Pair) -> anyhow::Result<(Reference, Pair)> {
        let repository = source.store.repository(&Scope::Hosted, &source.repository);
        let tags = repository.tags(PageRequest::default()).await?.items;
        let [only] = &tags[..] else {
            let names: Vec<String> = tags.iter().take(10).map(|entry| entry.tag.to_string()).collect();
            bail!(
                "{}: it holds {} tagged images ({}); add :TAG, or @DIGEST for one without tag",
                pair.source,
                tags.len(),
                names.join(", ")
            );
        };
        let reference = Reference::Tag(only.tag.clone());
        let tag = naming::target_tag(&reference, pair.target.tag());
        let target = pair.target.with_tag(tag);
        let source = pair.source.with_tag(Some(only.tag.clone()));
        Ok((reference, Pair { source, target }))
    }
}

fn layout(directory: &Path, create: bool) -> anyhow::Result<Arc<dyn Store>> {
    let directory = PathBuf::from(directory);
    let layout = if create { Layout::create(directory)? } else { Layout::open(directory)? };
    Ok(Arc::new(layout))
}
