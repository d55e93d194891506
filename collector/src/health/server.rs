//! The page: `/metrics`, `/ready`, `/live`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics;
use crate::report::Report;

/// Prometheus's text format.
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, report: Arc<Report>) {
    let router = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/ready", get(ready))
        .route("/live", get(async || "live\n"))
        .with_state(Arc::clone(&report));
    if let Err(error) = axum::serve(listener, router).await {
        report.failed("--health", &error);
    }
}

async fn metrics_page(State(report): State<Arc<Report>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT)], metrics::text(&report))
}

async fn ready(State(report): State<Arc<Report>>) -> (StatusCode, String) {
    match report.health().ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
