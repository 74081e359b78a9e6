use std::fmt;
use std::str::FromStr;

use ferry_oci::Malformed;

use crate::cut;
use crate::host::Host;

/// Where clients reach a mirror: its scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    secure: bool,
    host: Host,
}

impl PublicUrl {
    /// With HTTPS if it is `secure`.
    pub fn new(secure: bool, host: Host) -> Self {
        Self { secure, host }
    }

    /// Whether it is HTTPS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host with its port, if that is not the usual one.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The same at another host.
    pub(super) fn at(&self, host: &Host) -> Self {
        Self { secure: self.secure, host: host.clone() }
    }
}

impl FromStr for PublicUrl {
    type Err = Malformed;

    /// `https://cr.example.cn`, `http://10.0.0.5:5000`; without a scheme it is HTTPS.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad =
            |reason: &str| Malformed { what: "URL of a mirror", input: cut(text), reason: reason.to_owned() };
        let (secure, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(bad("it begins with https:// or http://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(bad("write only its scheme, host and port, as in https://cr.example.cn:5000"));
        }
        // A host forgets these ports; with the other scheme they are not the usual ones.
        if rest.ends_with(if secure { ":80" } else { ":443" }) {
            return Err(bad("this is the port of the other scheme"));
        }
        let host: Host = rest.parse().map_err(|e: Malformed| bad(&e.reason))?;
        Ok(Self { secure, host })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.secure { "s" } else { "" }, self.host)
    }
}
