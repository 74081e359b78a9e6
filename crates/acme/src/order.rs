//! One certificate's way.

use std::time::Duration;

use ferry_store::{Error, Kind, Result};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use crate::account::Opener;
use crate::hook::{Do, Hook};
use crate::{Pem, Proof, Site};

/// How long the authority may take to look, and to sign.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(180));

/// How the authority sees that a host is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It asks the host over plain HTTP, at port 80 (`http-01`).
    Http,
    /// It shakes hands with the host at port 443 (`tls-alpn-01`).
    Tls,
    /// It looks for a record in the DNS (`dns-01`). The only way to a wildcard.
    Dns(Hook),
}

impl Way {
    fn challenge(&self) -> ChallengeType {
        match self {
            Self::Http => ChallengeType::Http01,
            Self::Tls => ChallengeType::TlsAlpn01,
            Self::Dns(_) => ChallengeType::Dns01,
        }
    }
}

/// What was shown to the authority.
enum Shown {
    Proof(Proof),
    Record { name: String, value: String },
}

/// What every certificate needs on its way.
pub(crate) struct Road<'a> {
    pub(crate) opener: &'a Opener,
    pub(crate) way: &'a Way,
    pub(crate) site: &'a dyn Site,
}

impl Road<'_> {
    /// Gets a certificate for these names; `before` is the one that it replaces.
    ///
    /// # Errors
    /// If the authority does not give it, with its reasons.
    pub(crate) async fn obtain(
        &self,
        account: &Account,
        names: &[String],
        before: Option<CertificateIdentifier<'_>>,
    ) -> Result<Pem> {
        let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        let wanted = NewOrder::new(&identifiers);
        let wanted = match before {
            Some(before) => wanted.replaces(before),
            None => wanted,
        };
        let mut order = account.new_order(&wanted).await.map_err(|e| self.opener.error(e))?;
        let mut shown = Vec::new();
        let proven = self.prove(&mut order, names, &mut shown).await;
        for shown in shown {
            self.hide(shown).await;
        }
        proven?;
        let key = order.finalize().await.map_err(|e| self.opener.error(e))?;
        let chain = order.poll_certificate(&PATIENCE).await.map_err(|e| self.opener.error(e))?;
        Ok(Pem { chain, key })
    }

    /// Shows what the authority wants to see, and waits until it has seen it.
    async fn prove(&self, order: &mut Order, names: &[String], shown: &mut Vec<Shown>) -> Result<()> {
        let wrong = |e| self.opener.error(e);
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(wrong)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => {
                    let text = format!("its authorization is {other:?}");
                    return Err(Error::new(Kind::Denied, "ask", names.join(", "), text));
                }
            }
            let Some(challenge) = authorization.challenge(self.way.challenge()) else {
                let text =
                    format!("it does not offer the challenge {:?} for this host", self.way.challenge());
                return Err(Error::new(Kind::Denied, "ask", names.join(", "), text));
            };
            self.show(&challenge, names, shown).await?;
        }
        if let Way::Dns(hook) = self.way
            && !shown.is_empty()
        {
            tokio::time::sleep(hook.settle).await;
        }
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(wrong)?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(self.way.challenge())
            {
                challenge.set_ready().await.map_err(wrong)?;
            }
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing) => Ok(()),
            Ok(_) => Err(self.reasons(order).await),
            Err(error) => Err(wrong(error)),
        }
    }

    /// Shows the answer to one challenge, if it is about a name that is wanted.
    async fn show(
        &self,
        challenge: &ChallengeHandle<'_>,
        names: &[String],
        shown: &mut Vec<Shown>,
    ) -> Result<()> {
        let asked = challenge.identifier().to_string();
        let Identifier::Dns(host) = challenge.identifier().identifier else {
            return Err(foreign(&asked));
        };
        if !names.contains(&asked) {
            return Err(foreign(&asked));
        }
        let (host, answer) = (host.clone(), challenge.key_authorization());
        match self.way {
            Way::Http => {
                let (token, answer) = (challenge.token.clone(), answer.as_str().to_owned());
                let proof = Proof::Http { host, token, answer };
                self.site.show(&proof)?;
                shown.push(Shown::Proof(proof));
            }
            Way::Tls => {
                let certificate = self_signed(&host, answer.digest().as_ref())?;
                let proof = Proof::Tls { host, certificate };
                self.site.show(&proof)?;
                shown.push(Shown::Proof(proof));
            }
            Way::Dns(hook) => {
                let (name, value) = (format!("_acme-challenge.{host}"), answer.dns_value());
                // What failed half-way may have left something, too.
                shown.push(Shown::Record { name: name.clone(), value: value.clone() });
                hook.run(Do::Present, &name, &value).await?;
            }
        }
        Ok(())
    }

    async fn hide(&self, shown: Shown) {
        match (shown, self.way) {
            (Shown::Proof(proof), _) => self.site.hide(&proof),
            (Shown::Record { name, value }, Way::Dns(hook)) => {
                if let Err(error) = hook.run(Do::Cleanup, &name, &value).await {
                    tracing::warn!(%error, "a record in the DNS may be left");
                }
            }
            (Shown::Record { .. }, _) => {}
        }
    }

    /// Why the authority was not convinced.
    async fn reasons(&self, order: &mut Order) -> Error {
        let mut reasons = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let Ok(mut authorization) = authorization else { continue };
            if let Ok(state) = authorization.refresh().await {
                let said = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
                let host = state.identifier().to_string();
                reasons.extend(said.map(|problem| {
                    format!("{host}: {}", problem.detail.as_deref().unwrap_or("it is not convinced"))
                }));
            }
        }
        if reasons.is_empty() {
            reasons.push("it is not convinced, and does not say why".to_owned());
        }
        Error::new(Kind::Denied, "prove the host to", self.opener.name(), reasons.join("; "))
    }
}

fn foreign(asked: &str) -> Error {
    Error::new(Kind::Invalid, "prove", asked, "the authority wants a proof for a host that was not asked for")
}

/// The certificate that proves a host in a handshake (RFC 8737 section 3).
fn self_signed(host: &str, digest: &[u8]) -> Result<Pem> {
    let failed = |e: rcgen::Error| Error::new(Kind::Invalid, "make a certificate for", host, e.to_string());
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Pem { chain: certificate.pem(), key: key.serialize_pem() })
}
