//! The configurations that are shipped: all of `examples/`, and those in `deploy/` that are Forebay's own.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};

use forebay_config::load::SourceFile;

/// Reads them, sorted by path.
pub(crate) fn all() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = yaml_files(&root.join("examples"));
    assert!(paths.len() >= 12, "{paths:?}");
    paths.extend(yaml_files(&root.join("deploy")));
    let files = paths.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        SourceFile {
            name: name.into(),
            directory: PathBuf::new(),
            text,
        }
    });
    files.flat_map(native).collect()
}

/// Makes a file of a text.
pub(crate) fn source(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.into(),
        directory: PathBuf::new(),
        text: text.to_owned(),
    }
}

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns the file itself, the one inside a ConfigMap, or nothing for other Kubernetes manifests.
fn native(file: SourceFile) -> Option<SourceFile> {
    if !file.text.contains("\nkind: ") {
        return Some(file);
    }
    let (_, inner) = file.text.split_once("  forebay.yaml: |\n")?;
    let lines = inner
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: String = lines
        .map(|line| format!("{}\n", line.get(4..).unwrap_or_default()))
        .collect();
    Some(SourceFile { text, ..file })
}
