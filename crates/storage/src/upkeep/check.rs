use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Digest, Name, Tag};
use ferry_store::{Error, Result, Scope};
use tokio_util::sync::CancellationToken;

use super::examine::{Depth, Identity, Problem};
use super::orphans::{Search, confirm};
use super::step;
use crate::catalog::{self, Key};
use crate::leases::Claim;
use crate::storage::{BATCH, Inner, Storage};

/// Rows that are read at once.
const WINDOW: i64 = 200;

/// Repositories that are named of a damaged content, at most.
const HOLDERS: i64 = 100;

/// How often and how long we wait for others to let go of content that looks damaged.
const PATIENCE: (u32, Duration) = (100, Duration::from_millis(20));

/// How [`Storage::check`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckOptions {
    /// How closely to look.
    pub depth: Depth,
    /// Whether to take damaged content out of the repositories and move its file to `damaged/`. Clients are then told that
    /// it is not there, and push or fetch it again; a manifest that is damaged loses its tags, a manifest that needs
    /// damaged content stays.
    pub repair: bool,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The file of a blob or manifest is not what it should be.
    Damaged {
        /// What it should be.
        digest: Digest,
        /// How.
        problem: Problem,
        /// The first 100 of the repositories that name it, by scope and name.
        repositories: Vec<(Scope, Name)>,
        /// Whether it was taken out.
        repaired: bool,
    },
    /// A hosted repository lacks something that one of its manifests names: it was removed, or taken out by a repair. What
    /// was fetched from upstreams may be incomplete: the rest comes when somebody asks for it.
    Incomplete {
        /// The repository's scope.
        scope: Scope,
        /// The repository's name.
        repository: Name,
        /// The manifest.
        manifest: Digest,
        /// The blob or manifest that it names.
        missing: Digest,
    },
    /// A tag points at no manifest, and shows nothing.
    Dangling {
        /// The repository's scope.
        scope: Scope,
        /// The repository's name.
        repository: Name,
        /// The tag.
        tag: Tag,
    },
}

/// How far a check is, or what it came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs and manifests whose files were looked at.
    pub contents: u64,
    /// Their bytes by the catalog.
    pub bytes: u64,
    /// Manifests of repositories whose needs were looked up.
    pub manifests: u64,
    /// Everything that is wrong.
    pub findings: u64,
    /// Damaged contents among that which were taken out.
    pub repaired: u64,
    /// Files that the catalog does not know; they are no harm, and [`Storage::collect`] removes them.
    pub orphans: u64,
    /// Bytes of these files.
    pub orphan_bytes: u64,
    /// Whether it was stopped before it was through.
    pub stopped: bool,
}

/// What a check tells while it goes on.
#[derive(Debug)]
pub enum CheckEvent<'a> {
    /// Something is wrong.
    Found(&'a Finding),
    /// So much is done. Told after every content and every few manifests.
    Progress(&'a Checked),
}

fn failed(error: sqlx::Error) -> Error {
    catalog::error("check", "storage", error)
}

impl Storage {
    /// Compares the files with the catalog, and the catalog with itself: every blob and manifest that a repository names
    /// is there and whole, every hosted manifest finds what it names in its repository, every tag its manifest. Memory is bounded,
    /// and pushes, pulls and upkeep go on meanwhile: what looks damaged is looked at again when nobody relies on it.
    ///
    /// Ends after the file or window under way when `stop` is cancelled or the future is dropped.
    ///
    /// # Errors
    /// Whatever the catalog or the file system says, or the bucket if it does not answer at the beginning; a file that cannot be
    /// read is a finding instead.
    pub async fn check(
        &self,
        options: CheckOptions,
        stop: &CancellationToken,
        observe: &mut (dyn FnMut(CheckEvent<'_>) + Send),
    ) -> Result<Checked> {
        let mut check = Check { inner: &self.inner, options, stop, observe, checked: Checked::default() };
        if let Some(objects) = &self.inner.objects {
            objects.bucket.answers().await?;
        }
        self.inner.prepare(stop).await?;
        check.contents().await?;
        check.manifests().await?;
        check.tags().await?;
        check.orphans().await?;
        check.checked.stopped = stop.is_cancelled();
        Ok(check.checked)
    }
}

struct Check<'a> {
    inner: &'a Arc<Inner>,
    options: CheckOptions,
    stop: &'a CancellationToken,
    observe: &'a mut (dyn FnMut(CheckEvent<'_>) + Send),
    checked: Checked,
}

