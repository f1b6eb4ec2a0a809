//! Command lines, and what they start.

/// Leaves out lines that are comments, and joins the others; line ends are kept where quotes may be around them.
pub(super) fn clean(command: &str) -> String {
    let lines = command.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.map(|line| match line.trim_end().strip_suffix('\\') {
        Some(line) => format!("{line} "),
        None => line.to_owned(),
    });
    let joined: Vec<String> = joined.collect();
    let text = joined.join("\n");
    match text.contains(['\'', '"', '\\', '#']) {
        true => text.trim().to_owned(),
        false => text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// Leaves out lines that are comments.
pub(super) fn without_comments(command: &str) -> String {
    let lines = command.lines();
    let lines: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    lines.join("\n")
}

/// True for a command that a `#` cuts short here: shells, and native files, begin a comment at such a word.
pub(super) fn has_comment(command: &str) -> bool {
    let before = |at: usize| command[..at].chars().next_back();
    let marks = command.match_indices('#').map(|(at, _)| at);
    let mut marks = marks.filter(|at| before(*at).is_none_or(char::is_whitespace));
    marks.any(|at| {
        let quotes = |mark: char| command[..at].matches(mark).count() % 2 == 1;
        !quotes('"') && !quotes('\'')
    })
}

/// Finds the kind of server that a command starts, by the program or the image it names.
pub(super) fn kind(words: &[String]) -> Option<&'static str> {
    words.iter().find_map(|word| {
        if word.starts_with('-') {
            return None;
        }
        let program = word.rsplit('/').next().unwrap_or(word);
        let image = |name: &str| word.contains(name);
        match program {
            _ if program.starts_with("llama-server") || image("llama.cpp:") => Some("llama.cpp"),
            _ if program == "vllm" || program.starts_with("vllm.") || image("vllm-openai") => {
                Some("vllm")
            }
            _ if program.starts_with("sglang") || image("lmsysorg/sglang") => Some("sglang"),
            _ if program == "text-generation-launcher" || image("text-generation-inference") => {
                Some("tgi")
            }
            _ if program == "ollama" || image("ollama/ollama") => Some("ollama"),
            _ => None,
        }
    })
}

/// Returns the path that such a server is asked whether it is ready, unless a cluster says otherwise.
pub(super) fn ready(kind: &str) -> &'static str {
    match kind {
        "ollama" => "/api/version",
        _ => "/health",
    }
}

#[cfg(test)]
mod tests {
    use super::{clean, has_comment, kind};

    #[test]
    fn comments_and_line_ends_are_left_out() {
        let command = "# about\nserver \\\n  --port 1\\  \n  # more\n  -m 'a # b'\n";
        assert_eq!(clean(command), "server  \n  --port 1 \n  -m 'a # b'");
        assert_eq!(clean("a \\\n  -b\n\n# c\n d "), "a -b d");
    }

    #[test]
    fn a_mark_that_begins_a_word_cuts_a_command_short() {
        for (command, cut) in [("a #b", true), ("a b#c", false), ("a '# b'", false)] {
            assert_eq!(has_comment(command), cut, "{command}");
        }
    }

    #[test]
    fn kinds_are_known_by_program_and_image() {
        for (command, expected) in [
            ("/opt/llama-server-ec9e0301 -m x", Some("llama.cpp")),
            (
                "docker run --rm ghcr.io/ggml-org/llama.cpp:server -m x",
                Some("llama.cpp"),
            ),
            ("python -m vllm.entrypoints.openai.api_server", Some("vllm")),
            ("vllm serve m", Some("vllm")),
            ("python3 -m sglang.launch_server", Some("sglang")),
            ("ollama serve", Some("ollama")),
            ("whisper-server", None),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(kind(&words), expected, "{command}");
        }
    }
}
