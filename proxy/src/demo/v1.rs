//! KServe's v1 protocol, and a stream beside it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::model::{SPECIES, Version, features};
use super::rows::ROWS;
use super::{Answer, Failure, json};

/// Most events of one stream.
const EVENTS_MAX: usize = 1000;

/// Longest pause between two events, in milliseconds.
const EVERY_MAX: u64 = 10_000;

/// Coprime to the number of rows: a walk in these steps visits every flower once and mixes the species.
const STEP: usize = 53;

/// `GET /v1/models`.
pub(super) async fn list() -> Answer {
    Answer(json!({ "models": ["iris"] }))
}

/// `GET /v1/models/iris`.
pub(super) async fn status(State(version): State<Version>) -> Answer {
    Answer(json!({ "name": "iris", "ready": true, "model_version": version.as_str() }))
}

#[derive(Deserialize)]
struct Instances {
    instances: Vec<Vec<f64>>,
}

/// `POST /v1/models/iris:predict`: the name of a species for each instance.
pub(super) async fn predict(
    State(version): State<Version>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Answer, Failure> {
    let Instances { instances } = json(body)?;
    if instances.is_empty() {
        return Err(Failure::bad_request("instances is empty"));
    }
    let species = |(index, row): (usize, &Vec<f64>)| -> Result<&'static str, String> {
        Ok(version.predict(&features(index, row)?).species())
    };
    let predictions = instances.iter().enumerate().map(species);
    let predictions = predictions
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::bad_request)?;
    Ok(Answer(
        json!({ "predictions": predictions, "model_version": version.as_str() }),
    ))
}

/// What `:stream` may be asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flow {
    /// Events to send, 1 … 1000.
    #[serde(default = "ten")]
    n: usize,
    /// Milliseconds before each event but the first, 0 … 10 000.
    #[serde(default = "hundred")]
    every: u64,
}

fn ten() -> usize {
    10
}

fn hundred() -> u64 {
    100
}

/// `GET /v1/models/iris:stream?n=10&every=100`: server-sent events, one per flower of the training rows.
pub(super) async fn stream(
    State(version): State<Version>,
    flow: Result<Query<Flow>, QueryRejection>,
) -> Result<impl IntoResponse, Failure> {
    let Query(Flow { n, every }) =
        flow.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
    if !(1..=EVENTS_MAX).contains(&n) || every > EVERY_MAX {
        return Err(Failure::bad_request(format!(
            "n is 1 to {EVENTS_MAX}, every is 0 to {EVERY_MAX} milliseconds"
        )));
    }
    let pause = Duration::from_millis(every);
    Ok(Sse::new(stream::unfold(0, move |sent| async move {
        if sent == n {
            return None;
        }
        if sent > 0 && !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((Ok::<_, Infallible>(event(version, sent)), sent + 1))
    })))
}

fn event(version: Version, number: usize) -> Event {
    let row = number * STEP % ROWS.len();
    let said = version.predict(&ROWS[row]);
    let data = json!({
        "row": row,
        "features": ROWS[row],
        "prediction": said.species(),
        "probability": said.probabilities[said.label] as f32,
        "actual": SPECIES[row / 50],
        "model_version": version.as_str(),
    });
    Event::default()
        .id(number.to_string())
        .data(data.to_string())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode, header};
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::super::router;
    use super::super::tests::{ask, get, post};
    use super::*;

    const PREDICT: &str = "/v1/models/iris:predict";

    #[tokio::test]
    async fn it_lists_its_model() {
        assert_eq!(
            get("/v1/models").await,
            (StatusCode::OK, json!({ "models": ["iris"] }))
        );
        let status = json!({ "name": "iris", "ready": true, "model_version": "v1" });
        assert_eq!(get("/v1/models/iris").await, (StatusCode::OK, status));
    }

    #[tokio::test]
    async fn it_predicts_each_instance() {
        let body = r#"{"instances": [[5.1, 3.5, 1.4, 0.2], [6, 2.2, 5, 1.5]]}"#;
        let said = json!({ "predictions": ["setosa", "virginica"], "model_version": "v1" });
        assert_eq!(
            post(Version::V1, PREDICT, body).await,
            (StatusCode::OK, said)
        );
        let said = json!({ "predictions": ["setosa", "versicolor"], "model_version": "v2" });
        assert_eq!(
            post(Version::V2, PREDICT, body).await,
            (StatusCode::OK, said)
        );
    }

    #[tokio::test]
    async fn a_bad_body_is_a_400_that_says_what_is_wrong() {
        for (body, error) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            (r#"{"instances": []}"#, "instances is empty"),
            (
                r#"{"inputs": []}"#,
                "missing field `instances` at line 1 column 14",
            ),
            (
                r#"{"instances": [[1, 2, 3, 4], [1, 2]]}"#,
                "row 1 has 2 values, the model takes 4",
            ),
            (
                r#"{"instances": [[1, 2, 3, 1e9]]}"#,
                "row 0 holds a value beyond 1000 cm",
            ),
        ] {
            let expected = (StatusCode::BAD_REQUEST, json!({ "error": error }));
            assert_eq!(post(Version::V1, PREDICT, body).await, expected, "{body}");
        }
    }

    #[tokio::test]
    async fn a_stream_sends_one_event_per_row() {
        let request = Request::get("/v1/models/iris:stream?n=150&every=0")
            .body(Body::empty())
            .unwrap();
        let (head, body) = ask(Version::V2, request).await;
        assert_eq!(head.headers()[header::CONTENT_TYPE], "text/event-stream");
        let text = std::str::from_utf8(&body).unwrap();
        let events: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|event| {
                event
                    .lines()
                    .find_map(|line| line.strip_prefix("data: "))
                    .unwrap()
            })
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        assert_eq!(events.len(), 150);
        assert_eq!(
            events
                .iter()
                .filter(|event| event["prediction"] == event["actual"])
                .count(),
            144
        );
        assert!(events.iter().all(|event| event["model_version"] == "v2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_paces_its_events() {
        let started = tokio::time::Instant::now();
        let request = Request::get("/v1/models/iris:stream?n=3&every=250")
            .body(Body::empty())
            .unwrap();
        let mut body = router(Version::V1)
            .oneshot(request)
            .await
            .unwrap()
            .into_body();
        let mut times = Vec::new();
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            times.push(started.elapsed().as_millis());
        }
        assert_eq!(times, [0, 250, 500]);
    }

    #[tokio::test]
    async fn a_stream_out_of_bounds_is_a_400() {
        for query in ["n=0", "n=1001", "n=-1", "every=10001", "n=x", "m=1"] {
            let (status, said) = get(&format!("/v1/models/iris:stream?{query}")).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
            assert!(said["error"].is_string(), "{query}");
        }
    }
}
