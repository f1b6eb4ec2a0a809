//! Where requests wait and who starts replicas, as JSON. What may be a secret in a command is not in it.

use std::path::Path;
use std::sync::LazyLock;

use forebay_config::{Driver, Gpu, GpuMemory, GpuShare, Process, Queue, Scale};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::policy::rate_text;
use super::traffic::url;
use super::{REDACTED, clock, duration, percent, size, tidy};

/// What is replaced when a process starts; without it a command could not be loaded again.
const PORT: &str = "${PORT}";
/// How the secrets of well-known services begin.
const TELLTALES: &[&str] = &[
    "AKIA",
    "Bearer ",
    "eyJ",
    "ghp_",
    "github_pat_",
    "hf_",
    "sk-",
    "xox",
];
/// A shorter word is no such secret.
const TELLTALE_MIN: usize = 16;

/// Returns `queue:` of a cluster.
pub(super) fn queue(queue: &Queue) -> Value {
    json!({
        "max_requests": queue.max_requests,
        "max_bytes": size(queue.max_bytes),
        "saturated": duration(queue.saturated),
        "empty": duration(queue.empty),
        "heartbeat": clock(queue.heartbeat),
        "waiting_page": queue.waiting_page,
    })
}

/// Returns `scale:` of a cluster.
pub(super) fn scale(scale: &Scale) -> Value {
    let mut fields = json!({
        "min": scale.min,
        "max": scale.max,
        "target": tidy(json!({
            "in_flight": scale.target.in_flight,
            "rate": scale.target.rate.map(rate_text),
            "queue": scale.target.queue,
            "kv_cache": scale.target.kv_cache.map(|part| percent((part * 1e6).round() as u32)),
        })),
        "stable_window": duration(scale.stable_window),
        "panic_window": duration(scale.panic_window),
        "panic_threshold": scale.panic_threshold,
        "max_down_rate": scale.max_down_rate,
        "idle": clock(scale.idle),
        "start_timeout": duration(scale.start_timeout),
        "preload": scale.preload,
        "gpu": scale.gpu.map(gpu),
    });
    if scale.gpu.is_some() {
        fields["pin"] = json!(scale.pin);
    }
    if scale.gpu.is_some() && !scale.pin {
        fields["min_residency"] = json!(duration(scale.min_residency));
    }
    fields = tidy(fields);
    match &scale.driver {
        Driver::Process(of) => fields["process"] = process(of),
        Driver::Webhook { url: to } => fields["webhook"] = json!({ "url": url(to) }),
        Driver::Observe => fields["observe"] = json!({}), // `{}` means something
    }
    fields
}

/// Returns `gpus:`.
pub(super) fn gpus(gpus: &[Gpu]) -> Value {
    let one =
        |gpu: &Gpu| json!({ "index": gpu.index, "memory": size(gpu.memory), "cores": gpu.cores });
    gpus.iter().map(one).collect()
}

fn gpu(share: GpuShare) -> Value {
    let memory = match share.memory {
        GpuMemory::Bytes(bytes) => size(bytes),
        GpuMemory::Share(millionths) => json!(percent(millionths)),
    };
    json!({ "memory": memory, "cores": share.cores })
}

