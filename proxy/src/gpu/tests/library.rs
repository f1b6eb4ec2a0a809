//! The driver's library, played by one that is compiled here: there may be no device on this host.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::gpu::nvml::open_at;

/// Three devices, the second of which tells nothing; what is free of the first is in a file, MiB.
const SOURCE: &str = include_str!("nvml.c");

fn compiled(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("nvml.c"), directory.join("libnvidia-ml.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let free = directory.join("free");
    std::fs::write(&free, "8000").unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(format!("-DFREE=\"{}\"", free.display()))
        .arg(&source)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    library
}

#[test]
fn the_library_tells_devices_and_what_is_free_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let library = compiled(directory.path());
    let cards = open_at(library.as_os_str(), None).unwrap();
    let device = |index| Gpu {
        index,
        memory: 8000 << 20,
        cores: 100,
    };
    assert_eq!(cards.devices().unwrap(), [device(0), device(2)]);
    let memory = |free: u64| Memory {
        usable: 8000 << 20,
        free: free << 20,
    };
    assert_eq!(cards.memory(0), Some(memory(8000)));
    std::fs::write(directory.path().join("free"), "17").unwrap();
    assert_eq!(cards.memory(0), Some(memory(17)));
    assert_eq!((cards.memory(1), cards.memory(7)), (None, None));
    let given = open_at(library.as_os_str(), Some(vec![2, 5])).unwrap();
    assert_eq!(given.devices().unwrap(), [device(2)]);
}

#[test]
fn a_library_that_is_not_there_or_none_is_no_driver() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.so");
    assert!(open_at(absent.as_os_str(), None).is_err());
    std::fs::write(&absent, "no library").unwrap();
    assert!(open_at(absent.as_os_str(), None).is_err());
}

#[tokio::test]
async fn models_are_placed_on_what_the_library_tells() {
    let directory = tempfile::tempdir().unwrap();
    let library = compiled(directory.path());
    let broker = Broker::new(Box::new(move || open_at(library.as_os_str(), None)));
    broker.follow(&[]);
    let one = Cluster::join(&broker, "a", terms(7, false));
    let (claim, device) = one.load().await;
    assert_eq!(device, Some(0));
    std::fs::write(directory.path().join("free"), "832").unwrap();
    let other = Cluster::join(&broker, "b", terms(7, false));
    let (_held, device) = other.load().await;
    assert_eq!(device, Some(2));
    std::fs::write(directory.path().join("free"), "8000").unwrap();
    claim.leaves();
    claim.give_back().await;
    assert_eq!(broker.devices()[0]["memory_used"], 0);
}
