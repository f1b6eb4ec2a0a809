//! Documents of other programs: what they become, what is found of them, what they cannot do.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "import/coverage.rs"]
mod coverage;
#[path = "import/documents.rs"]
mod documents;
#[path = "import/gateway_api.rs"]
mod gateway_api;
#[path = "import/ingress.rs"]
mod ingress;
#[path = "import/ingress_policies.rs"]
mod ingress_policies;
#[path = "import/ingress_support.rs"]
mod ingress_support;
#[path = "import/ingress_upstream.rs"]
mod ingress_upstream;
#[path = "import/ingress_wrong.rs"]
mod ingress_wrong;
#[path = "import/istio.rs"]
mod istio;
#[path = "import/istio_actions.rs"]
mod istio_actions;
#[path = "import/istio_destinations.rs"]
mod istio_destinations;
#[path = "import/istio_gateways.rs"]
mod istio_gateways;
#[path = "import/istio_matching.rs"]
mod istio_matching;
#[path = "import/istio_mutations.rs"]
mod istio_mutations;
#[path = "import/istio_support.rs"]
mod istio_support;
#[path = "import/kserve.rs"]
mod kserve;
#[path = "import/llama_swap.rs"]
mod llama_swap;
#[path = "import/llama_swap_rooms.rs"]
mod llama_swap_rooms;
#[path = "import/llama_swap_support.rs"]
mod llama_swap_support;
#[path = "import/llama_swap_wrong.rs"]
mod llama_swap_wrong;
#[path = "import/services.rs"]
mod services;
#[path = "import/support.rs"]
mod support;
