//! What goes: records that an operator removes, that are too many or too old, or that were run with `--rm`; and the
//! directories of those, off everybody's path.

use crate::config::fixed;
use crate::daemon::blocking;
use crate::daemon::clock;
use crate::daemon::store::Removal;
use crate::daemon::supervisor::{State, Supervisor, What};
use crate::error::{Error, Result};
use crate::model::ageing::{self, Clocks, Jump, Verdict};
use crate::model::filter::Filter;
use crate::model::instance::{Record, Timestamp};
use crate::model::name::Name;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many records are looked at with each end. More than one, so that those that were passed over are caught up with.
const PRUNED_WITH_AN_END: usize = 32;

impl Supervisor {
    /// Forgets an ended instance with its log. `force` kills it first; `volumes` removes its directory too.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::StillRunning`], [`Error::Denied`] for a directory that is not ours,
    /// [`Error::StateRefuses`].
    pub async fn remove(&self, name: &Name, force: bool, volumes: bool) -> Result<()> {
        self.0.store.accepting_removals()?;
        if force && self.is_taken(name) {
            if volumes {
                self.take_volumes(name);
            }
            match self.kill(name)? {
                Some(done) => {
                    let goes_by_itself = done.wait().await.remove;
                    if goes_by_itself && self.view(name).is_err() {
                        // Perhaps a `prune` took it a moment ago, and is still writing that down.
                        return self.0.store.settled().await;
                    }
                }
                // It was still being prepared, and may have been for the first time.
                None => {
                    self.unreserved(name).await;
                    if self.view(name).is_err() {
                        return self.0.store.settled().await;
                    }
                }
            }
        }
        self.remove_if(name, move |_| Some(volumes)).await.map(drop)
    }

    /// If it goes by itself when it ends, its directory goes too.
    fn take_volumes(&self, name: &Name) {
        let state = self.lock();
        if let Ok(record) = state.registry.get(name)
            && let Some(live) = state.live.get(&record.id)
        {
            live.volumes.store(true, Ordering::Relaxed);
        }
    }

    /// Removes the instance if `wanted` says so, with its directory if it says true. False: it was not wanted.
    async fn remove_if(&self, name: &Name, wanted: impl FnOnce(&Record) -> Option<bool>) -> Result<bool> {
        let reservation = self.reserve(name, What::Removing)?;
        // Nobody runs it again as long as its name is held.
        let volumes = match wanted(self.lock().registry.get(name)?) {
            Some(volumes) => volumes,
            None => return Ok(false),
        };
        // A task: once the directory is moved away the record has to follow, whoever waits.
        let (this, name) = (self.clone(), name.clone());
        let removal = self.0.tracker.spawn(async move {
            let grave = if volumes { this.bury(&name).await? } else { None };
            let ticket = {
                let mut state = this.lock();
                let event = state.registry.decide_remove(&name, clock::now())?;
                let ticket = this.apply_and_tell(&mut state, event, true);
                reservation.release(&mut state);
                this.count(&state);
                ticket
            };
            let recorded = ticket.recorded().await;
            if let Some(grave) = grave {
                this.dig(grave);
            }
            recorded.map(|()| true)
        });
        removal.await.map_err(|e| Error::Internal(format!("a removal ended early: {e}")))?
    }

