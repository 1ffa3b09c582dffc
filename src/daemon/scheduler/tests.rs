//! The threads: that who is next really runs, and that nothing is lost when somebody panics or all ends.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A scheduler whose guests compute until they are interrupted, or for a tick.
struct Bench {
    scheduler: Scheduler,
    epoch: Arc<AtomicU64>,
    turns: Arc<AtomicUsize>,
    runtime: Runtime,
}

const TICK: Duration = Duration::from_millis(5);

impl Bench {
    fn new(processors: usize) -> Bench {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let epoch = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&epoch);
        let interrupt = move || {
            theirs.fetch_add(1, SeqCst);
        };
        let scheduler = Scheduler::start(runtime.handle(), processors, interrupt, |_| ()).unwrap();
        Bench { scheduler, epoch, turns: Arc::default(), runtime }
    }

    /// One turn of computing.
    fn compute(&self) -> impl Fn() + Send + 'static {
        let (epoch, turns) = (Arc::clone(&self.epoch), Arc::clone(&self.turns));
        move || {
            let (before, begun) = (epoch.load(SeqCst), Instant::now());
            while epoch.load(SeqCst) == before && begun.elapsed() < TICK {
                std::hint::spin_loop();
            }
            turns.fetch_add(1, SeqCst);
        }
    }

    /// A guest that computes until `until` is ready.
    fn spin(&self, account: &Arc<Account>, until: impl Future<Output = ()> + Send + 'static) {
        let compute = self.compute();
        let mut until = Box::pin(until);
        self.scheduler.spawn(
            Arc::clone(account),
            std::future::poll_fn(move |cx| {
                if until.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                compute();
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
        );
    }

    fn spinner(&self) -> Arc<Account> {
        let account = self.scheduler.account();
        self.spin(&account, std::future::pending());
        account
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.scheduler.end();
    }
}

/// Counts when it is dropped.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::yield_now();
    }
}

#[test]
fn a_newcomer_waits_for_no_round_of_those_that_compute() {
    let bench = Bench::new(2);
    let all: Vec<_> = (0..300).map(|_| bench.spinner()).collect();
    // All have used up what newcomers have.
    wait_until("the credit is used up", || all.iter().all(|account| account.used() > TICK));
    for _ in 0..20 {
        let before = bench.turns.load(SeqCst);
        let (tell, told) = std::sync::mpsc::channel();
        bench.scheduler.spawn(bench.scheduler.account(), async move {
            // It waits for something in between, as a guest does for its first record.
            tokio::time::sleep(Duration::from_millis(1)).await;
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(60)).unwrap();
        let turns = bench.turns.load(SeqCst) - before;
        assert!(turns < 100, "{turns} turns of others; a round has 300");
    }
}

#[test]
fn what_should_end_a_guest_reaches_it_before_the_turns_of_others() {
    let bench = Bench::new(1);
    let _all: Vec<_> = (0..200).map(|_| bench.spinner()).collect();
    let account = bench.scheduler.account();
    let (stop, stopped) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicBool::new(false)));
    let (theirs, told) = (Arc::clone(&stop), Arc::clone(&stopped));
    let ears = account.urgent(async move { theirs.notified().await });
    bench.spin(&account, async move {
        ears.await;
        told.store(true, SeqCst);
    });
    wait_until("it computes", || account.used() > Duration::ZERO);
    let before = bench.turns.load(SeqCst);
    stop.notify_one();
    wait_until("it hears", || stopped.load(SeqCst));
    let turns = bench.turns.load(SeqCst) - before;
    assert!(turns < 50, "{turns} turns of others; a round has 200");
    wait_until("it is forgotten", || bench.scheduler.len() == 200);
}

#[test]
fn a_budget_of_cpu_time_is_found_out_in_the_turn_that_uses_it_up() {
    let bench = Bench::new(1);
    let _other = bench.spinner();
    let account = bench.scheduler.account();
    let limit = Duration::from_millis(40);
    let (ears, done) = (Arc::clone(&account), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&done);
    bench.spin(&account, async move {
        ears.begin(Share::default(), Some(limit));
        ears.exhausted().await;
        assert!(ears.used() > limit);
        told.store(true, SeqCst);
    });
    wait_until("it is over its budget", || done.load(SeqCst));
    wait_until("it is forgotten", || bench.scheduler.len() == 1);
    // One turn more than the limit, and the one in which it hears of it.
    assert!(account.used() < limit + 2 * TICK + TICK, "{:?}", account.used());
}

#[test]
fn one_that_is_held_uses_its_part_while_nobody_else_wants_the_processor() {
    let bench = Bench::new(2);
    let account = bench.scheduler.account();
    let own = Arc::clone(&account);
    let begun = Instant::now();
    bench.spin(&account, async move {
        own.begin(Share { weight: Share::WEIGHT_DEFAULT, cpus_milli: Some(200) }, None);
        std::future::pending::<()>().await;
    });
    wait_until("it has used five windows", || account.used() > Duration::from_millis(100));
    // Five windows of 20 ms: it was held four times, and each of them lasted until the window was over.
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn a_panic_ends_one_guest_and_no_other() {
    let bench = Bench::new(1);
    let gone = Arc::new(AtomicUsize::new(0));
    for n in 0..10 {
        let guard = Gone(Arc::clone(&gone));
        bench.scheduler.spawn(bench.scheduler.account(), async move {
            let _guard = guard;
            tokio::time::sleep(Duration::from_millis(n)).await;
            assert!(n == 100, "meant to happen");
        });
    }
    wait_until("all are gone", || gone.load(SeqCst) == 10 && bench.scheduler.len() == 0);
    let account = bench.spinner();
    wait_until("others compute", || account.used() > Duration::ZERO);
}

#[test]
fn the_end_drops_whoever_waits_runs_or_is_held() {
    let bench = Bench::new(1);
    let gone = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let guard = Gone(Arc::clone(&gone));
        bench.spin(&bench.scheduler.account(), async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let guard = Gone(Arc::clone(&gone));
        bench.scheduler.spawn(bench.scheduler.account(), async move {
            let _guard = guard;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        });
    }
    wait_until("somebody computes", || bench.turns.load(SeqCst) > 20);
    bench.scheduler.end();
    wait_until("all are dropped", || gone.load(SeqCst) == 6);
    let late = Gone(Arc::clone(&gone));
    bench.scheduler.spawn(bench.scheduler.account(), async move { drop(late) });
    wait_until("who comes too late is dropped", || gone.load(SeqCst) == 7);
    // The runtime is there until now: timers were dropped in it.
    assert_eq!(bench.runtime.metrics().num_workers(), 1);
}