impl Check<'_> {
    fn found(&mut self, finding: &Finding) {
        self.checked.findings += 1;
        (self.observe)(CheckEvent::Found(finding));
    }

    fn progress(&mut self) {
        (self.observe)(CheckEvent::Progress(&self.checked));
    }

    async fn contents(&mut self) -> Result<()> {
        let mut after = String::new();
        loop {
            let window = self.inner.catalog.contents(&after, WINDOW).await.map_err(failed)?;
            let Some((last, _)) = window.last() else { return Ok(()) };
            after = last.to_string();
            for (digest, size) in window {
                if self.stop.is_cancelled() {
                    return Ok(());
                }
                self.content(digest, size).await?;
                self.checked.contents += 1;
                self.checked.bytes += size;
                self.progress();
            }
        }
    }

    async fn content(&mut self, digest: Digest, size: u64) -> Result<()> {
        // A file that is replaced under our eyes is looked at again.
        loop {
            let seen = self.inner.examine((digest, size), self.options.depth, self.stop).await?;
            let Some((problem, identity)) = seen else { return Ok(()) };
            let claim = self.inner.wait_for_claim(&digest).await;
            let repositories = self.inner.holders(&digest).await?;
            // Without a claim we only say what we saw.
            let repaired =
                self.options.repair && claim.is_some() && !matches!(problem, Problem::Unreadable(_));
            let inner = Arc::clone(self.inner);
            // What cannot be read cannot be compared either.
            let identity = Some(identity).filter(|_| !matches!(problem, Problem::Unreadable(_)));
            match step(async move { settle(inner, (digest, claim), identity, repaired).await }).await? {
                Settled::Unneeded => return Ok(()),
                Settled::Replaced => {}
                Settled::Damaged => {
                    self.checked.repaired += u64::from(repaired);
                    self.found(&Finding::Damaged { digest, problem, repositories, repaired });
                    return Ok(());
                }
            }
        }
    }

    async fn manifests(&mut self) -> Result<()> {
        let mut after = None;
        while !self.stop.is_cancelled() {
            let window = self.inner.catalog.incomplete(after.as_ref(), WINDOW).await.map_err(failed)?;
            let Some((last, count, incomplete)) = window else { break };
            after = Some(last);
            for place in incomplete {
                let (scope, repository) = place.key.parse().map_err(failed)?;
                for missing in self.inner.catalog.missing(&place).await.map_err(failed)? {
                    let (scope, repository) = (scope.clone(), repository.clone());
                    let manifest = place.digest;
                    self.found(&Finding::Incomplete { scope, repository, manifest, missing });
                }
            }
            self.checked.manifests += count;
            self.progress();
        }
        Ok(())
    }

    async fn tags(&mut self) -> Result<()> {
        for (key, tag) in self.inner.catalog.dangling(WINDOW).await.map_err(failed)? {
            let (scope, repository) = key.parse().map_err(failed)?;
            self.found(&Finding::Dangling { scope, repository, tag });
        }
        Ok(())
    }

    async fn orphans(&mut self) -> Result<()> {
        let mut search = Search::begin(self.inner).await?;
        while let Some(orphans) = search.next(self.stop).await? {
            for batch in orphans.chunks(BATCH) {
                self.count_orphans(batch.to_vec()).await?;
            }
        }
        Ok(())
    }

    async fn count_orphans(&mut self, files: Vec<Digest>) -> Result<()> {
        for claim in confirm(self.inner, files).await? {
            if let Some(length) = self.inner.found_length(claim.digest()).await? {
                self.checked.orphans += 1;
                self.checked.orphan_bytes += length;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Waits a while for those who rely on content that looks damaged.
    async fn wait_for_claim(self: &Arc<Self>, digest: &Digest) -> Option<Claim> {
        for _ in 0..PATIENCE.0 {
            let claim = self.leases.claim(digest);
            if claim.is_some() {
                return claim;
            }
            tokio::time::sleep(PATIENCE.1).await;
        }
        None
    }

    async fn holders(&self, digest: &Digest) -> Result<Vec<(Scope, Name)>> {
        let holders = self.catalog.holders(digest, HOLDERS).await.map_err(failed)?;
        holders.iter().map(Key::parse).collect::<sqlx::Result<_>>().map_err(failed)
    }
}

/// What became of content that looked damaged.
enum Settled {
    /// Nobody needs it any more.
    Unneeded,
    /// Another file is in its place.
    Replaced,
    /// It is.
    Damaged,
}

/// Decides while nobody relies on the content, and takes it out if asked. The file goes first: should we be killed in
/// between, rows that show nothing are left, which the next check finds, and no bytes are lost.
async fn settle(
    inner: Arc<Inner>,
    (digest, _claim): (Digest, Option<Claim>),
    identity: Option<Identity>,
    repair: bool,
) -> Result<Settled> {
    if inner.catalog.content(&digest).await.map_err(failed)?.is_none() {
        return Ok(Settled::Unneeded);
    }
    if let Some(identity) = identity
        && inner.identity(&digest).await? != identity
    {
        return Ok(Settled::Replaced);
    }
    if repair {
        inner.set_aside(&digest).await?;
        inner.catalog.remove_everywhere(&digest).await.map_err(failed)?;
    }
    Ok(Settled::Damaged)
}
