//! The registry: every instance and its newest run, as a state machine over [`Event`]s.
//!
//! `decide_*` looks and answers with the event that would happen, or with the reason why not; [`Registry::apply`] makes it so.
//! Time and limits are arguments. Our own invariants are asserted, in release too: a broken registry must not go on.

use crate::error::{Error, Result};
use crate::model::event::{Event, EventKind};
use crate::model::instance::{Ended, ExitStatus, InstanceId, Launch, Record, State, Timestamp};
use crate::model::name::Name;
use crate::model::restart::SHUTDOWN;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Every known instance, in order of creation.
#[derive(Debug, Default)]
pub struct Registry {
    records: BTreeMap<InstanceId, Record>,
    /// Folded name to id: names are unique ignoring case.
    by_name: HashMap<String, InstanceId>,
    live: usize,
    id_next: u64,
    /// Ended records in the order of their ends, which no clock that is set back can change.
    ended: BTreeMap<u64, InstanceId>,
    ended_next: u64,
}

impl Registry {
    /// The registry that these records describe, in the order of their ids.
    ///
    /// # Panics
    ///
    /// If they contradict each other; whoever reads them from a disk has checked them.
    pub fn restore(records: Vec<Record>) -> Registry {
        let mut registry = Registry::default();
        for record in records {
            let id = record.id;
            assert!(id.0 >= registry.id_next, "records come in the order of their ids");
            registry.id_next = id.0 + 1;
            let taken = registry.by_name.insert(record.name.folded(), id);
            assert!(taken.is_none(), "two instances named '{}'", record.name);
            assert!(record.ended_order.is_some() != record.state.is_live());
            match record.ended_order {
                Some(order) => {
                    let taken = registry.ended.insert(order, id);
                    assert!(taken.is_none(), "two ends in one place");
                    registry.ended_next = registry.ended_next.max(order + 1);
                }
                None => registry.live += 1,
            }
            registry.records.insert(id, record);
        }
        registry
    }

    /// Ids are never used twice, also those of instances that are gone.
    pub fn reserve_ids(&mut self, next: u64) {
        self.id_next = self.id_next.max(next);
    }

    /// What a daemon does first about what an earlier one left: whatever was alive then is lost, what has a policy runs
    /// again, and what was to go with its end goes.
    pub fn decide_recovery(&self, at: Timestamp) -> Vec<Event> {
        let lost = || Ended {
            status: ExitStatus::Lost,
            reason: "daemon-restart".to_owned(),
            message: Some("the daemon ended while it was alive".to_owned()),
        };
        let mut events = vec![];
        for record in self.records.values() {
            let comes_back = record.launch.restart.comes_back(record);
            let mut happens = |kind| events.push(Event::of(record, at, kind));
            match &record.state {
                State::Created | State::Running if comes_back => {
                    happens(EventKind::Restarting { ended: lost(), restarts: record.restarts, delay_ms: 0 });
                }
                State::Created | State::Running => happens(EventKind::Ended(lost())),
                State::Restarting(_) if comes_back => {}
                State::Restarting(_) => happens(EventKind::RestartCancelled),
                State::Ended(_) if comes_back => happens(EventKind::Resumed),
                State::Ended(_) => {}
            }
        }
        events
    }

