//! Istio: the documents of a platform, and what each rule does.

use forebay_config::import::Level;

use crate::istio_support::{ask_at, translation};
use crate::support::{findings, round_trip};

const ORIGIN: &str = include_str!("corpus/istio_origin.yaml");

#[test]
fn the_documents_of_the_platform_become_a_split_and_a_mirror() {
    let translation = translation(ORIGIN);
    assert_eq!(translation.worst(), Level::Approximated);
    let all: Vec<String> = findings(&translation);
    let (gateways, copies) = (
        "no document describes a Gateway: on all listeners for HTTP",
        "copies keep their `Host`: no `-shadow` is put behind it",
    );
    assert_eq!(
        all,
        [
            format!("5:13 approximated spec.gateways: {gateways}"),
            format!("8:20 approximated spec.http[0].mirror.host: {copies}"),
            format!("18:13 approximated spec.gateways: {gateways}"),
        ]
    );
    let config = round_trip(ORIGIN);
    assert_eq!(
        ask_at(
            &config,
            None,
            "POST",
            "split.service1.example.com/v1/models/m:predict",
            &[]
        ),
        "kfserving/service1-version1:8501*20 kfserving/service1-version2:8501*80 /v1/models/m:predict"
    );
    assert_eq!(
        ask_at(
            &config,
            None,
            "POST",
            "mirror.service1.example.com/v1/models/m:predict",
            &[]
        ),
        "kfserving/service1-version2:8501 /v1/models/m:predict"
    );
    assert_eq!(
        ask_at(&config, None, "GET", "other.example.com/", &[]),
        "404"
    );
    let [mirrored, split] = &config.routes[..] else {
        panic!("{:?}", config.routes)
    };
    let [mirror] = &mirrored.mirrors[..] else {
        panic!("{mirrored:?}")
    };
    assert_eq!(mirror.cluster, "kfserving/service1-version1:8501");
    assert_eq!((mirror.sample, mirror.demand), (1_000_000, false));
    for route in [mirrored, split] {
        assert_eq!(route.timeouts.total.unwrap().as_secs(), 300);
        assert_eq!(route.listeners, [""; 0]);
    }
    assert!(split.mirrors.is_empty());
    assert_eq!(config.clusters.len(), 2);
}

/// What is not as it was there, of every document of the corpus.
#[test]
fn the_corpus_means_the_same_printed_and_loaded() {
    for text in [
        ORIGIN,
        include_str!("corpus/istio_rules.yaml"),
        include_str!("corpus/istio_policies.yaml"),
    ] {
        let translation = translation(text);
        assert_ne!(
            translation.worst(),
            Level::Lost,
            "{:#?}",
            findings(&translation)
        );
        crate::istio_support::round_trip(text);
    }
}

/// Every roll is taken once: a fifth goes to the first version, whatever the luck.
#[test]
fn a_fifth_of_the_requests_goes_to_the_first_version() {
    let config = crate::istio_support::config(ORIGIN);
    let split = config
        .routes
        .iter()
        .find(|route| route.mirrors.is_empty())
        .unwrap();
    let forebay_config::Action::Forward(members) = &split.action else {
        panic!("{split:?}")
    };
    let weights = members.iter().map(|one| (one.cluster.clone(), one.weight));
    let split = forebay_config::split::Split::new(weights).unwrap();
    let rolls = (0..10_000_u32).map(|step| step * (u32::MAX / 10_000));
    let first = rolls
        .filter(|roll| split.pick(*roll).contains("version1"))
        .count();
    assert!(first.abs_diff(2_000) <= 1, "{first}");
}

#[test]
fn many_documents_take_their_time_and_no_more() {
    let mut text = String::new();
    for index in 0..1_000 {
        text.push_str(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v{index}, namespace: ml}}\nspec:\n  hosts: [h.example]\n  http:\n\
             \x20 - match: [{{uri: {{prefix: /m{index}/}}}}]\n    route: [{{destination: {{host: m{index}, port: {{number: 80}}}}}}]\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d{index}, namespace: ml}}\nspec: {{host: m{index}, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}\n---\n"
        ));
    }
    let config = crate::istio_support::config(&text);
    assert_eq!((config.routes.len(), config.clusters.len()), (1_000, 1_000));
    let answer = crate::istio_support::ask(&config, "GET", "/m999/x", &[]);
    assert_eq!(answer, "ml/m999:80 /m999/x");
}
