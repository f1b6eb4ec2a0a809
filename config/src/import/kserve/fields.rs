//! What becomes of each field of an InferenceService, as data.

use super::GROUP;
use crate::import::Format;
use crate::import::coverage::{Field, Kind};

const PODS: &str = "for the pods, which stay with KServe";
const STORAGE: &str = "the pods stay with KServe; nothing here loads a model";
const OBSERVED: &str = "published for HPA and KEDA; nobody here starts pods";
const TARGET: &str = "published for HPA and KEDA; Knative aims at 70 % of it, this at all of it";

/// The fields of a container, without those that say what it serves.
macro_rules! container {
    ($path:literal) => {
        [
            Field::harmless(concat!($path, ".args"), PODS),
            Field::harmless(concat!($path, ".command"), PODS),
            Field::harmless(concat!($path, ".env"), PODS),
            Field::harmless(concat!($path, ".envFrom"), PODS),
            Field::harmless(concat!($path, ".image"), PODS),
            Field::harmless(concat!($path, ".imagePullPolicy"), PODS),
            Field::harmless(concat!($path, ".lifecycle"), PODS),
            Field::harmless(concat!($path, ".livenessProbe"), PODS),
            Field::harmless(concat!($path, ".name"), PODS),
            Field::harmless(concat!($path, ".ports"), PODS),
            Field::harmless(concat!($path, ".readinessProbe"), PODS),
            Field::harmless(concat!($path, ".resources"), PODS),
            Field::harmless(concat!($path, ".runtimeVersion"), PODS),
            Field::harmless(concat!($path, ".securityContext"), PODS),
            Field::harmless(concat!($path, ".startupProbe"), PODS),
            Field::harmless(concat!($path, ".volumeDevices"), PODS),
            Field::harmless(concat!($path, ".volumeMounts"), PODS),
            Field::harmless(concat!($path, ".workingDir"), PODS),
            Field::ok(concat!($path, ".protocolVersion")),
            Field::approximated(concat!($path, ".storageUri"), STORAGE),
            Field::approximated(concat!($path, ".storage"), STORAGE),
        ]
    };
}

/// The fields that every component has.
macro_rules! component {
    ($path:literal) => {
        [
            Field::approximated(concat!($path, ".minReplicas"), OBSERVED),
            Field::approximated(concat!($path, ".maxReplicas"), OBSERVED),
            Field::approximated(concat!($path, ".scaleTarget"), TARGET),
            Field::ok(concat!($path, ".scaleMetric")),
            Field::lost(
                concat!($path, ".scaleMetricType"),
                "a target is what one replica carries",
            ),
            Field::lost(
                concat!($path, ".autoScaling"),
                "write `target` of `scale`, or keep the HPA",
            ),
            Field::ok(concat!($path, ".containerConcurrency")),
            Field::ok(concat!($path, ".timeout")),
            Field::ok(concat!($path, ".canaryTrafficPercent")),
            Field::lost(concat!($path, ".logger"), "write `record` of the route"),
            Field::lost(concat!($path, ".batcher"), "requests are not joined"),
            Field::approximated(
                concat!($path, ".containers"),
                "the kind of server is guessed by the image; the pods stay with KServe",
            ),
            Field::harmless(concat!($path, ".activeDeadlineSeconds"), PODS),
            Field::harmless(concat!($path, ".affinity"), PODS),
            Field::harmless(concat!($path, ".annotations"), PODS),
            Field::harmless(concat!($path, ".automountServiceAccountToken"), PODS),
            Field::harmless(concat!($path, ".deploymentStrategy"), PODS),
            Field::harmless(concat!($path, ".dnsConfig"), PODS),
            Field::harmless(concat!($path, ".dnsPolicy"), PODS),
            Field::harmless(concat!($path, ".hostAliases"), PODS),
            Field::harmless(concat!($path, ".hostIPC"), PODS),
            Field::harmless(concat!($path, ".hostNetwork"), PODS),
            Field::harmless(concat!($path, ".hostPID"), PODS),
            Field::harmless(concat!($path, ".imagePullSecrets"), PODS),
            Field::harmless(concat!($path, ".initContainers"), PODS),
            Field::harmless(concat!($path, ".labels"), PODS),
            Field::harmless(concat!($path, ".nodeName"), PODS),
            Field::harmless(concat!($path, ".nodeSelector"), PODS),
            Field::harmless(concat!($path, ".priorityClassName"), PODS),
            Field::harmless(concat!($path, ".resourceClaims"), PODS),
            Field::harmless(concat!($path, ".restartPolicy"), PODS),
            Field::harmless(concat!($path, ".runtimeClassName"), PODS),
            Field::harmless(concat!($path, ".schedulerName"), PODS),
            Field::harmless(concat!($path, ".securityContext"), PODS),
            Field::harmless(concat!($path, ".serviceAccountName"), PODS),
            Field::harmless(concat!($path, ".shareProcessNamespace"), PODS),
            Field::harmless(concat!($path, ".terminationGracePeriodSeconds"), PODS),
            Field::harmless(concat!($path, ".tolerations"), PODS),
            Field::harmless(concat!($path, ".topologySpreadConstraints"), PODS),
            Field::harmless(concat!($path, ".volumes"), PODS),
        ]
    };
}

