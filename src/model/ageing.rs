//! Whether what is old may go. Age is a matter of the wall clock, which may be set to anything at any moment: one step of a
//! year forward, and all that ended is old. So it is held against a clock that nobody sets.

use crate::model::instance::Timestamp;
use std::time::Duration;

/// How far the wall clock may part from the steady one between two looks. Summer time does not move it, and whoever
/// corrects it by more gets a pause that harms nobody.
pub const JUMP_MAX: Duration = Duration::from_secs(3600);

/// How long nothing goes by age after that: time for whoever set the clock to set it right.
pub const PAUSE: Duration = Duration::from_secs(24 * 3600);

/// What both clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since some moment that stays the same while this daemon lives, with what the machine slept.
    pub steady: Duration,
}

/// What a look at the clocks comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Age can be believed.
    Goes,
    /// The wall clock has just jumped: a pause begins, or begins anew.
    Jumped(Jump),
    /// A pause goes on.
    Paused,
}

/// A step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// Whether it made things older.
    pub forward: bool,
    /// How far.
    pub by: Duration,
}

/// The last look, and how long to pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ageing {
    last: Option<Clocks>,
    /// By the steady clock.
    pause_ends: Option<Duration>,
}

impl Ageing {
    /// Looks at the clocks. The first look, which has nothing to hold them against, believes them.
    pub fn look(&mut self, now: Clocks) -> Verdict {
        let jump = self.last.and_then(|last| jump(last, now));
        self.last = Some(now);
        if let Some(jump) = jump {
            self.pause_ends = Some(now.steady.saturating_add(PAUSE));
            return Verdict::Jumped(jump);
        }
        match self.pause_ends {
            Some(end) if now.steady < end => Verdict::Paused,
            _ => {
                self.pause_ends = None;
                Verdict::Goes
            }
        }
    }
}

/// By how much the wall clock parted from the steady one between two looks, if that is more than [`JUMP_MAX`].
pub fn jump(last: Clocks, now: Clocks) -> Option<Jump> {
    let micros = |n: u128| i128::try_from(n).unwrap_or(i128::MAX);
    let passed = micros(now.steady.saturating_sub(last.steady).as_micros());
    let parted = micros(now.wall.0.into()) - micros(last.wall.0.into()) - passed;
    let by = Duration::from_micros(u64::try_from(parted.unsigned_abs()).unwrap_or(u64::MAX));
    (by > JUMP_MAX).then_some(Jump { forward: parted > 0, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const YEAR: u64 = 365 * 24 * HOUR;

    fn clocks(wall_seconds: u64, steady_seconds: u64) -> Clocks {
        Clocks { wall: Timestamp(wall_seconds * 1_000_000), steady: Duration::from_secs(steady_seconds) }
    }

    #[test]
    fn a_jump_is_told_from_time_that_passed() {
        let last = clocks(10 * YEAR, 100);
        for (wall, steady) in [(0, 0), (60, 60), (HOUR, 0), (0, HOUR), (YEAR, YEAR), (YEAR + HOUR, YEAR), (9, 0)] {
            assert_eq!(jump(last, clocks(10 * YEAR + wall, 100 + steady)), None, "{wall} {steady}");
        }
        let forward = |by| Some(Jump { forward: true, by: Duration::from_secs(by) });
        let back = |by| Some(Jump { forward: false, by: Duration::from_secs(by) });
        assert_eq!(jump(last, clocks(10 * YEAR + HOUR + 1, 100)), forward(HOUR + 1));
        assert_eq!(jump(last, clocks(11 * YEAR + 60, 160)), forward(YEAR));
        assert_eq!(jump(last, clocks(10 * YEAR - HOUR - 1, 100)), back(HOUR + 1));
        assert_eq!(jump(last, clocks(10 * YEAR, 100 + HOUR + 1)), back(HOUR + 1), "it stood still");
        assert_eq!(jump(last, clocks(0, 160)), back(10 * YEAR + 60));
        let end = Clocks { wall: Timestamp(u64::MAX), steady: Duration::MAX };
        assert!(jump(clocks(0, 0), end).is_some() && jump(end, clocks(0, 0)).is_some(), "no numbers break it");
    }

    #[test]
    fn after_a_jump_nothing_goes_by_age_for_a_day() {
        let day = 24 * HOUR;
        for (to, forward) in [(20 * YEAR, true), (YEAR, false)] {
            let mut ageing = Ageing::default();
            assert_eq!(ageing.look(clocks(10 * YEAR, 0)), Verdict::Goes);
            assert_eq!(ageing.look(clocks(10 * YEAR + 60, 60)), Verdict::Goes);
            let Verdict::Jumped(jump) = ageing.look(clocks(to + 120, 120)) else { panic!("{to}") };
            assert_eq!(jump.forward, forward);
            for passed in [0, 1, HOUR, day - 1] {
                assert_eq!(ageing.look(clocks(to + 120 + passed, 120 + passed)), Verdict::Paused, "{passed}");
            }
            assert_eq!(ageing.look(clocks(to + 120 + day, 120 + day)), Verdict::Goes);
            assert_eq!(ageing.look(clocks(to + 180 + day, 180 + day)), Verdict::Goes);
        }
    }

    #[test]
    fn a_clock_that_is_set_right_begins_the_pause_anew() {
        let mut ageing = Ageing::default();
        ageing.look(clocks(10 * YEAR, 0));
        assert!(matches!(ageing.look(clocks(11 * YEAR, 0)), Verdict::Jumped(Jump { forward: true, .. })));
        let corrected = clocks(10 * YEAR + 20 * HOUR, 20 * HOUR);
        assert!(matches!(ageing.look(corrected), Verdict::Jumped(Jump { forward: false, .. })));
        assert_eq!(ageing.look(clocks(10 * YEAR + 30 * HOUR, 30 * HOUR)), Verdict::Paused);
        assert_eq!(ageing.look(clocks(10 * YEAR + 44 * HOUR, 44 * HOUR)), Verdict::Goes);
    }
}
