//! Whether a server can serve one model: what it is asked, and how its answer is read.

use forebay_config::Cluster;
use serde_json::Value;

/// What stands for the model's name in a path.
const NAME: &str = "{}";
/// The end of a path that only probes ask for.
const PROBED: &str = "/ready";

/// What says that one model can be served: a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelReady {
    /// Where it is asked; `{}` stands for the model's name.
    pub path: &'static str,
    /// The port beside the server's usual HTTP port that answers; `None`: the HTTP port itself.
    pub port: Option<u16>,
    /// How the answer is read.
    pub reads: Reads,
}

/// How an answer says that a model is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// By status 200.
    Status,
    /// TensorFlow Serving: some `model_version_status[].state` is `AVAILABLE`.
    Available,
    /// TorchServe: some `workers[].status` of a version is `READY`.
    Workers,
}

/// What one endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// With the model's name in it, percent-encoded.
    pub path: String,
    /// Where; `None`: at the endpoint's own port.
    pub port: Option<u16>,
    /// How the answer is read, once its status is 200.
    pub reads: Reads,
}

impl ModelReady {
    /// What an endpoint is asked about a model. `None`: what answers has a port of its own, and it is not known where
    /// it is beside this one.
    ///
    /// * `port`: where the endpoint listens
    pub fn question(&self, cluster: &Cluster, model: &str, port: u16) -> Option<Question> {
        if self.port.is_some() && cluster.server.ports().http != Some(port) {
            return None;
        }
        Some(Question {
            path: self.path.replace(NAME, &encoded(model)),
            port: self.port,
            reads: self.reads,
        })
    }

    /// True for a path that nobody asks for but to know whether a model is ready.
    ///
    /// * `path`: canonical
    pub fn is_probe(&self, path: &str) -> bool {
        let Some((before, PROBED)) = self.path.split_once(NAME) else {
            return false;
        };
        let name = path.strip_prefix(before);
        let name = name.and_then(|rest| rest.strip_suffix(PROBED));
        name.is_some_and(|name| match name.split_once('/') {
            None => !name.is_empty(),
            Some((_, version)) => version
                .strip_prefix("versions/")
                .is_some_and(|version| !version.is_empty() && !version.contains('/')),
        })
    }
}

impl Reads {
    /// What is wrong with an answer of status 200; `None`: the model is ready.
    ///
    /// * `body`: the whole of it
    pub fn fault(self, body: &[u8]) -> Option<String> {
        if self == Self::Status {
            return None;
        }
        let Ok(answer) = serde_json::from_slice::<Value>(body) else {
            return Some("the answer is no JSON".to_owned());
        };
        let (lists, key, wanted) = match self {
            Self::Status => return None,
            Self::Available => (vec![&answer["model_version_status"]], "state", "AVAILABLE"),
            Self::Workers => {
                let versions = answer.as_array().map(Vec::as_slice).unwrap_or_default();
                let workers = versions.iter().map(|version| &version["workers"]);
                (workers.collect(), "status", "READY")
            }
        };
        let all = lists.into_iter().filter_map(Value::as_array).flatten();
        let states: Vec<&str> = all.filter_map(|one| one[key].as_str()).collect();
        if states.contains(&wanted) {
            return None;
        }
        Some(match states.first() {
            Some(state) => format!("the model is {state}, not {wanted}"),
            None => format!("the answer has no `{key}`"),
        })
    }
}

/// Writes a name as one segment of a path.
fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OIP: ModelReady = ModelReady {
        path: "/v2/models/{}/ready",
        port: None,
        reads: Reads::Status,
    };

    #[test]
    fn names_are_one_segment() {
        assert_eq!(encoded("resnet-50.v1"), "resnet-50.v1");
        assert_eq!(encoded("org/model:tag"), "org%2Fmodel%3Atag");
        assert_eq!(encoded("größe"), "gr%C3%B6%C3%9Fe");
    }

    #[test]
    fn only_readiness_is_a_probe() {
        assert!(OIP.is_probe("/v2/models/m/ready"));
        assert!(OIP.is_probe("/v2/models/m/versions/3/ready"));
        assert!(!OIP.is_probe("/v2/models/m"));
        assert!(!OIP.is_probe("/v2/models//ready"));
        assert!(!OIP.is_probe("/v2/models/m/versions/1/2/ready"));
        assert!(!OIP.is_probe("/v2/models/m/other/3/ready"));
        let status = ModelReady {
            path: "/v1/models/{}",
            ..OIP
        };
        assert!(!status.is_probe("/v1/models/m"), "people read it as well");
    }

    #[test]
    fn answers_are_read_as_each_server_writes_them() {
        let available = br#"{"model_version_status": [
            {"version": "2", "state": "LOADING", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]}"#;
        assert_eq!(Reads::Available.fault(available), None);
        let loading = br#"{"model_version_status": [{"version": "2", "state": "LOADING"}]}"#;
        assert_eq!(
            Reads::Available.fault(loading).as_deref(),
            Some("the model is LOADING, not AVAILABLE")
        );
        let workers = br#"[{"modelName": "m", "workers": [{"id": "9000", "status": "READY"}]}]"#;
        assert_eq!(Reads::Workers.fault(workers), None);
        for body in [&b"[]"[..], b"{}", b"[{\"workers\": []}]", b"null"] {
            assert!(Reads::Workers.fault(body).is_some());
            assert!(Reads::Available.fault(body).is_some());
        }
        assert_eq!(
            Reads::Available.fault(b"OK").as_deref(),
            Some("the answer is no JSON")
        );
        assert_eq!(Reads::Status.fault(b"anything"), None);
    }
}
