//! Which member of a split a client belongs to: weighted rendezvous, a pure function of key, names and weights.
//!
//! Every member draws a number from the key and its own name, and the smallest of `-ln(number) / weight` wins. A
//! weight that grows only ever wins keys, one that shrinks only loses some, and every replica agrees without a table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use forebay_config::peek::Found;
use http::{HeaderMap, HeaderValue};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::client_bytes;
use forebay_config::route::cookie;

/// `sticky` of a route, compiled.
#[derive(Debug)]
pub struct Sticky {
    by: forebay_config::Sticky,
    /// One for each member, in the order of the split.
    seeds: Box<[u64]>,
}

/// What a request's place in the split depends on.
pub enum Place {
    /// The member is drawn by this hash.
    Keyed(u64),
    /// It is drawn by this hash, and the client is told its key by this `Set-Cookie`.
    Issued(u64, HeaderValue),
    /// No key.
    Random,
}

impl Sticky {
    /// * `members`: names, in the order of the split; the same name twice counts as two members
    pub fn new<'n>(by: forebay_config::Sticky, members: impl IntoIterator<Item = &'n str>) -> Self {
        let mut seen: HashMap<&str, u64> = HashMap::new();
        let seed = |name| {
            let times = seen.entry(name).or_default();
            *times += 1;
            xxh3_64_with_seed(name.as_bytes(), *times)
        };
        Self {
            by,
            seeds: members.into_iter().map(seed).collect(),
        }
    }

    /// Finds the key of a request, or makes one.
    ///
    /// * `fields`: what was found in the body
    /// * `random`: draws 128 uniform bits
    pub fn place(
        &self,
        client: IpAddr,
        headers: &HeaderMap,
        tls: bool,
        fields: &Found,
        random: impl FnOnce() -> u128,
    ) -> Place {
        match &self.by {
            forebay_config::Sticky::Header(name) => match headers.get(name) {
                Some(value) if !value.is_empty() => Place::Keyed(xxh3_64(value.as_bytes())),
                _ => Place::Random,
            },
            forebay_config::Sticky::ClientIp => {
                let (bytes, length) = client_bytes(client);
                Place::Keyed(xxh3_64(&bytes[..length]))
            }
            forebay_config::Sticky::Cookie { name, ttl } => match cookie(headers, name) {
                Some(key) if !key.is_empty() => Place::Keyed(xxh3_64(key)),
                _ => issue(name, *ttl, random(), tls),
            },
            forebay_config::Sticky::Json(place) => match fields.get(place) {
                Some(value) => Place::Keyed(xxh3_64(value.as_bytes())),
                None => Place::Random,
            },
        }
    }

    /// The member that a key belongs to, by its index.
    ///
    /// * `weights`: in the order of the members; one of weight 0 is never chosen, at least one has another
    pub fn choose(&self, key: u64, weights: impl IntoIterator<Item = u32>) -> usize {
        let mut best = (f64::INFINITY, 0);
        for (index, (weight, &seed)) in weights.into_iter().zip(&self.seeds).enumerate() {
            if weight == 0 {
                continue;
            }
            let drawn = ((mixed(key ^ seed) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            let distance = -drawn.ln() / f64::from(weight);
            if distance < best.0 {
                best = (distance, index);
            }
        }
        best.1
    }
}

fn issue(name: &str, ttl: Option<Duration>, random: u128, tls: bool) -> Place {
    let key = format!("{random:032x}");
    let age = ttl.map_or(String::new(), |ttl| format!(" Max-Age={};", ttl.as_secs()));
    let secure = if tls { "; Secure" } else { "" };
    let line = format!("{name}={key}; Path=/;{age} HttpOnly; SameSite=Lax{secure}");
    match HeaderValue::try_from(line) {
        Ok(line) => Place::Issued(xxh3_64(key.as_bytes()), line),
        Err(_) => Place::Random,
    }
}

/// SplitMix64's finalizer: every bit of the answer depends on every bit of the question.
fn mixed(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use forebay_config::Sticky as By;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn sticky(names: &[String]) -> Sticky {
        Sticky::new(By::ClientIp, names.iter().map(String::as_str))
    }

    fn names(count: usize, salt: u32) -> Vec<String> {
        (0..count).map(|n| format!("model-{salt}-v{n}")).collect()
    }

    fn user(n: u32) -> u64 {
        xxh3_64(format!("user-{n}").as_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_are_within_one_percent_of_the_weights(
            weights in vec(0u32..100, 1..6),
            salt in any::<u32>(),
        ) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let sticky = sticky(&names(weights.len(), salt));
            let mut served = vec![0u32; weights.len()];
            for n in 0..100_000 {
                served[sticky.choose(user(n), weights.iter().copied())] += 1;
            }
            for (&served, &weight) in served.iter().zip(&weights) {
                let wanted = f64::from(weight) / f64::from(total);
                prop_assert!((f64::from(served) / 1e5 - wanted).abs() < 0.01, "{served} {weight}/{total}");
                prop_assert!(weight > 0 || served == 0);
            }
        }

        #[test]
        fn a_member_that_grows_only_wins_keys(
            weights in vec(1u32..1000, 2..6),
            more in 1u32..1000,
            grows in any::<prop::sample::Index>(),
            salt in any::<u32>(),
        ) {
            let sticky = sticky(&names(weights.len(), salt));
            let grows = grows.index(weights.len());
            let mut after = weights.clone();
            after[grows] += more;
            for n in 0..2000 {
                let (old, new) = (
                    sticky.choose(user(n), weights.iter().copied()),
                    sticky.choose(user(n), after.iter().copied()),
                );
                prop_assert!(old == new || new == grows);
            }
        }
    }

    #[test]
    fn from_1_to_100_percent_keys_move_one_way() {
        let sticky = sticky(&names(2, 0));
        let at = |percent| -> Vec<usize> {
            (0..100_000)
                .map(|n| sticky.choose(user(n), [100 - percent, percent]))
                .collect()
        };
        let steps = [0, 1, 5, 20, 100].map(at);
        assert!(steps[0].iter().all(|&member| member == 0));
        assert!(steps[4].iter().all(|&member| member == 1));
        for pair in steps.windows(2) {
            assert!(pair[0].iter().zip(&pair[1]).all(|(old, new)| old <= new));
        }
    }

    #[test]
    fn replicas_agree_and_the_answer_is_for_ever() {
        let (one, two) = (sticky(&names(3, 7)), sticky(&names(3, 7)));
        let mut digest = 0u64;
        for n in 0..10_000 {
            let chosen = one.choose(user(n), [1, 20, 79]);
            assert_eq!(chosen, two.choose(user(n), [1, 20, 79]));
            digest = mixed(digest ^ chosen as u64);
        }
        assert_eq!(
            digest, 14_926_599_290_413_482_340,
            "another version would send users elsewhere"
        );
    }

    #[test]
    fn the_same_cluster_twice_is_two_members() {
        let sticky = sticky(&["a".into(), "a".into()]);
        let second: usize = (0..10_000).map(|n| sticky.choose(user(n), [1, 1])).sum();
        assert!((4800..5200).contains(&second), "{second}");
    }

    #[test]
    fn a_cookie_is_issued_once() {
        let by = By::Cookie {
            name: "fb".into(),
            ttl: Some(Duration::from_secs(3600)),
        };
        let sticky = Sticky::new(by, ["a", "b"]);
        let ip = IpAddr::from([127, 0, 0, 1]);
        let mut headers = HeaderMap::new();
        let Place::Issued(key, line) = sticky.place(ip, &headers, true, &Found::default(), || 7)
        else {
            panic!("no cookie");
        };
        let line = line.to_str().unwrap();
        assert_eq!(
            line,
            "fb=00000000000000000000000000000007; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"
        );
        let pair = line.split(';').next().unwrap();
        headers.insert(
            "cookie",
            HeaderValue::from_str(&format!("a=b; {pair}")).unwrap(),
        );
        assert!(
            matches!(sticky.place(ip, &headers, true, &Found::default(), || 8), Place::Keyed(again) if again == key)
        );
    }
}
