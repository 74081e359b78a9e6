//! What `ferry copy --output json` prints: a line for each image as it is done, and one for the run.

use ferry_store::{Error, Kind, Side};
use ferry_transfer::{Figures, Outcome};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;

use crate::settings::Pair;

/// One line.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Record {
    /// What became of an image.
    Image(Box<ImageRecord>),
    /// The last line: what became of all of them.
    Summary(SummaryRecord),
}

/// What became of an image.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageRecord {
    /// Where it comes from: REGISTRY/REPOSITORY[:TAG][@DIGEST] or oci:DIR[:TAG][@DIGEST].
    source: String,
    /// Where it goes to.
    target: String,
    status: Status,
    /// The image as the target has it, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Which image it was at the source, if it was changed for the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<String>,
    /// What was changed in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<&'static str>,
    blobs: Blobs,
    /// Manifests sent to the target.
    manifests: usize,
    /// Signatures and other artifacts that belong to it and were copied.
    referrers: usize,
    /// Those that stayed behind because the target is known not to take them.
    left_behind: usize,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    /// Commands that pull it from the target, those of --commands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<String>,
}

/// What became of all images.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SummaryRecord {
    /// How many there are of each status.
    pub(crate) images: Images,
    pub(crate) blobs: Blobs,
    /// Manifests sent to targets.
    pub(crate) manifests: usize,
    /// Signatures and other artifacts that belong to images and were copied.
    pub(crate) referrers: usize,
    /// Those that stayed behind because their targets are known not to take them.
    pub(crate) left_behind: usize,
    /// Bytes of blobs read from sources, what was read in vain included.
    pub(crate) fetched_bytes: u64,
    /// How long the run took.
    pub(crate) seconds: f64,
    /// The exit code.
    pub(crate) exit: u8,
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Status {
    /// It was copied, and the target's tag points at it.
    Copied,
    /// With --dry-run: it would be copied.
    Wanted,
    /// The target had it already.
    Unchanged,
    /// It could not be copied; the target's tag is as it was. If there is a digest, the image itself is there, and what
    /// could not be copied belongs to it.
    Failed,
    /// The run was stopped first.
    Left,
}

/// How many images there are of each status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Images {
    pub(crate) copied: usize,
    pub(crate) unchanged: usize,
    pub(crate) failed: usize,
    pub(crate) left: usize,
}

/// How blobs came to the target.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blobs {
    /// Those that were sent.
    sent: usize,
    /// The bytes of those that were sent.
    bytes: u64,
    /// Those that the target took from another of its repositories.
    mounted: usize,
    /// Those that were there, or that another image of the run brought.
    present: usize,
}

/// Why an image failed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Failure {
    kind: FailureKind,
    /// On which side, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<FailureSide>,
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum FailureSide {
    Source,
    Target,
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum FailureKind {
    /// There is no such repository, manifest, tag or blob.
    NotFound,
    /// Credentials are needed, or those given are wrong.
    Unauthorized,
    /// The credentials do not allow it.
    Denied,
    /// Too many requests.
    RateLimited,
    /// The registry or the network failed in a way that may pass.
    Unavailable,
    /// The registry stopped sending or taking bytes.
    Stalled,
    /// Bytes are not what their digest says.
    DigestMismatch,
    /// A request or document does not follow its grammar.
    Invalid,
    /// A manifest names content that its repository does not hold.
    Incomplete,
    /// No space, or a quota is used up.
    Full,
}

/// The JSON schema of a line.
pub(crate) fn json_schema() -> String {
    // What is left out when it is empty is not required.
    let settings = SchemaSettings::default().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<Record>();
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

impl Record {
    /// What is said about an image, to which nothing is done if `dry`.
    pub(crate) fn image(pair: &Pair, outcome: &Outcome, dry: bool) -> ImageRecord {
        let (status, digest, figures, error) = match outcome {
            Outcome::Copied { digest, figures } if dry => (Status::Wanted, Some(digest), *figures, None),
            Outcome::Copied { digest, figures } => (Status::Copied, Some(digest), *figures, None),
            Outcome::Unchanged { digest } => (Status::Unchanged, Some(digest), Figures::default(), None),
            Outcome::Failed { error, arrived, figures } => {
                (Status::Failed, arrived.as_ref(), *figures, Some(&**error))
            }
            Outcome::Stopped => (Status::Left, None, Figures::default(), None),
        };
        let degraded = outcome.degraded();
        let changes = degraded.map(|changed| changed.applied.iter().map(|change| change.as_str()).collect());
        ImageRecord {
            source: pair.source.to_string(),
            target: pair.target.to_string(),
            status,
            digest: digest.map(ToString::to_string),
            original: degraded.map(|changed| changed.original.to_string()),
            changes: changes.unwrap_or_default(),
            blobs: figures.into(),
            manifests: figures.manifests,
            referrers: figures.referrers,
            left_behind: figures.left_behind,
            error: error.map(Failure::new),
            commands: Vec::new(),
        }
    }

    /// The line as it is printed.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl ImageRecord {
    /// The line, with what to do about it.
    pub(crate) fn with(mut self, hint: Option<String>, commands: Vec<String>) -> Record {
        if let Some(error) = &mut self.error {
            error.hint = hint;
        }
        Record::Image(Box::new(Self { commands, ..self }))
    }
}

impl From<Figures> for Blobs {
    fn from(figures: Figures) -> Self {
        let Figures { moved, bytes, mounted, present, .. } = figures;
        Self { sent: moved, bytes, mounted, present }
    }
}

impl Failure {
    fn new(error: &Error) -> Self {
        let side = error.side().map(|side| match side {
            Side::Source => FailureSide::Source,
            Side::Target => FailureSide::Target,
        });
        let kind = match error.kind() {
            Kind::NotFound => FailureKind::NotFound,
            Kind::Unauthorized => FailureKind::Unauthorized,
            Kind::Denied | Kind::Misdirected => FailureKind::Denied,
            Kind::RateLimited { .. } => FailureKind::RateLimited,
            Kind::Unavailable => FailureKind::Unavailable,
            Kind::Stalled => FailureKind::Stalled,
            Kind::DigestMismatch => FailureKind::DigestMismatch,
            Kind::Invalid => FailureKind::Invalid,
            Kind::Incomplete => FailureKind::Incomplete,
            Kind::Full => FailureKind::Full,
        };
        Self { kind, side, message: error.to_string(), hint: None }
    }
}
