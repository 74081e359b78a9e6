use std::sync::Arc;

use ferry_oci::Descriptor;
use ferry_store::{
    Begun, Error, Expect, Kind, Mount, Partial, Repository, RepositoryMut, Result, Scope, Side, Upload,
};
use futures_util::future;

use crate::copier::Run;
use crate::fill::fill;
use crate::graph::Place;
use crate::known::Mounts;
use crate::reader::Reader;
use crate::retry::Pauses;
use crate::send::{send, stream};

/// From this size on one more request is cheaper than sending a blob that is there already, as long as it is unknown
/// whether the target mounts.
const WORTH_ASKING: u64 = 32 * 1024 * 1024;

/// How a blob or manifest came to be at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landed {
    /// So many bytes were sent.
    Moved(u64),
    /// The target took it from another of its repositories.
    Mounted,
    /// It was there.
    Present,
}

/// How much of what is believed of the target may be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Everything; the usual way.
    Hints,
    /// Nothing: every blob and manifest is asked for.
    Nothing,
}

/// Moves one blob into one repository. A task of its own, which no image that waits for it owns.
pub(crate) struct Flight {
    pub(crate) run: Arc<Run>,
    pub(crate) source: Arc<dyn Repository>,
    pub(crate) target: Arc<dyn RepositoryMut>,
    pub(crate) place: Place,
    pub(crate) blob: Descriptor,
    pub(crate) trust: Trust,
}

/// What the target answered to the question for a blob.
enum Asked {
    Landed(Landed),
    /// It wants the bytes. They can be had from the source, or from a repository of the target that would not mount.
    Wants(Box<dyn Upload>, Option<Arc<dyn Repository>>),
}

impl Flight {
    pub(crate) async fn fly(self) -> Result<Landed> {
        let turn = self.run.known.turn(&self.place.id, &self.blob.digest);
        let _turn = turn.lock().await;
        let _slot = self.run.blobs.acquire().await.map_err(|_| self.stopped())?;
        let landed = self.land().await?;
        self.run.known.holds(&self.place, &self.blob.digest);
        Ok(landed)
    }

    async fn land(&self) -> Result<Landed> {
        match self.unless_stopped(self.ask()).await.map_err(|error| error.on(Side::Target))? {
            Asked::Landed(landed) => Ok(landed),
            Asked::Wants(upload, holder) => {
                match holder {
                    Some(holder) => self.carry_from_holder(upload, &holder).await?,
                    None => self.carry(upload, &self.source).await?,
                }
                Ok(Landed::Moved(self.blob.size))
            }
        }
    }

    /// The source was read once in this run, so the bytes come from the target's own copy if it has one indeed.
    async fn carry_from_holder(&self, upload: Box<dyn Upload>, holder: &Arc<dyn Repository>) -> Result<()> {
        match self.carry(upload, holder).await {
            Err(error) if error.side() == Some(Side::Source) => {
                tracing::debug!(digest = %self.blob.digest, %error, "not where it was believed to be");
                self.run.known.forget(&self.place.id, &self.blob.digest);
                match self.open(Mount::No).await? {
                    Asked::Wants(upload, _) => self.carry(upload, &self.source).await,
                    Asked::Landed(_) => Ok(()),
                }
            }
            result => result,
        }
    }

    /// Asks for the blob in as few requests as what is known of the target allows: usually one, which opens the upload
    /// as well.
    async fn ask(&self) -> Result<Asked> {
        let (known, store) = (&self.run.known, &self.place.id);
        if self.trust == Trust::Nothing || known.mounts(store) == Mounts::Ignored {
            return if self.is_there().await? {
                Ok(Asked::Landed(Landed::Present))
            } else {
                self.open(Mount::No).await
            };
        }
        let holder = known.holder(store, &self.blob.digest).filter(|name| *name != self.place.repository);
        let from = holder.clone().unwrap_or_else(|| self.place.repository.clone());
        match self.open(Mount::From(vec![from])).await? {
            Asked::Landed(landed) => {
                known.learn_mounts(store, Mounts::Work);
                Ok(Asked::Landed(landed))
            }
            Asked::Wants(upload, _) => match holder {
                Some(name) => {
                    let holder = self.place.store.repository(&Scope::Hosted, &name);
                    Ok(Asked::Wants(upload, Some(holder)))
                }
                None => self.doubt(upload).await,
            },
        }
    }

