//! Shapes of models and devices: names, shares, and what is only ever true.

use serde_json::{Value, json};

use super::{Book, Path, Reader, Shape};
use crate::diagnostic::Code;
use crate::model::GpuMemory;
use crate::node::{Kind, Node};
use crate::units::{self, MILLIONTHS};

/// The longest name of a model, in bytes.
const MODEL_MAX: usize = 256;
/// The smallest part of a device's memory: a number without a unit is in bytes, and hardly meant so.
const MEMORY_MIN: u64 = 1 << 20;
/// The largest.
const MEMORY_MAX: u64 = 1 << 50;

/// The name of a model: any text that a request can hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelName(pub String);

impl Shape for ModelName {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "the name of a model")?;
        let text = &scalar.text;
        let legal = !text.is_empty() && text.len() <= MODEL_MAX && !text.contains(char::is_control);
        if !legal || scalar.kind == Kind::Bool {
            let help = "1 to 256 bytes without control characters, as in `resnet50` or `qwen3:8b`";
            reader.bad_value(node, path, "the name of a model", help);
            return None;
        }
        Some(Self(text.clone()))
    }

    fn schema(book: &mut Book) -> Value {
        book.define("ModelName", |book| {
            let text = json!({ "type": "string", "minLength": 1, "maxLength": MODEL_MAX });
            let text = book.or_environment(text);
            json!({ "anyOf": [text, { "type": "number" }] })
        })
    }
}

/// `true`: the key itself says it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Yes;

impl Shape for Yes {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if bool::read(node, path, reader)? {
            return Some(Self);
        }
        let help = "remove the key, or write `true`; `null` switches a default off";
        let message = "`false` says nothing here";
        reader.refuse(Code::BadValue, &node.position, path, message, help);
        None
    }

    fn schema(book: &mut Book) -> Value {
        book.or_environment(json!({ "const": true }))
    }
}

/// A ratio above 0, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(pub u32);

impl Part {
    /// The ratio as a number; above 0, at most 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(MILLIONTHS)
    }
}

impl Shape for Part {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a ratio")?;
        let part = units::ratio(&scalar.text).filter(|part| *part > 0);
        if part.is_none() {
            let wanted = "a ratio above 0, at most 100%";
            reader.bad_value(node, path, wanted, units::RATIO_FORM);
        }
        part.map(Self)
    }

    fn schema(book: &mut Book) -> Value {
        let text = book.pattern(units::RATIO_PATTERN);
        json!({ "anyOf": [text, { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }] })
    }
}

/// The memory of a device.
pub type DeviceMemory = super::Bytes<MEMORY_MIN, MEMORY_MAX>;

/// How much of a device's memory: a size, or a percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShare(pub GpuMemory);

impl Shape for MemoryShare {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a size or a percentage")?;
        if scalar.text.ends_with('%') {
            return Part::read(node, path, reader).map(|part| Self(GpuMemory::Share(part.0)));
        }
        if units::size(&scalar.text).is_none() {
            let help = "as in `8GiB`, or `50%` of the device";
            reader.bad_value(node, path, "a size or a percentage", help);
            return None;
        }
        DeviceMemory::read(node, path, reader).map(|bytes| Self(GpuMemory::Bytes(bytes.0)))
    }

    fn schema(book: &mut Book) -> Value {
        let share = book.pattern("^[0-9]+(\\.[0-9]+)? ?%$");
        json!({ "anyOf": [DeviceMemory::schema(book), share] })
    }
}
