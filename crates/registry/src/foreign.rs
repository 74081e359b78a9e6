//! Registries that only point at others, as `cr.l5d.io` does at `ghcr.io`: the challenge comes from where the redirect
//! leads, and is answered there.

use ferry_oci::Name;
use http::Method;
use reqwest::Response;
use url::Url;

use crate::access::{Access, Action};
use crate::auth::{Scheme, bearer_header, read_offer};
use crate::credential::anonymous;
use crate::error::Tried;
use crate::host::Host;
use crate::links::ByToken;
use crate::realm::same_origin;
use crate::request::Request;
use crate::token::{Grant, TokenKey};
use crate::transport::Hop;

impl Host {
    /// The answer to a request that was redirected to another registry, which wants a token. It is asked for one as
    /// nobody in particular: whoever redirects must not be able to make us read with an account that was meant for
    /// another registry. `None` if the challenge cannot be met so.
    pub(crate) async fn exchange_abroad(
        &self,
        request: &Request,
        refusal: &Response,
    ) -> Tried<Option<Response>> {
        let url = refusal.url();
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        let (Some(name), Some(offer)) = (repository_in(url.path()), read_offer(refusal.headers(), url))
        else {
            return Ok(None);
        };
        let Scheme::Bearer { realm, service } = offer.scheme else { return Ok(None) };
        if !reads {
            return Ok(None);
        }
        let access = Access::repository(&name, Action::Pull);
        let grant = Grant { realm: &realm, service: service.as_deref(), scopes: access.scopes() };
        let nobody = anonymous();
        let key = TokenKey::new(&origin(url), &nobody, &grant);
        let (token, _) = self.shared.tokens.get(&key, || self.fetch_token(&nobody, &grant)).await?;
        let authorization = bearer_header(&request.what, &token)?;
        let hop = Hop {
            what: &request.what,
            home: &self.base,
            owner: url,
            method: &request.method,
            url,
            headers: &request.headers,
            authorization: authorization.as_ref(),
            cargo: request.cargo,
        };
        let mut response = self.transport.send(hop, &request.body).await?;
        if same_origin(response.url(), url) {
            response.extensions_mut().insert(ByToken);
        }
        Ok(Some(response))
    }
}

/// The repository that a path of the API names.
fn repository_in(path: &str) -> Option<Name> {
    let rest = path.strip_prefix("/v2/")?;
    let marks = ["/manifests/", "/blobs/", "/tags/", "/referrers/"];
    let end = marks.iter().filter_map(|mark| rest.rfind(mark)).max()?;
    rest.get(..end)?.parse().ok()
}

fn origin(url: &Url) -> Url {
    let mut origin = url.clone();
    origin.set_path("/");
    origin.set_query(None);
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_of_a_path() {
        for (path, name) in [
            ("/v2/linkerd/proxy/manifests/v1", Some("linkerd/proxy")),
            ("/v2/a/blobs/b/blobs/sha256:0", Some("a/blobs/b")),
            ("/v2/a/tags/list", Some("a")),
            ("/v2/", None),
            ("/v2/../manifests/x", None),
            ("/bucket/manifests/x", None),
        ] {
            assert_eq!(repository_in(path).map(|name| name.to_string()).as_deref(), name, "{path}");
        }
    }
}
