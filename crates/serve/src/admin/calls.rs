//! What can be asked for.

use bytes::Bytes;
use ferry_oci::{ImageReference, Registry};
use ferry_policy::platforms::{Mode, Pattern, Selection};
use ferry_store::{Cursor, PageRequest, Result as StoreResult};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::answers;
use super::{changed, of_json, ok};
use crate::body::ResponseBody;
use crate::operations::{Operations, WarmOrder};
use crate::query::Query;
use crate::request::RequestBody;

/// Images on a page of the cache if nobody says, and at most: their sizes have to be added up.
const PAGE: usize = 100;
const MOST: usize = 1000;

/// What is wrong with a request, or went wrong.
type Refusal = (StatusCode, String);

type Answered = Result<Response<ResponseBody>, Refusal>;

/// A request below `/api/v1/`.
pub(super) async fn call(
    operations: &dyn Operations,
    what: &str,
    parts: &Parts,
    body: &mut RequestBody,
) -> Response<ResponseBody> {
    let query = Query::parse(parts.uri.query());
    let answered = match (&parts.method, what) {
        (&Method::GET, "figures") => Ok(ok(&answers::figures(&operations.figures().await))),
        (&Method::GET, "flights") => Ok(ok(&answers::flights(&operations.figures().await.transfers))),
        (&Method::GET, "health") => {
            let (ready, figures) = (operations.ready().await, operations.figures().await);
            Ok(ok(&answers::health(&ready, &figures)))
        }
        (&Method::GET, "cache") => cache(operations, &query).await,
        (&Method::DELETE, "cache") => discard(operations, &query).await,
        (&Method::POST, "warm") => warm(operations, body).await,
        (&Method::GET, "pins") => pins(operations).await,
        (&Method::POST, "pins") => pin(operations, body).await,
        (&Method::DELETE, "pins") => unpin(operations, &query).await,
        (&Method::POST, "reload") => reload(operations).await,
        (&Method::GET, "access") => done(operations.access().await).map(|access| ok(&access)),
        (&Method::PUT, "access") => replace_access(operations, body).await,
        (&Method::GET, what) if what.starts_with("warm/") => warming(operations, what).await,
        (_, "figures" | "flights" | "health" | "cache" | "warm" | "pins" | "reload" | "access") => {
            Err(error(StatusCode::METHOD_NOT_ALLOWED, "this path knows other methods"))
        }
        _ => Err(error(StatusCode::NOT_FOUND, "there is no such path below /api/v1/")),
    };
    answered.unwrap_or_else(|(status, why)| answers::error(status, &why))
}

fn error(status: StatusCode, why: &str) -> Refusal {
    (status, why.to_owned())
}

fn bad(why: &str) -> Refusal {
    error(StatusCode::BAD_REQUEST, why)
}

/// What a store says.
fn done<T>(result: StoreResult<T>) -> Result<T, Refusal> {
    result.map_err(|e| answers::failed(&e))
}

fn image(text: &str) -> Result<ImageReference, Refusal> {
    text.parse().map_err(|e: ferry_oci::Malformed| bad(&e.to_string()))
}

fn image_of(query: &Query) -> Result<ImageReference, Refusal> {
    image(query.get("image").ok_or_else(|| bad("?image=IMAGE is needed"))?)
}

async fn content(body: &mut RequestBody) -> Result<Bytes, Refusal> {
    body.manifest().await.map_err(|_| bad("the body is cut, or too large"))
}

async fn document(body: &mut RequestBody) -> Result<Value, Refusal> {
    let bytes = content(body).await?;
    serde_json::from_slice(&bytes).map_err(|e| bad(&format!("the body is no JSON: {e}")))
}

/// The texts of a list; none if it is missing.
fn texts<'a>(document: &'a Value, field: &str) -> Result<Vec<&'a str>, Refusal> {
    let list = match &document[field] {
        Value::Null => return Ok(Vec::new()),
        list => list.as_array().map(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>()),
    };
    list.flatten().ok_or_else(|| bad(&format!("{field} is a list of texts")))
}

async fn cache(operations: &dyn Operations, query: &Query) -> Answered {
    let registry: Option<Registry> = match query.get("registry") {
        Some(text) => Some(text.parse().map_err(|e: ferry_oci::Malformed| bad(&e.to_string()))?),
        None => None,
    };
    let limit = match query.get("n") {
        Some(text) => text.parse::<usize>().map_err(|_| bad("n is a number"))?.clamp(1, MOST),
        None => PAGE,
    };
    let request = PageRequest { limit: Some(limit), after: query.get("after").map(Cursor::after) };
    let page = done(operations.cached(registry.as_ref(), request).await)?;
    let images: Vec<Value> = page.items.iter().map(answers::cached).collect();
    Ok(ok(&json!({"images": images, "after": page.next.as_ref().map(Cursor::as_str)})))
}

async fn discard(operations: &dyn Operations, query: &Query) -> Answered {
    let bytes = done(operations.discard(&image_of(query)?).await)?;
    Ok(ok(&json!({"bytes": bytes})))
}

async fn warm(operations: &dyn Operations, body: &mut RequestBody) -> Answered {
    let document = document(body).await?;
    let images = texts(&document, "images")?.into_iter().map(image).collect::<Result<Vec<_>, _>>()?;
    if images.is_empty() {
        return Err(bad("images: name at least one image"));
    }
    let malformed = |e: ferry_oci::Malformed| bad(&e.to_string());
    let platforms = texts(&document, "platforms")?.into_iter().map(|text| text.parse::<Pattern>());
    let platforms = platforms.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    let platforms = match platforms.is_empty() {
        true => None,
        false => Some(Selection::new(platforms, Mode::Sparse).map_err(malformed)?),
    };
    let warming = done(operations.warm(WarmOrder { images, platforms }).await)?;
    Ok(of_json(StatusCode::ACCEPTED, &answers::warming(&warming)))
}

async fn warming(operations: &dyn Operations, what: &str) -> Answered {
    let id = what.trim_start_matches("warm/").parse().map_err(|_| bad("an order has a number"))?;
    match operations.warming(id).await {
        Some(warming) => Ok(ok(&answers::warming(&warming))),
        None => Err(error(StatusCode::NOT_FOUND, "there is no such order, or it was over long ago")),
    }
}

async fn pins(operations: &dyn Operations) -> Answered {
    let pins: Vec<String> = done(operations.pins().await)?.iter().map(ToString::to_string).collect();
    Ok(ok(&json!({"pins": pins})))
}

async fn pin(operations: &dyn Operations, body: &mut RequestBody) -> Answered {
    let document = document(body).await?;
    let text = document["image"].as_str().ok_or_else(|| bad("{\"image\": IMAGE} is needed"))?;
    Ok(changed(done(operations.pin(&image(text)?).await)?))
}

async fn unpin(operations: &dyn Operations, query: &Query) -> Answered {
    Ok(changed(done(operations.unpin(&image_of(query)?).await)?))
}

async fn reload(operations: &dyn Operations) -> Answered {
    Ok(ok(&json!({"restart": done(operations.reload().await)?})))
}

async fn replace_access(operations: &dyn Operations, body: &mut RequestBody) -> Answered {
    let text = String::from_utf8(content(body).await?.into()).map_err(|_| bad("the body is no text"))?;
    Ok(ok(&done(operations.replace_access(text).await)?))
}
