//! Followers of what happens: from the record first, then live. A follower that is too slow is told how much it lost; no queue
//! grows for it.

use crate::daemon::clock;
use crate::daemon::store::Store;
use crate::daemon::supervisor::Supervisor;
use crate::error::Result;
use crate::model::event::EventView;
use crate::model::filter::Filter;
use crate::model::instance::Timestamp;
use crate::model::when::Position;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// Events that are read from the record at a time.
const PAGE: usize = 1000;
/// And bytes of them, with one more event: labels may be many.
const PAGE_BYTES: usize = 256 * 1024;

/// What a follower gets.
#[derive(Debug)]
pub enum Followed {
    /// These happened.
    Events(Vec<Arc<EventView>>),
    /// This many are gone: not kept any more, or the follower was too slow for them.
    Lost(u64),
}

/// Where the stream ends.
#[derive(Debug, Clone, Copy)]
enum Until {
    Seq(u64),
    At(Timestamp),
}

/// One follower.
pub struct Follower {
    store: Arc<Store>,
    live: broadcast::Receiver<Arc<EventView>>,
    filter: Filter,
    /// The next event that was not seen yet.
    next: u64,
    /// Up to here it is read from the record; what comes after comes live.
    recorded: u64,
    until: Option<Until>,
    /// The last one that there will be, whatever was asked for.
    last: u64,
    deadline: Option<Instant>,
    over: bool,
}

impl Supervisor {
    /// Follows what happens from `since` on, or from now; to `until`, or for ever.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if the record cannot be read.
    pub async fn follow(&self, since: Option<Position>, until: Option<Position>, filter: Filter) -> Result<Follower> {
        let store = Arc::clone(&self.0.store);
        // First the live ones, then the record: between the two nothing can be missed, only be seen twice.
        let live = store.follow();
        let recorded = store.newest_event();
        let now = clock::now();
        let next = match since {
            None => recorded + 1,
            Some(Position::Seq(seq)) => seq.max(1),
            Some(Position::Moment(moment)) => {
                let at = moment.resolve(now);
                store.answer(move |store| store.event_at(at)).await?
            }
        };
        let until = until.map(|until| match until {
            Position::Seq(seq) => Until::Seq(seq),
            Position::Moment(moment) => Until::At(moment.resolve(now)),
        });
        let deadline = match until {
            Some(Until::At(at)) => Some(Instant::now() + Duration::from_micros(at.0.saturating_sub(now.0))),
            Some(Until::Seq(_)) | None => None,
        };
        Ok(Follower { store, live, filter, next, recorded, until, last: u64::MAX, deadline, over: false })
    }

    /// The number of the newest event that is written down.
    pub fn newest_event(&self) -> u64 {
        self.0.store.newest_event()
    }
}

impl Follower {
    /// Ends behind what is written down now, unless it was to end before.
    pub fn end_now(&mut self) {
        self.last = self.store.newest_event();
    }

    /// The next events, or how many were lost. `None`: the end that was asked for. Empty now and then, where none was wanted.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if the record cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Followed>> {
        if self.over || self.last < self.next || matches!(self.until, Some(Until::Seq(last)) if last < self.next) {
            return Ok(None);
        }
        if self.next <= self.recorded {
            return self.page().await.map(Some);
        }
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            event = self.live.recv() => event,
            () = deadline => return Ok(None),
        };
        match event {
            Ok(event) if event.seq < self.next => Ok(Some(Followed::Events(vec![]))),
            Ok(event) => {
                self.next = event.seq + 1;
                Ok(Some(Followed::Events(self.wanted([event]))))
            }
            Err(RecvError::Lagged(lost)) => {
                self.next = self.next.saturating_add(lost);
                Ok(Some(Followed::Lost(lost)))
            }
            Err(RecvError::Closed) => Ok(None),
        }
    }

    async fn page(&mut self) -> Result<Followed> {
        let from = self.next;
        let (oldest, (mut page, more)) =
            self.store.answer(move |store| Ok((store.oldest_event()?, store.events(from, PAGE, PAGE_BYTES)?))).await?;
        // What was asked for begins before what is kept.
        if oldest > self.next && self.next > 0 {
            let lost = oldest.min(self.recorded + 1) - self.next;
            self.next += lost;
            return Ok(Followed::Lost(lost));
        }
        page.retain(|event| event.seq <= self.recorded);
        self.next = match page.last() {
            Some(last) if more => last.seq + 1,
            _ => self.recorded + 1,
        };
        Ok(Followed::Events(self.wanted(page.into_iter().map(Arc::new))))
    }

    fn wanted(&mut self, events: impl IntoIterator<Item = Arc<EventView>>) -> Vec<Arc<EventView>> {
        let mut wanted = vec![];
        for event in events {
            let past = match self.until {
                Some(Until::Seq(last)) => event.seq > last,
                Some(Until::At(at)) => event.at > at,
                None => false,
            };
            if past || event.seq > self.last {
                self.over = true;
                break;
            }
            if self.filter.wants_event(&event) {
                wanted.push(event);
            }
        }
        wanted
    }
}
