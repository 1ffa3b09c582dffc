//! The state machine against a naive model, and case by case.

use super::*;
use crate::model::instance::Share;
use crate::model::restart::RestartPolicy;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_000_000);

pub(crate) fn name(s: &str) -> Name {
    s.parse().unwrap()
}

pub(crate) fn launch(module: &str) -> Arc<Launch> {
    launch_with(module, RestartPolicy::No)
}

fn launch_with(module: &str, restart: RestartPolicy) -> Arc<Launch> {
    Arc::new(Launch {
        module: name(module),
        digest: "00".repeat(32),
        argv0: None,
        args: vec![],
        env: vec![],
        mounts: vec![],
        directory: format!("/tmp/{module}"),
        memory_bytes_max: 1 << 20,
        cpu_time_ms: None,
        share: Share::default(),
        disk_bytes_max: 1 << 20,
        files_max: 10,
        timeout_ms: None,
        restart,
        remove: false,
        fresh: false,
        labels: Default::default(),
        pinned: false,
    })
}

/// A created instance, for tests elsewhere.
pub(crate) fn record(n: &str, labels: &[&str]) -> Record {
    let mut registry = Registry::default();
    let labels: Vec<String> = labels.iter().map(|l| (*l).to_owned()).collect();
    let labels = crate::model::filter::parse_labels(&labels).unwrap();
    let launch = Arc::new(Launch { labels, ..Launch::clone(&launch(n)) });
    let event = registry.decide_run(&name(n), launch, 1, NOW).unwrap();
    registry.apply(&event);
    registry.get(&name(n)).unwrap().clone()
}

const FIVE: fn() -> Duration = || Duration::from_millis(5);

fn exited(code: u8) -> Ended {
    Ended::new(ExitStatus::Exited(code), "exit", None)
}

fn run(registry: &mut Registry, n: &str) -> InstanceId {
    let event = registry.decide_run(&name(n), launch(n), 100, NOW).unwrap();
    registry.apply(&event);
    event.id
}

fn end(registry: &mut Registry, id: InstanceId) {
    // A clock that runs backwards.
    let at = Timestamp(2 * NOW.0 - registry.ended_next);
    let event = registry.ended(id, exited(0), false, FIVE, at);
    registry.apply(&event);
}

/// Whoever subtracts two times of a run gets no negative one.
#[test]
fn a_clock_that_goes_back_lets_no_run_end_before_it_began() {
    let mut registry = Registry::default();
    for status in [exited(0), Ended::new(ExitStatus::Failed, "no-module", None)] {
        let event = registry.decide_run(&name("a"), launch("a"), 100, Timestamp(9_000)).unwrap();
        registry.apply(&event);
        if status.status == ExitStatus::Exited(0) {
            let event = registry.started(event.id, Timestamp(5_000));
            registry.apply(&event);
        }
        let ended = registry.ended(event.id, status, false, FIVE, Timestamp(7));
        assert_eq!(ended.at, Timestamp(9_000), "the event and the record say the same");
        registry.apply(&ended);
        let record = registry.get(&name("a")).unwrap();
        assert!(record.started_at.is_none_or(|at| at >= record.created_at));
        assert_eq!(record.ended_at, Some(Timestamp(9_000)));
    }
    // The next run begins by the clock as it is now.
    let event = registry.decide_run(&name("a"), launch("a"), 100, Timestamp(8)).unwrap();
    assert_eq!(event.at, Timestamp(8));
}

#[test]
fn a_name_lives_once_and_ignores_case() {
    let mut registry = Registry::default();
    let id = run(&mut registry, "web");
    assert!(matches!(registry.check_run(&name("web"), 100, 0), Err(Error::Exists(_))));
    assert!(matches!(registry.check_run(&name("WEB"), 100, 0), Err(Error::ExistsOtherCase { .. })));
    assert!(matches!(registry.get(&name("WEB")), Err(Error::NotFound(_))));
    end(&mut registry, id);
    assert!(matches!(registry.check_run(&name("Web"), 100, 0), Err(Error::ExistsOtherCase { .. })));
    assert_eq!(run(&mut registry, "web"), id, "a new run of the same instance");
    assert_eq!(registry.get(&name("web")).unwrap().run, 2);
}

#[test]
fn a_run_during_a_stop_is_busy() {
    let mut registry = Registry::default();
    run(&mut registry, "web");
    let event = registry.decide_stop(&name("web"), NOW).unwrap().unwrap();
    registry.apply(&event);
    assert!(matches!(registry.check_run(&name("web"), 100, 0), Err(Error::Stopping(_))));
    assert_eq!(registry.decide_stop(&name("web"), NOW).unwrap(), None, "the second stop is the same stop");
}

