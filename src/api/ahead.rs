//! Clients that send requests ahead, faster than they are answered: their answers cost a processor as long as they like.
//! Those who wait for one answer before they ask again never do. So whoever is answered without a pause takes one.

use crate::config::fixed::{AHEAD_MAX, AHEAD_PAUSE};
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// How long one connection has been answered without waiting for anything: its client, a run, a disk.
#[derive(Default)]
pub(super) struct Ahead {
    since: Option<Instant>,
}

impl Ahead {
    /// Does `work`, and looks whether it waits.
    ///
    /// # Cancel safety
    ///
    /// As that of the work.
    pub(super) async fn watch<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            let begun = *self.since.get_or_insert_with(Instant::now);
            let polled = work.as_mut().poll(cx);
            self.since = polled.is_ready().then_some(begun);
            polled
        })
        .await
    }

    /// Waits, if it has not for long.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn breathe(&mut self) {
        if self.busy() >= AHEAD_MAX {
            tokio::time::sleep(AHEAD_PAUSE).await;
            self.since = None;
        }
    }

    fn busy(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_never_waits_takes_a_pause_and_nobody_else_does() {
        let mut ahead = Ahead::default();
        ahead.watch(std::future::ready(())).await;
        let begun = ahead.since.unwrap();
        ahead.watch(std::future::ready(())).await;
        assert_eq!(ahead.since, Some(begun), "it goes on from answer to answer");
        // So long ago that it is enough.
        ahead.since = begun.checked_sub(AHEAD_MAX);
        let before = Instant::now();
        ahead.breathe().await;
        assert!(before.elapsed() >= AHEAD_PAUSE && ahead.since.is_none());
        // Whatever it waited for, and however long ago it began.
        ahead.since = begun.checked_sub(AHEAD_MAX);
        ahead.watch(tokio::task::yield_now()).await;
        assert!(ahead.busy() < AHEAD_MAX, "{:?}", ahead.busy());
        // And not before it is enough.
        let soon = Instant::now() + Duration::from_secs(60);
        ahead.since = Some(soon);
        ahead.breathe().await;
        assert_eq!(ahead.since, Some(soon));
    }
}
