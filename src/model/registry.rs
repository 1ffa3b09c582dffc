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
        let lost =
            || Ended::new(ExitStatus::Lost, "daemon-restart", Some("the daemon ended while it was alive".to_owned()));
        let mut events = vec![];
        for record in self.records.values() {
            let comes_back = record.launch.restart.comes_back(record);
            let mut happens = |kind| events.push(Event::of(record, at, kind));
            match &record.state {
                // It was being stopped, which only `always` comes back from: by way of its end.
                State::Created | State::Running if comes_back && record.stop_requested => {
                    happens(EventKind::Ended(lost()));
                    happens(EventKind::Resumed);
                }
                State::Created | State::Running if comes_back => {
                    happens(EventKind::Restarting { ended: lost(), restarts: record.restarts, delay_ms: 0 });
                }
                State::Created | State::Running => happens(EventKind::Ended(lost())),
                State::Restarting(_) if comes_back && !record.stop_requested => {}
                State::Restarting(_) if comes_back => {
                    happens(EventKind::RestartCancelled);
                    happens(EventKind::Resumed);
                }
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

    /// The records from one id up to another, which is not among them, in order of creation.
    pub fn records_between(&self, from: InstanceId, to: InstanceId) -> impl Iterator<Item = &Record> {
        // A range that ends before it begins would be a panic.
        self.records.range(from..to.max(from)).map(|(_, record)| record)
    }

    /// The id of the next instance.
    pub fn id_next(&self) -> InstanceId {
        InstanceId(self.id_next)
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
    /// follows at once, and begins the policy's count anew. Otherwise `pause` says how long the policy waits before the next run.
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
            EventKind::Restarting { ended, restarts: 0, delay_ms: 0 }
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
    /// oldest end first, and no more than `most`: whoever has more to do than that comes again.
    pub fn decide_prune(&self, ended_max: usize, ended_before: Timestamp, at: Timestamp, most: usize) -> Vec<Event> {
        let surplus = self.ended.len().saturating_sub(ended_max);
        let records = self.ended.values().map(|id| self.records.get(id).expect("what ended has a record"));
        let old = |record: &Record| record.ended_at.is_some_and(|ended| ended < ended_before);
        let gone = records.enumerate().take_while(|(i, record)| *i < surplus || old(record));
        gone.take(most).map(|(_, record)| Event::of(record, at, EventKind::Removed)).collect()
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
                assert!(matches!(record.state, State::Created | State::Running) && !record.stop_requested);
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
        let at = match &kind {
            // A clock that was set back lets no run begin before it was created, nor end before it began.
            EventKind::Started | EventKind::Restarting { .. } | EventKind::Ended(_) => {
                at.max(record.started_at.unwrap_or(record.created_at)).max(record.created_at)
            }
            EventKind::Created(_)
            | EventKind::StopRequested
            | EventKind::RestartCancelled
            | EventKind::Resumed
            | EventKind::Removed => at,
        };
        Event { id: record.id, name: record.name.clone(), run: record.run, at, kind }
    }
}

#[cfg(test)]
pub(crate) mod tests;
