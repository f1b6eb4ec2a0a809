//! Services become clusters.

use forebay_config::import::{Options, to_yaml, translate};

use crate::support::{findings, loaded, parsed, translated};

const SERVICES: &str = include_str!("corpus/services.yaml");

#[test]
fn fixed_endpoints_of_a_service_entry_become_a_cluster() {
    let translation = translated(SERVICES);
    assert_eq!(findings(&translation), [""; 0]);
    assert_eq!(
        to_yaml(&translation.root),
        "clusters:\n\
         - name: gpu.internal:80\n\
         \x20 endpoints:\n\
         \x20 - address: 10.2.0.1:8001\n\
         \x20   weight: 3\n\
         \x20   labels:\n\
         \x20     version: v1\n\
         \x20 - address: 10.2.0.2:8000\n\
         - name: gpu.internal:8500\n\
         \x20 endpoints:\n\
         \x20 - address: 10.2.0.1:8500\n\
         \x20   weight: 3\n\
         \x20   labels:\n\
         \x20     version: v1\n\
         \x20 - address: 10.2.0.2:8500\n\
         \x20 protocol: http2\n"
    );
}

#[test]
fn native_routes_name_services_of_documents() {
    let native = "routes:\n- name: r\n  split:\n  - {cluster: 'ml/resnet:80'}\n  - {cluster: 'gpu.internal:80'}\n";
    let loaded = loaded(&[("native.yaml", native), ("k.yaml", SERVICES)]).unwrap();
    let clusters = loaded.config.clusters.iter();
    let clusters: Vec<(&str, &str, u32)> = clusters
        .map(|one| (&*one.name, &*one.position.file, one.position.line))
        .collect();
    assert_eq!(
        clusters,
        [
            ("gpu.internal:80", "k.yaml", 33),
            ("ml/resnet:80", "k.yaml", 5)
        ]
    );
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn a_pin_replaces_what_would_be_asked() {
    let options = Options {
        pins: vec!["resnet.ml:80=127.0.0.1:9000".parse().unwrap()],
        wanted: Some(["ml/resnet:80".to_owned()].into()),
        ..Options::default()
    };
    let translation = translate(&parsed(SERVICES), &options);
    assert_eq!(
        to_yaml(&translation.root),
        "clusters:\n- name: ml/resnet:80\n  endpoints:\n  - address: 127.0.0.1:9000\n"
    );
}
