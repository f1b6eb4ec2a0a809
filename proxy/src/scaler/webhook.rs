//! The driver of clusters whose replicas are started and stopped by somebody who is told how many are wanted.

mod post;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::post::{Outcome, Target};
use super::driver::{Driver, Replicas};

/// For one attempt, from connecting to the answer's end.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After the first attempt that failed; doubles with each.
const BACKOFF: Duration = Duration::from_millis(250);
/// The longest time between attempts.
const LONGEST: Duration = Duration::from_secs(30);
/// How often what is wanted is said again while it is not there, in case whoever was told forgot it.
const REMIND: Duration = Duration::from_secs(60);

type Current = Arc<dyn Fn() -> u32 + Send + Sync>;

/// Posts `{"cluster", "desired", "current"}` on every change of what is wanted, until it is taken.
pub struct Webhook {
    want: watch::Sender<Option<u32>>,
    current: Current,
    changed: watch::Receiver<()>,
    task: AbortHandle,
}

impl Webhook {
    /// Must be called on a runtime; posts until it is dropped.
    ///
    /// * `cluster`: its name
    /// * `url`: `http` or `https`
    /// * `current`: endpoints that can serve
    /// * `changed`: rings when that may be another number
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the URL has no host, another scheme, or the system has no trusted roots for `https`.
    pub fn new(
        cluster: &str,
        url: &Uri,
        current: impl Fn() -> u32 + Send + Sync + 'static,
        changed: watch::Receiver<()>,
    ) -> io::Result<Self> {
        let current: Current = Arc::new(current);
        let (want, wanted) = watch::channel(None);
        let poster = Poster {
            cluster: cluster.to_owned(),
            target: Target::new(url)?,
            current: Arc::clone(&current),
            wanted,
        };
        let task = tokio::spawn(poster.run()).abort_handle();
        Ok(Self {
            want,
            current,
            changed,
            task,
        })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driver for Webhook {
    fn want(&self, replicas: u32) {
        self.want.send_if_modified(|want| {
            let before = want.replace(replicas);
            before != Some(replicas)
        });
    }

    fn status(&self) -> Replicas {
        let ready = (self.current)();
        let want = self.want.borrow().unwrap_or(0);
        Replicas {
            starting: want.saturating_sub(ready),
            ready,
            stopping: ready.saturating_sub(want),
            ..Replicas::default()
        }
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.clone()
    }
}

struct Poster {
    cluster: String,
    target: Target,
    current: Current,
    wanted: watch::Receiver<Option<u32>>,
}

impl Poster {
    async fn run(mut self) {
        let mut told: Option<(u32, Instant)> = None;
        let mut backoff = BACKOFF;
        loop {
            let want = *self.wanted.borrow_and_update();
            let current = (self.current)();
            let news = want.filter(|&want| match told {
                None => true,
                Some((before, at)) => before != want || (want != current && at.elapsed() >= REMIND),
            });
            let mut wait = REMIND;
            if let Some(desired) = news {
                match self.tell(desired, current).await {
                    Ok(()) => {
                        told = Some((desired, Instant::now()));
                        backoff = BACKOFF;
                    }
                    Err((why, asked)) => {
                        let (cluster, target) = (&self.cluster, self.target.name());
                        tracing::warn!(%cluster, %target, desired, %why, "the scale webhook failed; it is tried again");
                        wait = asked.unwrap_or(backoff.mul_f64(0.5 + fastrand::f64() / 2.0));
                        backoff = (backoff * 2).min(LONGEST);
                    }
                }
            }
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What was refused may be taken now that it is something else, but not a hundred times a second.
                    tokio::time::sleep(wait.min(backoff - BACKOFF)).await;
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Posts once.
    ///
    /// # Errors
    ///
    /// What was wrong, and how long to wait when the server said so.
    async fn tell(&mut self, desired: u32, current: u32) -> Result<(), (String, Option<Duration>)> {
        let body = serde_json::json!({
            "cluster": self.cluster,
            "desired": desired,
            "current": current,
        });
        let body = Bytes::from(body.to_string());
        match self.target.post(&body, TIMEOUT).await {
            Outcome::Taken => Ok(()),
            Outcome::Later(why, wait) => Err((why, wait)),
            Outcome::Refused(why) => Err((why, Some(LONGEST))),
        }
    }
}
