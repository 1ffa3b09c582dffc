//! The queue against what it promises: by cases, and by any sequence of events on a clock of its own.

use super::*;
use proptest::prelude::*;

const MS: Nanos = 1_000_000;
const TICK: Nanos = 5 * MS;

/// Processors and guests on a made-up clock: whoever has a turn computes for a tick, or as long as it wants to.
struct Simulation {
    queue: RunQueue<()>,
    now: Nanos,
    cpus: usize,
    used: HashMap<Key, Nanos>,
    turns: Vec<Key>,
}

impl Simulation {
    fn new(cpus: usize) -> Simulation {
        Simulation { queue: RunQueue::default(), now: 0, cpus, used: HashMap::new(), turns: vec![] }
    }

    fn spinner(&mut self, key: u64, share: Share) {
        let key = Key(key);
        self.queue.add(key, self.now);
        self.queue.set_share(key, share);
        self.queue.ready(key, (), self.now);
        self.used.insert(key, 0);
    }

    /// One tick on every processor; all who have a turn compute and go on, for `turn` of their time.
    fn tick(&mut self, turn: impl Fn(Key) -> Nanos) {
        let picked: Vec<Key> =
            (0..self.cpus).filter_map(|_| self.queue.pick(Serves::All, self.now)).map(|(key, ())| key).collect();
        self.now += TICK;
        for key in picked {
            let cpu = turn(key);
            *self.used.get_mut(&key).unwrap() += cpu;
            self.turns.push(key);
            // It yields: ready again before its turn is over.
            assert_eq!(self.queue.ready(key, (), self.now), None);
            self.queue.turn_over(key, cpu, self.now).unwrap();
        }
    }

    fn run(&mut self, time: Nanos) {
        let until = self.now + time;
        while self.now < until {
            self.tick(|_| TICK);
        }
    }

    fn used_in(&mut self, time: Nanos) -> HashMap<Key, Nanos> {
        let before = self.used.clone();
        self.run(time);
        self.used.iter().map(|(key, used)| (*key, used - before[key])).collect()
    }
}

fn weight(weight: u32) -> Share {
    Share { weight, cpus_milli: None }
}

#[test]
fn equal_weights_get_equal_time_and_others_theirs() {
    let mut sim = Simulation::new(2);
    (0..200).for_each(|key| sim.spinner(key, Share::default()));
    // The credits of all are used up in five seconds.
    sim.run(6_000 * MS);
    let used = sim.used_in(30_000 * MS);
    let (least, most) = (used.values().min().unwrap(), used.values().max().unwrap());
    assert!(most - least <= 2 * TICK, "{least} to {most}");

    let mut sim = Simulation::new(2);
    (0..10).for_each(|key| sim.spinner(key, weight(100)));
    (10..20).for_each(|key| sim.spinner(key, weight(300)));
    sim.run(2_000 * MS);
    let used = sim.used_in(30_000 * MS);
    let sum = |range: std::ops::Range<u64>| range.map(|key| used[&Key(key)]).sum::<Nanos>();
    let ratio = sum(10..20) * 1000 / sum(0..10);
    assert!((2_970..=3_030).contains(&ratio), "{ratio}");
}

#[test]
fn a_newcomer_goes_before_a_thousand_that_compute_and_interrupts_them() {
    let mut sim = Simulation::new(2);
    (0..1000).for_each(|key| sim.spinner(key, Share::default()));
    // While they have credit, and when it is long used up.
    for (newcomer, time) in [(5000, 4_000 * MS), (5001, 60_000 * MS)] {
        sim.run(time);
        let busy = sim.queue.pick(Serves::All, sim.now).unwrap().0;
        sim.queue.add(Key(newcomer), sim.now);
        let arrival = sim.queue.ready(Key(newcomer), (), sim.now).unwrap();
        assert_eq!(arrival, Arrival { lane: Lane::Express, quick: true, interrupts: true });
        let turns: Vec<Key> = (0..2).map(|_| sim.queue.pick(Serves::All, sim.now).unwrap().0).collect();
        assert!(turns.contains(&Key(newcomer)), "it is among the next two: {turns:?}");
        for key in turns.into_iter().chain([busy]).filter(|key| key.0 < 1000) {
            sim.queue.ready(key, (), sim.now);
            sim.queue.turn_over(key, 0, sim.now);
        }
    }
}

