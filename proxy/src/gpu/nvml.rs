//! NVIDIA's management library, which comes with the driver and is looked for when it is needed.

use std::ffi::OsStr;
use std::sync::Arc;

use forebay_config::Gpu;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::VISIBLE;
use super::broker::{Cards, Memory};

/// Its names: the one that every driver installs, and the one of development packages.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Loads the library of this host.
///
/// # Errors
///
/// There is none, or it finds no driver.
pub fn open() -> Result<Arc<dyn Cards>, String> {
    let mut first = None;
    for name in NAMES {
        match open_at(OsStr::new(name), visible()) {
            Ok(cards) => return Ok(cards),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_default())
}

/// Loads a library.
///
/// * `visible`: the only devices that count; `None`: all
///
/// # Errors
///
/// There is none, or it finds no driver.
pub fn open_at(library: &OsStr, visible: Option<Vec<u32>>) -> Result<Arc<dyn Cards>, String> {
    let nvml = Nvml::builder()
        .lib_path(library)
        .init()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(Nvidia { nvml, visible }))
}

/// The devices that this process was given by whoever started it; `None`: nobody said, or not by number.
fn visible() -> Option<Vec<u32>> {
    let written = std::env::var(VISIBLE).ok()?;
    let numbers = written.split(',').map(|number| number.trim().parse().ok());
    numbers.collect()
}

struct Nvidia {
    nvml: Nvml,
    visible: Option<Vec<u32>>,
}

impl Nvidia {
    fn of(&self, index: u32) -> Result<Memory, NvmlError> {
        let info = self.nvml.device_by_index(index)?.memory_info()?;
        Ok(Memory {
            usable: info.total.saturating_sub(info.reserved),
            free: info.free,
        })
    }
}

impl Cards for Nvidia {
    fn devices(&self) -> Result<Vec<Gpu>, String> {
        let count = self.nvml.device_count().map_err(|e| e.to_string())?;
        let counts = |index: &u32| match &self.visible {
            Some(visible) => visible.contains(index),
            None => true,
        };
        let mut devices = Vec::new();
        for index in (0..count).filter(counts) {
            match self.of(index) {
                Ok(memory) => devices.push(Gpu {
                    index,
                    memory: memory.usable,
                    cores: 100,
                }),
                Err(error) => {
                    tracing::warn!(index, %error, "a device does not tell its memory: list it in `gpus` to use it");
                }
            }
        }
        Ok(devices)
    }

    fn memory(&self, index: u32) -> Option<Memory> {
        let memory = self.of(index);
        let told = memory.inspect_err(|error| tracing::debug!(index, %error, "no memory told"));
        told.ok()
    }
}
