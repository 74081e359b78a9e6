use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Descriptor, Name};
use ferry_store::{
    Begun, Error, Expect, Kind, Mount, Repository, RepositoryMut, Result, Scope, Side, Upload,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::copier::Run;
use crate::graph::Place;
use crate::known::{Holder, Mounts};
use crate::progress::Gauge;
use crate::reader::{Origin, Reader};
use crate::retry::Pauses;
use crate::send::{Memory, send, stream};
use crate::spool::Spool;

/// From this size on one more request is cheaper than sending a blob that is there already, as long as it is unknown
/// whether the target mounts.
const WORTH_ASKING: u64 = 32 * 1024 * 1024;

/// The same where the question was put to another repository and says nothing about this one.
const WORTH_ASKING_HERE: u64 = 1024 * 1024;

/// How long a stopped run waits for a target to confirm what it has.
const FAREWELL: Duration = Duration::from_secs(5);

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
    pub(crate) source: Origin,
    /// The name of the repository that the blob comes from.
    pub(crate) source_name: Name,
    pub(crate) target: Arc<dyn RepositoryMut>,
    pub(crate) place: Place,
    pub(crate) blob: Descriptor,
    pub(crate) gauge: Arc<Gauge>,
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
        let landed = {
            let _turn = turn.lock().await;
            let _slot = self.run.slots.acquire().await.map_err(|_| self.stopped())?;
            self.land().await
        };
        self.run.known.turn_is_over(&self.place.id, &self.blob.digest, turn);
        if landed.is_ok() {
            self.run.known.holds(&self.place, &self.blob.digest).await;
        }
        landed
    }

    async fn land(&self) -> Result<Landed> {
        match self.unless_stopped(self.ask()).await.map_err(|error| error.on(Side::Target))? {
            Asked::Landed(landed) => Ok(landed),
            Asked::Wants(upload, holder) => {
                match holder {
                    Some(holder) => self.carry_from_holder(upload, holder).await?,
                    None => self.carry(upload, &self.source).await?,
                }
                Ok(Landed::Moved(self.blob.size))
            }
        }
    }

    /// The source was read once in this run, so the bytes come from the target's own copy if it has one indeed.
    async fn carry_from_holder(&self, upload: Box<dyn Upload>, holder: Arc<dyn Repository>) -> Result<()> {
        let origin = self.run.origin(&self.place.id, holder);
        match self.carry(upload, &origin).await {
            Err(error) if error.side() == Some(Side::Source) => {
                tracing::debug!(digest = %self.blob.digest, %error, "not where it was believed to be");
                self.run.known.forget(&self.place.id, &self.blob.digest).await;
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
        let holder = known.holder(&self.place, &self.blob.digest, &self.source_name).await;
        let from = holder.name().unwrap_or(&self.place.repository).clone();
        match self.open(Mount::From(vec![from])).await? {
            Asked::Landed(landed) => {
                known.learn_mounts(store, Mounts::Work);
                if let Holder::Named(name) = &holder {
                    known.learn_name(store, name, true);
                }
                Ok(Asked::Landed(landed))
            }
            Asked::Wants(upload, _) => match holder {
                Holder::Seen(name) => {
                    let holder = self.place.store.repository(&Scope::Hosted, &name);
                    Ok(Asked::Wants(upload, Some(holder)))
                }
                Holder::Remembered(_) => {
                    known.forget(store, &self.blob.digest).await;
                    self.doubt(upload, self.blob.size >= WORTH_ASKING_HERE).await
                }
                Holder::Named(name) => {
                    known.learn_name(store, &name, false);
                    self.doubt(upload, self.blob.size >= WORTH_ASKING_HERE).await
                }
                Holder::Unknown => {
                    let unknown = known.mounts(store) == Mounts::Unknown;
                    self.doubt(upload, unknown && self.blob.size >= WORTH_ASKING).await
                }
            },
        }
    }

    /// The target would not mount the blob: either it is not there, or the target mounts nothing. Where sending it
    /// again would be dear, a further request decides.
    async fn doubt(&self, upload: Box<dyn Upload>, dear: bool) -> Result<Asked> {
        if !dear || !self.is_there().await? {
            return Ok(Asked::Wants(upload, None));
        }
        self.run.known.learn_mounts(&self.place.id, Mounts::Ignored);
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

    /// Opens an upload without asking further; `None` if the blob turns out to be there.
    async fn another(&self) -> Result<Option<Box<dyn Upload>>> {
        match self.unless_stopped(self.open(Mount::No)).await? {
            Asked::Wants(upload, _) => Ok(Some(upload)),
            Asked::Landed(_) => Ok(None),
        }
    }

    /// Brings the bytes over: by way of staging where they are worth it, else through memory.
    async fn carry(&self, upload: Box<dyn Upload>, origin: &Origin) -> Result<()> {
        let _shown = self.run.meter.show(&self.gauge);
        let (mut second_look, mut staged) = (true, true);
        let mut upload = Some(upload);
        loop {
            let opened = match upload.take() {
                Some(opened) => opened,
                None => match self.another().await? {
                    Some(opened) => opened,
                    None => return Ok(()),
                },
            };
            let spool = if staged { self.run.spools.spool(&self.blob).await } else { None };
            let Err(error) = (match spool {
                Some(spool) => self.by_staging(spool, opened, origin).await,
                None => self.by_memory(opened, origin).await,
            }) else {
                return Ok(());
            };
            match (error.side(), error.kind()) {
                _ if self.run.stop.is_cancelled() => return Err(error),
                // Bytes that went wrong on the way may arrive whole the second time.
                (Some(Side::Source), Kind::DigestMismatch) if second_look => {
                    second_look = false;
                    self.run.spools.forget(&self.blob.digest);
                }
                // Staging failed, by a full disk most likely: the blob fits through memory all the same.
                (None, _) if staged => staged = false,
                _ => return Err(error),
            }
            tracing::debug!(digest = %self.blob.digest, %error, "blob failed, trying again");
        }
    }

    /// Streams the blob. Whatever breaks on the target's side, the source is read again.
    async fn by_memory(&self, upload: Box<dyn Upload>, origin: &Origin) -> Result<()> {
        let mut pauses = Pauses::new(self.run.retry);
        let mut upload = upload;
        loop {
            let reader = Reader::new(origin, &self.blob, 0..self.blob.size);
            self.gauge.begins();
            let streamed = stream(reader, upload, &self.blob, &self.gauge);
            let Err(error) = self.unless_stopped(streamed).await else {
                return Ok(());
            };
            self.wait(&mut pauses, error).await?;
            upload = match self.another().await? {
                Some(upload) => upload,
                None => return Ok(()),
            };
        }
    }

    /// Fills staging and sends from it at the same time. Each side goes at its own pace and has its own failures.
    async fn by_staging(&self, spool: Arc<Spool>, upload: Box<dyn Upload>, origin: &Origin) -> Result<()> {
        let halt = self.run.stop.child_token();
        self.gauge.stages(Some(Arc::clone(&spool.partial)));
        let result = {
            let filling = spool.fill(origin, &self.blob, &self.run.slots);
            let sending = self.send_staged(&spool, upload, &halt);
            tokio::pin!(sending);
            tokio::select! {
                sent = &mut sending => sent,
                filled = filling => match filled {
                    Ok(()) => sending.await,
                    Err(error) => {
                        halt.cancel();
                        let _ = sending.await;
                        Err(error)
                    }
                },
            }
        };
        self.gauge.stages(None);
        self.run.spools.close(&self.blob.digest, spool, result.is_ok()).await;
        result
    }

    /// Sends a staged blob, going on with the upload where the target has kept it, else with another from staging.
    async fn send_staged(
        &self,
        spool: &Spool,
        upload: Box<dyn Upload>,
        halt: &CancellationToken,
    ) -> Result<()> {
        let target = format!("{}/{}", self.place.id, self.place.repository);
        let mut memory = Memory::open(&*spool.partial, target).await;
        let mut pauses = Pauses::new(self.run.retry);
        let mut upload = Some(upload);
        if memory.kept().is_some() {
            // An earlier run left one. The new one has the place that it needs.
            if let Some(new) = upload.take() {
                let _ = new.abort().await;
            }
            upload = self.next_upload(&mut memory, &mut pauses).await?;
        }
        let (mut reached, mut in_one_go) = (0, false);
        while let Some(mut opened) = upload {
            let begun = opened.durable_offset().await.map_err(|error| error.on(Side::Target))?;
            if begun > reached {
                reached = begun;
                pauses.reset();
            }
            let Err(error) = self.send_once(spool, opened, &mut memory, halt).await else { return Ok(()) };
            match (error.side(), error.kind()) {
                // It kept other bytes than it was sent, as registries do that take an upload in one request only.
                (Some(Side::Target), Kind::DigestMismatch) if !in_one_go => {
                    in_one_go = true;
                    memory.keep(None).await;
                    let whole = async {
                        spool.partial.changed(self.blob.size).await;
                        Ok(())
                    };
                    self.unless_stopped(whole).await?;
                }
                _ => self.wait(&mut pauses, error).await?,
            }
            upload = self.next_upload(&mut memory, &mut pauses).await?;
        }
        Ok(())
    }

    async fn send_once(
        &self,
        spool: &Spool,
        mut upload: Box<dyn Upload>,
        memory: &mut Memory<'_>,
        halt: &CancellationToken,
    ) -> Result<()> {
        let sent = tokio::select! {
            biased;
            () = halt.cancelled() => Err(self.stopped()),
            sent = send(&*spool.partial, &mut *upload, &self.blob, &self.gauge, memory) => sent,
        };
        match sent {
            Ok(()) => tokio::select! {
                committed = upload.commit(&self.blob.digest) => {
                    committed.map_err(|error| error.on(Side::Target))
                }
                // The target has everything: its answer is worth a moment even then.
                () = async { halt.cancelled().await; sleep(FAREWELL).await } => Err(self.stopped()),
            },
            Err(error) if error.side() == Some(Side::Target) => {
                memory.keep(upload.token()).await;
                Err(error)
            }
            Err(error) => {
                let token = timeout(FAREWELL, upload.suspend()).await;
                memory.keep(token.ok().and_then(Result::ok).flatten()).await;
                Err(error)
            }
        }
    }

    /// The upload that broke off, if the target has kept it, else another; `None` if the blob turns out to be there.
    async fn next_upload(
        &self,
        memory: &mut Memory<'_>,
        pauses: &mut Pauses,
    ) -> Result<Option<Box<dyn Upload>>> {
        while let Some(token) = memory.kept().cloned() {
            match self.unless_stopped(self.target.resume(&token)).await {
                Ok(Some(upload)) => return Ok(Some(upload)),
                Ok(None) => memory.keep(None).await,
                Err(error) if self.run.stop.is_cancelled() => return Err(error),
                Err(error) => self.wait(pauses, error.on(Side::Target)).await?,
            }
        }
        self.another().await
    }

    /// Waits before the target is tried again, or gives the error back if there is to be no further try.
    async fn wait(&self, pauses: &mut Pauses, error: Error) -> Result<()> {
        if error.side() != Some(Side::Target) {
            return Err(error);
        }
        let Some(pause) = pauses.after(&error) else { return Err(error) };
        tracing::debug!(digest = %self.blob.digest, %error, ?pause, "target failed, trying again");
        self.unless_stopped(async {
            sleep(pause).await;
            Ok(())
        })
        .await
    }

    /// Gives up `work` when the run is stopped.
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
