//! The table.

use super::say;
use std::time::Duration;

/// What the project wants of a stop: of 99 in a hundred, unless the guest is within a long step that nothing can interrupt,
/// and of each.
const GOAL_P99: Duration = Duration::from_millis(20);
const GOAL_WORST: Duration = Duration::from_secs(1);

/// What was done, to how many instances at a time, and how long it took.
pub struct Row {
    pub kind: &'static str,
    pub alive: usize,
    pub how: &'static str,
    /// Its guests are within long steps.
    pub bulk: bool,
    times: Vec<Duration>,
    busy: Duration,
}

impl Row {
    pub fn new(kind: &'static str, alive: usize, how: &'static str, bulk: bool) -> Row {
        Row { kind, alive, how, bulk, times: vec![], busy: Duration::ZERO }
    }

    /// A round: how long each stop took, and how long the daemon was busy behind them.
    pub fn add(&mut self, (times, busy): (Vec<Duration>, Duration)) {
        self.times.extend(times);
        self.busy = self.busy.max(busy);
    }

    pub fn stops(&self) -> usize {
        self.times.len()
    }
}

#[derive(Default)]
pub struct Report {
    met: usize,
    missed: usize,
}

impl Report {
    pub fn begin(&self) {
        say("milliseconds from request to reply, and at most until the daemon rested behind the last reply");
        say(&format!(
            "{:<15} {:>5} {:<8} {:>5} {:>8} {:>8} {:>8} {:>8}  goal",
            "kind", "alive", "stopped", "stops", "p50", "p99", "worst", "rested"
        ));
    }

    pub fn show(&mut self, mut row: Row) {
        row.times.sort();
        // Nearest rank. Where all connections were closed there is no time.
        let percentile = |p: usize| {
            let rank = (row.times.len() * p).div_ceil(100).max(1);
            row.times.get(rank - 1).copied().unwrap_or_default()
        };
        let (p50, p99, worst) = (percentile(50), percentile(99), percentile(100));
        let goal = match (row.bulk || p99 <= GOAL_P99, worst <= GOAL_WORST) {
            (true, true) => "met",
            (false, true) => "missed: p99",
            (_, false) => "missed: worst",
        };
        let count = if goal == "met" { &mut self.met } else { &mut self.missed };
        *count += 1;
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
        say(&format!(
            "{:<15} {:>5} {:<8} {:>5} {:>8} {:>8} {:>8} {:>8}  {goal}",
            row.kind,
            row.alive,
            row.how,
            row.times.len(),
            ms(p50),
            ms(p99),
            ms(worst),
            ms(row.busy)
        ));
    }

    pub fn end(&self) {
        say(&format!(
            "goal of p99 ≤ {GOAL_P99:?} (but for long steps) and worst ≤ {GOAL_WORST:?}: met {}, missed {}",
            self.met, self.missed
        ));
    }
}