fn process(process: &Process) -> Value {
    let values = process.env.iter();
    let env: Map<String, Value> = values
        .map(|(name, value)| (name.clone(), json!(variable(value))))
        .collect();
    tidy(json!({
        "command": command(&process.command),
        "env": env,
        "directory": text(&process.directory),
        "stop": process.stop.as_deref().map(command),
        "stop_timeout": duration(process.stop_timeout),
        "address": process.address.map(|address| address.to_string()),
    }))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The port alone is no secret; everything else may be one, whatever the variable is called.
fn variable(value: &str) -> String {
    match value {
        PORT => PORT.to_owned(),
        value => redacted(value),
    }
}

/// What stands for a text, of which only that it takes the port is told.
fn redacted(text: &str) -> String {
    match text.contains(PORT) {
        true => format!("{REDACTED}{PORT}"),
        false => REDACTED.to_owned(),
    }
}

/// Returns a program and its arguments without what its place or its looks say is a secret.
fn command(words: &[String]) -> Vec<String> {
    let mut after_secret = false;
    let shown = words.iter().enumerate().map(|(index, word)| {
        let is_value = after_secret && !is_flag(word);
        after_secret = word.starts_with('-') && word.len() > 2 && names_secret(word);
        match (index, is_value) {
            (0, _) => word.clone(),
            (_, true) => redacted(word),
            (_, false) => argument(word),
        }
    });
    shown.collect()
}

/// A value may begin with a dash too, so that only what is sure to be another flag is taken for one.
fn is_flag(word: &str) -> bool {
    word.starts_with("--") || word.len() == 2 && word.starts_with('-')
}

/// Cuts an argument where its secret begins: what follows may belong to it.
fn argument(word: &str) -> String {
    /// `name=`, `"name": ` and, inside of a text with several words, `--name `.
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r#"(--?[\w.-]+)\s+|([\w.-]+)["']?\s*[=:]\s*["']?"#;
        Regex::new(pattern).expect("the pattern is fixed and tested")
    });
    /// Name and password of a URL.
    static USER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("://[^/@\\s]*@").expect("the pattern is fixed and tested"));
    let telltale = |text: &str| TELLTALES.iter().any(|known| text.starts_with(known));
    if word.len() >= TELLTALE_MIN && !word.contains('/') && telltale(word) {
        return redacted(word);
    }
    let secret = NAMED.captures_iter(word).find_map(|found| {
        let name = found.get(1).or_else(|| found.get(2))?;
        let end = found.get(0)?.end();
        let rest = &word[end..];
        (!rest.is_empty() && (names_secret(name.as_str()) || telltale(rest))).then_some(end)
    });
    let shown = match secret {
        Some(end) => format!("{}{}", &word[..end], redacted(&word[end..])),
        None => word.to_owned(),
    };
    let hidden = format!("://{REDACTED}@");
    USER.replace_all(&shown, regex::NoExpand(&hidden))
        .into_owned()
}

/// True when a word of the name is one for a secret: `--hf-token` and `apiKey`, but not `--max-tokens`.
fn names_secret(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "auth",
        "bearer",
        "cookie",
        "credential",
        "passphrase",
        "passw",
        "pwd",
        "secret",
        "session",
        "signature",
    ];
    const ENDS: &[&str] = &["key", "keys", "token"];
    let mut spaced = String::with_capacity(name.len() + 4);
    let mut lower = false;
    for letter in name.chars() {
        if lower && letter.is_uppercase() {
            spaced.push(' ');
        }
        lower = letter.is_lowercase();
        spaced.extend(letter.to_lowercase());
    }
    let mut words = spaced.split(|c: char| !c.is_alphanumeric());
    words.any(|word| {
        PARTS.iter().any(|part| word.contains(part)) || ENDS.iter().any(|end| word.ends_with(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        command(&words).join(" ")
    }

    #[test]
    fn secrets_in_commands_are_not_shown() {
        for words in [
            &["x", "--api-key", "hunter2"][..],
            &["x", "--api-key", "-hunter2"],
            &["x", "--api-key=hunter2", "--port"],
            &["x", "-api_key=hunter2"],
            &["env", "HF_TOKEN=hunter2", "x"],
            &["env", "OPENAI_API_KEY=hunter2"],
            &["x", "key=hunter2"],
            &["x", "-H", "Authorization: Bearer hunter2"],
            &["x", "--header=X-Auth:hunter2"],
            &["x", "{\"model\": \"m\", \"apiKey\": \"hunter2\"}"],
            &["x", "http://me:hunter2@127.0.0.1/"],
            &["x", "http://127.0.0.1/?a=1&token=hunter2"],
            &["sh", "-c", "serve --port 1 --token hunter2"],
            &["sh", "-c", "PASSWORD='hunter2' exec serve"],
            &["x", "--with", "sk-hunter2-and-many-more"],
            &["x", "--value=hf_hunter2andmanymore"],
        ] {
            let text = shown(words);
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains(REDACTED), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_and_so_does_the_port() {
        for words in [
            &[
                "llama-server",
                "--port",
                "${PORT}",
                "-m",
                "m.gguf",
                "--host=::1",
            ][..],
            &[
                "vllm",
                "serve",
                "a/b",
                "--max-tokens",
                "512",
                "--tokenizer=c/d",
            ],
            &["x", "--keep-alive", "5m", "--no-auth", "--port", "${PORT}"],
            &["sh", "-c", "cd /m && exec serve --port ${PORT}"],
            &["x", "http://127.0.0.1:8080/a?b=c"],
        ] {
            assert_eq!(shown(words), words.join(" "));
        }
        let text = shown(&["sh", "-c", "serve --token hunter2 --port ${PORT}"]);
        assert_eq!(text, "sh -c serve --token [redacted]${PORT}");
        assert_eq!(variable(PORT), PORT);
        assert_eq!(variable("http://127.0.0.1:${PORT}"), "[redacted]${PORT}");
    }
}