const OWN: &[Field] = &[
    Field::ok("metadata.annotations.serving.kserve.io/deploymentMode"),
    Field::harmless("metadata.annotations.serving.kserve.io/*", PODS),
    Field::approximated(
        "metadata.annotations.autoscaling.knative.dev/target",
        TARGET,
    ),
    Field::ok("metadata.annotations.autoscaling.knative.dev/metric"),
    Field::lost(
        "metadata.annotations.autoscaling.knative.dev/*",
        "use the fields of the component, or keys of `scale`",
    ),
    Field::lost(
        "metadata.annotations.security.opendatahub.io/enable-auth",
        "set `auth: {required: true}` of the route",
    )
    .secure(),
    Field::ok("metadata.labels.networking.kserve.io/visibility"),
    Field::ok("metadata.labels.networking.knative.dev/visibility"),
    Field::harmless("metadata.labels.*", "for Kubernetes"),
    Field::ok("spec.predictor.model.modelFormat.name"),
    Field::harmless("spec.predictor.model.modelFormat.version", PODS),
    Field::ok("spec.predictor.model.runtime"),
    Field::harmless("spec.predictor.workerSpec", "workers get no requests"),
    Field::approximated(
        "spec.explainer.art",
        "the pods stay with KServe; `:explain` goes to them",
    ),
];

const LISTS: &[&[Field]] = &[
    OWN,
    &component!("spec.predictor"),
    &container!("spec.predictor.model"),
    &container!("spec.predictor.sklearn"),
    &container!("spec.predictor.xgboost"),
    &container!("spec.predictor.lightgbm"),
    &container!("spec.predictor.pmml"),
    &container!("spec.predictor.paddle"),
    &container!("spec.predictor.tensorflow"),
    &container!("spec.predictor.pytorch"),
    &container!("spec.predictor.triton"),
    &container!("spec.predictor.onnx"),
    &container!("spec.predictor.huggingface"),
    &component!("spec.transformer"),
    &component!("spec.explainer"),
];

const COUNT: usize = {
    let (mut list, mut count) = (0, 0);
    while list < LISTS.len() {
        count += LISTS[list].len();
        list += 1;
    }
    count
};

/// All lists behind each other.
static ALL: [Field; COUNT] = {
    let mut all = [Field::ok(""); COUNT];
    let (mut list, mut place) = (0, 0);
    while list < LISTS.len() {
        let mut index = 0;
        while index < LISTS[list].len() {
            all[place] = LISTS[list][index];
            place += 1;
            index += 1;
        }
        list += 1;
    }
    all
};

/// What becomes of its fields.
pub(super) const INFERENCE_SERVICE: Kind = Kind {
    group: GROUP,
    name: "InferenceService",
    versions: &["v1beta1"],
    format: Some(Format::Kserve),
    proto: false,
    fields: &ALL,
};
