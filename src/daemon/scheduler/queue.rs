//! Who is next: the pure half of the scheduler. No thread, no clock: time and used CPU time are arguments.
//!
//! Every guest has a **credit** of CPU time, which it begins with and earns back while it waits for something. There are four
//! places for a guest that could run, served in this order:
//!
//! ```text
//! urgent   asked to end, or ended: what is left to do is short                      first come, first served
//! express  has credit: new, or mostly waiting                                       most credit first
//! fair     has none: it computes                                                    least virtual runtime first
//! held     has used what its --cpus allows in this window; served when that is over
//! ```
//!
//! *Virtual runtime* is CPU time divided by weight, as in Linux's CFS: equal weights get equal time, 1:3 gives 1:3. Alone it
//! is not enough. A thousand endless loops on two cores leave each 2 ms in a second, so that a guest that wakes a hundred
//! times a second for 50 µs would already be over its share, and late by a whole round. The credit is what lets it go first:
//! whoever waits nine tenths of its time never runs out of it. It is what a new `hello` lives on, too.
//!
//! Nobody starves: while the express lane is busy, each fourth turn goes to those whom it passes by, in turns the first of the
//! fair lane and the last of the express lane. The least runtime never passes by anybody for long, and who is served last in
//! the express lane soon has no credit and leaves it. What was used there is not charged to the runtime, or a guest that was
//! quick for a minute would wait for as long once it computes.
//!
//! Multi-level feedback, by all time ever used, was the alternative: it needs no credit, but it has no weights, and a service
//! that has been answering quickly for a day would be on the level of a loop.

use crate::model::instance::Share;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Nanoseconds on a monotonic clock, or of CPU time.
pub(super) type Nanos = u64;

/// CPU time that a new guest may use before it has to share with those that compute, at the default weight.
const CREDIT_MAX: Nanos = 20_000_000;
/// A guest that has spent so much of its credit is not quick: whoever serves only the quick leaves it to the others. Several
/// times what a short run takes, and so little that a crowd of newcomers that compute is soon through with it.
const QUICK_MAX: Nanos = 2_000_000;
/// How much longer a guest has to wait than what it earns by it.
const EARNS_ONE_IN: Nanos = 10;
/// Turns of the express lane's first in a row, before one for those that it passes by.
const EXPRESS_STREAK_MAX: u32 = 3;
/// The window that `--cpus` is counted over, as long as the kernel's (cgroups(7), `cpu.max`).
pub(super) const WINDOW: Nanos = 100_000_000;
/// A guest with credit interrupts another one that has used so much more of it.
const LEAD: Nanos = 1_000_000;

/// One guest, as the queue knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// CPU time that it may use in one window.
fn quota(share: Share) -> Option<Nanos> {
    share.cpus_milli.map(|milli| (WINDOW / 1000 * u64::from(milli)).max(1))
}

/// CPU time as it counts for one of this weight.
fn weighted(share: Share, cpu: Nanos) -> Nanos {
    let weighted = u128::from(cpu) * u128::from(Share::WEIGHT_DEFAULT) / u128::from(share.weight.max(1));
    u64::try_from(weighted).unwrap_or(u64::MAX)
}

fn is_quick(lane: Lane, order: Nanos) -> bool {
    lane == Lane::Urgent || lane == Lane::Express && order < QUICK_MAX
}

/// Where a guest that could run waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Urgent,
    Express,
    Fair,
    Held,
}

/// Which lanes somebody serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Serves {
    All,
    /// All but the first of those that are quick: somebody has been woken for it.
    AllButOne,
    /// Only what is urgent, or has spent next to nothing.
    Quick,
}

#[derive(Debug)]
struct Guest<T> {
    share: Share,
    /// What it has used of its credit, by its weight.
    spent: Nanos,
    runtime: Nanos,
    urgent: bool,
    /// CPU time above the quotas of past windows, with that of the present one; and which one that is.
    owed: Nanos,
    window: u64,
    at: At,
    /// What is handed out when its turn comes.
    ready: Option<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Waiting for something else than a processor.
    Away { since: Nanos },
    /// In its turn.
    Running { lane: Lane },
    /// In a lane, under this order and number.
    Waiting { lane: Lane, order: Nanos, number: u64 },
}

/// The guests, and who of them is next.
#[derive(Debug)]
pub(super) struct RunQueue<T> {
    guests: HashMap<Key, Guest<T>>,
    /// By lane, then by what orders it, then by arrival.
    waiting: BTreeSet<(Lane, Nanos, u64, Key)>,
    /// How many wait in each lane.
    lengths: BTreeMap<Lane, usize>,
    /// The runtime that newcomers begin with: the least that was served last. Never goes back.
    floor: Nanos,
    streak: u32,
    /// Whose the next of the fourth turns is.
    fair_next: bool,
    arrivals: u64,
    /// Who is in its turn.
    running: BTreeSet<Key>,
}

