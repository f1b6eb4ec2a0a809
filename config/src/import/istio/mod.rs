//! Istio: `networking.istio.io`.
//!
//! Gateways become listeners, VirtualServices routes in their order, ServiceEntries services, and DestinationRules are
//! put into the clusters once all of them are there.

mod action;
mod condition;
mod destination_rule;
mod destination_rule_fields;
mod gateway;
mod place;
mod policy;
mod rule;
mod service_entry;
mod tcp;
mod text;
mod traffic_policy;
mod virtual_service;
mod virtual_service_fields;

use super::{Translator, Work};

/// Every kind translated here, and how.
pub(super) const TRANSLATOR: Translator = Translator {
    kinds: &[
        virtual_service::KIND,
        destination_rule::KIND,
        gateway::KIND,
        service_entry::KIND,
    ],
    services: service_entry::translate,
    routes,
};

fn routes(work: &mut Work<'_>) {
    let gateways = gateway::translate(work);
    let rules = destination_rule::collect(work);
    virtual_service::translate(work, &gateways, &rules);
}

/// Puts policies into clusters: those of all formats, and of services that only native routes name.
pub(super) fn policies(work: &mut Work<'_>) {
    destination_rule::translate(work);
}
