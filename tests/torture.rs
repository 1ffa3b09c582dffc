//! `stop`, for every state of a guest: how long it takes from request to reply, and that nothing of the guest is left then.
//!
//! The real binary runs some instances of a kind ([`kinds`]); each is stopped from outside and looked for ([`round`]). Then
//! stops meet the daemon's own end ([`shutdown`]). Each row of the table that is printed has at least as many stops as the
//! largest round.
//!
//! `CORACLE_TORTURE_EACH` says how many instances there are at a time, `1,8` by default and `1,100` for the whole truth;
//! `CORACLE_TORTURE_KINDS` says which rows are wanted, by the beginnings of their names (`memory,table,shutdown`). Times are
//! printed and held against the goal, but fail nothing: a machine that tests is a busy one. What else is asserted is not a
//! matter of time.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that meets what cannot be fails, as it should")]
#![expect(unreachable_pub, reason = "one binary of modules; there is no outside")]

#[path = "torture/daemon.rs"]
mod daemon;
#[path = "torture/kinds.rs"]
mod kinds;
#[path = "torture/report.rs"]
mod report;
#[path = "torture/round.rs"]
mod round;
#[path = "torture/shutdown.rs"]
mod shutdown;

use daemon::Daemon;
use kinds::KINDS;
use report::{Report, Row};
use round::{How, Round};
use shutdown::Told;
use std::io::Write;
use std::time::Duration;

/// Descriptors that a daemon may have more after everything than before: those of its database and logs come and go, and each
/// module in memory, of 32 at most, has its file.
const DESCRIPTORS_SLACK: usize = 8 + 32;

/// Past the capture of the test's output, so that a person sees it.
fn say(what: &str) {
    let _printed = writeln!(std::io::stderr(), "torture: {what}");
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_every_guest_whatever_it_does() {
    let each = variable("CORACLE_TORTURE_EACH", "1,8");
    let each: Vec<usize> = each.split(',').map(|n| n.trim().parse().unwrap()).filter(|n| *n > 0).collect();
    let largest = *each.iter().max().unwrap();
    let wanted = variable("CORACLE_TORTURE_KINDS", "");
    let is_wanted = |name: &str| wanted.split(',').any(|beginning| name.starts_with(beginning));
    let mut report = Report::default();
    report.begin();

    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::spawn(directory.path(), largest);
    let (descriptors, mut rounds) = (daemon.descriptors(), 0);
    for kind in KINDS.iter().filter(|kind| is_wanted(kind.name)) {
        for &instances in &each {
            // Many clients stop one instance after the other, and alone there is no other.
            let both = instances > 1 && kind.clients == 1;
            for how in [How::InTurn, How::AtOnce].into_iter().take(1 + usize::from(both)) {
                let mut row = Row::new(kind.name, instances, how.as_str(), kind.bulk);
                while row.stops() < largest {
                    row.add(Round::new(&daemon, kind, how, instances, rounds).run().await);
                    rounds += 1;
                }
                report.show(row);
            }
        }
    }
    daemon.quiet(Duration::from_millis(200), "everything", || ()).await;
    assert!(
        daemon.descriptors() <= descriptors + DESCRIPTORS_SLACK,
        "{} open, {descriptors} before",
        daemon.descriptors()
    );
    daemon.terminate();
    daemon.ended().await;

    for &instances in each.iter().filter(|_| is_wanted("shutdown")) {
        let mut row = Row::new("shutdown", instances, How::AtOnce.as_str(), false);
        for told in [Told::BySignal, Told::ByVerb].into_iter().cycle().take((largest / instances).clamp(2, 8)) {
            row.add(shutdown::round(directory.path(), instances, told).await);
        }
        report.show(row);
    }
    report.end();
}