/// What the arrival of a guest means for those who serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) lane: Lane,
    /// Whether everybody serves it.
    pub(super) quick: bool,
    /// Whether somebody who computes now should be interrupted for it if nobody is free.
    pub(super) interrupts: bool,
}

impl<T> Default for RunQueue<T> {
    fn default() -> RunQueue<T> {
        RunQueue {
            guests: HashMap::new(),
            waiting: BTreeSet::new(),
            lengths: BTreeMap::new(),
            floor: 0,
            streak: 0,
            fair_next: true,
            arrivals: 0,
            running: BTreeSet::new(),
        }
    }
}

impl<T> RunQueue<T> {
    /// Makes a guest known; it is away.
    pub(super) fn add(&mut self, key: Key, now: Nanos) {
        let guest = Guest {
            share: Share::default(),
            spent: 0,
            runtime: self.floor,
            urgent: false,
            owed: 0,
            window: now / WINDOW,
            at: At::Away { since: now },
            ready: None,
        };
        let before = self.guests.insert(key, guest);
        assert!(before.is_none(), "a key is used once");
    }

    /// Forgets a guest. What was to be handed out for it is returned.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.take_out(key);
        self.running.remove(&key);
        self.guests.remove(&key).and_then(|guest| guest.ready)
    }

    /// From now on it is held to this, and no longer urgent.
    pub(super) fn set_share(&mut self, key: Key, share: Share) {
        if let Some(guest) = self.guests.get_mut(&key) {
            guest.share = share;
            guest.urgent = false;
        }
    }

    /// It could run: `ready` is handed out when its turn comes. `None`: it is in its turn, and is looked at when that is over;
    /// or it is not known (any more), and `ready` is dropped.
    pub(super) fn ready(&mut self, key: Key, ready: T, now: Nanos) -> Option<Arrival> {
        let guest = self.guests.get_mut(&key)?;
        guest.ready = Some(ready);
        match guest.at {
            At::Away { since } => {
                let earned = weighted(guest.share, now.saturating_sub(since)) / EARNS_ONE_IN;
                guest.spent = guest.spent.saturating_sub(earned);
            }
            At::Running { .. } => return None,
            At::Waiting { .. } => unreachable!("it is handed out before it is ready again"),
        }
        Some(self.arrive(key, now))
    }

    /// Its turn is over; it has used `cpu`. Whoever is ready again goes back into a lane.
    pub(super) fn turn_over(&mut self, key: Key, cpu: Nanos, now: Nanos) -> Option<Arrival> {
        let guest = self.guests.get_mut(&key)?;
        let At::Running { lane } = guest.at else { unreachable!("only who has a turn ends it") };
        let weighted = weighted(guest.share, cpu);
        match lane {
            Lane::Fair => guest.runtime = guest.runtime.saturating_add(weighted),
            // It may go beyond the credit, by a turn; that has to be earned back.
            Lane::Urgent | Lane::Express | Lane::Held => guest.spent = guest.spent.saturating_add(weighted),
        }
        guest.owed = guest.owed.saturating_add(cpu);
        self.running.remove(&key);
        guest.at = At::Away { since: now };
        guest.ready.is_some().then(|| self.arrive(key, now))
    }

    /// Whatever it waits for or has used, it is next. `None`: it does not wait for a turn; it will go first when it does.
    pub(super) fn hurry(&mut self, key: Key) -> Option<Arrival> {
        let guest = self.guests.get_mut(&key)?;
        guest.urgent = true;
        if !matches!(guest.at, At::Waiting { lane: Lane::Express | Lane::Fair | Lane::Held, .. }) {
            return None;
        }
        self.take_out(key);
        Some(self.put_in(key, Lane::Urgent, 0))
    }

    /// Who has the next turn.
    pub(super) fn pick(&mut self, serves: Serves, now: Nanos) -> Option<(Key, T)> {
        self.release(now);
        if serves == Serves::AllButOne && self.next() == Some(true) {
            // The first is left to the one that serves nobody else; the one behind it may be in the same lane.
            let first = *self.waiting.first().expect("somebody is next");
            self.take_aside(first);
            let picked = self.pick(Serves::All, now);
            self.put_back(first);
            return picked;
        }
        let has = |lane| self.lengths.get(&lane).copied().unwrap_or_default() > 0;
        let all = serves != Serves::Quick;
        let passed_by = all && self.streak >= EXPRESS_STREAK_MAX;
        if !all && self.next() != Some(true) {
            return None;
        }
        let (lane, last) = if has(Lane::Urgent) {
            (Lane::Urgent, false)
        } else if has(Lane::Express) && !passed_by {
            (Lane::Express, false)
        } else if has(Lane::Fair) && all && (self.fair_next || !has(Lane::Express)) {
            (Lane::Fair, false)
        } else if has(Lane::Express) {
            (Lane::Express, true)
        } else {
            return None;
        };
        let mut of_lane = self.waiting.range((lane, 0, 0, Key(0))..=(lane, Nanos::MAX, u64::MAX, Key(u64::MAX)));
        let next = if last { of_lane.next_back() } else { of_lane.next() };
        let &(_, order, _, key) = next.expect("its length is not 0");
        self.take_out(key);
        match lane {
            Lane::Express if last => (self.streak, self.fair_next) = (0, true),
            Lane::Express => self.streak += u32::from(all),
            Lane::Fair => {
                (self.streak, self.fair_next) = (0, false);
                self.floor = self.floor.max(order);
            }
            Lane::Urgent | Lane::Held => {}
        }
        self.running.insert(key);
        let guest = self.guests.get_mut(&key).expect("who waits is known");
        guest.at = At::Running { lane };
        Some((key, guest.ready.take().expect("who waits is ready")))
    }

    /// When somebody who is held may go on.
    pub(super) fn next_release(&self) -> Option<Nanos> {
        self.waiting.range((Lane::Held, 0, 0, Key(0))..).next().map(|&(_, at, ..)| at)
    }

    /// Whether somebody waits who is not held, and if so, whether the first of them is quick.
    pub(super) fn next(&self) -> Option<bool> {
        let &(lane, order, ..) = self.waiting.first()?;
        (lane != Lane::Held).then(|| is_quick(lane, order))
    }

    /// How many know of a turn to come, whether held or not.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn release(&mut self, now: Nanos) {
        while let Some(&(_, at, _, key)) = self.waiting.range((Lane::Held, 0, 0, Key(0))..).next()
            && at <= now
        {
            self.take_out(key);
            self.arrive(key, now);
        }
    }

    fn arrive(&mut self, key: Key, now: Nanos) -> Arrival {
        let floor = self.floor;
        let guest = self.guests.get_mut(&key).expect("who arrives is known");
        let (lane, order) = if guest.urgent {
            (Lane::Urgent, 0)
        } else if let Some(until) = guest.held_until(now) {
            (Lane::Held, until)
        } else if guest.spent < CREDIT_MAX {
            (Lane::Express, guest.spent)
        } else {
            guest.runtime = guest.runtime.max(floor);
            (Lane::Fair, guest.runtime)
        };
        self.put_in(key, lane, order)
    }

    fn put_in(&mut self, key: Key, lane: Lane, order: Nanos) -> Arrival {
        self.arrivals += 1;
        let number = self.arrivals;
        let guest = self.guests.get_mut(&key).expect("who arrives is known");
        guest.at = At::Waiting { lane, order, number };
        let spent = guest.spent;
        self.put_back((lane, order, number, key));
        let interrupts = self.running.iter().filter_map(|other| self.guests.get(other)).any(|other| match other.at {
            At::Running { lane: Lane::Fair } => lane <= Lane::Express,
            At::Running { lane: Lane::Express } => {
                lane == Lane::Urgent || lane == Lane::Express && spent.saturating_add(LEAD) <= other.spent
            }
            _ => false,
        });
        Arrival { lane, quick: is_quick(lane, order), interrupts }
    }

    fn take_aside(&mut self, place: (Lane, Nanos, u64, Key)) {
        self.waiting.remove(&place);
        *self.lengths.get_mut(&place.0).expect("it was counted") -= 1;
    }

    fn put_back(&mut self, place: (Lane, Nanos, u64, Key)) {
        self.waiting.insert(place);
        *self.lengths.entry(place.0).or_default() += 1;
    }

    fn take_out(&mut self, key: Key) {
        let Some(guest) = self.guests.get_mut(&key) else { return };
        let At::Waiting { lane, order, number } = guest.at else { return };
        guest.at = At::Away { since: 0 };
        self.take_aside((lane, order, number, key));
    }
}

impl<T> Guest<T> {
    /// The time until which it has used up its quota, if it has.
    fn held_until(&mut self, now: Nanos) -> Option<Nanos> {
        let window = now / WINDOW;
        let Some(quota) = quota(self.share) else {
            (self.owed, self.window) = (0, window);
            return None;
        };
        // What a past window left over is gone; what was used too much is taken from the next ones.
        self.owed = self.owed.saturating_sub(quota.saturating_mul(window.saturating_sub(self.window)));
        self.window = window;
        let windows = self.owed / quota;
        (windows > 0).then(|| window.saturating_add(windows).saturating_mul(WINDOW))
    }
}

#[cfg(test)]
mod tests;
