//! Tests of the logs as a whole: guest, thread, files and readers. What the files alone promise is tested in `ring`.

mod reading;

use super::*;
use crate::config::fixed::ATTACHED_BYTES_MAX;
use StdStream::{Stderr, Stdout};
use proptest::prelude::*;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ID: InstanceId = InstanceId(1);
/// More than any test prints, where the limit is not the point.
const PLENTY: usize = 64 << 20;

struct House {
    directory: TempDir,
    logs: Logs,
    log: Arc<Log>,
}

fn house(bytes_max: usize) -> House {
    house_at(bytes_max, usize::MAX)
}

fn house_at(bytes_max: usize, bytes_per_second: usize) -> House {
    let directory = tempfile::tempdir().unwrap();
    let logs = Logs::open(directory.path(), bytes_max, bytes_per_second, Arc::default()).unwrap();
    let log = logs.get(ID);
    log.begin(1, false);
    House { directory, logs, log }
}

impl House {
    /// Ends the daemon, and starts it again.
    fn again(self, bytes_max: usize) -> House {
        let House { directory, logs, log } = self;
        drop((logs, log));
        let logs = Logs::open(directory.path(), bytes_max, usize::MAX, Arc::default()).unwrap();
        let log = logs.get(ID);
        House { directory, logs, log }
    }

    fn bytes_on_disk(&self) -> u64 {
        // A file may be rotated away between the two looks.
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        entries.filter_map(|e| e.unwrap().metadata().ok()).map(|m| m.len()).sum()
    }
}

fn put(log: &Log, stream: StdStream, text: &str) {
    log.write(stream, Bytes::copy_from_slice(text.as_bytes()));
}

/// Prints as a guest does: it waits for room.
async fn print(log: &Log, stream: StdStream, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        log.ready().await;
        let (now, later) = rest.split_at(rest.len().min(log.room()).min(64 * 1024));
        log.write(stream, Bytes::copy_from_slice(now));
        rest = later;
    }
}

fn bytes(outputs: Vec<Output>) -> Vec<u8> {
    outputs.into_iter().flat_map(|o| o.data.into_bytes().unwrap()).collect()
}

fn text(outputs: Vec<Output>) -> String {
    String::from_utf8(bytes(outputs)).unwrap()
}

/// Reads to the end of a round.
async fn rest(reader: &mut Reader) -> Read {
    let mut all = Read::default();
    loop {
        let read = soon(reader.next()).await.unwrap();
        if read.outputs.is_empty() && read.dropped == 0 {
            return all;
        }
        all.dropped += read.dropped;
        all.outputs.extend(read.outputs);
    }
}

async fn outputs(log: &Arc<Log>, query: Query) -> Vec<Output> {
    rest(&mut log.reader(query)).await.outputs
}

async fn all(log: &Arc<Log>) -> String {
    text(outputs(log, Query::default()).await)
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it takes too long")
}

/// Long enough for what must not happen to happen.
async fn nothing_for_a_while<T>(work: impl Future<Output = T>) -> bool {
    tokio::time::timeout(5 * writer::LINGER, work).await.is_err()
}

#[tokio::test]
async fn a_line_in_pieces_is_one_record() {
    let house = house(PLENTY);
    let log = &house.log;
    {
        // The thread waits for the files meanwhile.
        let _files = lock(&log.ring);
        for piece in ["a", "b", "\n", "c\n"] {
            put(log, Stdout, piece);
        }
        put(log, Stderr, "oops\n");
    }
    let read = outputs(log, Query::default()).await;
    assert_eq!(read.len(), 3);
    assert_eq!(text(read), "ab\nc\noops\n");
    assert_eq!(text(outputs(log, Query { stream: Some(Stderr), ..Query::default() }).await), "oops\n");
}

#[tokio::test]
async fn bytes_that_are_no_text_survive() {
    let house = house(PLENTY);
    let printed: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 / 3).to_le_bytes()[0]).collect();
    print(&house.log, Stdout, &printed).await;
    let house = house.again(PLENTY);
    assert_eq!(bytes(outputs(&house.log, Query::default()).await), printed);
}

