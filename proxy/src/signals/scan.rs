//! A metrics page, read line by line as it comes: only the lines that name a wanted series are looked into.

use memchr::memchr;

use crate::server_kind::{Gauges, MOST_ALIASES, Series, Signal};

/// A longer line is passed over, bytes.
const MAX_LINE: usize = 16 << 10;
/// What begins a line that says what a family is.
const TYPE: &[u8] = b"# TYPE ";
/// What a gauge is called; families without a type may be gauges.
const GAUGES: [&[u8]; 3] = [b"gauge", b"untyped", b"unknown"];

/// Why a page does not say what a signal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// No series of it is there.
    Missing,
    /// It is there, and is no gauge.
    NotGauge,
}

/// What a page says of each signal, in the order of [`Signal::ALL`].
pub type Reading = [Result<f64, Lack>; Signal::ALL.len()];

/// Reads one page.
pub struct Scanner {
    gauges: &'static Gauges,
    found: [[Found; MOST_ALIASES]; Signal::ALL.len()],
    /// The beginning of a line that is not whole yet.
    begun: Vec<u8>,
    /// The line is longer than any that is wanted.
    passes: bool,
}

/// What is known of one name.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    sum: f64,
    count: u32,
    /// The page says that it is something else.
    no_gauge: bool,
}

impl Scanner {
    /// Looks for these series.
    pub fn new(gauges: &'static Gauges) -> Self {
        Self {
            gauges,
            found: Default::default(),
            begun: Vec::new(),
            passes: false,
        }
    }

    /// Reads the next part of the page, cut wherever.
    pub fn feed(&mut self, mut part: &[u8]) {
        if self.passes || !self.begun.is_empty() {
            let Some(end) = memchr(b'\n', part) else {
                return self.keep(part);
            };
            self.keep(&part[..end]);
            self.end_line();
            part = &part[end + 1..];
        }
        while let Some(end) = memchr(b'\n', part) {
            self.line(&part[..end]);
            part = &part[end + 1..];
        }
        self.keep(part);
    }

    /// What the page says, now that it is whole.
    pub fn finish(mut self) -> Reading {
        self.end_line();
        Signal::ALL.map(|signal| {
            let found = &self.found[signal as usize];
            let told = found.iter().find(|one| one.count > 0 && !one.no_gauge);
            match told {
                Some(told) if signal.adds_up() => Ok(told.sum),
                Some(told) => Ok(told.sum / f64::from(told.count)),
                None if found.iter().any(|one| one.no_gauge) => Err(Lack::NotGauge),
                None => Err(Lack::Missing),
            }
        })
    }

    fn keep(&mut self, part: &[u8]) {
        self.passes |= self.begun.len() + part.len() > MAX_LINE;
        if !self.passes {
            self.begun.extend_from_slice(part);
        }
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.begun);
        if !std::mem::take(&mut self.passes) {
            self.line(&line);
        }
        line.clear();
        self.begun = line;
    }

    fn line(&mut self, line: &[u8]) {
        if let Some(of) = line.strip_prefix(TYPE) {
            self.each(of, |found, _, kind| {
                found.no_gauge = !GAUGES.contains(&kind.trim_ascii());
            });
        } else if line.first().is_some_and(|&first| first != b'#') {
            self.each(line, |found, series, rest| {
                if let Some(value) = value(rest, series.label) {
                    found.sum += value;
                    found.count += 1;
                }
            });
        }
    }

    /// Calls for each wanted series that the line begins with, with what follows its name.
    fn each(&mut self, line: &[u8], with: impl Fn(&mut Found, &Series, &[u8])) {
        for signal in Signal::ALL {
            let names = self.gauges.of(signal).iter();
            for (series, found) in names.zip(&mut self.found[signal as usize]) {
                let rest = line.strip_prefix(series.name.as_bytes());
                let rest = rest.filter(|rest| matches!(rest.first(), Some(b'{' | b' ' | b'\t')));
                if let Some(rest) = rest {
                    with(found, series, rest);
                }
            }
        }
    }
}

/// The value of a sample, finite and not below 0. `None`: it has none, or not the label.
///
/// * `rest`: what follows the name
fn value(rest: &[u8], label: Option<(&str, &str)>) -> Option<f64> {
    let rest = match rest.strip_prefix(b"{") {
        Some(labels) => after_labels(labels, label)?,
        None if label.is_some() => return None,
        None => rest,
    };
    let rest = rest.trim_ascii();
    let end = rest.iter().position(u8::is_ascii_whitespace);
    let number = &rest[..end.unwrap_or(rest.len())];
    let value: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// What follows the labels. `None`: the wanted one is not among them, or they are no labels.
fn after_labels<'a>(mut rest: &'a [u8], wanted: Option<(&str, &str)>) -> Option<&'a [u8]> {
    let mut has = wanted.is_none();
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b"}") {
            return has.then_some(after);
        }
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        let equals = memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let text = rest[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
        let end = end_of_text(text)?;
        has |= wanted.is_some_and(|(label, value)| {
            name == label.as_bytes() && &text[..end] == value.as_bytes()
        });
        rest = &text[end + 1..];
    }
}

