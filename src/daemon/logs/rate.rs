//! How much of what an instance prints is kept: so many bytes a second, and as many at once. Time is an argument.

use std::time::{Duration, Instant};

/// Once something was cut, this part of all there is has to come back before more is kept: pieces that can be read, with
/// gaps between them, and not some bytes of each line.
const COMES_BACK: u128 = 10;
const SECOND: u128 = Duration::from_secs(1).as_nanos();

/// Fills up with time. The default keeps nothing.
#[derive(Debug, Default)]
pub(super) struct Rate {
    bytes_per_second: u128,
    /// Bytes that may come at once, in billionths: what comes back in a nanosecond is less than one of them.
    left: u128,
    at: Option<Instant>,
    cut: bool,
}

impl Rate {
    /// So many bytes a second, of which none came yet.
    pub(super) fn new(bytes_per_second: usize) -> Rate {
        let bytes_per_second = bytes_per_second as u128;
        Rate { bytes_per_second, left: bytes_per_second.saturating_mul(SECOND), at: None, cut: false }
    }

    /// How many of `wanted` bytes are kept.
    pub(super) fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let full = self.bytes_per_second.saturating_mul(SECOND);
        let passed = self.at.map_or(0, |at| now.saturating_duration_since(at).as_nanos());
        // Never back: what passed once does not pass again.
        self.at = self.at.max(Some(now));
        self.left = full.min(self.left.saturating_add(passed.saturating_mul(self.bytes_per_second)));
        if self.cut && self.left < full / COMES_BACK {
            return 0;
        }
        let kept = usize::try_from(self.left / SECOND).unwrap_or(usize::MAX).min(wanted);
        self.left -= kept as u128 * SECOND;
        self.cut = kept < wanted;
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn later(begin: Instant, milliseconds: u64) -> Instant {
        begin + Duration::from_millis(milliseconds)
    }

    #[test]
    fn as_much_as_a_second_brings_may_come_at_once_and_no_byte_more() {
        let begin = Instant::now();
        let mut rate = Rate::new(1000);
        assert_eq!(rate.take(999, begin), 999);
        assert_eq!(rate.take(1, begin), 1, "just the limit");
        assert_eq!(rate.take(1, begin), 0, "one more");
        let mut rate = Rate::new(1000);
        assert_eq!(rate.take(1001, begin), 1000, "what fits of it");
        let mut rate = Rate::new(1000);
        assert_eq!(rate.take(0, begin), 0);
        assert_eq!(rate.take(5000, later(begin, 3_600_000)), 1000, "nobody saves for more");
    }

    #[test]
    fn it_comes_back_with_time() {
        let begin = Instant::now();
        let mut rate = Rate::new(1000);
        assert_eq!(rate.take(1000, begin), 1000);
        assert_eq!(rate.take(40, later(begin, 40)), 40, "at the rate itself nothing is cut");
        assert_eq!(rate.take(41, later(begin, 80)), 40);
        // What was cut once is cut until there is room for something that can be read.
        assert_eq!(rate.take(1, later(begin, 179)), 0);
        assert_eq!(rate.take(1, later(begin, 180)), 1);
        assert_eq!(rate.take(200, later(begin, 180)), 99);
        // A clock that stands still, or steps back, brings nothing twice.
        assert_eq!(rate.take(1, begin), 0);
        assert_eq!(rate.take(100, later(begin, 279)), 0);
        assert_eq!(rate.take(100, later(begin, 280)), 100);
    }

    #[test]
    fn the_largest_rate_is_none() {
        let begin = Instant::now();
        let mut rate = Rate::new(usize::MAX);
        for passed in 0..1000 {
            assert_eq!(rate.take(usize::MAX / 2000, later(begin, passed)), usize::MAX / 2000);
        }
        assert_eq!(Rate::default().take(1, begin), 0);
    }

    proptest! {
        /// Whatever is printed when: never more than at once and what the time brought.
        #[test]
        fn the_sum_stays_within_the_rate(per_second in 1usize..5000, prints in prop::collection::vec((0u64..500, 0usize..3000), 0..60)) {
            let begin = Instant::now();
            let (mut rate, mut passed, mut kept) = (Rate::new(per_second), 0, 0);
            for (pause, wanted) in prints {
                passed += pause;
                let now = rate.take(wanted, later(begin, passed));
                prop_assert!(now <= wanted);
                kept += now as u64;
                prop_assert!(kept * 1000 <= per_second as u64 * (1000 + passed));
            }
        }
    }
}
