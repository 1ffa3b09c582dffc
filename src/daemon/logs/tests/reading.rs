//! Tests of readers and followers.

use super::*;

#[tokio::test]
async fn times_are_precise_and_runs_are_told_apart() {
    let house = house(PLENTY);
    let before = clock::now_in_nanos();
    put(&house.log, Stdout, "first");
    house.log.begin(2, false);
    put(&house.log, Stdout, "second");
    let after = clock::now_in_nanos();
    house.log.flushed().await;
    let house = house.again(PLENTY);
    let read = outputs(&house.log, Query::default()).await;
    assert_eq!(read.iter().map(|o| o.run).collect::<Vec<_>>(), [1, 2]);
    assert!(before <= read[0].at && read[0].at <= read[1].at && read[1].at <= after, "{read:?}");
}

#[tokio::test]
async fn the_tail_counts_lines_and_an_unfinished_one() {
    let house = house(PLENTY);
    put(&house.log, Stdout, "one\ntwo\n");
    put(&house.log, Stderr, "err\n");
    put(&house.log, Stdout, "thr");
    put(&house.log, Stderr, "ERR\n");
    put(&house.log, Stdout, "ee");
    for (lines, stream, expected) in [
        (1, None, "ERR\nee"),
        (2, None, "thrERR\nee"),
        (3, None, "err\nthrERR\nee"),
        (4, None, "two\nerr\nthrERR\nee"),
        (2, Some(Stdout), "two\nthree"),
        (1, Some(Stderr), "ERR\n"),
        (usize::MAX, None, "one\ntwo\nerr\nthrERR\nee"),
        (0, None, ""),
    ] {
        let query = Query { tail: Some(lines), stream, ..Query::default() };
        assert_eq!(text(outputs(&house.log, query).await), expected, "{lines} {stream:?}");
    }
    let mut reader = house.log.reader(Query { tail: Some(0), ..Query::default() });
    assert_eq!(rest(&mut reader).await.outputs, []);
    put(&house.log, Stdout, "n\n");
    assert!(soon(reader.grown()).await);
    assert_eq!(text(rest(&mut reader).await.outputs), "n\n");
}

#[tokio::test]
async fn the_tail_goes_over_both_files() {
    let house = house(8192);
    for i in 0..1000 {
        print(&house.log, Stdout, format!("line {i:04}\n").as_bytes()).await;
    }
    let kept = all(&house.log).await;
    let count = kept.lines().count();
    assert_eq!(lock(&house.log.ring).generations().count(), 2);
    for lines in [1, 2, count / 2, count - 1, count, count + 1] {
        let query = Query { tail: Some(lines), ..Query::default() };
        let tail = text(outputs(&house.log, query).await);
        assert_eq!(tail.lines().count(), lines.min(count));
        assert!(kept.ends_with(&tail));
    }
}

#[tokio::test]
async fn times_are_filtered_record_by_record() {
    let house = house(PLENTY);
    // As after a clock that was set back.
    let records = "30 1 1 2 0\nc\n\n10 1 1 2 2\na\n\n20 1 2 2 4\nb\n\n40 1 1 2 6\nd\n\n";
    std::fs::write(house.directory.path().join("1-1.log"), records).unwrap();
    let house = house.again(PLENTY);
    let times = |since: Option<u64>, until: Option<u64>| Query {
        since: since.map(LogTime),
        until: until.map(LogTime),
        ..Query::default()
    };
    for (query, expected) in [
        (times(Some(20), None), "c\nb\nd\n"),
        (times(None, Some(20)), "a\nb\n"),
        (times(Some(20), Some(30)), "c\nb\n"),
        (times(Some(41), None), ""),
        (Query { tail: Some(1), ..times(None, Some(30)) }, "b\n"),
        (Query { stream: Some(Stdout), ..times(Some(11), None) }, "c\nd\n"),
    ] {
        assert_eq!(text(outputs(&house.log, query).await), expected);
    }
}

#[tokio::test]
async fn a_follower_with_an_end_in_time_ends_then() {
    let house = house(PLENTY);
    put(&house.log, Stdout, "before\n");
    let until = LogTime(clock::now_in_nanos().0 + 50_000_000);
    let mut reader = house.log.reader(Query { until: Some(until), ..Query::default() });
    let mut got = text(rest(&mut reader).await.outputs);
    put(&house.log, Stdout, "also\n");
    soon(async {
        while reader.grown().await {
            got += &text(rest(&mut reader).await.outputs);
            // However much is printed from now on.
            put(&house.log, Stderr, "more and more\n");
        }
    })
    .await;
    assert!(clock::now_in_nanos() >= until);
    assert!(got.starts_with("before\nalso\n") && !soon(reader.grown()).await);
    let past = Query { until: Some(LogTime(1)), ..Query::default() };
    let mut reader = house.log.reader(past);
    while soon(reader.grown()).await {
        assert_eq!(rest(&mut reader).await.outputs, []);
    }
}

