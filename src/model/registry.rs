//! The registry: every instance and its newest run, as a state machine over [`Event`]s.
//!
//! `decide_*` looks and answers with the event that would happen, or with the reason why not; [`Registry::apply`] makes it so.
//! Time and limits are arguments. Our own invariants are asserted, in release too: a broken registry must not go on.

use crate::error::{Error, Result};
use crate::model::event::{Event, EventKind};
use crate::model::instance::{Ended, InstanceId, Launch, Record, State, Timestamp};
use crate::model::name::Name;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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

    /// The run of `id` is over.
    pub fn ended(&self, id: InstanceId, ended: Ended, at: Timestamp) -> Event {
        Event::of(self.live_record(id), at, EventKind::Ended(ended))
    }

    fn live_record(&self, id: InstanceId) -> &Record {
        let record = self.records.get(&id).expect("a live instance has a record");
        assert!(record.state.is_live(), "the run of '{}' ended twice", record.name);
        record
    }

    /// Removals that bring the number of ended records down to `ended_max`, oldest end first.
    pub fn decide_prune(&self, ended_max: usize, at: Timestamp) -> Vec<Event> {
        let surplus = self.ended.len().saturating_sub(ended_max);
        let oldest = self.ended.values().take(surplus);
        oldest
            .map(|id| Event::of(self.records.get(id).expect("what ended has a record"), at, EventKind::Removed))
            .collect()
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
                let previous = self.records.insert(
                    *id,
                    Record {
                        id: *id,
                        name: name.clone(),
                        run: *run,
                        launch: Arc::clone(launch),
                        state: State::Created,
                        stop_requested: false,
                        created_at: *at,
                        started_at: None,
                        ended_at: None,
                        ended_order: None,
                    },
                );
                match previous {
                    Some(old) => {
                        assert!(!old.state.is_live() && old.name == *name && old.run + 1 == *run);
                        self.forget_end(&old);
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
            EventKind::Ended(ended) => {
                let order = self.ended_next;
                let record = self.record_mut(event);
                assert!(record.state.is_live());
                record.state = State::Ended(ended.clone());
                record.ended_at = Some(*at);
                record.ended_order = Some(order);
                self.ended.insert(order, *id);
                self.ended_next += 1;
                self.live -= 1;
            }
            EventKind::Removed => {
                let record = self.records.remove(id).expect("only what exists is removed");
                assert!(!record.state.is_live());
                self.by_name.remove(&record.name.folded());
                self.forget_end(&record);
            }
        }
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
    fn of(record: &Record, at: Timestamp, kind: EventKind) -> Event {
        Event { id: record.id, name: record.name.clone(), run: record.run, at, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::ExitStatus;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn name(s: &str) -> Name {
        s.parse().unwrap()
    }

    fn launch(module: &str) -> Arc<Launch> {
        Arc::new(Launch {
            module: name(module),
            digest: "00".repeat(32),
            args: vec![],
            env: vec![],
            directory: format!("/tmp/{module}"),
            memory_bytes_max: 1 << 20,
            timeout_ms: None,
        })
    }

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
        let event = registry.ended(id, exited(0), at);
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
        for event in registry.decide_prune(1, NOW) {
            registry.apply(&event);
        }
        let left: Vec<_> = registry.records().map(|r| r.name.as_str()).collect();
        assert_eq!(left, ["alive", "c"]);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Run(usize),
        Start(usize),
        Stop(usize),
        End(usize),
        Remove(usize),
    }

    proptest! {
        /// Against a model that a child could check: a map from name to (runs, live, started, stopping).
        #[test]
        fn the_registry_agrees_with_a_naive_model(ops in prop::collection::vec((0usize..5, 0usize..6), 0..80)) {
            let names: Vec<Name> = (0..6).map(|i| name(&format!("n{i}"))).collect();
            let mut registry = Registry::default();
            let mut model: BTreeMap<usize, (u32, bool, bool, bool)> = BTreeMap::new();
            let ops = ops.into_iter().map(|(op, i)| match op {
                0 => Op::Run(i), 1 => Op::Start(i), 2 => Op::Stop(i), 3 => Op::End(i), _ => Op::Remove(i),
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
                    Op::Start(i) => if let Some(m) = model.get_mut(&i) && m.1 && !m.2 {
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
                    Op::End(i) => if let Some(m) = model.get_mut(&i) && m.1 {
                        let event = registry.ended(registry.get(&names[i]).unwrap().id, exited(3), NOW);
                        registry.apply(&event);
                        m.1 = false;
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
                prop_assert_eq!(registry.decide_prune(0, NOW).len(), model.values().filter(|m| !m.1).count());
                for (i, m) in &model {
                    let record = registry.get(&names[*i]).unwrap();
                    prop_assert_eq!((record.run, record.state.is_live(), record.stop_requested), (m.0, m.1, m.3));
                    prop_assert_eq!(record.started_at.is_some(), m.2);
                }
            }
        }
    }
}