    /// Removes every ended instance that is wanted.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::remove`]; what was removed by then is.
    pub async fn prune(&self, filter: &Filter, volumes: bool) -> Result<Vec<Name>> {
        self.0.store.accepting_removals()?;
        let now = clock::now();
        let mut wanted = vec![];
        let mut pages = self.pages(filter.clone());
        while let Some(page) = pages.take() {
            // What was run with --rm goes by itself, with its directory.
            let ended = page.into_iter().filter(|r| !r.state.is_live() && !r.launch.remove);
            wanted.extend(ended.map(|r| (r.name, r.id, r.run)));
            tokio::task::yield_now().await;
        }
        if volumes {
            let mut removed = Vec::with_capacity(wanted.len());
            for (name, id, run) in wanted {
                let same = move |record: &Record| ((record.id, record.run) == (id, run)).then_some(true);
                match self.remove_if(&name, same).await {
                    Ok(true) => removed.push(name),
                    Ok(false) => {}
                    // Somebody else removed it, or runs it again.
                    Err(Error::NotFound(_) | Error::StillRunning(_) | Error::Stopping(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(removed);
        }
        let mut tickets = vec![];
        let mut removed = vec![];
        for (at, (name, id, run)) in wanted.into_iter().enumerate() {
            // The thread has others to answer.
            if at % fixed::LIST_PAGE == 0 {
                tokio::task::yield_now().await;
            }
            let mut state = self.lock();
            let same = state.registry.get(&name).is_ok_and(|record| (record.id, record.run) == (id, run));
            if same
                && !state.reserved.contains_key(&name.folded())
                && let Ok(event) = state.registry.decide_remove(&name, now)
            {
                tickets.push(self.apply_and_tell(&mut state, event, true));
                removed.push(name);
            }
        }
        for ticket in tickets {
            ticket.recorded().await?;
        }
        Ok(removed)
    }

    /// A run with `--rm` has ended: its instance goes, with its directory if that was made for it; unless it was run again.
    /// `volumes`: in any case.
    pub(super) async fn remove_ended(&self, name: &Name, run: u32, volumes: bool) {
        let wanted = move |record: &Record| {
            let launch = &record.launch;
            (record.run == run && launch.remove).then_some(launch.fresh || volumes)
        };
        let removed = match self.remove_if(name, wanted).await {
            // What is not ours to remove keeps no record.
            Err(error @ Error::Denied(_)) => {
                tracing::warn!(instance = %name, "--rm: {error}");
                self.remove_if(name, move |record| wanted(record).map(|_| false)).await
            }
            removed => removed,
        };
        match removed {
            // Somebody was faster, or runs it again; or the next daemon removes it.
            Ok(_) | Err(Error::NotFound(_) | Error::StillRunning(_) | Error::Stopping(_) | Error::ShuttingDown) => {}
            Err(error) => tracing::warn!(instance = %name, "--rm: {error}"),
        }
    }

    /// [`Supervisor::remove_ended`], for somebody who cannot wait.
    pub(super) fn remove_later(&self, name: Name, run: u32) {
        let this = self.clone();
        self.0.tracker.spawn(async move { this.remove_ended(&name, run, false).await });
    }

    /// Removes the records that are too many or too old. Some of them, for each that ended: where many end at once, most are
    /// still being written down, and to look at all of them for each would take as long as a hundred thousand ends themselves.
    pub(super) fn prune_old(&self, state: &mut State) {
        self.prune_at(state, clock::both(), PRUNED_WITH_AN_END);
    }

    fn prune_at(&self, state: &mut State, now: Clocks, most: usize) {
        let age = u64::try_from(self.0.limits.ended_for.as_micros()).unwrap_or(u64::MAX);
        let before = match state.ageing.look(now) {
            Verdict::Goes => Timestamp(now.wall.0.saturating_sub(age)),
            // Nothing ended before that.
            Verdict::Paused => Timestamp(0),
            Verdict::Jumped(Jump { forward, by }) => {
                tracing::warn!(
                    "the clock went {} by {}: nothing is removed by its age (--keep-for) for {}",
                    if forward { "forward" } else { "back" },
                    humantime::format_duration(Duration::from_secs(by.as_secs())),
                    humantime::format_duration(ageing::PAUSE),
                );
                Timestamp(0)
            }
        };
        for event in state.registry.decide_prune(self.0.limits.ended_max, before, now.wall, most) {
            // One whose end is still being written down is not forgotten yet; what was run with --rm goes with its directory,
            // and a name that is held is somebody's work already.
            let goes_by_itself = state.registry.by_id(event.id).is_none_or(|record| record.launch.remove);
            let held = state.live.contains_key(&event.id) || state.reserved.contains_key(&event.name.folded());
            if !goes_by_itself && !held {
                self.apply(state, event);
            }
        }
    }

    /// Moves the directory of an instance out of the way, to be removed. `None`: there is none.
    async fn bury(&self, name: &Name) -> Result<Option<Removal>> {
        let (this, name) = (self.clone(), name.clone());
        blocking(move || this.0.workspaces.bury(&name)).await
    }

    /// Removes a directory that was moved out of the way, off everybody's path and one at a time.
    fn dig(&self, removal: Removal) {
        if !self.lock().digging.insert(removal.grave.clone()) {
            return;
        }
        let this = self.clone();
        // Not in the tracker: the end does not wait for it, and the next daemon goes on with it.
        let removing = async move {
            let Ok(_one) = this.0.removing.acquire().await else { return };
            let grave = removal.grave.clone();
            let removed = blocking({
                let this = this.clone();
                move || this.0.workspaces.dig(&removal)
            });
            if let Err(error) = removed.await {
                tracing::warn!("a directory is not removed yet: {error}");
            }
            this.lock().digging.remove(&grave);
        };
        #[expect(clippy::disallowed_methods, reason = "nobody waits for it, and the next daemon finishes it")]
        drop(tokio::spawn(removing));
    }

    /// What an earlier daemon had begun to remove, and what was to go with its end.
    pub(super) fn resume_removals(&self) {
        let gone: Vec<(Name, u32)> = {
            let state = self.lock();
            let gone = state.registry.records().filter(|r| r.launch.remove && !r.state.is_live());
            gone.filter(|r| !state.live.contains_key(&r.id)).map(|r| (r.name.clone(), r.run)).collect()
        };
        for (name, run) in gone {
            self.remove_later(name, run);
        }
        match self.0.store.removals() {
            Ok(removals) => removals.into_iter().for_each(|removal| self.dig(removal)),
            Err(error) => tracing::warn!("removals that are left: {error}"),
        }
    }

    /// Keeps things tidy until the daemon ends: old records, removals that failed, a disk that was full.
    pub(super) async fn tidy(self) {
        let mut ticks: u32 = 0;
        loop {
            tokio::select! {
                biased;
                () = self.shutdown_requested() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => ticks = ticks.wrapping_add(1),
            }
            self.0.store.look_for_room();
            if u64::from(ticks) % fixed::TIDY_EVERY.as_secs() == 0 {
                self.prune_at(&mut self.lock(), clock::both(), usize::MAX);
                self.resume_removals();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::daemon::Daemon;
    use crate::daemon::store::Change;
    use crate::model::instance::{Ended, ExitStatus};
    use crate::model::registry::tests::launch;
    use std::sync::Arc;

    const HOUR: Duration = Duration::from_secs(3600);

    async fn open(directory: &std::path::Path) -> Daemon {
        let (state, root) = (directory.join("state"), directory.join("root"));
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), state, root);
        config.limits.ended_for = HOUR * 24 * 7;
        Daemon::open(&config).await.unwrap()
    }

    /// Waits until nothing is being removed.
    async fn dug(supervisor: &Supervisor) {
        let idle = async {
            while !supervisor.lock().digging.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), idle).await.unwrap();
    }

    /// Something is in the way of it at first.
    #[cfg(unix)]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_removal_that_fails_is_tried_again() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let daemon = open(dir.path()).await;
        let supervisor = daemon.supervisor();
        let (grave, away) = (dir.path().join("root/.grave"), dir.path().join("root/.away"));
        std::fs::create_dir_all(grave.join("a/b")).unwrap();
        let meta = grave.metadata().unwrap();
        let removal = Removal {
            grave: grave.to_str().unwrap().to_owned(),
            path: "x".to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
        };
        std::fs::rename(&grave, &away).unwrap();
        std::fs::create_dir(&grave).unwrap();
        let store = Arc::clone(&supervisor.0.store);
        store.submit(Change::PutRemoval(removal.clone()), false).recorded().await.unwrap();
        supervisor.resume_removals();
        dug(supervisor).await;
        assert!(grave.is_dir() && away.join("a/b").is_dir(), "what is not its own is left alone");
        assert_eq!(store.removals().unwrap(), [removal], "and the tombstone stays");
        std::fs::remove_dir(&grave).unwrap();
        std::fs::rename(&away, &grave).unwrap();
        supervisor.resume_removals();
        dug(supervisor).await;
        assert!(!grave.exists());
        store.settled().await.unwrap();
        assert_eq!(store.removals().unwrap(), []);
        supervisor.shut_down();
        daemon.ended().await;
    }

    /// Has an instance that has ended.
    fn ended(supervisor: &Supervisor, state: &mut State, name: &str, now: Timestamp) {
        // As a run does, without a guest.
        let launched = launch(name);
        let created = state.registry.decide_run(&launched.module, Arc::clone(&launched), 10, now).unwrap();
        let id = created.id;
        supervisor.apply(state, created);
        let ended = Ended::new(ExitStatus::Exited(0), "exit", None);
        let ended = state.registry.ended(id, ended, false, || Duration::ZERO, now);
        supervisor.apply(state, ended);
    }

    /// On one thread, so that whoever comes in between was let in.
    #[tokio::test]
    async fn a_prune_of_many_lets_others_in_between() {
        const PAGES: usize = 4;
        const MANY: usize = PAGES * fixed::LIST_PAGE;
        let dir = tempfile::tempdir().unwrap();
        let daemon = open(dir.path()).await;
        let supervisor = daemon.supervisor();
        for i in 0..MANY {
            ended(supervisor, &mut supervisor.lock(), &format!("many-{i}"), clock::now());
        }
        let filter = Filter::of_prune(&[]).unwrap();
        let others = async {
            let (mut looking, mut removing) = (0, 0);
            loop {
                match supervisor.lock().registry.len() {
                    0 => return (looking, removing),
                    MANY => looking += 1,
                    _ => removing += 1,
                }
                tokio::task::yield_now().await;
            }
        };
        let (removed, turns) = tokio::join!(biased; supervisor.prune(&filter, false), others);
        assert_eq!(removed.unwrap().len(), MANY);
        assert!(turns.0 >= PAGES && turns.1 >= PAGES - 1, "{turns:?} while it looks and while it removes");
        supervisor.shut_down();
        daemon.ended().await;
    }

    /// Whoever sets the clock to another year does not lose what ended today.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_clock_that_is_set_forward_removes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = open(dir.path()).await;
        let supervisor = daemon.supervisor();
        let later = |clocks: Clocks, wall: Duration, steady: Duration| Clocks {
            wall: Timestamp(clocks.wall.0 + u64::try_from(wall.as_micros()).unwrap()),
            steady: clocks.steady + steady,
        };
        {
            let mut state = supervisor.lock();
            let start = clock::both();
            ended(supervisor, &mut state, "a", start.wall);

            let year = HOUR * 24 * 365;
            let jumped = later(start, year, HOUR);
            supervisor.prune_at(&mut state, jumped, usize::MAX);
            assert_eq!(state.registry.len(), 1, "it is an hour old, whatever the clock says");
            supervisor.prune_at(&mut state, later(jumped, HOUR * 23, HOUR * 23), usize::MAX);
            assert_eq!(state.registry.len(), 1, "there is a day to set it right");
            supervisor.prune_at(&mut state, later(jumped, HOUR * 24, HOUR * 24), usize::MAX);
            assert_eq!(state.registry.len(), 0, "nobody did");
        }
        supervisor.shut_down();
        daemon.ended().await;
    }
}
