//! The orders API: says what the database says about an order. A process of its own, as in most shops, so that it is
//! there to be asked when the service that takes orders is dead.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::database;
use super::event::{DemoEvent, DemoMoment};
use super::listen;

/// Where its endpoints go, and which database it reads.
#[derive(Debug, Args)]
pub(crate) struct OrdersApiArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    database: PathBuf,
}

/// A status and a document.
type Answer = (StatusCode, Json<Value>);

/// Runs `demo-orders-api` until standard input ends.
pub(crate) fn run(args: OrdersApiArgs) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(async {
        let router = Router::new()
            .route("/orders/{id}", get(show))
            .route("/orders/{id}/payment", post(pay))
            .with_state(Arc::new(args.database));
        listen::serve(router, &args.dir, || {}).await
    })
}

/// What is asked about an order.
#[derive(Deserialize)]
struct Question {
    /// Whether it was placed with this message.
    message: Option<String>,
}

/// Says what became of an order. With `?message=` the answer is binding: if no row was written with that message, none
/// can follow.
async fn show(
    State(database): State<Arc<PathBuf>>,
    Path(id): Path<String>,
    Query(question): Query<Question>,
    headers: HeaderMap,
) -> Answer {
    let status = match question.message {
        Some(message) => database::settled_status(&database, &message, &id).map(Some),
        None => database::status(&database, &id),
    };
    let (status, body, said) = match status {
        Ok(Some(status)) => {
            let binding = if status == database::CANCELLED { "; no row can follow" } else { "" };
            (StatusCode::OK, json!({"id": id, "status": status}), format!("\"{status}\"{binding}"))
        }
        Ok(None) => (StatusCode::NOT_FOUND, json!({"error": "no such order"}), "no such order".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, json!({"error": error.to_string()}), database::brief(&error)),
    };
    let asking = headers.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or("somebody");
    let asking = asking.split('/').next().unwrap_or(asking).trim_start_matches("vouch-");
    tell(&id, DemoMoment::Asked, format!("asked by {asking}, answers {} {said}", status.as_u16()));
    (status, Json(body))
}

/// The payment arrives.
async fn pay(State(database): State<Arc<PathBuf>>, Path(id): Path<String>) -> Answer {
    match database::pay(&database, &id) {
        Ok(true) => {
            tell(&id, DemoMoment::Paid, "the payment arrives; row updated: paid".to_owned());
            (StatusCode::OK, Json(json!({"id": id, "status": database::PAID})))
        }
        Ok(false) => (StatusCode::NOT_FOUND, Json(json!({"error": "no such order"}))),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": error.to_string()}))),
    }
}

/// Tells the stage.
fn tell(order: &str, what: DemoMoment, text: String) {
    DemoEvent { who: "orders API".to_owned(), order: order.to_owned(), what, text, transaction: None }.tell();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(database: &Arc<PathBuf>, message: Option<&str>) -> (u16, Value) {
        let question = Query(Question { message: message.map(str::to_owned) });
        let (status, Json(body)) =
            show(State(database.clone()), Path("A-1".to_owned()), question, HeaderMap::new()).await;
        (status.as_u16(), body)
    }

    #[tokio::test]
    async fn an_answer_about_a_message_is_binding_and_a_database_that_is_away_gives_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = Arc::new(folder.path().join("orders.db"));
        assert_eq!(asked(&path, Some("m1")).await.0, 503);
        database::create(&path).unwrap();
        assert_eq!(asked(&path, None).await.0, 404, "nobody was told anything: a row may follow");
        assert_eq!(asked(&path, Some("m1")).await, (200, json!({"id": "A-1", "status": database::CANCELLED})));
        assert!(database::insert(&path, "m1", "A-1", "lamp", database::PAID).is_err());
        database::insert(&path, "m2", "A-1", "lamp", database::AWAITING_PAYMENT).unwrap();
        assert_eq!(asked(&path, Some("m2")).await.1["status"], database::AWAITING_PAYMENT);
        let paid = |id: &str| pay(State(path.clone()), Path(id.to_owned()));
        assert_eq!((paid("A-1").await.0, paid("A-2").await.0), (StatusCode::OK, StatusCode::NOT_FOUND));
        assert_eq!(asked(&path, None).await.1["status"], database::PAID);
    }
}
