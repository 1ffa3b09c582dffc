//! What the supervisor shows: lists, one instance, its log, its end. Nothing here changes anything.

use crate::config::fixed;
use crate::daemon::clock;
use crate::daemon::live::Done;
use crate::daemon::logs::Log;
use crate::daemon::supervisor::{State, Supervisor};
use crate::error::{Error, Result};
use crate::model::filter::Filter;
use crate::model::instance::{InstanceId, Record, State as RunState, Timestamp};
use crate::model::name::Name;
use crate::model::reply::{Inspection, InstanceView, RunView};
use std::sync::Arc;

/// A list that is taken in pages, in order of creation. A page is as it was at one moment. What is created behind the first one
/// is in none of them: so a list comes to its end, and shows no name twice.
pub struct Pages {
    supervisor: Supervisor,
    filter: Filter,
    asked_at: Timestamp,
    from: InstanceId,
    /// Behind the newest that there was at first.
    to: InstanceId,
}

impl Pages {
    /// The next page, which may be empty. `None`: that was all.
    pub fn take(&mut self) -> Option<Vec<Record>> {
        if self.from >= self.to {
            return None;
        }
        let (mut page, mut left) = (Vec::new(), fixed::LIST_PAGE);
        let state = self.supervisor.lock();
        let mut records = state.registry.records_between(self.from, self.to);
        // Copied under the lock, and put into words outside of it. What is not wanted takes its time under the lock too.
        self.from = loop {
            let Some(record) = records.next() else { break self.to };
            if left == 0 {
                break record.id;
            }
            left -= 1;
            if self.filter.wants(record, self.asked_at) {
                page.push(record.clone());
            }
        };
        Some(page)
    }
}

impl Supervisor {
    /// The instances that are wanted, in order of creation, in pages of a bounded size.
    pub fn pages(&self, filter: Filter) -> Pages {
        let to = self.lock().registry.id_next();
        Pages { supervisor: self.clone(), filter, asked_at: clock::now(), from: InstanceId(0), to }
    }

    /// The instances that are wanted, in order of creation, all at once.
    pub fn list(&self, filter: &Filter) -> Vec<InstanceView> {
        let mut pages = self.pages(filter.clone());
        let mut views = Vec::new();
        while let Some(page) = pages.take() {
            views.extend(page.iter().map(InstanceView::of));
        }
        views
    }

    /// The name in a request about what exists: also one that has become a verb since it was given.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`].
    pub fn name(&self, word: &str) -> Result<Name> {
        word.parse().or_else(|refused| match Name::try_from(word.to_owned()) {
            Ok(name) if self.lock().registry.get(&name).is_ok() || self.0.modules.is_stored(&name) => Ok(name),
            _ => Err(refused),
        })
    }

    /// The newest run of one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn view(&self, name: &Name) -> Result<InstanceView> {
        self.lock().registry.get(name).map(InstanceView::of)
    }

    /// Everything about one, with its earlier runs.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Io`].
    pub async fn inspect(&self, name: &Name) -> Result<Inspection> {
        let (id, instance) = {
            let state = self.lock();
            let record = state.registry.get(name)?;
            let mut view = InstanceView::of(record);
            if let Some(live) = state.live.get(&record.id).filter(|_| record.state == RunState::Running) {
                view.cpu_us = Some(u64::try_from(live.account.used().as_micros()).unwrap_or(u64::MAX));
            }
            (record.id, view)
        };
        let mut runs = self.0.store.answer(move |store| store.runs(id)).await?;
        // The newest as it is now, which may not be written down yet.
        runs.retain(|run| run.run < instance.run);
        runs.push(RunView::of(&instance));
        Ok(Inspection { instance, runs })
    }

    /// The end of `name`, when no other run follows.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn wait(&self, name: &Name) -> Result<Done> {
        Self::done(&self.lock(), name)
    }

    pub(super) fn done(state: &State, name: &Name) -> Result<Done> {
        let record = state.registry.get(name)?;
        Ok(match state.live.get(&record.id) {
            Some(live) => Done::of(live),
            None => Done::already(record.clone()),
        })
    }

    /// Waits until `name` is in guest code. One that was there and has ended since, while this waited, was there too.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::NotRunning`] if it has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_until_running(&self, name: &Name) -> Result<InstanceView> {
        let (live, run) = {
            let state = self.lock();
            let record = state.registry.get(name)?;
            let not_running = || Error::NotRunning { name: name.clone(), state: record.state.to_string() };
            if record.state == RunState::Running {
                return Ok(InstanceView::of(record));
            }
            if !record.state.is_live() {
                return Err(not_running());
            }
            (state.live.get(&record.id).cloned().ok_or_else(not_running)?, record.run)
        };
        let mut progress = live.progress.subscribe();
        let reached = progress.wait_for(|p| p.entered >= run || p.over.is_some()).await;
        let reached = reached.expect("the end is sent before its sender goes").clone();
        match reached.over {
            Some(view) if reached.entered < run => Err(Error::NotRunning { name: name.clone(), state: view.status() }),
            Some(view) => Ok(InstanceView::clone(&view)),
            None => self.view(name),
        }
    }

    /// The log of an instance.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn log(&self, name: &Name) -> Result<Arc<Log>> {
        let id = self.lock().registry.get(name)?.id;
        Ok(self.0.logs.get(id))
    }
}