#[test]
fn who_mostly_waits_goes_first_for_ever_and_who_computes_does_not() {
    let mut sim = Simulation::new(2);
    (0..1000).for_each(|key| sim.spinner(key, Share::default()));
    sim.run(60_000 * MS);
    let sleeper = Key(7777);
    sim.queue.add(sleeper, sim.now);
    // Ten minutes of 50 µs every 10 ms: thirty seconds of a processor, where a fair share would be 1.2.
    for _ in 0..60_000 {
        let arrival = sim.queue.ready(sleeper, (), sim.now).unwrap();
        assert_eq!(arrival.lane, Lane::Express);
        let (next, ()) = sim.queue.pick(Serves::Quick, sim.now).unwrap();
        assert_eq!(next, sleeper);
        sim.queue.turn_over(sleeper, 50_000, sim.now);
        sim.now += 10 * MS;
    }
    // One that computes half of its time is not quick any more.
    let lanes: Vec<Lane> = (0..100)
        .map(|_| {
            let lane = sim.queue.ready(sleeper, (), sim.now).unwrap().lane;
            while sim.queue.pick(Serves::All, sim.now).unwrap().0 != sleeper {}
            sim.queue.turn_over(sleeper, 5 * MS, sim.now);
            sim.now += 5 * MS;
            lane
        })
        .collect();
    assert_eq!((lanes[0], lanes[99]), (Lane::Express, Lane::Fair));
}

#[test]
fn cpus_hold_a_guest_to_its_part_over_each_minute_and_waste_nothing() {
    for milli in [10, 250, 500, 999] {
        let mut sim = Simulation::new(2);
        sim.spinner(1, Share { weight: Share::WEIGHT_DEFAULT, cpus_milli: Some(milli) });
        sim.spinner(2, Share::default());
        let used = sim.used_in(60_000 * MS);
        let allowed = 60 * MS * u64::from(milli);
        assert!(used[&Key(1)].abs_diff(allowed) <= 2 * TICK, "{milli}: {} of {allowed}", used[&Key(1)]);
        assert_eq!(used[&Key(2)], 60_000 * MS, "the other one has a processor of its own");
    }
}

#[test]
fn what_a_window_leaves_over_is_not_saved_up() {
    let mut sim = Simulation::new(1);
    sim.spinner(1, Share { weight: Share::WEIGHT_DEFAULT, cpus_milli: Some(500) });
    // It sleeps for ten seconds, then computes.
    sim.tick(|_| 0);
    sim.now += 10_000 * MS;
    assert!(sim.used_in(1_000 * MS)[&Key(1)] <= 500 * MS + 2 * TICK);
}

#[test]
fn who_is_asked_to_end_is_next_wherever_it_waits() {
    let mut sim = Simulation::new(1);
    (0..100).for_each(|key| sim.spinner(key, Share::default()));
    sim.spinner(200, Share { weight: 1, cpus_milli: Some(10) });
    sim.run(20_000 * MS);
    sim.spinner(300, Share::default());
    for key in [50, 200, 99] {
        // One of them is held.
        assert_eq!(sim.queue.hurry(Key(key)).unwrap().lane, Lane::Urgent);
        assert_eq!(sim.queue.hurry(Key(key)), None, "once is enough");
    }
    for key in [50, 200, 99, 50, 200, 99] {
        assert_eq!(sim.queue.pick(Serves::Quick, sim.now).unwrap().0, Key(key));
        // In its turn it is ready again, and goes before the others again; held to nothing.
        sim.queue.ready(Key(key), (), sim.now);
        assert_eq!(sim.queue.turn_over(Key(key), 50 * MS, sim.now).unwrap().lane, Lane::Urgent);
    }
    for key in [50, 200, 99] {
        assert_eq!(sim.queue.remove(Key(key)), Some(()));
    }
    assert_eq!(sim.queue.pick(Serves::All, sim.now).unwrap().0, Key(300));
    assert_eq!(sim.queue.hurry(Key(50)), None, "it is gone");
}

#[test]
fn one_that_is_told_to_end_while_it_is_away_goes_first_when_it_comes() {
    let mut queue = RunQueue::default();
    queue.add(Key(1), 0);
    assert_eq!(queue.hurry(Key(1)), None);
    assert_eq!(queue.ready(Key(1), (), 0).unwrap().lane, Lane::Urgent);
    queue.pick(Serves::All, 0).unwrap();
    queue.turn_over(Key(1), 0, 0);
    // The next run begins.
    queue.set_share(Key(1), Share::default());
    assert_eq!(queue.ready(Key(1), (), 0).unwrap().lane, Lane::Express);
}

#[test]
fn a_flood_of_newcomers_starves_nobody() {
    let mut sim = Simulation::new(1);
    sim.spinner(1, Share::default());
    sim.run(100 * MS);
    // One that has little credit left, and one that has none.
    sim.spinner(2, Share::default());
    sim.tick(|key| if key == Key(2) { 15 * MS } else { TICK });
    let mut missing = vec![Key(1), Key(2)];
    for newcomer in 100..200 {
        sim.queue.add(Key(newcomer), sim.now);
        sim.queue.ready(Key(newcomer), (), sim.now);
        let (next, ()) = sim.queue.pick(Serves::All, sim.now).unwrap();
        missing.retain(|key| *key != next);
        sim.queue.ready(next, (), sim.now);
        sim.queue.turn_over(next, MS, sim.now);
        sim.now += MS;
    }
    assert_eq!(missing, [], "a hundred newcomers passed by");
}

