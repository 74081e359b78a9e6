use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// The result of an operation on a store.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such repository, manifest, tag or blob. Trying again does not help.
    NotFound,
    /// Credentials are needed, or those given are wrong. Trying again does not help.
    Unauthorized,
    /// The credentials do not allow it. Trying again does not help.
    Denied,
    /// The peer refers to a place where we do not go: an address inside a network, or without encryption. Nothing was
    /// sent there. Trying again does not help.
    Misdirected,
    /// Too many requests; `after` is how long the peer asks to wait.
    RateLimited {
        /// What the peer said, if it did.
        after: Option<Duration>,
    },
    /// The peer or the network failed in a way that may pass: connection refused, reset, cut short, a 5xx answer.
    Unavailable,
    /// The peer stopped sending or taking bytes.
    Stalled,
    /// Bytes are not what their digest says. The copy at hand is worthless; another may be good.
    DigestMismatch,
    /// A request or document does not follow its grammar. Trying again does not help.
    Invalid,
    /// A manifest names content that the repository does not hold (`MANIFEST_BLOB_UNKNOWN`). Sending the content and
    /// then the manifest again helps.
    Incomplete,
    /// No space, or a quota is used up.
    Full,
}

impl Kind {
    /// Whether the same operation may succeed if tried again later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unavailable | Self::Stalled)
    }
}

/// On which side of a transfer an error arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the image comes from.
    Source,
    /// Where the image goes to.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// An operation on a store that failed. Never holds a secret.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    operation: &'static str,
    subject: String,
    side: Option<Side>,
    detail: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` while doing `operation` ("read blob", "push manifest") to `subject` (a digest, tag or
    /// repository); `detail` is what the peer or the system said, and may be empty.
    pub fn new(
        kind: Kind,
        operation: &'static str,
        subject: impl fmt::Display,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            subject: subject.to_string(),
            side: None,
            detail: detail.into(),
            source: None,
        }
    }

    /// The error that [`Kind::NotFound`] stands for.
    pub fn not_found(operation: &'static str, subject: impl fmt::Display) -> Self {
        Self::new(Kind::NotFound, operation, subject, "not found")
    }

    /// A failure of the operating system: a full disk is [`Kind::Full`], the rest [`Kind::Unavailable`].
    pub fn io(operation: &'static str, subject: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Kind::Full,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
            _ => Kind::Unavailable,
        };
        Self::new(kind, operation, subject, error.to_string()).caused_by(error)
    }

    /// Keeps the cause for `source()`.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Says on which side of a transfer it arose, unless that is known already.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.side.get_or_insert(side);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was being done.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// To what it was being done.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// On which side, if a transfer said so.
    pub fn side(&self) -> Option<Side> {
        self.side
    }

    /// What the peer or the system said; may be empty.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(side) = self.side {
            write!(f, "{side}: ")?;
        }
        write!(f, "{} {}", self.operation, self.subject)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_side_stays() {
        let error = Error::not_found("read blob", "x").on(Side::Source).on(Side::Target);
        assert_eq!(error.side(), Some(Side::Source));
        assert_eq!(error.to_string(), "source: read blob x: not found");
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Error::io("write", "x", full).kind(), Kind::Full);
        assert!(!Kind::Full.is_transient());
        assert!(Kind::RateLimited { after: None }.is_transient());
    }
}
