//! Everything that is known over all lives of the daemon: instances, of which those that everybody uses are only
//! checked for what holds in any order; modules; and the events, which applied one after the other have to be a life
//! that can be. No sockets, no processes, no clock.

use crate::worlds::{
    Check, End, Instance, KILL, LOST, Launch, Op, Outcome, Policy, SHUTDOWN, STOP, View, World, end_of, run_number,
    text,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// What is known of an instance that everybody uses; moments are numbers of the model's clock.
#[derive(Debug, Default)]
pub struct Shared {
    /// When a run was asked for that was acknowledged, and its number.
    pub runs: Vec<(u64, u32)>,
    /// The end of the newest request that may have removed it.
    pub removed_until: u64,
    pub log: Vec<String>,
}

impl Shared {
    pub fn finish(&mut self, op: &Op, outcome: &Outcome, start: u64, now: u64) -> Check {
        match (op, outcome) {
            (Op::Run(_) | Op::Restart, Outcome::Done(reply)) => self.runs.push((start, run_number(reply)?)),
            (Op::Rm { .. }, Outcome::Done(_) | Outcome::Unknown) => self.removed_until = now,
            (_, Outcome::Refused(code))
                if !["exists", "busy", "not-found", "shutting-down"].contains(&code.as_str()) =>
            {
                return Err(format!("{op:?} cannot be refused with {code}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The highest number of a run that was acknowledged, if nothing can have removed it.
    fn sure(&self) -> Option<u32> {
        self.runs.iter().filter(|(start, _)| *start > self.removed_until).map(|(_, run)| *run).max()
    }

    pub fn check(&self, view: Option<&View>) -> Check {
        let sure = self.sure();
        match view {
            None if sure.is_some() => Err("an acknowledged run is lost".to_owned()),
            None => Ok(()),
            Some(view) => {
                let world = World::begun(&Launch::of(&view.module, Policy::No), (sure.unwrap_or(1), u32::MAX), 0);
                let end = view.end.as_ref().filter(|end| world.may_end(STOP | KILL | LOST | SHUTDOWN, end));
                let fits = end.is_some() && world.is_the_run_of(view);
                if fits { Ok(()) } else { Err(format!("run {sure:?} or a later one should have ended")) }
            }
        }
    }
}

/// What is known of a module's name.
#[derive(Debug)]
pub struct Module {
    /// The digests of what it may lead to; `None` is nothing.
    pub contents: Vec<Option<String>>,
    log: Vec<String>,
}

impl Default for Module {
    fn default() -> Module {
        Module { contents: vec![None], log: vec![] }
    }
}

impl Module {
    /// `digest`: what was put; `None`: it was forgotten.
    fn finish(&mut self, digest: Option<&String>, outcome: &Outcome, ending: u8) -> Check {
        let is_known = self.contents.iter().any(Option::is_some);
        match (outcome, digest) {
            (Outcome::Done(reply), Some(digest)) if reply["digest"] != **digest => {
                Err(format!("answered with {reply}"))
            }
            (Outcome::Done(_), None) if !is_known => Err("what was not there was forgotten".to_owned()),
            (Outcome::Done(_), digest) => {
                self.contents = vec![digest.cloned()];
                Ok(())
            }
            (Outcome::Unknown, digest) => {
                self.contents.push(digest.cloned());
                Ok(())
            }
            (Outcome::Refused(code), None) if code == "no-module" && self.contents.contains(&None) => Ok(()),
            (Outcome::Refused(code), _) if code == "shutting-down" && ending != 0 => Ok(()),
            (Outcome::Refused(code), _) => Err(format!("cannot be refused with {code}")),
        }
    }

    fn settle(&mut self, found: Option<&str>) -> Check {
        let found = found.map(str::to_owned);
        if !self.contents.contains(&found) {
            return Err(format!("found {found:?}, which is none of {:?}", self.contents));
        }
        self.contents = vec![found];
        Ok(())
    }
}

/// An instance as its events tell it.
#[derive(Debug, PartialEq)]
enum Told {
    Alive(u32),
    Between(u32, End),
    Over(u32, End),
}

/// Every event there was.
#[derive(Debug, Default)]
pub struct Events {
    all: BTreeMap<u64, Value>,
    applied: u64,
    told: HashMap<String, Told>,
}

impl Events {
    /// The number of the newest.
    pub fn newest(&self) -> u64 {
        self.all.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Takes an event of a stream in which `previous` was the one before.
    pub fn see(&mut self, event: &Value, previous: Option<u64>) -> Check<u64> {
        let seq = event["seq"].as_u64().ok_or_else(|| format!("no number in {event}"))?;
        if previous.is_some_and(|previous| seq != previous + 1) {
            return Err(format!("event {previous:?} is followed by {event}"));
        }
        match self.all.insert(seq, event.clone()) {
            Some(known) if known != *event => Err(format!("event {seq} was {known} and is {event}")),
            _ => Ok(seq),
        }
    }

    /// Applies what was seen since the last time.
    pub fn apply(&mut self) -> Check {
        while let Some(event) = self.all.get(&(self.applied + 1)) {
            let (kind, name, run) = (text(event, "type")?, text(event, "name")?, run_number(event)?);
            let next = match (kind.as_str(), self.told.remove(&name)) {
                ("created", None) if run == 1 => Some(Told::Alive(run)),
                ("created", Some(Told::Between(old, _) | Told::Over(old, _))) if run == old + 1 => {
                    Some(Told::Alive(run))
                }
                ("started", Some(Told::Alive(old))) if run == old => Some(Told::Alive(run)),
                ("stop-requested", Some(told @ (Told::Alive(old) | Told::Between(old, _)))) if run == old => Some(told),
                ("restarting", Some(Told::Alive(old))) if run == old => Some(Told::Between(run, end_of(event)?)),
                ("ended", Some(Told::Alive(old))) if run == old => Some(Told::Over(run, end_of(event)?)),
                ("restart-cancelled", Some(Told::Between(old, end))) if run == old => Some(Told::Over(run, end)),
                ("resumed", Some(Told::Over(old, end))) if run == old => Some(Told::Between(run, end)),
                ("removed", Some(Told::Over(old, _))) if run == old => None,
                (_, told) => return Err(format!("an instance that is {told:?} cannot have the event {event}")),
            };
            next.and_then(|told| self.told.insert(name, told));
            self.applied += 1;
        }
        match self.newest() {
            newest if newest == self.applied => Ok(()),
            newest => Err(format!("there are events up to {newest}, and none with the number {}", self.applied + 1)),
        }
    }

    /// Every name that is told of.
    pub fn names(&self) -> BTreeSet<String> {
        self.told.keys().cloned().collect()
    }

    /// What is told of `name`, if it differs from what is shown.
    pub fn contradiction(&self, name: &str, view: Option<&View>) -> Option<String> {
        let agree = match (self.told.get(name), view) {
            (None, None) => true,
            (Some(Told::Alive(run)), Some(view)) => {
                view.run == *run && view.end.is_none() && view.state != "restarting"
            }
            (Some(Told::Between(run, _)), Some(view)) => view.run == *run && view.state == "restarting",
            (Some(Told::Over(run, end)), Some(view)) => view.run == *run && view.end.as_ref() == Some(end),
            (None, Some(_)) | (Some(_), None) => false,
        };
        (!agree).then(|| format!("the events make it {:?}, and it is shown as {view:?}", self.told.get(name)))
    }
}

/// Something to ask for.
#[derive(Debug, Clone)]
pub enum Action {
    On(String, Op),
    Put { name: String, digest: String },
    Forget(String),
    List,
    Prune,
}

impl Action {
    fn kind(&self) -> &'static str {
        match self {
            Action::On(_, Op::Run(launch)) => match launch.policy {
                Policy::No => "run",
                Policy::Remove => "run --rm",
                _ => "run --restart",
            },
            Action::On(_, op) => op.verb(),
            Action::Put { .. } => "put",
            Action::Forget(_) => "forget",
            Action::List => "list",
            Action::Prune => "prune",
        }
    }
}

/// Everything that is known, over all lives of the daemon.
#[derive(Debug)]
pub struct Model {
    pub cycle: u64,
    pub instances: BTreeMap<String, Instance>,
    shared: BTreeMap<String, Shared>,
    pub modules: BTreeMap<String, Module>,
    pub events: Events,
    /// How often each kind of request was done, refused, and not answered.
    pub tally: BTreeMap<&'static str, [u64; 3]>,
    /// What the daemon may be at: 0, or [`SHUTDOWN`].
    ending: u8,
    /// Counts requests and answers.
    clock: u64,
    prunes: u32,
    pruned_until: u64,
}

impl Model {
    /// `shared`: names that everybody uses, in lower case.
    pub fn new(shared: &[&str]) -> Model {
        Model {
            cycle: 0,
            instances: BTreeMap::new(),
            shared: shared.iter().map(|name| ((*name).to_owned(), Shared::default())).collect(),
            modules: BTreeMap::new(),
            events: Events::default(),
            tally: BTreeMap::new(),
            ending: 0,
            clock: 0,
            prunes: 0,
            pruned_until: 0,
        }
    }

    /// Before a request is sent: its moment.
    pub fn begin(&mut self, action: &Action) -> u64 {
        if let Action::Prune = action {
            self.prunes += 1;
        }
        self.clock += 1;
        self.clock
    }

    /// What became of a request that was sent at `start`.
    pub fn finish(&mut self, action: &Action, start: u64, outcome: &Outcome) -> Check {
        self.clock += 1;
        let (now, pruned) = (self.clock, self.prunes > 0 || self.pruned_until > start);
        let which = match outcome {
            Outcome::Done(_) => 0,
            Outcome::Refused(_) => 1,
            Outcome::Unknown => 2,
        };
        self.tally.entry(action.kind()).or_default()[which] += 1;
        let line = format!("  cycle {}, {start} to {now}: {action:?}: {}", self.cycle, outcome.brief());
        match action {
            Action::On(name, op) => match self.shared.get_mut(&name.to_lowercase()) {
                Some(shared) => {
                    shared.log.push(line);
                    shared.finish(op, outcome, start, now).map_err(|why| fault(name, &why, &(), &shared.log))
                }
                None => {
                    let instance = self.instances.entry(name.clone()).or_default();
                    instance.log.push(line);
                    let finished = instance.finish(op, outcome, self.ending, pruned);
                    finished.map_err(|why| fault(name, &why, &instance.worlds, &instance.log))
                }
            },
            Action::Put { name, .. } | Action::Forget(name) => {
                let module = self.modules.entry(name.clone()).or_default();
                module.log.push(line);
                let digest = if let Action::Put { digest, .. } = action { Some(digest) } else { None };
                let finished = module.finish(digest, outcome, self.ending);
                finished.map_err(|why| fault(name, &why, &module.contents, &module.log))
            }
            Action::List => match outcome {
                Outcome::Done(reply) => views(reply).map(|_| ()),
                Outcome::Unknown => Ok(()),
                Outcome::Refused(code) => Err(format!("list was refused with {code}")),
            },
            Action::Prune => {
                self.prunes -= 1;
                self.pruned_until = now;
                self.instances.values_mut().for_each(|instance| instance.vanish(true, 0));
                self.shared.values_mut().for_each(|shared| shared.removed_until = now);
                match outcome {
                    Outcome::Refused(code) if code != "shutting-down" => Err(format!("prune was refused with {code}")),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The daemon is told to end in order.
    pub fn end_in_order(&mut self) {
        self.ending = SHUTDOWN;
        for instance in self.instances.values_mut() {
            let worlds = instance.worlds.iter().cloned();
            instance.become_one_of(worlds.map(|world| world.map(|w| w.asked(SHUTDOWN))).collect());
        }
    }

    /// The daemon is gone: in order, if it was told to.
    pub fn die(&mut self) {
        let cause = if self.ending == 0 { LOST } else { self.ending };
        self.ending = 0;
        self.instances.values_mut().flat_map(|i| i.worlds.iter_mut().flatten()).for_each(|world| world.die(cause));
    }

    /// Every name that was ever used.
    pub fn names(&self) -> BTreeSet<String> {
        self.instances.keys().chain(self.shared.keys()).cloned().collect()
    }

    /// Takes what a daemon shows that has just started, as far as it is `pending`. What has yet to come back stays
    /// there.
    pub fn settle(&mut self, views: &BTreeMap<String, View>, pending: &mut BTreeSet<String>) -> Check {
        if let Some(view) = views.iter().find(|(key, _)| !self.names().contains(*key)) {
            return Err(format!("nobody ever ran {view:?}"));
        }
        for name in std::mem::take(pending) {
            let view = views.get(&name);
            if let Some(shared) = self.shared.get(&name) {
                shared.check(view).map_err(|why| fault(&name, &why, &view, &shared.log))?;
            } else if let Some(instance) = self.instances.get_mut(&name)
                && !instance.settle(view)
            {
                if !instance.may_come_back() {
                    return Err(self.unsettled(&name, view));
                }
                pending.insert(name);
            }
        }
        Ok(())
    }

    /// What is to be said of a name that did not come back, or not as it should.
    pub fn unsettled(&self, name: &str, view: Option<&View>) -> String {
        let instance = &self.instances[name];
        let why = format!("found {view:#?},\nwhich is none of what it can be");
        fault(name, &why, &instance.worlds, &instance.log)
    }

    /// Takes what `modules` answers.
    pub fn settle_modules(&mut self, reply: &Value) -> Check {
        let mut found = HashMap::new();
        let all = reply["modules"].as_array().ok_or_else(|| format!("no modules in {reply}"))?;
        for module in all.iter().filter(|module| module["source"] == "stored") {
            if found.insert(text(module, "name")?, text(module, "digest")?).is_some() {
                return Err(format!("a module is there twice: {module}"));
            }
        }
        for (name, module) in &mut self.modules {
            let settled = module.settle(found.remove(name).as_deref());
            settled.map_err(|why| fault(name, &why, &module.contents, &module.log))?;
        }
        if found.is_empty() { Ok(()) } else { Err(format!("nobody ever put the modules {found:?}")) }
    }

    /// Looks for the directories of instances below `root`.
    pub fn check_directories(&self, root: &Path, views: &BTreeMap<String, View>) -> Check {
        for (name, instance) in &self.instances {
            let checked = instance.check_directory(&root.join(name));
            checked.map_err(|why| fault(name, &why, &instance.worlds, &instance.log))?;
        }
        for (name, shared) in &self.shared {
            // A removal that was not answered may have come as far as the directory.
            if let Some(view) = views.get(name)
                && shared.sure().is_some()
                && !root.join(&view.name).is_dir()
            {
                return Err(fault(name, "its directory is gone", &view, &shared.log));
            }
        }
        Ok(())
    }
}

/// What `list` answers, by name in lower case.
pub fn views(reply: &Value) -> Check<BTreeMap<String, View>> {
    let mut views: BTreeMap<String, View> = BTreeMap::new();
    for value in reply["instances"].as_array().ok_or_else(|| format!("no instances in {reply}"))? {
        let view = View::of(value)?;
        if let Some(twice) = views.insert(view.name.to_lowercase(), view) {
            return Err(format!("an instance is there twice: {twice:?} and {value}"));
        }
    }
    Ok(views)
}

fn fault(name: &str, why: &str, state: &dyn std::fmt::Debug, log: &[String]) -> String {
    let recent = &log[log.len().saturating_sub(40)..];
    format!("'{name}': {why}\nknown: {state:#?}\nhistory ({} requests):\n{}", log.len(), recent.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lost(name: &str, run: u32) -> Value {
        json!({
            "name": name, "module": "spin", "restart": "no", "run": run, "state": "lost", "exit_code": 125,
            "reason": "daemon-restart", "stop_requested": false,
        })
    }

    fn run(model: &mut Model, name: &str, run: u32) -> Check {
        let action = Action::On(name.to_owned(), Op::Run(Launch::of("spin", Policy::No)));
        let start = model.begin(&action);
        model.finish(&action, start, &Outcome::Done(json!({ "name": name, "run": run })))
    }

    /// Whether the next daemon may show this.
    fn settle(model: &mut Model, instances: &[Value]) -> Check {
        model.die();
        let mut pending = model.names();
        model.settle(&views(&json!({ "instances": instances }))?, &mut pending)?;
        assert!(pending.is_empty());
        Ok(())
    }

    #[test]
    fn a_name_that_is_there_twice_or_that_nobody_used_is_noticed() {
        let mut model = Model::new(&["shared-a"]);
        run(&mut model, "a", 1).unwrap();
        settle(&mut model, &[lost("a", 1)]).unwrap();
        assert!(settle(&mut model, &[lost("a", 1), lost("A", 1)]).unwrap_err().contains("twice"));
        assert!(settle(&mut model, &[lost("a", 1), lost("b", 1)]).unwrap_err().contains("nobody"));
        assert!(settle(&mut model, &[]).unwrap_err().contains("'a'"));
    }

    #[test]
    fn a_fault_shows_the_history() {
        let mut model = Model::new(&[]);
        model.cycle = 12;
        run(&mut model, "a", 1).unwrap();
        let why = settle(&mut model, &[lost("a", 9)]).unwrap_err();
        assert!(why.contains("cycle 12") && why.contains("run: 9") && why.contains("run=1"), "{why}");
    }

    #[test]
    fn a_prune_at_the_same_time_may_take_what_has_ended_meanwhile() {
        let mut model = Model::new(&["shared-a"]);
        let kill = Action::On("a".to_owned(), Op::Kill);
        let mut ended = lost("a", 1);
        ended["state"] = json!("killed");
        ended["exit_code"] = json!(137);
        run(&mut model, "a", 1).unwrap();
        run(&mut model, "SHARED-A", 1).unwrap();
        let (killing, pruning) = (model.begin(&kill), model.begin(&Action::Prune));
        model.finish(&Action::Prune, pruning, &Outcome::Done(json!({ "removed": [] }))).unwrap();
        model.finish(&kill, killing, &Outcome::Done(ended)).unwrap();
        settle(&mut model, &[]).unwrap();
    }

    #[test]
    fn a_prune_at_the_same_time_may_be_faster_than_a_removal() {
        let mut model = Model::new(&[]);
        let remove = Action::On("a".to_owned(), Op::Rm { force: true, volumes: false });
        for pruned in [true, false] {
            run(&mut model, "a", 1).unwrap();
            let removing = model.begin(&remove);
            if pruned {
                let pruning = model.begin(&Action::Prune);
                model.finish(&Action::Prune, pruning, &Outcome::Done(json!({ "removed": ["a"] }))).unwrap();
            }
            let refused = model.finish(&remove, removing, &Outcome::Refused("not-found".to_owned()));
            assert_eq!(refused.is_ok(), pruned);
            settle(&mut model, &[]).unwrap_or_else(|why| assert!(!pruned, "{why}"));
        }
    }

    #[test]
    fn a_lost_or_changed_module_is_noticed() {
        let put = |digest: &str| Action::Put { name: "m".to_owned(), digest: digest.to_owned() };
        let stored = |digest: &str| json!({ "modules": [{ "name": "m", "source": "stored", "digest": digest }] });
        let none = json!({ "modules": [{ "name": "spin", "source": "built-in", "digest": "00" }] });
        let mut model = Model::new(&[]);
        let start = model.begin(&put("aa"));
        model.finish(&put("aa"), start, &Outcome::Done(json!({ "digest": "aa" }))).unwrap();
        assert!(model.settle_modules(&none).is_err() && model.settle_modules(&stored("bb")).is_err());
        model.finish(&put("bb"), start, &Outcome::Unknown).unwrap();
        model.settle_modules(&stored("bb")).unwrap();
        assert!(model.settle_modules(&stored("aa")).is_err(), "it was seen to be another");
        let forget = Action::Forget("m".to_owned());
        model.finish(&forget, start, &Outcome::Done(json!({ "forgotten": "m" }))).unwrap();
        assert!(model.settle_modules(&stored("bb")).is_err());
        model.settle_modules(&none).unwrap();
        assert!(model.finish(&forget, start, &Outcome::Done(json!({ "forgotten": "m" }))).is_err());
    }

    fn event(seq: u64, kind: &str, run: u32) -> Value {
        json!({
            "seq": seq, "type": kind, "name": "a", "run": run, "state": "lost", "exit_code": 125,
            "reason": "daemon-restart",
        })
    }

    fn events(kinds: &[(&str, u32)]) -> Check<Events> {
        let (mut events, mut previous) = (Events::default(), None);
        for (seq, (kind, run)) in (1..).zip(kinds) {
            previous = Some(events.see(&event(seq, kind, *run), previous)?);
        }
        events.apply().map(|()| events)
    }

    #[test]
    fn events_that_are_missing_or_change_are_noticed() {
        let mut all = events(&[("created", 1), ("started", 1), ("ended", 1)]).unwrap();
        assert!(all.see(&event(5, "removed", 1), Some(3)).is_err(), "one is left out");
        assert!(all.see(&event(3, "ended", 1), Some(2)).is_ok(), "the same again");
        assert!(all.see(&event(3, "removed", 1), Some(2)).is_err(), "another with the same number");
        let mut gap = Events::default();
        gap.see(&event(2, "created", 1), None).unwrap();
        assert!(gap.apply().is_err());
    }

    #[test]
    fn events_that_are_no_life_are_noticed() {
        for kinds in [
            &[("created", 2)][..],
            &[("created", 1), ("created", 2)],
            &[("created", 1), ("ended", 1), ("ended", 1)],
            &[("created", 1), ("removed", 1)],
            &[("created", 1), ("ended", 1), ("created", 3)],
            &[("started", 1)],
            &[("created", 1), ("ended", 1), ("removed", 1), ("created", 2)],
        ] {
            assert!(events(kinds).is_err(), "{kinds:?}");
        }
        let life = [("created", 1), ("restarting", 1), ("created", 2), ("ended", 2), ("resumed", 2), ("created", 3)];
        assert!(events(&life).is_ok());
    }

    #[test]
    fn a_list_that_the_events_do_not_tell_is_noticed() {
        let all = events(&[("created", 1), ("ended", 1)]).unwrap();
        let shown = View::of(&lost("a", 1)).unwrap();
        assert_eq!(all.contradiction("a", Some(&shown)), None);
        assert_eq!(all.contradiction("b", None), None);
        let end = shown.end.clone().map(|end| End { code: 1, ..end });
        for other in [None, Some(View { end, ..shown.clone() }), Some(View { run: 2, ..shown.clone() })] {
            assert!(all.contradiction("a", other.as_ref()).is_some());
        }
        assert!(events(&[("created", 1)]).unwrap().contradiction("a", Some(&shown)).is_some());
    }

    #[test]
    fn of_a_shared_name_a_lost_run_and_a_phantom_are_noticed() {
        let launch = Launch::of("spin", Policy::No);
        let view = |run| View::of(&lost("shared-a", run)).unwrap();
        let mut shared = Shared::default();
        shared.finish(&Op::Run(launch), &Outcome::Done(json!({ "run": 2 })), 10, 11).unwrap();
        assert!(shared.check(None).is_err() && shared.check(Some(&view(1))).is_err());
        assert!(shared.check(Some(&View { end: None, ..view(2) })).is_err() && shared.check(Some(&view(3))).is_ok());
        shared.finish(&Op::Rm { force: true, volumes: false }, &Outcome::Unknown, 9, 12).unwrap();
        assert!(shared.check(None).is_ok(), "it was perhaps removed after the run");
    }
}