    /// The target would not mount the blob from its own repository: either it is not there, or the target mounts
    /// nothing. Where sending it again would be dear, a further request decides.
    async fn doubt(&self, upload: Box<dyn Upload>) -> Result<Asked> {
        let (known, store) = (&self.run.known, &self.place.id);
        let doubtful = known.mounts(store) == Mounts::Unknown && self.blob.size >= WORTH_ASKING;
        if !doubtful || !self.is_there().await? {
            return Ok(Asked::Wants(upload, None));
        }
        known.learn_mounts(store, Mounts::Ignored);
        // Nothing was written; a session that is left behind expires by itself.
        let _ = upload.abort().await;
        Ok(Asked::Landed(Landed::Present))
    }

    async fn is_there(&self) -> Result<bool> {
        Ok(self.target.stat(&self.blob.digest).await? == Some(self.blob.size))
    }

    async fn open(&self, mount: Mount) -> Result<Asked> {
        let expect = Expect { digest: Some(self.blob.digest), size: Some(self.blob.size), mount };
        Ok(match self.target.begin(expect).await.map_err(|error| error.on(Side::Target))? {
            Begun::Exists => Asked::Landed(Landed::Present),
            Begun::Mounted => Asked::Landed(Landed::Mounted),
            Begun::Upload(upload) => Asked::Wants(upload, None),
        })
    }

    /// Brings the bytes over, trying again what may pass: from staging where they are staged, else from the source.
    async fn carry(&self, upload: Box<dyn Upload>, source: &Arc<dyn Repository>) -> Result<()> {
        let mut upload = Some(upload);
        let mut partial = self.stage().await?;
        let mut pauses = Pauses::new(self.run.retry);
        let mut second_look = true;
        loop {
            let opened = match upload.take() {
                Some(opened) => opened,
                None => match self.open(Mount::No).await? {
                    Asked::Wants(opened, _) => opened,
                    Asked::Landed(_) => return Ok(()),
                },
            };
            let error = match self.unless_stopped(self.attempt(partial.as_deref(), opened, source)).await {
                Ok(()) => return discard(partial).await,
                Err(error) => error,
            };
            match (error.side(), error.kind()) {
                // Bytes that went wrong on the way may arrive whole the second time.
                (Some(Side::Source), Kind::DigestMismatch) if second_look => {
                    second_look = false;
                    partial = self.stage().await?;
                }
                (Some(Side::Target), _) => match pauses.after(&error) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return keep(partial, error).await,
                },
                // Staging is full: the blob fits through memory all the same.
                (None, Kind::Full) => discard(partial.take()).await?,
                _ => return keep(partial, error).await,
            }
            tracing::debug!(digest = %self.blob.digest, %error, "blob failed, trying again");
        }
    }

    async fn attempt(
        &self,
        partial: Option<&dyn Partial>,
        upload: Box<dyn Upload>,
        source: &Arc<dyn Repository>,
    ) -> Result<()> {
        let (blob, retry) = (&self.blob, self.run.retry);
        match partial {
            None => stream(Reader::new(Arc::clone(source), blob, 0, retry), upload, blob).await,
            Some(partial) => {
                let filling = fill(partial, Arc::clone(source), blob, retry);
                future::try_join(filling, send(partial, upload, blob)).await.map(|_| ())
            }
        }
    }

    /// The blob's place in staging, if it is large enough to be worth one and there is room.
    async fn stage(&self) -> Result<Option<Arc<dyn Partial>>> {
        match &self.run.staging {
            Some(staging) if self.blob.size >= self.run.stage_from => {
                staging.open(&self.blob.digest, self.blob.size).await
            }
            _ => Ok(None),
        }
    }

    /// Gives up `work` when the run is stopped. What was staged is kept by whoever called.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.run.stop.cancelled() => Err(self.stopped()),
            result = work => result,
        }
    }

    fn stopped(&self) -> Error {
        Error::new(Kind::Unavailable, "copy blob", self.blob.digest, "stopped")
    }
}

async fn discard(partial: Option<Arc<dyn Partial>>) -> Result<()> {
    match partial {
        Some(partial) => partial.discard().await,
        None => Ok(()),
    }
}

/// Leaves what was staged for the next run.
async fn keep(partial: Option<Arc<dyn Partial>>, error: Error) -> Result<()> {
    if let Some(partial) = partial
        && let Err(lost) = partial.flush().await
    {
        tracing::warn!(%lost, "staged bytes may have to be fetched again");
    }
    Err(error)
}