/// What can happen to a queue.
#[derive(Debug, Clone)]
enum Step {
    Add,
    Ready(usize),
    Pick(bool),
    Over(usize, Nanos),
    Hurry(usize),
    Share(usize, u32, Option<u32>),
    Remove(usize),
    Later(Nanos),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Add),
        6 => (0..8usize).prop_map(Step::Ready),
        6 => any::<bool>().prop_map(Step::Pick),
        6 => (0..8usize, 0..200 * MS).prop_map(|(key, cpu)| Step::Over(key, cpu)),
        1 => (0..8usize).prop_map(Step::Hurry),
        1 => (0..8usize, 1..10_000u32, proptest::option::of(10..2000u32)).prop_map(|(k, w, c)| Step::Share(k, w, c)),
        1 => (0..8usize).prop_map(Step::Remove),
        3 => (0..300 * MS).prop_map(Step::Later),
    ];
    proptest::collection::vec(step, 1..200)
}

/// What a naive reader remembers of each guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Away,
    Waiting,
    Running { ready: bool },
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: who is ready waits exactly once, who has a turn does not wait, nobody is invented or lost, and whoever
    /// serves everything finds somebody unless all who wait are held.
    #[test]
    fn a_turn_is_given_to_who_is_ready_and_to_nobody_else(steps in steps()) {
        let mut queue = RunQueue::default();
        let mut model: Vec<(Key, Model)> = vec![];
        let (mut now, mut next) = (0, 0);
        for step in steps {
            match step {
                Step::Add => {
                    queue.add(Key(next), now);
                    model.push((Key(next), Model::Away));
                    next += 1;
                }
                Step::Later(time) => now += time,
                Step::Pick(all) => {
                    let serves = if all { Serves::All } else { Serves::Quick };
                    match queue.pick(serves, now) {
                        Some((key, of)) => {
                            prop_assert_eq!(key, of);
                            let known = model.iter_mut().find(|(k, _)| *k == key).unwrap();
                            prop_assert_eq!(known.1, Model::Waiting);
                            known.1 = Model::Running { ready: false };
                        }
                        None if all => {
                            let waiting = model.iter().filter(|(_, m)| *m == Model::Waiting).count();
                            let held = queue.waiting.iter().filter(|(lane, at, ..)| *lane == Lane::Held && *at > now).count();
                            prop_assert_eq!(waiting, held);
                            prop_assert_eq!(held > 0, queue.next_release().is_some());
                        }
                        None => {}
                    }
                }
                Step::Ready(i) | Step::Over(i, _) | Step::Hurry(i) | Step::Share(i, ..) | Step::Remove(i) => {
                    let Some((key, known)) = model.get_mut(i) else { continue };
                    let key = *key;
                    match (step, *known) {
                        (Step::Ready(_), Model::Away) => {
                            prop_assert!(queue.ready(key, key, now).is_some());
                            *known = Model::Waiting;
                        }
                        (Step::Ready(_), Model::Running { ready: false }) => {
                            prop_assert!(queue.ready(key, key, now).is_none());
                            *known = Model::Running { ready: true };
                        }
                        (Step::Over(_, cpu), Model::Running { ready }) => {
                            prop_assert_eq!(queue.turn_over(key, cpu, now).is_some(), ready);
                            *known = if ready { Model::Waiting } else { Model::Away };
                        }
                        (Step::Hurry(_), _) => {
                            queue.hurry(key);
                        }
                        (Step::Share(_, weight, cpus_milli), _) => queue.set_share(key, Share { weight, cpus_milli }),
                        (Step::Remove(_), _) => {
                            let ready = matches!(*known, Model::Waiting | Model::Running { ready: true });
                            prop_assert_eq!(queue.remove(key).is_some(), ready);
                            model.remove(i);
                        }
                        _ => {}
                    }
                }
            }
            let waiting = model.iter().filter(|(_, m)| *m == Model::Waiting).count();
            prop_assert_eq!(queue.len(), waiting);
            prop_assert_eq!(queue.lengths.values().sum::<usize>(), waiting);
            prop_assert_eq!(queue.guests.len(), model.len());
            let running = model.iter().filter(|(_, m)| matches!(m, Model::Running { .. })).count();
            prop_assert_eq!(queue.running.len(), running);
        }
    }

    /// Spinning guests of any weights get what their weights say, to within a few turns.
    #[test]
    fn shares_follow_weights(weights in proptest::collection::vec(20..1000u32, 2..12)) {
        let mut sim = Simulation::new(1);
        weights.iter().enumerate().for_each(|(key, w)| sim.spinner(key as u64, weight(*w)));
        sim.run(20_000 * MS);
        let used = sim.used_in(60_000 * MS);
        let all: u64 = weights.iter().copied().map(u64::from).sum();
        for (key, w) in weights.iter().enumerate() {
            let due = 60_000 * MS * u64::from(*w) / all;
            let got = used[&Key(key as u64)];
            prop_assert!(got.abs_diff(due) <= 3 * TICK, "{key} of {weights:?}: {got} for {due}");
        }
    }
}