/// Where the quotation mark is that ends a text; a backslash before one keeps it.
fn end_of_text(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_config::ServerKind;
    use proptest::prelude::*;

    use super::*;
    use crate::server_kind::of;

    fn read(kind: ServerKind, page: &str) -> Reading {
        let mut scanner = Scanner::new(&of(kind).gauges);
        scanner.feed(page.as_bytes());
        scanner.finish()
    }

    fn queue(page: &str) -> Result<f64, Lack> {
        read(ServerKind::Vllm, page)[Signal::Queue as usize]
    }

    #[test]
    fn series_of_one_name_are_added_and_shares_averaged() {
        let page = "# HELP vllm:num_requests_waiting x\n# TYPE vllm:num_requests_waiting gauge\n\
                    vllm:num_requests_waiting{engine=\"0\"} 3.0\n\
                    vllm:num_requests_waiting{engine=\"1\"} 4.0 1700000000000\n\
                    vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:kv_cache_usage_perc{engine=\"1\"} 1\n";
        let lack = Err(Lack::Missing);
        assert_eq!(read(ServerKind::Vllm, page), [lack, Ok(7.0), Ok(0.75)]);
    }

    #[test]
    fn only_the_whole_name_counts() {
        assert_eq!(
            queue("vllm:num_requests_waiting_total 3\n"),
            Err(Lack::Missing)
        );
        assert_eq!(queue("xvllm:num_requests_waiting 3\n"), Err(Lack::Missing));
        assert_eq!(queue("vllm:num_requests_waiting 3"), Ok(3.0), "no last end");
        assert_eq!(queue("vllm:num_requests_waiting\t2e1\r\n"), Ok(20.0));
    }

    #[test]
    fn a_counter_of_that_name_is_another_thing() {
        let page = "# TYPE vllm:num_requests_waiting counter\nvllm:num_requests_waiting 30\n";
        assert_eq!(queue(page), Err(Lack::NotGauge));
        let old = "# TYPE vllm:kv_cache_usage_perc counter\nvllm:kv_cache_usage_perc 30\n\
                   # TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc 0.25\n";
        assert_eq!(read(ServerKind::Vllm, old)[2], Ok(0.25), "the other name");
    }

    #[test]
    fn what_is_no_amount_is_passed_over() {
        for value in ["NaN", "+Inf", "-1", "", "x", "{", "{a=\"b} 1", "{a=b} 1"] {
            let page = format!("vllm:num_requests_waiting {value}\n");
            assert_eq!(queue(&page), Err(Lack::Missing), "{value}");
            let page = format!("vllm:num_requests_waiting{value}\n");
            assert_eq!(queue(&page), Err(Lack::Missing), "{value}");
        }
        let long = format!(
            "vllm:num_requests_waiting{{a=\"{}\"}} 1\n",
            "x".repeat(MAX_LINE)
        );
        assert_eq!(queue(&long), Ok(1.0), "in one part no line is too long");
        let mut scanner = Scanner::new(&of(ServerKind::Vllm).gauges);
        long.as_bytes()
            .chunks(1000)
            .for_each(|part| scanner.feed(part));
        scanner.feed(b"vllm:num_requests_waiting 2\n");
        assert_eq!(scanner.finish()[1], Ok(2.0));
    }

    #[test]
    fn labels_are_texts_whatever_is_in_them() {
        let page = "nv_trt_llm_request_metrics{model=\"a}\\\" request_type=\\\"waiting\",request_type=\"scheduled\",} 9\n\
                    nv_trt_llm_request_metrics{model=\"a\", request_type=\"waiting\"} 4\n\
                    nv_inference_pending_request_count{model=\"a\"} 11\n";
        let [running, queue, kv_cache] = read(ServerKind::Triton, page);
        assert_eq!((running, queue), (Ok(9.0), Ok(4.0)));
        assert_eq!(kv_cache, Err(Lack::Missing));
        let classic = "nv_inference_pending_request_count{model=\"a\",version=\"1\"} 11\n";
        assert_eq!(read(ServerKind::Triton, classic)[1], Ok(11.0));
    }

    proptest! {
        #[test]
        fn parts_may_be_cut_anywhere(cuts in prop::collection::vec(0usize..400, 0..6)) {
            let page = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{a=\"b\"} 3\nother 7\n\
                        # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 5\n\n#\n\
                        vllm:num_requests_waiting{a=\"c\"} 4\nvllm:kv_cache_usage_perc 0.5";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(page.len())).collect();
            cuts.sort_unstable();
            let mut scanner = Scanner::new(&of(ServerKind::Vllm).gauges);
            let mut from = 0;
            for cut in cuts.into_iter().chain([page.len()]) {
                scanner.feed(&page.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(scanner.finish(), [Ok(5.0), Ok(7.0), Ok(0.5)]);
        }

        #[test]
        fn no_page_breaks_it(page in prop::collection::vec(any::<u8>(), 0..600), part in 1usize..50) {
            let mut scanner = Scanner::new(&of(ServerKind::Triton).gauges);
            page.chunks(part).for_each(|part| scanner.feed(part));
            let _ = scanner.finish();
        }

        #[test]
        fn no_sample_breaks_it(rest in "[{}\",=a\\\\ 0-9.e+-]{0,30}") {
            let mut scanner = Scanner::new(&of(ServerKind::Triton).gauges);
            scanner.feed(format!("nv_trt_llm_request_metrics{rest}\n").as_bytes());
            let _ = scanner.finish();
        }
    }
}
