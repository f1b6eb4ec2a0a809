//! The files in `deploy/` agree with the Forebay configurations inside or beside them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_config::Config;
use forebay_config::load::{SourceFile, load};
use serde_json::{Value, json};

/// What a stop may take beyond its own clocks.
const SPARE: Duration = Duration::from_secs(5);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(deploy().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Loads a Forebay configuration, which must not even warn.
fn forebay(name: &str, text: String) -> Config {
    let file = SourceFile {
        name: Arc::from(name),
        directory: deploy(),
        text,
    };
    let loaded = load(&[file], &|_| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
    loaded.config
}

/// How long a stop takes at most, in a pod or out of one.
fn stop(config: &Config, in_a_pod: bool) -> Duration {
    let default = Duration::from_secs(if in_a_pod { 5 } else { 0 });
    config.drain.delay.unwrap_or(default) + config.drain.timeout + SPARE
}

/// The assignments of a unit file's `[Service]`, in order.
struct Unit(Vec<(String, String)>);

impl Unit {
    fn service(text: &str) -> Self {
        let mut section = "";
        let mut assignments = Vec::new();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        {
            match line.split_once('=') {
                _ if line.starts_with('[') => section = line,
                Some((key, value)) if section == "[Service]" => {
                    assignments.push((key.to_owned(), value.to_owned()))
                }
                Some(_) => {}
                None => panic!("not an assignment: {line}"),
            }
        }
        Self(assignments)
    }

    /// The one value of `key`.
    fn get(&self, key: &str) -> &str {
        let mut values = self.0.iter().filter(|(k, _)| k == key);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => value,
            (found, _) => panic!(
                "{key} is {}",
                if found.is_some() {
                    "given twice"
                } else {
                    "missing"
                }
            ),
        }
    }
}

fn unit() -> Unit {
    Unit::service(&text("systemd/forebay.service"))
}

#[test]
fn the_unit_waits_for_the_drain_before_it_kills() {
    let config = forebay("forebay.yaml", text("systemd/forebay.yaml"));
    let unit = unit();
    let seconds = unit
        .get("TimeoutStopSec")
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(Duration::from_secs(seconds) >= stop(&config, false));
    assert_eq!(unit.get("KillSignal"), "SIGTERM");
}

#[test]
fn the_unit_runs_and_reloads_the_packaged_binary() {
    let unit = unit();
    assert_eq!(
        unit.get("ExecStart"),
        "/usr/bin/forebay run -c /etc/forebay"
    );
    assert_eq!(unit.get("ExecReload"), "/usr/bin/forebay reload");
    // `reload` without an address asks the default one.
    let config = forebay("forebay.yaml", text("systemd/forebay.yaml"));
    assert_eq!(
        config.admin.address,
        SocketAddr::from(([127, 0, 0, 1], 9901))
    );
    assert!(unit.get("LimitNOFILE").parse::<u64>().unwrap() >= 65_536);
}

#[test]
fn the_unit_is_hardened() {
    let unit = unit();
    for (key, value) in [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectControlGroups", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("LockPersonality", "yes"),
        ("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ] {
        assert_eq!(unit.get(key), value, "{key}");
    }
}

/// The Forebay configuration inside the ConfigMap.
fn in_the_pod() -> Config {
    let map = yaml("kubernetes/configmap.yaml");
    let files = map["data"].as_object().unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["forebay.yaml"]);
    forebay(
        "forebay.yaml",
        files["forebay.yaml"].as_str().unwrap().to_owned(),
    )
}

/// The Deployment's pod template and its only container.
fn pod() -> (Value, Value) {
    let deployment = yaml("kubernetes/deployment.yaml");
    let template = deployment["spec"]["template"].clone();
    assert_eq!(
        deployment["spec"]["selector"]["matchLabels"],
        template["metadata"]["labels"]
    );
    let containers = template["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    (template.clone(), containers[0].clone())
}

/// The number of a container's port, by name.
fn port(container: &Value, name: &Value) -> u64 {
    let ports = container["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| &port["name"] == name);
    port.unwrap_or_else(|| panic!("no port {name}"))["containerPort"]
        .as_u64()
        .unwrap()
}

#[test]
fn the_pod_is_given_the_time_its_drain_needs() {
    let (template, _) = pod();
    let grace = template["spec"]["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap();
    assert!(Duration::from_secs(grace) >= stop(&in_the_pod(), true));
}

#[test]
fn the_probes_ask_where_the_configuration_answers() {
    let probes = in_the_pod().admin.probes.expect("admin.probes is on");
    assert!(
        probes.ip().is_unspecified(),
        "the kubelet asks from outside the pod"
    );
    let (_, container) = pod();
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["path"], path, "{probe}");
        assert_eq!(
            port(&container, &get["port"]),
            u64::from(probes.port()),
            "{probe}"
        );
    }
}

#[test]
fn prometheus_is_sent_to_the_probes_address() {
    let port = in_the_pod()
        .admin
        .probes
        .expect("admin.probes is on")
        .port()
        .to_string();
    let annotations = json!({
        "prometheus.io/scrape": "true", "prometheus.io/port": port, "prometheus.io/path": "/metrics",
    });
    assert_eq!(pod().0["metadata"]["annotations"], annotations);
    assert_eq!(
        yaml("kubernetes/service.yaml")["metadata"]["annotations"],
        annotations
    );
}

#[test]
fn the_service_leads_to_every_listener() {
    let (template, container) = pod();
    let service = yaml("kubernetes/service.yaml");
    assert_eq!(service["spec"]["selector"], template["metadata"]["labels"]);
    let targets = service["spec"]["ports"].as_array().unwrap().iter();
    let targets: BTreeSet<u64> = targets
        .map(|p| port(&container, &p["targetPort"]))
        .collect();
    let config = in_the_pod();
    assert!(
        config
            .listeners
            .iter()
            .all(|listener| listener.address.ip().is_unspecified())
    );
    let listeners = config
        .listeners
        .iter()
        .map(|listener| u64::from(listener.address.port()));
    assert_eq!(targets, listeners.collect());
}

#[test]
fn the_admin_api_stays_inside_the_pod() {
    assert!(in_the_pod().admin.address.ip().is_loopback());
}

#[test]
fn the_pod_is_hardened() {
    let (template, container) = pod();
    let spec = &template["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_ne!(spec["securityContext"]["runAsUser"].as_u64(), Some(0));
    assert_eq!(
        spec["securityContext"]["seccompProfile"],
        json!({ "type": "RuntimeDefault" })
    );
    let context = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
    });
    assert_eq!(container["securityContext"], context);
    for bound in ["requests", "limits"] {
        assert!(
            container["resources"][bound]["memory"].is_string(),
            "{bound}"
        );
    }
}

#[test]
fn the_configuration_is_mounted_as_a_directory_so_that_edits_arrive() {
    let (template, container) = pod();
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert!(
        mounts
            .iter()
            .all(|mount| mount.get("subPath").is_none() && mount.get("subPathExpr").is_none())
    );
    let [mount] = &mounts[..] else {
        panic!("one mount, not {}", mounts.len())
    };
    assert_eq!(
        container["command"],
        json!(["/usr/bin/forebay", "run", "-c", mount["mountPath"]])
    );
    let volumes = template["spec"]["volumes"].as_array().unwrap();
    let volume = volumes
        .iter()
        .find(|volume| volume["name"] == mount["name"])
        .expect("the mount's volume");
    assert_eq!(
        volume["configMap"]["name"],
        yaml("kubernetes/configmap.yaml")["metadata"]["name"]
    );
}

#[test]
fn kustomize_applies_every_object() {
    let listed = yaml("kubernetes/kustomization.yaml")["resources"].clone();
    let files = std::fs::read_dir(deploy().join("kubernetes")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "kustomization.yaml").collect();
    names.sort();
    assert_eq!(listed, json!(names));
}