#[tokio::test]
async fn a_follower_that_is_overtaken_counts_what_it_missed() {
    let house = house(4096);
    let mut reader = house.log.reader(Query::default());
    let (mut printed, mut seen, mut dropped) = (0, 0, 0);
    for burst in [100, 3000, 10, 50_000, 4000, 200_000, 1] {
        let line = "x".repeat(burst % 97) + "\n";
        for _ in 0..burst / line.len() + 1 {
            print(&house.log, Stdout, line.as_bytes()).await;
            printed += line.len() as u64;
        }
        let read = soon(reader.next()).await.unwrap();
        dropped += read.dropped;
        seen += bytes(read.outputs).len() as u64;
    }
    house.log.over();
    while soon(reader.grown()).await {
        let read = rest(&mut reader).await;
        dropped += read.dropped;
        seen += bytes(read.outputs).len() as u64;
    }
    assert_eq!(seen + dropped, printed);
    assert!(dropped > 0 && seen > 4096, "{dropped} {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_a_guest_at_the_same_time() {
    let house = house(64 * 1024);
    let readers: Vec<_> = (0..8)
        .map(|i| {
            let mut reader = house.log.reader(Query { tail: (i % 2 == 0).then_some(0), ..Query::default() });
            async move {
                let (mut sum, mut text) = (0, vec![]);
                while reader.grown().await {
                    let read = rest(&mut reader).await;
                    if read.dropped > 0 {
                        text.clear();
                    }
                    sum += read.dropped;
                    let new = bytes(read.outputs);
                    sum += new.len() as u64;
                    text.extend(new);
                }
                (sum, text)
            }
        })
        .collect();
    let tracker = tokio_util::task::TaskTracker::new();
    let readers: Vec<_> = readers.into_iter().map(|reader| tracker.spawn(reader)).collect();
    let line = "a line that is printed again and again\n";
    soon(async {
        for _ in 0..50_000 {
            print(&house.log, Stdout, line.as_bytes()).await;
        }
    })
    .await;
    house.log.over();
    for reader in readers {
        let (sum, text) = soon(reader).await.unwrap();
        assert!(sum <= 50_000 * line.len() as u64);
        assert!(text.ends_with(line.as_bytes()), "the end is never what is missed");
    }
}

#[tokio::test]
async fn a_round_ends_although_the_guest_prints_on() {
    let house = house(PLENTY);
    let mut reader = house.log.reader(Query::default());
    let mut rounds = 0;
    print(&house.log, Stdout, &vec![b'x'; 300_000]).await;
    while !soon(reader.next()).await.unwrap().outputs.is_empty() {
        // Faster than it reads.
        print(&house.log, Stdout, &vec![b'x'; 300_000]).await;
        rounds += 1;
    }
    assert!((4..8).contains(&rounds), "{rounds}");
}

#[tokio::test]
async fn a_follower_goes_on_over_runs_and_ends_when_no_more_comes() {
    let house = house(PLENTY);
    let mut reader = house.log.reader(Query::default());
    put(&house.log, Stdout, "first\n");
    assert!(soon(reader.grown()).await);
    assert_eq!(text(rest(&mut reader).await.outputs), "first\n");
    house.log.end_run(1);
    assert!(nothing_for_a_while(reader.grown()).await, "there may be a restart");
    house.log.begin(2, false);
    put(&house.log, Stdout, "second\n");
    house.log.end_run(2);
    house.log.over();
    // What was printed last was not in the file yet.
    assert!(soon(reader.grown()).await);
    assert_eq!(text(rest(&mut reader).await.outputs), "second\n");
    assert!(!soon(reader.grown()).await);
    house.log.begin(3, false);
    put(&house.log, Stdout, "third\n");
    assert!(soon(reader.grown()).await, "it is live again");
    assert_eq!(text(rest(&mut reader).await.outputs), "third\n");
}

#[tokio::test]
async fn a_follower_of_an_empty_log_waits_and_one_of_an_ended_log_does_not() {
    let house = house(PLENTY);
    let mut reader = house.log.reader(Query::default());
    assert!(nothing_for_a_while(reader.grown()).await, "nothing was printed");
    put(&house.log, Stdout, "x");
    let house = house.again(PLENTY);
    let mut reader = house.log.reader(Query::default());
    assert!(soon(reader.grown()).await, "there is something to read");
    assert_eq!(text(rest(&mut reader).await.outputs), "x");
    assert!(!soon(reader.grown()).await, "no run is on its way");
}

/// What a reader that gives up in between was about to get, the next one gets.
#[tokio::test]
async fn a_read_can_be_given_up_at_any_moment() {
    let house = house(PLENTY);
    let mut reader = house.log.reader(Query { tail: Some(2000), ..Query::default() });
    let expected: String = (0..3000).map(|i| format!("line {i:04}\n")).collect();
    print(&house.log, Stdout, expected.as_bytes()).await;
    let mut got = String::new();
    soon(async {
        for patience in 0_u64.. {
            let wait = async {
                for _ in 0..patience {
                    tokio::task::yield_now().await;
                }
                // Longer and longer, or on a busy machine it would never come to an end.
                tokio::time::sleep(Duration::from_millis(patience / 20)).await;
            };
            tokio::select! {
                biased;
                read = reader.next() => match text(read.unwrap().outputs) {
                    text if text.is_empty() => break,
                    text => got += &text,
                },
                () = wait => {}
            }
        }
    })
    .await;
    assert_eq!(got, expected[expected.len() - 2000 * 10..]);
}
