//! The page and its questions over HTTP: assets from the binary, answers from the store, metrics of the client.
//! Everything is read-only.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use graylogic_influxdb::{Client, METRICS_CONTENT_TYPE};
use graylogic_store::Store;
use std::net::SocketAddr;

mod answer;

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal => $kind:literal),* $(,)?) => {
        &[$(Asset { name: $name, kind: $kind, bytes: include_bytes!(concat!("../assets/", $name)) }),*]
    };
}

const ASSETS: &[Asset] = assets![
    "index.html" => "text/html; charset=utf-8",
    "style.css" => "text/css; charset=utf-8",
    "uPlot.min.css" => "text/css; charset=utf-8",
    "uPlot.iife.min.js" => "text/javascript; charset=utf-8",
    "app.js" => "text/javascript; charset=utf-8",
    "api.js" => "text/javascript; charset=utf-8",
    "chart.js" => "text/javascript; charset=utf-8",
    "choice.js" => "text/javascript; charset=utf-8",
    "format.js" => "text/javascript; charset=utf-8",
    "latest.js" => "text/javascript; charset=utf-8",
    "picker.js" => "text/javascript; charset=utf-8",
    "status.js" => "text/javascript; charset=utf-8",
    "theme.js" => "text/javascript; charset=utf-8",
    "windows.js" => "text/javascript; charset=utf-8",
    "icon.svg" => "image/svg+xml",
    "uPlot.LICENSE" => "text/plain; charset=utf-8",
];

/// The routes, for a server that listens at `at`.
pub(crate) fn router(client: Client, store: Store, at: SocketAddr) -> Router {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { asset("index.html", &headers) }))
        .route(
            "/assets/{name}",
            get(|Path(name): Path<String>, headers: HeaderMap| async move { asset(&name, &headers) }),
        )
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], client.metrics()) }),
        )
        .merge(answer::routes(store))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .layer(middleware::from_fn_with_state(at, guard))
}

fn asset(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|a| a.name == name) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    // The same bytes for each version of the program, and a mark that says so.
    let mark = asset
        .bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    let mark = format!("\"{mark:016x}\"");
    let known =
        headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains(&mark));
    let about = [(header::ETAG, mark), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(header::CONTENT_TYPE, asset.kind)], asset.bytes).into_response()
}

/// What every answer carries, and who is answered: a page on another host name that resolves to this machine is not.
async fn guard(State(at): State<SocketAddr>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(n, _)| n);
    let loopback = matches!(name, "localhost" | "127.0.0.1" | "[::1]") || name == at.ip().to_string();
    let mut response = if at.ip().is_loopback() && !loopback {
        (StatusCode::MISDIRECTED_REQUEST, "this server answers to localhost only\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
