//! The Open Inference Protocol, version 2, over REST and JSON.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde::Deserialize;
use serde_json::{Value, json};

use super::model::{Features, Prediction, Version, features};
use super::{Answer, Failure, json};

/// The one input.
const INPUT: &str = "features";

/// The outputs, in the order they are sent when the request names none.
const OUTPUTS: [&str; 3] = ["species", "label", "probabilities"];

/// `GET /v2`.
pub(super) async fn server() -> Answer {
    Answer(
        json!({ "name": "forebay-demo", "version": env!("CARGO_PKG_VERSION"), "extensions": [] }),
    )
}

/// `GET /v2/health/live`.
pub(super) async fn live() -> Answer {
    Answer(json!({ "live": true }))
}

/// `GET /v2/health/ready`.
pub(super) async fn ready() -> Answer {
    Answer(json!({ "ready": true }))
}

/// `GET /v2/models/iris/ready`.
pub(super) async fn model_ready() -> Answer {
    Answer(json!({ "name": "iris", "ready": true }))
}

/// `GET /v2/models/iris`.
pub(super) async fn metadata(State(version): State<Version>) -> Answer {
    Answer(json!({
        "name": "iris",
        "versions": [version.as_str()],
        "platform": "forebay-demo",
        "inputs": [{ "name": INPUT, "datatype": "FP32", "shape": [-1, 4] }],
        "outputs": [
            { "name": "species", "datatype": "BYTES", "shape": [-1] },
            { "name": "label", "datatype": "INT64", "shape": [-1] },
            { "name": "probabilities", "datatype": "FP32", "shape": [-1, 3] },
        ],
    }))
}

#[derive(Deserialize)]
struct InferRequest {
    id: Option<String>,
    inputs: Vec<Tensor>,
    #[serde(default)]
    outputs: Vec<Wanted>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    data: Data,
}

/// Row-major, or nested as the shape says.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "data must be numbers, flat in row-major order or one list per row"
)]
enum Data {
    Flat(Vec<f64>),
    Rows(Vec<Vec<f64>>),
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
}

