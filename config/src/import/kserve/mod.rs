//! KServe: `serving.kserve.io`.
//!
//! The pods stay with KServe: an InferenceService becomes routes to its Services, with the limits of its components.

mod component;
mod fields;
mod revision;
mod server;
mod service;

use super::coverage::{Field, Kind};
use super::{Format, Translator};

const GROUP: &str = "serving.kserve.io";

/// Every kind translated here, and how.
pub(super) const TRANSLATOR: Translator = Translator {
    kinds: &[
        fields::INFERENCE_SERVICE,
        lost(
            "InferenceGraph",
            &[Field::lost("spec", "write it as one of `pipelines`")],
        ),
        lost("ServingRuntime", RUNTIME),
        lost("ClusterServingRuntime", RUNTIME),
    ],
    services: |_| {},
    routes: service::translate,
};

const RUNTIME: &[Field] = &[Field::lost(
    "spec",
    "the kind of server comes from the name of the runtime or the format of the model; set `server` of the cluster",
)];

const fn lost(name: &'static str, fields: &'static [Field]) -> Kind {
    Kind {
        group: GROUP,
        name,
        versions: &["v1alpha1", "v1beta1"],
        format: Some(Format::Kserve),
        proto: false,
        fields,
    }
}