    /// All records in order of creation.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.values()
    }

    /// How many are not over.
    pub fn live(&self) -> usize {
        self.live
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record with exactly this name.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn get(&self, name: &Name) -> Result<&Record> {
        self.find(name).filter(|r| r.name == *name).ok_or_else(|| Error::NotFound(name.to_string()))
    }

    fn find(&self, name: &Name) -> Option<&Record> {
        let id = self.by_name.get(&name.folded())?;
        Some(self.records.get(id).expect("by_name only holds ids of records"))
    }

    /// May `name` be run now? Cheap, so that a module is not compiled for a run that would be refused anyway.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], [`Error::Stopping`] or [`Error::ExistsOtherCase`]; [`Error::Limit`] at `live_max` live instances,
    /// with the `starting` that are on their way.
    pub fn check_run(&self, name: &Name, live_max: usize, starting: usize) -> Result<()> {
        if let Some(record) = self.find(name) {
            if record.name != *name {
                return Err(Error::ExistsOtherCase { asked: name.clone(), known: record.name.clone() });
            }
            if record.state.is_live() {
                return Err(if record.stop_requested {
                    Error::Stopping(name.clone())
                } else {
                    Error::Exists(name.clone())
                });
            }
        }
        if self.live + starting >= live_max {
            return Err(Error::Limit { what: "live instances", limit: live_max.to_string(), name: "--instances" });
        }
        Ok(())
    }

    /// A new run of `name`.
    ///
    /// # Errors
    ///
    /// As [`Registry::check_run`].
    pub fn decide_run(&self, name: &Name, launch: Arc<Launch>, live_max: usize, at: Timestamp) -> Result<Event> {
        self.check_run(name, live_max, 0)?;
        let (id, run) = match self.find(name) {
            Some(record) => (record.id, record.run.checked_add(1).expect("fewer than 2^32 runs of a name")),
            None => (InstanceId(self.id_next), 1),
        };
        Ok(Event { id, name: name.clone(), run, at, kind: EventKind::Created(launch) })
    }

    /// An operator wants `name` to end. `None`: it has ended already, or was asked before; that is the same stop.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn decide_stop(&self, name: &Name, at: Timestamp) -> Result<Option<Event>> {
        let record = self.get(name)?;
        let wanted = record.state.is_live() && !record.stop_requested;
        Ok(wanted.then(|| Event::of(record, at, EventKind::StopRequested)))
    }

    /// Forget `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::StillRunning`].
    pub fn decide_remove(&self, name: &Name, at: Timestamp) -> Result<Event> {
        let record = self.get(name)?;
        if record.state.is_live() {
            return Err(Error::StillRunning(name.clone()));
        }
        Ok(Event::of(record, at, EventKind::Removed))
    }

    /// Guest code of `id` was entered.
    pub fn started(&self, id: InstanceId, at: Timestamp) -> Event {
        Event::of(self.live_record(id), at, EventKind::Started)
    }

    /// The run of `id` is over. What an operator asked for stands before the policy: nothing follows a stop, and a `restart`
    /// follows at once. Otherwise `pause` says how long the policy waits before the next run.
    pub fn ended(
        &self,
        id: InstanceId,
        ended: Ended,
        restart: bool,
        pause: impl FnOnce() -> Duration,
        at: Timestamp,
    ) -> Event {
        let record = self.live_record(id);
        let kind = if record.stop_requested || ended.reason == SHUTDOWN {
            EventKind::Ended(ended)
        } else if restart {
            EventKind::Restarting { ended, restarts: record.restarts, delay_ms: 0 }
        } else if record.launch.restart.runs_again(ended.status, record.restarts) {
            let delay_ms = u64::try_from(pause().as_millis()).unwrap_or(u64::MAX);
            EventKind::Restarting { ended, restarts: record.restarts.saturating_add(1), delay_ms }
        } else {
            EventKind::Ended(ended)
        };
        Event::of(record, at, kind)
    }

    /// The run that was to follow the last one of `id` does not.
    pub fn restart_cancelled(&self, id: InstanceId, at: Timestamp) -> Event {
        Event::of(self.live_record(id), at, EventKind::RestartCancelled)
    }

    /// The next run of an instance that is between two runs.
    pub fn next_run(&self, id: InstanceId, launch: Arc<Launch>, at: Timestamp) -> Event {
        let record = self.live_record(id);
        let run = record.run.checked_add(1).expect("fewer than 2^32 runs of a name");
        Event { id, name: record.name.clone(), run, at, kind: EventKind::Created(launch) }
    }

    /// The record of an instance that may be gone.
    pub fn by_id(&self, id: InstanceId) -> Option<&Record> {
        self.records.get(&id)
    }

    fn live_record(&self, id: InstanceId) -> &Record {
        let record = self.records.get(&id).expect("a live instance has a record");
        assert!(record.state.is_live(), "the run of '{}' ended twice", record.name);
        record
    }

    /// Removals that bring the number of ended records down to `ended_max`, and of those that ended before `ended_before`;
    /// oldest end first.
    pub fn decide_prune(&self, ended_max: usize, ended_before: Timestamp, at: Timestamp) -> Vec<Event> {
        let surplus = self.ended.len().saturating_sub(ended_max);
        let records = self.ended.values().map(|id| self.records.get(id).expect("what ended has a record"));
        let old = |record: &Record| record.ended_at.is_some_and(|ended| ended < ended_before);
        let gone = records.enumerate().take_while(|(i, record)| *i < surplus || old(record));
        gone.map(|(_, record)| Event::of(record, at, EventKind::Removed)).collect()
    }

    /// Makes an event so.
    ///
    /// # Panics
    ///
    /// If the event does not follow from the registry's state: an invariant of ours is broken.
    pub fn apply(&mut self, event: &Event) {
        let Event { id, name, run, at, kind } = event;
        match kind {
            EventKind::Created(launch) => {
                let restarts = self.records.get(id).filter(|r| r.state.is_live()).map_or(0, |r| r.restarts);
                let previous = self.records.insert(
                    *id,
                    Record {
                        id: *id,
                        name: name.clone(),
                        run: *run,
                        launch: Arc::clone(launch),
                        state: State::Created,
                        stop_requested: false,
                        restarts,
                        created_at: *at,
                        started_at: None,
                        ended_at: None,
                        ended_order: None,
                    },
                );
                match previous {
                    Some(old) => {
                        assert!(old.name == *name && old.run + 1 == *run);
                        match old.state {
                            State::Created | State::Running => panic!("a second run of '{name}' beside the first"),
                            // It was counted as alive.
                            State::Restarting(_) => self.live -= 1,
                            State::Ended(_) => self.forget_end(&old),
                        }
                    }
                    None => {
                        assert!(id.0 >= self.id_next && *run == 1);
                        self.id_next = id.0 + 1;
                        let taken = self.by_name.insert(name.folded(), *id);
                        assert!(taken.is_none(), "two instances named '{name}'");
                    }
                }
                self.live += 1;
            }
            EventKind::Started => {
                let record = self.record_mut(event);
                assert!(record.state == State::Created);
                record.state = State::Running;
                record.started_at = Some(*at);
            }
            EventKind::StopRequested => {
                let record = self.record_mut(event);
                assert!(record.state.is_live());
                record.stop_requested = true;
            }
            EventKind::Restarting { ended, restarts, .. } => {
                let record = self.record_mut(event);
                assert!(matches!(record.state, State::Created | State::Running));
                record.state = State::Restarting(ended.clone());
                record.restarts = *restarts;
                record.ended_at = Some(*at);
            }
            EventKind::RestartCancelled => {
                let State::Restarting(ended) = self.record_mut(event).state.clone() else {
                    panic!("'{name}' was not between two runs")
                };
                self.end(event, ended);
            }
            EventKind::Resumed => {
                let record = self.record_mut(event);
                let State::Ended(ended) = record.state.clone() else { panic!("'{name}' had not ended") };
                let order = record.ended_order.take();
                record.state = State::Restarting(ended);
                record.stop_requested = false;
                self.live += 1;
                let removed = order.and_then(|order| self.ended.remove(&order));
                assert!(removed == Some(*id), "an ended record is among the ended");
            }
            EventKind::Ended(ended) => {
                let record = self.record_mut(event);
                assert!(matches!(record.state, State::Created | State::Running));
                record.ended_at = Some(*at);
                self.end(event, ended.clone());
            }
            EventKind::Removed => {
                let record = self.records.remove(id).expect("only what exists is removed");
                assert!(!record.state.is_live());
                self.by_name.remove(&record.name.folded());
                self.forget_end(&record);
            }
        }
    }

    fn end(&mut self, event: &Event, ended: Ended) {
        let order = self.ended_next;
        let record = self.record_mut(event);
        record.state = State::Ended(ended);
        record.ended_order = Some(order);
        self.ended.insert(order, event.id);
        self.ended_next += 1;
        self.live -= 1;
    }

    fn forget_end(&mut self, record: &Record) {
        let removed = record.ended_order.and_then(|order| self.ended.remove(&order));
        assert!(removed == Some(record.id), "an ended record is among the ended");
    }

    fn record_mut(&mut self, event: &Event) -> &mut Record {
        let record = self.records.get_mut(&event.id).expect("an event is about a record");
        assert!(record.run == event.run && record.name == event.name, "an event of another run");
        record
    }
}

