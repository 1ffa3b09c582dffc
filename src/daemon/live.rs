//! What there is of an instance only while it lives: how it is asked to end, and how far it has come.

use crate::daemon::logs::Log;
use crate::daemon::scheduler::Account;
use crate::engine::{Engine, Gauges, StdinPipe};
use crate::model::instance::{Ended, ExitStatus, Record};
use crate::model::reply::InstanceView;
use crate::model::restart::SHUTDOWN;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why somebody outside ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// `stop`.
    Stop,
    /// `kill`.
    Kill,
    /// `restart`: another run follows at once.
    Restart,
    /// The daemon is on its way out.
    Shutdown,
}

impl Why {
    pub(super) fn ended(self) -> Ended {
        let (status, reason) = match self {
            Why::Stop => (ExitStatus::Stopped, "stop"),
            Why::Kill => (ExitStatus::Killed, "kill"),
            Why::Restart => (ExitStatus::Stopped, "restart"),
            Why::Shutdown => (ExitStatus::Stopped, SHUTDOWN),
        };
        Ended::new(status, reason, None)
    }
}

/// An instance from its first run to the end of its last.
pub(super) struct Live {
    control: Mutex<Arc<Control>>,
    pub(super) progress: watch::Sender<Progress>,
    /// Held, so that it stays the same one between two runs.
    pub(super) log: Arc<Log>,
    /// What its present run has used of the processors.
    pub(super) account: Arc<Account>,
    /// What its present run has of memory and disk.
    pub(super) gauges: Arc<Gauges>,
    /// Whether its directory is to go with it in any case, if it goes by itself.
    pub(super) volumes: AtomicBool,
}

/// How far an instance has come; each step is told when it is written down.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The newest run that was accepted.
    pub(super) run: u32,
    /// The newest run that entered guest code.
    pub(super) entered: u32,
    /// The newest run that is over, and how it ended.
    pub(super) ended: Option<(u32, Arc<InstanceView>)>,
    /// No other run follows.
    pub(super) over: Option<Arc<InstanceView>>,
}

impl Live {
    pub(super) fn new(log: Arc<Log>, control: Arc<Control>, account: Arc<Account>) -> Live {
        Live {
            account,
            gauges: Arc::default(),
            control: Mutex::new(control),
            progress: watch::Sender::new(Progress::default()),
            log,
            volumes: AtomicBool::new(false),
        }
    }

    /// How the run, or the pause before it, is asked to end.
    pub(super) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was asked of the last run is not asked of the next. The supervisor's lock is held.
    pub(super) fn begin_anew(&self) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }
}

/// How one run, with the pause before it, is asked to end.
#[derive(Default)]
pub(super) struct Control {
    /// Ends it. What for is in [`Control::why`].
    stop: CancellationToken,
    why: OnceLock<Why>,
    /// When it was first asked to end.
    asked_at: OnceLock<Instant>,
    /// When guest code was entered.
    entered: watch::Sender<Option<Instant>>,
    /// When the grace of the most impatient request is over, and what it asked for.
    grace: watch::Sender<Option<(Instant, Why)>>,
    pub(super) stdin: Option<StdinPipe>,
}

impl Control {
    pub(super) fn with_stdin(stdin: Option<StdinPipe>) -> Control {
        Control { stdin, ..Control::default() }
    }

    /// What it was ended for, if it was; the first reason stands.
    pub(super) fn why(&self) -> Option<Why> {
        self.why.get().copied()
    }

    /// What it was asked to end for, whether it was ended or left in the time that it was given.
    pub(super) fn asked_for(&self) -> Option<Why> {
        self.why().or_else(|| self.grace.borrow().map(|(_, why)| why))
    }

    /// Ends it now.
    pub(super) fn end(&self, why: Why, engine: &Engine) {
        // Set or set before: the first to ask is the reason.
        self.why.get_or_init(|| why);
        self.asked_at.get_or_init(Instant::now);
        self.stop.cancel();
        // A guest that computes is asked now, not at the next tick.
        engine.tick();
    }

    /// Closes its stdin, and ends it at a time unless it has left by then. Its own task keeps the time: no client has to stay
    /// for it, and however many ask, there is one deadline.
    pub(super) fn end_at(&self, until: Instant, why: Why) {
        self.asked_at.get_or_init(Instant::now);
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
        self.grace.send_if_modified(|known| {
            let sooner = known.is_none_or(|(known, _)| until < known);
            if sooner {
                *known = Some((until, why));
            }
            sooner
        });
    }

    /// Since when it has been asked to end, if it was.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.asked_at.get().copied()
    }

    /// Guest code is entered.
    pub(super) fn enter(&self) {
        self.entered.send_replace(Some(Instant::now()));
    }

    /// Returns when guest code was entered, with when that was.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn entered(&self) -> Instant {
        let mut entered = self.entered.subscribe();
        let at = entered.wait_for(Option::is_some).await;
        at.expect("the sender is in `self`").expect("it was waited for")
    }

    /// Returns when it has to end, with what for. What that takes makes the guest of `account` first in the queue, since this is
    /// polled in its turns.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn asked(&self, account: &Arc<Account>) -> Why {
        let mut grace = self.grace.subscribe();
        loop {
            let until = *grace.borrow_and_update();
            let over = async {
                match until {
                    Some((until, why)) => {
                        account.urgent(tokio::time::sleep_until(until)).await;
                        why
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = account.urgent(self.stop.cancelled()) => return self.why().unwrap_or(Why::Shutdown),
                // The sender is in `self`; it cannot be gone.
                _changed = grace.changed() => {}
                why = over => return *self.why.get_or_init(|| why),
            }
        }
    }
}

/// The end of an instance, now or later.
#[derive(Clone)]
pub struct Done(DoneKind);

#[derive(Clone)]
enum DoneKind {
    /// What is long in a record is the registry's; a view would have its own.
    Already(Box<Record>),
    Later(watch::Receiver<Progress>),
}

impl Done {
    pub(super) fn already(record: Record) -> Done {
        Done(DoneKind::Already(Box::new(record)))
    }

    pub(super) fn of(live: &Live) -> Done {
        Done(DoneKind::Later(live.progress.subscribe()))
    }

    /// Waits until no other run follows, and that is written down.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(self) -> InstanceView {
        match self.0 {
            DoneKind::Already(record) => InstanceView::of(&record),
            DoneKind::Later(mut progress) => {
                let progress = progress.wait_for(|p| p.over.is_some()).await;
                let progress = progress.expect("the end is sent before its sender goes");
                InstanceView::clone(progress.over.as_ref().expect("just seen"))
            }
        }
    }

    /// Waits until `run` is over, whatever follows.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn wait_for_run(self, run: u32) -> InstanceView {
        match self.0 {
            DoneKind::Already(record) => InstanceView::of(&record),
            DoneKind::Later(mut progress) => {
                let of_run = |p: &Progress| {
                    p.ended.as_ref().filter(|(ended, _)| *ended >= run).map(|(_, view)| Arc::clone(view))
                };
                let progress = progress.wait_for(|p| of_run(p).is_some() || p.over.is_some()).await;
                let progress = progress.expect("the end is sent before its sender goes");
                InstanceView::clone(&of_run(&progress).or_else(|| progress.over.clone()).expect("just seen"))
            }
        }
    }
}
