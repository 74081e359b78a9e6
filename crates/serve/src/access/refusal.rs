//! What is said to those who may not.

use ferry_oci::ErrorCode;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use crate::answer::Headers;
use crate::body::ResponseBody;
use crate::error::Failure;

/// Why somebody is turned away.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Whoever they are; why, in words for them.
    Denied(String),
    /// As long as they do not say who they are.
    LogIn {
        /// What is put into `WWW-Authenticate`.
        challenge: String,
        /// Why, in words for them.
        message: String,
    },
    /// Too many passwords are being compared.
    Busy,
    /// What they sent to get a token is none of the forms that there are.
    Request(&'static str),
}

impl Refusal {
    pub(crate) fn status(&self) -> (StatusCode, ErrorCode) {
        match self {
            Self::Denied(_) => (StatusCode::FORBIDDEN, ErrorCode::Denied),
            Self::LogIn { .. } => (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
            Self::Request(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        }
    }

    pub(crate) fn headers(&self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        match self {
            Self::LogIn { challenge, .. } => response.with(WWW_AUTHENTICATE, challenge),
            Self::Busy => response.with(RETRY_AFTER, 1),
            Self::Denied(_) | Self::Request(_) => response,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Denied(message) | Self::LogIn { message, .. } => message,
            Self::Busy => "too many logins are being checked; try again in a moment",
            Self::Request(what) => what,
        })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Access(Box::new(refusal))
    }
}
