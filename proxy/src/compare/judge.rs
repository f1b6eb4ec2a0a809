//! One comparison from its answers to its counters.

use super::comparer::Job;
use super::difference::differences;
use super::found::{Bodies, Differences, FIELDS_CUT};
use super::tally::Verdict;
use crate::capture::Seen;

/// Compares a job's answers and counts what came of it in its tally.
pub(super) fn judge(job: &Job) {
    let tally = &job.tally;
    let Seen::Answer(primary) = &job.primary else {
        return tally.count(Verdict::PrimaryFailed);
    };
    let Seen::Answer(mirror) = &job.mirror else {
        return tally.count(Verdict::MirrorFailed);
    };
    let raw = differences(primary, mirror, &job.config, None);
    let noise = match &job.noise {
        Some(Seen::Answer(noise)) => Some(differences(primary, noise, &job.config, Some(&raw))),
        Some(Seen::Nothing(_)) => {
            tally.note("noise_failed");
            None
        }
        None => None,
    };
    if noise
        .as_ref()
        .is_some_and(|noise| noise.bodies != raw.bodies)
    {
        tally.note("noise_not_compared");
    }
    tally.record(&raw, noise.as_ref());
    if primary.body.whole && mirror.body.whole {
        tally.time(primary.seconds, mirror.seconds);
    }
    tally.count(verdict(&raw, noise.as_ref()));
}

fn verdict(raw: &Differences, noise: Option<&Differences>) -> Verdict {
    match raw.bodies {
        Bodies::TooLarge => return Verdict::TooLarge,
        Bodies::Incomplete => return Verdict::Incomplete,
        Bodies::Compared if raw.fields.is_empty() => return Verdict::Equal,
        Bodies::Compared => {}
    }
    // What was not named may differ without noise.
    let is_noise = |noise: &Differences| {
        !raw.notes.contains(FIELDS_CUT)
            && raw
                .fields
                .keys()
                .all(|name| noise.fields.contains_key(name))
    };
    if noise.is_some_and(is_noise) {
        Verdict::Noise
    } else {
        Verdict::Different
    }
}
