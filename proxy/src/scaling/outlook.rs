//! What becomes of starts, told to those who wait and to those who come.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::live::Live;
use super::starts::StartWatch;
use crate::cluster::Progress;
use crate::driver::process::ProcessDriver;
use crate::scaler::{Driver, Outlook};

/// How often it is looked whether somebody waits for a server that starts.
const LOOK: Duration = Duration::from_millis(50);
/// And how often what is expected is looked at while nothing starts.
pub(super) const SELDOM: Duration = Duration::from_secs(1);

/// Tells those who wait that they wait for nothing, those who come how long it may take, and servers that start
/// whether somebody waits for them.
pub(super) async fn watch_outlook(
    mut outlook: tokio::sync::watch::Receiver<Outlook>,
    live: Arc<Live>,
    any: Weak<dyn Driver>,
    process: Option<Weak<ProcessDriver>>,
) {
    let driver = || process.as_ref().and_then(Weak::upgrade);
    let mut changed = any.upgrade().map(|driver| driver.changed());
    let mut starts = StartWatch::default();
    let mut missing = None;
    let mut hopeless = driver().and_then(|driver| driver.hopeless());
    loop {
        let mut now = *outlook.borrow_and_update();
        let state = live.state();
        now.no_capacity = hopeless
            .as_mut()
            .is_some_and(|told| *told.borrow_and_update());
        state.set_outlook(now);
        if let Some(reason) = now.refusal()
            && (now.start_failed || !state.room().replicas().exist())
        {
            state.room().fail_all(reason);
        }
        if let Some(driver) = any.upgrade() {
            let status = driver.status();
            starts.look(now.asked, &status, &state);
            let is_missing = status.starting > 0 || now.asked && status.ready == 0;
            missing = is_missing.then(|| missing.unwrap_or_else(Instant::now));
            state.set_progress(Progress {
                since: missing,
                failure: status.last_failure,
            });
        }
        let mut pause = SELDOM;
        if let Some(driver) = driver() {
            driver.hurry(state.room().demand().waiting > 0);
            if driver.status().starting > 0 {
                pause = LOOK;
            }
        }
        let rings = async {
            let rang = match &mut changed {
                Some(changed) => changed.changed().await.is_ok(),
                None => false,
            };
            if !rang {
                std::future::pending::<()>().await;
            }
        };
        let despairs = async {
            let told = match &mut hopeless {
                Some(hopeless) => hopeless.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = outlook.changed() => if changed.is_err() { return },
            () = rings => {}
            () = despairs => {}
            () = tokio::time::sleep(pause) => {} // nobody tells who waits, nor when something is expected
        }
    }
}
