use std::error::Error as _;
use std::fmt::Display;

use ferry_store::{Error, Kind};

/// Our error for one of the bucket. All but "not found" is a failure of this side: whoever asked us for content is neither
/// unauthorized nor denied because our keys are.
pub(super) fn failure(operation: &'static str, subject: impl Display, failure: object_store::Error) -> Error {
    let kind = match &failure {
        object_store::Error::NotFound { .. } => Kind::NotFound,
        _ => Kind::Unavailable,
    };
    Error::new(kind, operation, subject, describe(&failure)).caused_by(failure)
}

/// What went wrong, down to its cause, on one line.
pub(super) fn describe(failure: &object_store::Error) -> String {
    let mut text = match failure {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            "the bucket refuses the access key".to_owned()
        }
        _ => failure.to_string(),
    };
    let mut cause = failure.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
