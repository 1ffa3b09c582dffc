//! Questions of many at once, and what is left to others meanwhile.

use super::*;
use crate::daemon::blocking;
use std::sync::atomic::AtomicUsize;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A question that takes its time: each has a thread, and others need some.
#[test]
fn many_who_ask_at_once_take_few_threads_and_hold_up_no_write() {
    const THREADS: usize = QUESTIONS_MAX + 2;
    const PATIENCE: Duration = Duration::from_secs(60);
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).unwrap());
    let threads = Builder::new_current_thread().enable_all().max_blocking_threads(THREADS).build();
    threads.unwrap().block_on(async {
        let (asked, done) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        // Also where this test fails, or its end would wait for the answers.
        let answers = done.clone().drop_guard();
        let ask = || {
            let (asked, done) = (Arc::clone(&asked), done.clone());
            let question = move |store: &Store| {
                asked.fetch_add(1, Ordering::Relaxed);
                Handle::current().block_on(done.cancelled());
                store.modules()
            };
            let store = Arc::clone(&store);
            async move { store.answer(question).await }
        };
        // Who gives up leaves its thread behind, and that has its turn until it is free.
        let mut given_up = JoinSet::new();
        for _ in 0..3 * THREADS {
            given_up.spawn(ask());
        }
        tokio::task::yield_now().await;
        given_up.shutdown().await;
        let mut waiting = JoinSet::new();
        for _ in 0..3 * THREADS {
            waiting.spawn(ask());
        }
        tokio::task::yield_now().await;
        let other = tokio::time::timeout(PATIENCE, blocking(|| ()));
        other.await.expect("there are threads left for others");
        let written = store.submit(Change::PutModule(row("app", false)), true).recorded();
        tokio::time::timeout(PATIENCE, written).await.expect("writes wait for no question").unwrap();
        assert!(asked.load(Ordering::Relaxed) <= QUESTIONS_MAX);
        drop(answers);
        let all = tokio::time::timeout(PATIENCE, waiting.join_all()).await;
        for answer in all.expect("all have their turn") {
            assert_eq!(answer.unwrap(), [row("app", false)]);
        }
    });
}