#[test]
fn the_limit_counts_live_instances_only() {
    let mut registry = Registry::default();
    let a = run(&mut registry, "a");
    assert!(registry.check_run(&name("b"), 2, 0).is_ok());
    run(&mut registry, "b");
    assert!(matches!(registry.check_run(&name("c"), 2, 0), Err(Error::Limit { .. })));
    end(&mut registry, a);
    assert!(registry.check_run(&name("c"), 2, 0).is_ok());
}

#[test]
fn what_is_on_its_way_counts_as_alive() {
    let mut registry = Registry::default();
    assert!(registry.is_empty());
    run(&mut registry, "a");
    assert!(!registry.is_empty());
    assert!(registry.check_run(&name("b"), 4, 2).is_ok());
    assert!(matches!(registry.check_run(&name("b"), 4, 3), Err(Error::Limit { .. })));
}

#[test]
fn numbers_go_on_after_a_restart() {
    let mut registry = Registry::default();
    for n in ["a", "b"] {
        let id = run(&mut registry, n);
        end(&mut registry, id);
    }
    let mut next = Registry::restore(registry.records().cloned().collect());
    assert_eq!(run(&mut next, "c"), InstanceId(2));
    end(&mut next, InstanceId(2));
    let orders: Vec<_> = next.records().map(|r| r.ended_order).collect();
    assert_eq!(orders, [Some(0), Some(1), Some(2)]);
    next.reserve_ids(9);
    assert_eq!(run(&mut next, "d"), InstanceId(9));
    next.reserve_ids(3);
    assert_eq!(run(&mut next, "e"), InstanceId(10), "never backwards");
}