impl Event {
    /// Something happened to the newest run of an instance.
    pub fn of(record: &Record, at: Timestamp, kind: EventKind) -> Event {
        Event { id: record.id, name: record.name.clone(), run: record.run, at, kind }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
            directory: format!("/tmp/{module}"),
            memory_bytes_max: 1 << 20,
            timeout_ms: None,
            restart,
            remove: false,
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
        Ended { status: ExitStatus::Exited(code), reason: "exit".into(), message: None }
    }

    fn run(registry: &mut Registry, n: &str) -> InstanceId {
        let event = registry.decide_run(&name(n), launch(n), 100, NOW).unwrap();
        registry.apply(&event);
        event.id
    }

    fn end(registry: &mut Registry, id: InstanceId) {
        // A clock that runs backwards.
        let at = Timestamp(NOW.0 - registry.ended_next);
        let event = registry.ended(id, exited(0), false, FIVE, at);
        registry.apply(&event);
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
    fn pruning_takes_the_oldest_ends_and_never_the_living() {
        let mut registry = Registry::default();
        run(&mut registry, "alive");
        for n in ["a", "b", "c"] {
            let id = run(&mut registry, n);
            end(&mut registry, id);
        }
        for event in registry.decide_prune(1, Timestamp(0), NOW) {
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
            let event = registry.ended(id, exited(0), false, FIVE, Timestamp(i as u64));
            registry.apply(&event);
        }
        let gone = registry.decide_prune(100, Timestamp(2), NOW);
        assert_eq!(gone.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    fn run_with(registry: &mut Registry, n: &str, policy: &str) -> InstanceId {
        let event = registry.decide_run(&name(n), launch_with(n, policy.parse().unwrap()), 100, NOW).unwrap();
        registry.apply(&event);
        event.id
    }

    fn failed(reason: &str) -> Ended {
        Ended { status: ExitStatus::Exited(1), reason: reason.into(), message: None }
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
            registry.apply(&Event {
                kind: EventKind::Created(launch_with("job", "on-failure:2".parse().unwrap())),
                ..event
            });
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
        assert_eq!(registry.decide_prune(0, Timestamp(0), NOW).len(), 1);
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
                prop_assert_eq!(registry.decide_prune(0, Timestamp(0), NOW).len(), model.values().filter(|m| !m.1).count());
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
}