/// `POST /v2/models/iris/infer`.
pub(super) async fn infer(
    State(version): State<Version>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Answer, Failure> {
    let InferRequest {
        id,
        inputs,
        outputs,
    } = json(body)?;
    let flowers = flowers(&inputs).map_err(Failure::bad_request)?;
    let predictions: Vec<_> = flowers
        .iter()
        .map(|flower| version.predict(flower))
        .collect();
    let tensors = if outputs.is_empty() {
        OUTPUTS
            .iter()
            .map(|name| output(name, &predictions))
            .collect::<Result<Vec<_>, _>>()
    } else {
        outputs
            .iter()
            .map(|wanted| output(&wanted.name, &predictions))
            .collect()
    };
    let mut answer = json!({
        "model_name": "iris",
        "model_version": version.as_str(),
        "outputs": tensors.map_err(Failure::bad_request)?,
    });
    if let Some(id) = id {
        answer["id"] = id.into();
    }
    Ok(Answer(answer))
}

/// Checks name, datatype and shape of the input and cuts it into rows; the error is a sentence for the caller.
fn flowers(inputs: &[Tensor]) -> Result<Vec<Features>, String> {
    let [input] = inputs else {
        return Err(format!("{} inputs given, the model takes 1", inputs.len()));
    };
    if input.name != INPUT {
        return Err(format!(
            "unknown input '{}', the model takes '{INPUT}'",
            input.name
        ));
    }
    if !matches!(input.datatype.as_str(), "FP32" | "FP64") {
        return Err(format!(
            "input '{INPUT}' has datatype '{}', the model takes FP32 or FP64",
            input.datatype
        ));
    }
    let [rows, 4] = input.shape[..] else {
        return Err(format!(
            "input '{INPUT}' has shape {:?}, the model takes [n, 4]",
            input.shape
        ));
    };
    let flat: Vec<&[f64]> = match &input.data {
        Data::Flat(values) => values.chunks(4).collect(),
        Data::Rows(rows) => rows.iter().map(Vec::as_slice).collect(),
    };
    if flat.is_empty() || flat.len() as u64 != rows {
        return Err(format!(
            "input '{INPUT}' holds {} rows, its shape says {rows}",
            flat.len()
        ));
    }
    flat.iter()
        .enumerate()
        .map(|(index, row)| features(index, row))
        .collect()
}

fn output(name: &str, predictions: &[Prediction]) -> Result<Value, String> {
    let n = predictions.len();
    match name {
        "species" => {
            let data: Vec<_> = predictions.iter().map(Prediction::species).collect();
            Ok(json!({ "name": name, "datatype": "BYTES", "shape": [n], "data": data }))
        }
        "label" => {
            let data: Vec<_> = predictions
                .iter()
                .map(|prediction| prediction.label)
                .collect();
            Ok(json!({ "name": name, "datatype": "INT64", "shape": [n], "data": data }))
        }
        "probabilities" => {
            let data: Vec<_> = predictions
                .iter()
                .flat_map(|p| p.probabilities)
                .map(|p| p as f32)
                .collect();
            Ok(json!({ "name": name, "datatype": "FP32", "shape": [n, 3], "data": data }))
        }
        _ => Err(format!(
            "unknown output '{name}', the model gives {}",
            OUTPUTS.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::super::tests::{get, post};
    use super::*;

    const INFER: &str = "/v2/models/iris/infer";

    fn request(change: impl FnOnce(&mut Value)) -> String {
        let mut request = json!({
            "id": "42",
            "inputs": [{
                "name": "features", "datatype": "FP32", "shape": [2, 4],
                "data": [5.1, 3.5, 1.4, 0.2, 6.0, 2.2, 5.0, 1.5],
            }],
        });
        change(&mut request);
        request.to_string()
    }

    #[tokio::test]
    async fn it_is_live_and_ready_and_describes_itself() {
        assert_eq!(
            get("/v2/health/live").await,
            (StatusCode::OK, json!({ "live": true }))
        );
        assert_eq!(
            get("/v2/health/ready").await,
            (StatusCode::OK, json!({ "ready": true }))
        );
        assert_eq!(
            get("/v2/models/iris/ready").await,
            (StatusCode::OK, json!({ "name": "iris", "ready": true }))
        );
        assert_eq!(get("/v2").await.1["name"], "forebay-demo");
        let (_, metadata) = get("/v2/models/iris").await;
        assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 4]));
        assert_eq!(metadata["versions"], json!(["v1"]));
    }

    #[tokio::test]
    async fn it_answers_with_every_output() {
        let (status, said) = post(Version::V2, INFER, &request(|_| ())).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            (&said["model_name"], &said["model_version"], &said["id"]),
            (&json!("iris"), &json!("v2"), &json!("42"))
        );
        let outputs = said["outputs"].as_array().unwrap();
        assert_eq!(
            outputs
                .iter()
                .map(|o| o["name"].as_str().unwrap())
                .collect::<Vec<_>>(),
            OUTPUTS
        );
        assert_eq!(outputs[0]["data"], json!(["setosa", "versicolor"]));
        assert_eq!(outputs[1]["data"], json!([0, 1]));
        assert_eq!(outputs[2]["shape"], json!([2, 3]));
        let probabilities = outputs[2]["data"].as_array().unwrap();
        let sums = probabilities
            .chunks(3)
            .map(|row| row.iter().map(|p| p.as_f64().unwrap()).sum::<f64>());
        assert!(probabilities.len() == 6 && sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-6));
    }

    #[tokio::test]
    async fn nested_data_and_a_choice_of_outputs_are_understood() {
        let body = request(|request| {
            request["inputs"][0]["data"] = json!([[5.1, 3.5, 1.4, 0.2], [6.0, 2.2, 5.0, 1.5]]);
            request["inputs"][0]["datatype"] = json!("FP64");
            request["outputs"] = json!([{ "name": "label", "parameters": {} }]);
        });
        let (status, said) = post(Version::V1, INFER, &body).await;
        assert_eq!(status, StatusCode::OK);
        let label = json!([{ "name": "label", "datatype": "INT64", "shape": [2], "data": [0, 2] }]);
        assert_eq!(said["outputs"], label);
    }

    #[tokio::test]
    async fn a_request_that_does_not_fit_the_model_is_a_400_that_says_why() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 9] = [
            (
                |r| r["inputs"] = json!([]),
                "0 inputs given, the model takes 1",
            ),
            (
                |r| r["inputs"][0]["name"] = json!("x"),
                "unknown input 'x', the model takes 'features'",
            ),
            (
                |r| r["inputs"][0]["datatype"] = json!("BYTES"),
                "input 'features' has datatype 'BYTES', the model takes FP32 or FP64",
            ),
            (
                |r| r["inputs"][0]["shape"] = json!([8]),
                "input 'features' has shape [8], the model takes [n, 4]",
            ),
            (
                |r| r["inputs"][0]["shape"] = json!([3, 4]),
                "input 'features' holds 2 rows, its shape says 3",
            ),
            (
                |r| {
                    r["inputs"][0]["data"] = json!([]);
                    r["inputs"][0]["shape"] = json!([0, 4]);
                },
                "input 'features' holds 0 rows, its shape says 0",
            ),
            (
                |r| r["inputs"][0]["data"] = json!([1, 2, 3, 4, 5]),
                "row 1 has 1 values, the model takes 4",
            ),
            (
                |r| r["inputs"][0]["data"] = json!([[1, 2, 3, 4], [5]]),
                "row 1 has 1 values, the model takes 4",
            ),
            (
                |r| r["outputs"] = json!([{ "name": "x" }]),
                "unknown output 'x', the model gives species, label, probabilities",
            ),
        ];
        for (change, error) in cases {
            let expected = (StatusCode::BAD_REQUEST, json!({ "error": error }));
            assert_eq!(post(Version::V1, INFER, &request(change)).await, expected);
        }
    }

    #[tokio::test]
    async fn data_of_another_type_and_broken_json_are_400s() {
        let strings = request(|request| request["inputs"][0]["data"] = json!(["a"]));
        for (body, error) in [
            (
                strings.as_str(),
                "data must be numbers, flat in row-major order or one list per row",
            ),
            ("{", "EOF while parsing an object at line 1 column 1"),
            (r#"{"id": "1"}"#, "missing field `inputs`"),
        ] {
            let (status, said) = post(Version::V1, INFER, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(said["error"].as_str().unwrap().contains(error), "{said}");
        }
    }
}