#[test]
fn pruning_takes_the_oldest_ends_and_never_the_living() {
    let mut registry = Registry::default();
    run(&mut registry, "alive");
    for n in ["a", "b", "c"] {
        let id = run(&mut registry, n);
        end(&mut registry, id);
    }
    let gone = registry.decide_prune(1, Timestamp(0), NOW, 1);
    assert_eq!(gone.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a"], "no more than it was asked for");
    for event in registry.decide_prune(1, Timestamp(0), NOW, 100) {
        registry.apply(&event);
    }
    let left: Vec<_> = registry.records().map(|r| r.name.as_str()).collect();
    assert_eq!(left, ["alive", "c"]);
}

#[test]
fn pruning_by_age_stops_at_the_first_young_end() {
    let mut registry = Registry::default();
    for (i, n) in ["a", "b", "c"].into_iter().enumerate() {
        let id = run(&mut registry, n);
        let event = registry.ended(id, exited(0), false, FIVE, Timestamp(NOW.0 + i as u64));
        registry.apply(&event);
    }
    let gone = registry.decide_prune(100, Timestamp(NOW.0 + 2), NOW, 100);
    assert_eq!(gone.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

fn run_with(registry: &mut Registry, n: &str, policy: &str) -> InstanceId {
    let event = registry.decide_run(&name(n), launch_with(n, policy.parse().unwrap()), 100, NOW).unwrap();
    registry.apply(&event);
    event.id
}

fn failed(reason: &str) -> Ended {
    Ended::new(ExitStatus::Exited(1), reason, None)
}

fn ends(registry: &mut Registry, id: InstanceId, ended: Ended, restart: bool) -> EventKind {
    let event = registry.ended(id, ended, restart, FIVE, NOW);
    registry.apply(&event);
    event.kind
}

#[test]
fn a_policy_runs_it_again_until_its_count_is_reached() {
    let mut registry = Registry::default();
    let id = run_with(&mut registry, "job", "on-failure:2");
    for restarts in 1..=2 {
        let again = EventKind::Restarting { ended: failed("exit"), restarts, delay_ms: 5 };
        assert_eq!(ends(&mut registry, id, failed("exit"), false), again);
        assert!(matches!(registry.check_run(&name("job"), 100, 0), Err(Error::Exists(_))), "the name is taken");
        let event = registry.next_run(id, launch("job"), NOW);
        registry
            .apply(&Event { kind: EventKind::Created(launch_with("job", "on-failure:2".parse().unwrap())), ..event });
    }
    assert_eq!(ends(&mut registry, id, failed("exit"), false), EventKind::Ended(failed("exit")));
    let record = registry.get(&name("job")).unwrap();
    assert_eq!((record.run, record.restarts, registry.live()), (3, 2, 0));
    run_with(&mut registry, "job", "on-failure:2");
    assert_eq!(registry.get(&name("job")).unwrap().restarts, 0, "an operator's run counts anew");
}

#[test]
fn an_operators_stop_is_never_taken_for_a_failure() {
    let mut registry = Registry::default();
    for policy in ["always", "unless-stopped", "on-failure"] {
        let id = run_with(&mut registry, policy.split('-').next().unwrap(), policy);
        let stop = registry.decide_stop(&registry.by_id(id).unwrap().name.clone(), NOW).unwrap().unwrap();
        registry.apply(&stop);
        assert!(matches!(ends(&mut registry, id, failed("exit"), true), EventKind::Ended(_)), "{policy}");
    }
}

#[test]
fn a_pause_that_is_cancelled_ends_as_the_last_run_did() {
    let mut registry = Registry::default();
    let id = run_with(&mut registry, "web", "always");
    ends(&mut registry, id, failed("exit"), false);
    let event = registry.restart_cancelled(id, NOW);
    registry.apply(&event);
    assert_eq!(registry.get(&name("web")).unwrap().state, State::Ended(failed("exit")));
    assert_eq!(registry.decide_prune(0, Timestamp(0), NOW, usize::MAX).len(), 1);
}

/// A stop that was on its way when the daemon died: whatever it was of, the next life of `always` is not held to it.
#[test]
fn a_stop_that_was_on_its_way_is_forgotten_by_always_and_by_no_other() {
    for (policy, pausing, comes) in [
        ("always", false, true),
        ("always", true, true),
        ("unless-stopped", false, false),
        ("unless-stopped", true, false),
        ("on-failure", true, false),
    ] {
        let mut registry = Registry::default();
        let id = run_with(&mut registry, "web", policy);
        if pausing {
            ends(&mut registry, id, failed("exit"), false);
        }
        let stop = registry.decide_stop(&name("web"), NOW).unwrap().unwrap();
        registry.apply(&stop);
        let mut next = Registry::restore(registry.records().cloned().collect());
        for event in next.decide_recovery(NOW) {
            next.apply(&event);
        }
        let record = next.get(&name("web")).unwrap();
        assert_eq!((record.state.is_live(), record.stop_requested), (comes, !comes), "{policy} {pausing}");
    }
}

/// docker's table: what comes back after which life.
#[test]
fn what_comes_back_with_the_daemon() {
    for (policy, alive, stopped, failed_before, shut_down) in [
        ("no", false, false, false, false),
        ("on-failure", true, false, false, true),
        ("unless-stopped", true, false, true, true),
        ("always", true, true, true, true),
    ] {
        let mut registry = Registry::default();
        let alive_id = run_with(&mut registry, "alive", policy);
        let event = registry.started(alive_id, NOW);
        registry.apply(&event);
        let stopped_id = run_with(&mut registry, "stopped", policy);
        let stop = registry.decide_stop(&name("stopped"), NOW).unwrap().unwrap();
        registry.apply(&stop);
        ends(&mut registry, stopped_id, Ended { status: ExitStatus::Stopped, ..failed("stop") }, false);
        // A pause that was cut short is the only way for these policies to end by themselves.
        let failed_id = run_with(&mut registry, "failed", policy);
        if let EventKind::Restarting { .. } = ends(&mut registry, failed_id, failed("exit"), false) {
            let event = registry.restart_cancelled(failed_id, NOW);
            registry.apply(&event);
        }
        let shut_id = run_with(&mut registry, "shut-down", policy);
        ends(&mut registry, shut_id, Ended { status: ExitStatus::Stopped, ..failed(SHUTDOWN) }, false);

        let mut next = Registry::restore(registry.records().cloned().collect());
        for event in next.decide_recovery(NOW) {
            next.apply(&event);
        }
        let comes = |n: &str| next.get(&name(n)).unwrap().state.is_live();
        let all = (comes("alive"), comes("stopped"), comes("failed"), comes("shut-down"));
        assert_eq!(all, (alive, stopped, failed_before, shut_down), "{policy}");
        let record = next.get(&name("alive")).unwrap();
        let ended = record.state.ended().unwrap();
        assert_eq!((ended.status, ended.reason.as_str()), (ExitStatus::Lost, "daemon-restart"));
        assert_eq!(next.live(), next.records().filter(|r| r.state.is_live()).count());
        assert_eq!(next.decide_recovery(NOW).len(), 0, "what was recovered needs no more recovery: {policy}");
    }
}

#[derive(Debug, Clone)]
enum Op {
    Run(usize),
    Start(usize),
    Stop(usize),
    End(usize),
    Remove(usize),
    EndAgain(usize),
    Next(usize),
    Cancel(usize),
}

proptest! {
    /// Against a model that a child could check: a map from name to (runs, live, started, stopping), and who is between
    /// two runs.
    #[test]
    fn the_registry_agrees_with_a_naive_model(ops in prop::collection::vec((0usize..8, 0usize..6), 0..120)) {
        let names: Vec<Name> = (0..6).map(|i| name(&format!("n{i}"))).collect();
        let mut registry = Registry::default();
        let mut model: BTreeMap<usize, (u32, bool, bool, bool)> = BTreeMap::new();
        let mut between = std::collections::BTreeSet::new();
        let ops = ops.into_iter().map(|(op, i)| match op {
            0 => Op::Run(i), 1 => Op::Start(i), 2 => Op::Stop(i), 3 => Op::End(i), 4 => Op::Remove(i),
            5 => Op::EndAgain(i), 6 => Op::Next(i), _ => Op::Cancel(i),
        });
        for op in ops {
            match op {
                Op::Run(i) => {
                    let live = model.values().filter(|m| m.1).count();
                    let known = model.get(&i).copied();
                    let result = registry.decide_run(&names[i], launch("m"), 4, NOW);
                    let allowed = known.is_none_or(|m| !m.1) && live < 4;
                    prop_assert_eq!(result.is_ok(), allowed);
                    if let Ok(event) = result {
                        registry.apply(&event);
                        model.insert(i, (known.map_or(0, |m| m.0) + 1, true, false, false));
                    }
                }
                Op::Start(i) => if let Some(m) = model.get_mut(&i) && m.1 && !m.2 && !between.contains(&i) {
                    let event = registry.started(registry.get(&names[i]).unwrap().id, NOW);
                    registry.apply(&event);
                    m.2 = true;
                },
                Op::Stop(i) => match (registry.decide_stop(&names[i], NOW), model.get_mut(&i)) {
                    (Ok(Some(event)), Some(m)) => {
                        prop_assert!(m.1 && !m.3);
                        registry.apply(&event);
                        m.3 = true;
                    }
                    (Ok(None), Some(m)) => prop_assert!(!m.1 || m.3),
                    (Err(Error::NotFound(_)), None) => {}
                    other => prop_assert!(false, "{:?}", other),
                },
                Op::End(i) | Op::EndAgain(i) => if let Some(m) = model.get_mut(&i) && m.1 && !between.contains(&i) {
                    let again = matches!(op, Op::EndAgain(_));
                    let event = registry.ended(registry.get(&names[i]).unwrap().id, exited(3), again, FIVE, NOW);
                    registry.apply(&event);
                    if again && !m.3 {
                        between.insert(i);
                    } else {
                        m.1 = false;
                    }
                },
                Op::Next(i) => if between.remove(&i) {
                    let event = registry.next_run(registry.get(&names[i]).unwrap().id, launch("m"), NOW);
                    registry.apply(&event);
                    model.insert(i, (model[&i].0 + 1, true, false, false));
                },
                Op::Cancel(i) => if between.remove(&i) {
                    let event = registry.restart_cancelled(registry.get(&names[i]).unwrap().id, NOW);
                    registry.apply(&event);
                    model.get_mut(&i).unwrap().1 = false;
                },
                Op::Remove(i) => match (registry.decide_remove(&names[i], NOW), model.get(&i).copied()) {
                    (Ok(event), Some(m)) => {
                        prop_assert!(!m.1);
                        registry.apply(&event);
                        model.remove(&i);
                    }
                    (Err(Error::StillRunning(_)), Some(m)) => prop_assert!(m.1),
                    (Err(Error::NotFound(_)), None) => {}
                    other => prop_assert!(false, "{:?}", other),
                },
            }
            prop_assert_eq!(registry.live(), model.values().filter(|m| m.1).count());
            prop_assert_eq!(registry.len(), model.len());
            prop_assert_eq!(registry.decide_prune(0, Timestamp(0), NOW, usize::MAX).len(), model.values().filter(|m| !m.1).count());
            for (i, m) in &model {
                let record = registry.get(&names[*i]).unwrap();
                prop_assert_eq!((record.run, record.state.is_live(), record.stop_requested), (m.0, m.1, m.3));
                prop_assert_eq!(record.started_at.is_some(), m.2);
                prop_assert_eq!(matches!(record.state, State::Restarting(_)), between.contains(i));
            }
            let again = Registry::restore(registry.records().cloned().collect());
            prop_assert!(again.records().eq(registry.records()) && again.live() == registry.live());
        }
    }
}
