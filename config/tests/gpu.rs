//! Devices and what replicas take of them: what is refused, what is odd, and how it reads.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;
mod told;

use forebay_config::{Gpu, GpuMemory, GpuShare, Scale};
use told::{codes, fits_the_schema, loaded, says};

/// A file with these devices, and a cluster for each of these keys of `scale`.
fn file(gpus: &str, scales: &[&str]) -> String {
    let names = ["a", "b", "c"];
    let gpus = match gpus {
        "" => String::new(),
        gpus => format!("gpus: {gpus}\n"),
    };
    let members = names[..scales.len()]
        .iter()
        .map(|name| format!("{{cluster: {name}}}"));
    let members = members.collect::<Vec<_>>().join(", ");
    let comma = if scales.is_empty() { "" } else { ", " };
    let mut text = format!(
        "{gpus}routes: [{{name: r, split: [{members}{comma}{{cluster: z}}]}}]\nclusters:\n- {{name: z, endpoints: ['z:1']}}\n"
    );
    for (name, scale) in names.iter().zip(scales) {
        text += &format!(
            "- {{name: {name}, scale: {{process: {{command: 'a ${{PORT}}'}}, {scale}}}}}\n"
        );
    }
    text
}

fn scale_of(text: &str) -> Scale {
    let (config, _) = loaded(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    config.clusters[1].scale.clone().unwrap()
}

fn gpus_of(text: &str) -> Vec<Gpu> {
    let (config, _) = loaded(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    config.gpus
}

#[test]
fn devices() {
    for (gpus, code) in [
        ("[{memory: 24GiB}]", ""),
        ("[{memory: 24GiB}, {memory: 24GiB}]", ""),
        ("[{index: 1, memory: 24GiB}, {index: 0, memory: 1GiB}]", ""),
        ("[{index: 1, memory: 24GiB}, {memory: 1GiB}]", "E020"),
        (
            "[{index: 7, memory: 24GiB}, {index: 7, memory: 1GiB}]",
            "E020",
        ),
        ("[{index: '${env:PORT}', memory: 24GiB}]", ""),
        ("null", ""),
        ("[]", "E013"),
        ("[{}]", "E015"),
        ("[{index: 0}]", "E015"),
        ("[24GiB]", "E012"),
        ("{memory: 24GiB}", "E012"),
        ("[{memory: 24}]", "E014"),
        ("[{memory: 50%}]", "E013"),
        ("[{memory: 0}]", "E014"),
        ("[{index: -1, memory: 1GiB}]", "E014"),
        ("[{index: GPU-0, memory: 1GiB}]", "E012"),
        ("[{memory: 1GiB, cores: 0}]", "E014"),
        ("[{memory: 1GiB, cores: 101}]", "E014"),
        ("[{memory: 1GiB, cores: 100}]", ""),
        ("[{memory: 1GiB, core: 5}]", "E010"),
        ("[{index: 0}, {index: 0, memory: 1GiB}]", "E015"),
    ] {
        codes(&file(gpus, &["min: 0"]), code);
        // Where the devices cannot be read, nothing is said about what they have room for.
        if !["", "E020"].contains(&code) {
            codes(&file(gpus, &["min: 9, gpu: {memory: 99GiB}"]), code);
        }
    }
    let read = gpus_of(&file(
        "[{memory: 2GiB}, {index: 5, memory: 1GiB, cores: 40}]",
        &[],
    ));
    let device = |index, memory, cores| Gpu {
        index,
        memory,
        cores,
    };
    assert_eq!(read, [device(0, 2 << 30, 100), device(5, 1 << 30, 40)]);
    assert_eq!(gpus_of(&file("", &[])), []);
    says(
        &file("[{index: 1, memory: 24GiB}, {memory: 1GiB}]", &[]),
        "1:35 E020 gpus[1]: the index 1 is taken",
        "the first one is at a.yaml:1",
    );
    says(
        &file("[]", &[]),
        "1:7 E013 gpus: the list is empty",
        "leave `gpus` out for those that the driver reports",
    );
    says(
        &file("[{memory: 24}]", &[]),
        "1:17 E014 gpus[0].memory: 24 is out of range: 1MiB to 1024TiB",
        "",
    );
    says(
        &format!("{}gpu: []\n", file("", &[])),
        "4:1 E010 unknown key `gpu`",
        "did you mean `gpus`?",
    );
}

#[test]
fn shares() {
    for (gpu, code) in [
        ("{memory: 8GiB}", ""),
        ("{memory: 8GiB, cores: 50}", ""),
        ("{memory: 100%}", ""),
        ("{memory: '${env:PORT}GiB'}", ""),
        ("{memory: '${env:PORT}%', cores: 0}", ""),
        ("{memory: 0.5%}", ""),
        ("null", ""),
        ("{}", "E015"),
        ("{cores: 50}", "E015"),
        ("8GiB", "E012"),
        ("{memory: 0%}", "E013"),
        ("{memory: 101%}", "E013"),
        ("{memory: 0.5}", "E013"),
        ("{memory: 8}", "E014"),
        ("{memory: 0}", "E014"),
        ("{memory: half}", "E013"),
        ("{memory: 8GiB, cores: 101}", "E014"),
        ("{memory: 8GiB, cores: 50%}", "E012"),
        ("{memory: 8GiB, devices: 2}", "E010"),
    ] {
        codes(&file("", &[&format!("gpu: {gpu}")]), code);
    }
    let read = |keys: &str| scale_of(&file("", &[keys])).gpu;
    let share = |memory, cores| Some(GpuShare { memory, cores });
    let whole = read("gpu: {memory: 100%, cores: 30}");
    assert_eq!(whole, share(GpuMemory::Share(1_000_000), 30));
    let part = read("gpu: {memory: 1.5GiB}");
    assert_eq!(part, share(GpuMemory::Bytes(3 << 29), 0));
    assert_eq!(read("min: 0"), None);
    let scale = scale_of(&file("", &["gpu: {memory: 1GiB}, min_residency: 0s"]));
    assert_eq!((scale.pin, scale.min_residency.as_secs()), (false, 0));
    let scale = scale_of(&file("", &["gpu: {memory: 1GiB}, pin: true"]));
    assert_eq!((scale.pin, scale.min_residency.as_secs()), (true, 60));
    says(
        &file("", &["gpu: {memory: 0.5}"]),
        "4:68 E013 clusters[1] (a).scale.gpu.memory: the number `0.5` is not a size or a percentage",
        "as in `8GiB`, or `50%` of the device",
    );
    says(
        &file("", &["gpu: {memory: 0%}"]),
        "4:68 E013 clusters[1] (a).scale.gpu.memory: the string `0%` is not a ratio above 0, at most 100%",
        "a ratio looks like `70%` or `0.7`",
    );
}

#[test]
fn a_share_of_a_device() {
    let device = Gpu {
        index: 0,
        memory: 1_000_003,
        cores: 60,
    };
    for (memory, bytes) in [
        (GpuMemory::Bytes(5), 5),
        (GpuMemory::Share(1_000_000), 1_000_003),
        (GpuMemory::Share(500_000), 500_001),
        (GpuMemory::Share(1), 1),
    ] {
        assert_eq!(memory.of(&device), bytes);
    }
    let huge = Gpu {
        memory: u64::MAX,
        ..device
    };
    assert_eq!(GpuMemory::Share(1_000_000).of(&huge), u64::MAX);
    let fits = |memory, cores| GpuShare { memory, cores }.fits(&device);
    assert!(fits(GpuMemory::Bytes(1_000_003), 60));
    assert!(!fits(GpuMemory::Bytes(1_000_004), 60));
    assert!(!fits(GpuMemory::Share(1), 61));
}

#[test]
fn only_processes_take_devices() {
    let told = |driver: &str| {
        format!(
            "routes: [{{name: r, cluster: c}}]\nclusters:\n- {{name: c, endpoints: ['c:1'], scale: {{gpu: {{memory: 99GiB}}, {driver}}}}}\n"
        )
    };
    codes(&told("observe: {}"), "E016");
    codes(&told("observe: {a: 1}"), "E010");
    codes(
        &format!("gpus: [{{memory: 8GiB}}]\n{}", told("observe: {}")),
        "E016",
    );
    says(
        &told("webhook: {url: 'http://a'}"),
        "3:46 E016 clusters[0] (c).scale.gpu: only local processes share the devices of this host",
        "remove `gpu`, or write `gpu: null` if it is a default",
    );
    let default = "defaults: {cluster: {scale: {gpu: {memory: 8GiB, cores: 20}, pin: true}}}\n";
    let text = format!(
        "{default}{}",
        file("[{memory: 24GiB}]", &["gpu: {memory: 50%}, pin: false"])
    )
    .replace("endpoints: ['z:1']", "endpoints: ['z:1'], scale: null");
    codes(&text, "");
    let share = GpuShare {
        memory: GpuMemory::Share(500_000),
        cores: 20,
    };
    assert_eq!(scale_of(&text).gpu, Some(share));
}

#[test]
fn replicas_that_fit_nowhere() {
    let gpus = "[{memory: 8GiB}, {index: 4, memory: 24GiB, cores: 50}]";
    for (gpu, code) in [
        ("{memory: 24GiB}", ""),
        ("{memory: 100%, cores: 100}", ""),
        ("{memory: 24GiB, cores: 50}", ""),
        ("{memory: 8GiB, cores: 100}", ""),
        ("{memory: 24GiB, cores: 51}", "E014"),
        ("{memory: 25GiB}", "E014"),
    ] {
        codes(&file(gpus, &[&format!("gpu: {gpu}")]), code);
    }
    let help = "one replica is on one device; ask for less, or correct `gpus`";
    says(
        &file(gpus, &["gpu: {memory: 32GiB}"]),
        "5:68 E014 clusters[1] (a).scale.gpu.memory: no device of `gpus` has 32GiB: the largest, of index 4, has 24GiB",
        help,
    );
    says(
        &file(gpus, &["gpu: {memory: 20GiB, cores: 60}"]),
        "5:59 E014 clusters[1] (a).scale.gpu: no device of `gpus` has 20GiB and 60 cores to give: the largest, of index 4, has 24GiB and 50 cores",
        help,
    );
    says(
        &file(
            "[{memory: 24GiB, cores: 40}]",
            &["gpu: {memory: 1GiB, cores: 60}"],
        ),
        "5:81 E014 clusters[1] (a).scale.gpu.cores: no device of `gpus` has 60 cores to give: the most is 40, and the largest, of index 0, has 24GiB",
        help,
    );
}

#[test]
fn replicas_that_never_fit_together() {
    for (gpus, scales, code) in [
        (
            "[{memory: 24GiB}]",
            &["min: 2, gpu: {memory: 12GiB}"][..],
            "",
        ),
        (
            "[{memory: 24GiB}]",
            &["min: 2, gpu: {memory: 13GiB}"],
            "W017",
        ),
        ("[{memory: 24GiB}]", &["max: 9, gpu: {memory: 13GiB}"], ""),
        (
            "[{memory: 24GiB}, {memory: 24GiB}]",
            &["min: 3, gpu: {memory: 16GiB}"],
            "W017",
        ),
        (
            "[{memory: 24GiB}]",
            &["min: 3, gpu: {memory: 1GiB, cores: 40}"],
            "W017",
        ),
        ("[{memory: 24GiB}]", &["min: 2, gpu: {memory: 60%}"], "W017"),
        (
            "[{memory: 24GiB}]",
            &["min: 3, gpu: {memory: 33.3333%}"],
            "",
        ),
        (
            "[{memory: 24GiB}]",
            &[
                "min: 1, gpu: {memory: 12GiB}",
                "min: 1, gpu: {memory: 50%}",
                "gpu: {memory: 100%}",
            ],
            "",
        ),
        (
            "[{memory: 24GiB}]",
            &["min: 1, gpu: {memory: 12GiB}", "min: 1, gpu: {memory: 51%}"],
            "W017",
        ),
        (
            "[{memory: 24GiB}]",
            &[
                "min: 1, gpu: {memory: 1GiB, cores: 60}",
                "min: 1, gpu: {memory: 1GiB, cores: 60}",
            ],
            "W017",
        ),
        ("", &["min: 9, gpu: {memory: 99GiB}"], ""),
    ] {
        codes(&file(gpus, scales), code);
    }
    says(
        &file("[{memory: 24GiB}]", &["min: 2, gpu: {memory: 16GiB}"]),
        "5:20 W017 clusters[1] (a).scale.min: 2 is never reached, because the devices of `gpus` have room for 1 at once",
        "",
    );
    says(
        &file(
            "[{memory: 24GiB}]",
            &[
                "min: 1, gpu: {memory: 16GiB}",
                "min: 1, gpu: {memory: 16GiB}",
            ],
        ),
        "6:20 W017 clusters[2] (b).scale.min: 1 is never reached, because the devices of `gpus` have no room for all of them besides those of the clusters before it",
        "",
    );
}

#[test]
fn keys_about_room_that_nobody_makes() {
    for (keys, code) in [
        ("pin: true", "W005"),
        ("pin: false", ""),
        ("min_residency: 5s", "W005"),
        ("pin: true, min_residency: 5s", "W005 W005"),
        ("gpu: {memory: 1GiB}, pin: true", ""),
        ("gpu: {memory: 1GiB}, min_residency: 5s", ""),
        ("gpu: {memory: 1GiB}, pin: true, min_residency: 5s", "W005"),
        ("gpu: {memory: 1GiB}, pin: false, min_residency: 5s", ""),
        ("gpu: {}, pin: true", "E015"),
        ("gpu: 5, pin: true", "E012"),
        ("pin: 1", "E012"),
        ("min_residency: none", "E013"),
        ("min_residency: 0s, gpu: {memory: 1GiB}", ""),
    ] {
        codes(&file("", &[keys]), code);
    }
    says(
        &file("", &["pin: true"]),
        "4:59 W005 clusters[1] (a).scale.pin: has no effect, because without `gpu` its replicas take nothing that others need",
        "",
    );
    says(
        &file("", &["gpu: {memory: 1GiB}, pin: true, min_residency: 5s"]),
        "4:101 W005 clusters[1] (a).scale.min_residency: has no effect, because a replica with `pin` is never stopped to make room",
        "",
    );
}

#[test]
fn the_schema_refuses_what_can_be_seen_without_the_rest() {
    for (gpus, scale) in [
        ("[{memory: 50%}]", "min: 0"),
        ("[{memory: 1GiB, cores: 0}]", "min: 0"),
        ("[{memory: 1GiB, index: x}]", "min: 0"),
        ("", "gpu: {memory: half}"),
        ("", "gpu: {memory: 8GiB, cores: 101}"),
        ("", "gpu: 8GiB"),
        ("", "pin: 1"),
        ("", "min_residency: none"),
    ] {
        let text = file(gpus, &[scale]);
        assert!(!fits_the_schema(&text), "{text}");
        assert!(loaded(&text).is_err(), "{text}");
    }
}

#[test]
fn one_file_has_the_devices() {
    let gpus = |name: &str| shipped::source(name, "gpus: [{memory: 8GiB}]\n");
    let rest = shipped::source("c.yaml", &file("", &[]));
    let files = [gpus("a.yaml"), gpus("b.yaml"), rest];
    let problems = forebay_config::load::load(&files, &|_| None).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "b.yaml:1:1: error[E004]: the key `gpus` is set in a.yaml as well"
    );
}