#[tokio::test]
async fn the_files_are_bounded_and_what_is_gone_is_counted_exactly() {
    for bytes_max in [4096, 64 * 1024, 1 << 20] {
        let house = house(bytes_max);
        let mut printed = 0;
        for i in 0_usize..600 {
            // From single bytes to more than a small ring holds.
            let piece = "x".repeat(1 + i * i % 9973) + "\n";
            print(&house.log, if i % 3 == 0 { Stderr } else { Stdout }, piece.as_bytes()).await;
            printed += piece.len() as u64;
            assert!(house.bytes_on_disk() <= bytes_max as u64);
        }
        let kept = all(&house.log).await.len() as u64;
        assert!(kept > bytes_max as u64 / 4 && kept <= bytes_max as u64, "{kept} of {bytes_max}");
        assert_eq!(house.log.dropped().await + kept, printed);
        let house = house.again(bytes_max);
        assert_eq!(house.log.dropped().await + kept, printed, "and so it is after a start");
    }
}

/// Behind a crowd that prints without end the stop of one would wait for a turn of each.
#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "it is what holds up the other thread; no task here takes it")]
async fn the_end_of_a_run_goes_before_the_other_logs() {
    let house = house(PLENTY);
    let much = "x".repeat(FLUSH_BYTES);
    let crowd: Vec<Arc<Log>> = (2..40).map(|id| house.logs.get(InstanceId(id))).collect();
    let ended = house.logs.get(InstanceId(40));
    {
        // The thread comes to this one, and stays until it is let go.
        let _held = lock(&house.log.ring);
        put(&house.log, Stdout, &much);
        soon(async {
            while house.log.work.first().is_some() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        for log in &crowd {
            log.begin(1, false);
            put(log, Stdout, &much);
        }
        ended.begin(1, false);
        put(&ended, Stdout, "the last line\n");
        assert_eq!(house.log.work.first(), Some(InstanceId(2)), "in their order");
        let mut waits = std::pin::pin!(ended.flushed());
        assert!(look(waits.as_mut()).is_pending());
        assert_eq!(house.log.work.first(), Some(InstanceId(2)), "nor does somebody who reads go before");
        let mut waits = std::pin::pin!(ended.flushed_first());
        assert!(look(waits.as_mut()).is_pending());
        assert_eq!(house.log.work.first(), Some(InstanceId(40)));
    }
    soon(ended.flushed()).await;
    for log in &crowd {
        soon(log.flushed()).await;
    }
}

/// One look at a future.
fn look<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test]
async fn single_bytes_stay_within_the_limit_too() {
    let house = house(4096);
    for i in 0..20_000 {
        print(&house.log, if i % 2 == 0 { Stdout } else { Stderr }, b"x").await;
    }
    house.log.flushed().await;
    assert!(house.bytes_on_disk() <= 4096);
    assert_eq!(house.log.dropped().await + all(&house.log).await.len() as u64, 20_000);
}

/// The client of an attached run is no file: it gets what the log does not keep.
#[tokio::test]
async fn what_comes_too_fast_is_counted_and_an_attached_client_gets_it() {
    let begun = Instant::now();
    let house = house_at(PLENTY, 2000);
    let log = &house.log;
    log.begin(1, true);
    let line = "x".repeat(99) + "\n";
    for _ in 0..100 {
        put(log, Stdout, &line);
    }
    soon(log.flushed()).await;
    assert_eq!(text(log.take(1).await.unwrap()), line.repeat(100));
    let mut reader = log.reader(Query::default());
    let read = rest(&mut reader).await;
    let (kept, gap) = (text(read.outputs), read.dropped);
    let at_most = 2000 * (begun.elapsed().as_secs() + 2);
    let charged = kept.len() + RECORD_COST * kept.lines().count();
    assert!(kept.len() >= 1000 && charged as u64 <= at_most, "{charged}");
    assert_eq!((kept.len() as u64 + gap, log.dropped().await), (10_000, gap), "all is there, or told");
    // What is nothing but skipped is told as well, to a reader who waits for it.
    lock(&log.state).rate = Rate::default();
    put(log, Stderr, "nothing of this\n");
    assert!(soon(reader.grown()).await);
    let read = rest(&mut reader).await;
    assert_eq!((read.dropped, read.outputs.len(), log.dropped().await), (16, 0, gap + 16));
    lock(&log.state).rate = Rate::new(2000);
    put(log, Stdout, "and on\n");
    assert_eq!(text(rest(&mut reader).await.outputs), "and on\n");
    let house = house.again(PLENTY);
    assert_eq!(house.log.dropped().await, gap + 16, "positions in the file know it");
    assert!(all(&house.log).await.ends_with("x\nand on\n"));
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_private_and_two() {
    use std::os::unix::fs::PermissionsExt;
    let house = house(4096);
    print(&house.log, Stdout, &[b'x'; 20_000]).await;
    house.log.flushed().await;
    let files: Vec<_> = std::fs::read_dir(house.directory.path()).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn positions_go_on_after_a_start() {
    let mut house = house(4096);
    let mut printed = 0;
    for run in 1..20 {
        house.log.begin(run, false);
        let line = format!("run {run} {}\n", "x".repeat(400));
        print(&house.log, Stdout, line.as_bytes()).await;
        printed += line.len() as u64;
        // Also where nobody reads before the next run prints.
        house = house.again(4096);
    }
    let read = outputs(&house.log, Query::default()).await;
    assert_eq!(read.last().unwrap().run, 19);
    assert_eq!(house.log.dropped().await + bytes(read).len() as u64, printed);
    assert_eq!(lock(&house.log.ring).end(), printed);
}

#[tokio::test]
async fn what_was_learned_outlives_the_log() {
    let house = house(PLENTY);
    let House { directory: _directory, logs, log } = house;
    assert!(Arc::ptr_eq(&log, &logs.get(ID)));
    put(&log, Stdout, "pending\n");
    let ring = Arc::clone(&log.ring);
    drop(log);
    let log = logs.get(ID);
    assert!(Arc::ptr_eq(&ring, &log.ring));
    assert_eq!(all(&log).await, "pending\n");
}

#[tokio::test]
async fn a_torn_end_is_read_up_to_it_and_written_on() {
    let first = house(PLENTY);
    put(&first.log, Stdout, "whole\n");
    first.log.flushed().await;
    put(&first.log, Stdout, "torn\n");
    let path = first.directory.path().join("1-1.log");
    first.logs.close();
    let written = std::fs::read(&path).unwrap();
    let torn_at = written.len() - "torn\n\n".len();
    let mut house = first;
    for cut in [torn_at - 3, torn_at + 1, written.len() - 1] {
        std::fs::write(&path, &written[..cut]).unwrap();
        house = house.again(PLENTY);
        assert_eq!(all(&house.log).await, "whole\n");
        house.log.begin(2, false);
        put(&house.log, Stderr, "on\n");
        assert_eq!(all(&house.log).await, "whole\non\n");
        house = house.again(PLENTY);
        assert_eq!(all(&house.log).await, "whole\non\n");
        assert_eq!(house.log.dropped().await, 0);
    }
}

/// A reader that has opened its file reads on in it, whatever the writer does; and a guest never waits for readers.

#[tokio::test]
async fn an_attached_client_gets_every_byte_and_makes_the_guest_wait() {
    let house = house(4096);
    let log = &house.log;
    log.begin(1, true);
    let mut written = 0;
    while {
        log.flushed().await;
        log.room() > RECORD_COST
    } {
        let chunk = "x".repeat(log.room().min(4096) - RECORD_COST);
        put(log, Stdout, &chunk);
        written += chunk.len();
    }
    assert!(written <= ATTACHED_BYTES_MAX && written > ATTACHED_BYTES_MAX / 2, "{written}");
    assert_eq!(text(log.take(1).await.unwrap()).len(), written, "the log's own limit does not touch it");
    log.ready().await;
    put(log, Stdout, "last");
    log.end_run(1);
    assert_eq!(text(log.take(1).await.unwrap()), "last");
    assert!(log.take(1).await.is_none());
}

#[tokio::test]
async fn single_bytes_fill_the_queue_of_an_attached_client_too() {
    let house = house(4096);
    house.log.begin(1, true);
    let mut pieces = 0;
    while lock(&house.log.state).attached[&1].cost < ATTACHED_BYTES_MAX {
        put(&house.log, if pieces % 2 == 0 { Stdout } else { Stderr }, "x");
        pieces += 1;
    }
    assert_eq!(house.log.room(), 0);
    assert!(pieces * RECORD_COST <= ATTACHED_BYTES_MAX + RECORD_COST, "{pieces}");
}

/// The next run may begin before the client of the last one took all, and before it lets go.

#[tokio::test]
async fn runs_of_one_name_have_a_queue_each() {
    let house = house(4096);
    let log = &house.log;
    log.begin(1, true);
    put(log, Stdout, "first");
    log.end_run(1);
    log.begin(2, true);
    put(log, Stdout, "second");
    log.end_run(1);
    assert_eq!(text(log.take(1).await.unwrap()), "first");
    assert!(log.take(1).await.is_none());
    log.detach(1);
    assert_eq!(text(log.take(2).await.unwrap()), "second");
    log.end_run(2);
    assert!(log.take(2).await.is_none());
}

#[tokio::test]
async fn a_client_that_left_holds_up_nobody() {
    let house = house(PLENTY);
    let log = &house.log;
    log.begin(1, true);
    put(log, Stdout, &"x".repeat(ATTACHED_BYTES_MAX));
    log.flushed().await;
    assert_eq!(log.room(), 0);
    log.detach(1);
    soon(log.ready()).await;
    assert!(log.room() > 0);
}

#[tokio::test]
async fn a_guest_waits_for_the_disk_and_holds_little_meanwhile() {
    let house = house(PLENTY);
    let log = &house.log;
    let mut pieces = 0;
    {
        // A disk that takes its time.
        let _files = lock(&log.ring);
        while log.room() > 0 {
            put(log, if pieces % 2 == 0 { Stdout } else { Stderr }, "x");
            pieces += 1;
        }
    }
    assert!(pieces * RECORD_COST <= PENDING_BYTES_MAX, "{pieces}");
    soon(log.ready()).await;
    assert_eq!(all(log).await.len(), pieces);
}

#[tokio::test]
async fn a_directory_that_is_gone_holds_up_no_guest() {
    let house = house(PLENTY);
    let path = house.directory.path();
    print(&house.log, Stdout, b"before\n").await;
    let mut follower = house.log.reader(Query::default());
    assert_eq!(text(rest(&mut follower).await.outputs), "before\n");
    std::fs::remove_dir_all(path).unwrap();
    let lost = vec![b'x'; 3 << 20];
    soon(print(&house.log, Stdout, &lost)).await;
    house.log.flushed().await;
    assert_eq!(house.log.dropped().await, lost.len() as u64 + 7);
    std::fs::create_dir(path).unwrap();
    print(&house.log, Stdout, b"after\n").await;
    let read = rest(&mut follower).await;
    assert_eq!((read.dropped, text(read.outputs).as_str()), (lost.len() as u64, "after\n"));
    assert_eq!(all(&house.log).await, "after\n");
    assert_eq!(house.log.dropped().await, lost.len() as u64 + 7);
    let house = house.again(PLENTY);
    assert_eq!(house.log.dropped().await, lost.len() as u64 + 7, "the position in the file knows it");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_holds_up_no_guest() {
    let first = house(PLENTY);
    std::os::unix::fs::symlink("/dev/full", first.directory.path().join("1-1.log")).unwrap();
    let house = first.again(PLENTY);
    house.log.begin(1, false);
    let mut reader = house.log.reader(Query::default());
    assert_eq!(rest(&mut reader).await.outputs, []);
    put(&house.log, Stdout, "lost\n");
    assert!(soon(reader.grown()).await);
    let read = rest(&mut reader).await;
    assert_eq!((read.dropped, read.outputs.len()), (5, 0));
    put(&house.log, Stdout, "kept\n");
    assert_eq!(text(rest(&mut reader).await.outputs), "kept\n");
    assert_eq!(house.log.dropped().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_removed_while_it_is_written_and_read_leaves_no_file() {
    for _ in 0..20 {
        let house = house(4096);
        let mut reader = house.log.reader(Query::default());
        let printing = async {
            for i in 0..300 {
                print(&house.log, Stdout, &[b'x'; 1000]).await;
                if i == 100 {
                    house.logs.remove(ID);
                }
                tokio::task::yield_now().await;
            }
        };
        let reading = async {
            while reader.grown().await {
                rest(&mut reader).await;
            }
        };
        soon(async { tokio::join!(printing, reading) }).await;
        house.log.flushed().await;
        house.logs.close();
        assert_eq!(rest(&mut house.log.reader(Query::default())).await.outputs, []);
        assert_eq!(house.bytes_on_disk(), 0);
        assert_eq!(std::fs::read_dir(house.directory.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn files_that_nobody_knows_are_removed_and_those_of_others_are_not() {
    let first = house(PLENTY);
    for id in 1..=100 {
        put(&first.logs.get(InstanceId(id)), Stdout, "x");
    }
    std::fs::write(first.directory.path().join("README"), "not ours").unwrap();
    let house = first.again(PLENTY);
    house.logs.retain(|id| id.0 % 2 == 0 && house.logs.get(id).record_bytes_max > 0);
    house.logs.close();
    assert_eq!(std::fs::read_dir(house.directory.path()).unwrap().count(), 51);
    assert_eq!(all(&house.logs.get(InstanceId(2))).await, "x");
    assert_eq!(std::fs::read(house.directory.path().join("README")).unwrap(), b"not ours");
}

#[tokio::test]
async fn behind_the_end_nobody_waits() {
    let house = house(PLENTY);
    put(&house.log, Stdout, "in time\n");
    house.logs.close();
    soon(print(&house.log, Stdout, &vec![b'x'; 1 << 20])).await;
    soon(house.log.flushed()).await;
    assert_eq!(all(&house.log).await, "in time\n");
    house.logs.remove(ID);
    house.logs.close();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Parts of records, whole ones, and anything else.
fn file_contents() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => (0..99_u64, 0..9_u32, 1..=2_u8, "[a-c\n]{1,20}", 0..200_u64)
            .prop_map(|(at, run, stream, text, position)| {
                format!("{at} {run} {stream} {} {position}\n{text}\n", text.len()).into_bytes()
            }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => "[0-9 \n-]{0,40}".prop_map(String::into_bytes),
        1 => Just(b"1 1 1 65536 18446744073709551615\nx\n".to_vec()),
        1 => Just(b"1 1 1 4 4611686018427387900\nend\n\n".to_vec()),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_contents_of_files_break_anything(
        files in prop::collection::vec((0..4_u8, file_contents()), 0..4),
        tail in prop::option::of(0..9_usize),
        since in prop::option::of((0..99_u64).prop_map(LogTime)),
        until in prop::option::of((0..99_u64).prop_map(LogTime)),
    ) {
        let directory = tempfile::tempdir().unwrap();
        for (number, contents) in files {
            std::fs::write(directory.path().join(format!("1-{number}.log")), contents).unwrap();
        }
        runtime().block_on(async {
            let logs = Logs::open(directory.path(), 4096, usize::MAX, Arc::default()).unwrap();
            let log = logs.get(ID);
            let mut reader = log.reader(Query { tail, since, until, stream: None });
            rest(&mut reader).await;
            let before = all(&log).await;
            let dropped = log.dropped().await;
            put(&log, Stdout, "and on\n");
            rest(&mut reader).await;
            prop_assert_eq!(all(&log).await, before + "and on\n");
            prop_assert_eq!(log.dropped().await, dropped);
            Ok(())
        })?;
    }
}
