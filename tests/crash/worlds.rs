//! What can have become of a name, from what was asked and answered: a set of [`World`]s. A request that was sent and
//! not answered adds worlds, an answer and what the next daemon shows take worlds away, and a name without any world
//! left is a fault. No sockets, no processes, no clock.

use serde_json::Value;
use std::path::Path;

/// Nothing, or what is wrong.
pub type Check<T = ()> = Result<T, String>;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    pub state: String,
    pub code: u64,
    pub reason: String,
}

/// An instance as the daemon shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub name: String,
    pub module: String,
    pub policy: String,
    pub run: u32,
    pub state: String,
    pub stop_requested: bool,
    /// `None`: it is alive.
    pub end: Option<End>,
}

pub fn text(value: &Value, key: &str) -> Check<String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no text '{key}' in {value}"))
}

pub fn run_number(value: &Value) -> Check<u32> {
    value["run"].as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| format!("no run number in {value}"))
}

pub fn end_of(value: &Value) -> Check<End> {
    let code = value["exit_code"].as_u64().ok_or_else(|| format!("no exit code in {value}"))?;
    Ok(End { state: text(value, "state")?, code, reason: text(value, "reason")? })
}

impl View {
    pub fn of(value: &Value) -> Check<View> {
        let state = text(value, "state")?;
        let alive = ["created", "running", "restarting"].contains(&state.as_str());
        let end = if alive { None } else { Some(end_of(value)?) };
        let stop_requested =
            value["stop_requested"].as_bool().ok_or_else(|| format!("no stop_requested in {value}"))?;
        let (name, module, policy) = (text(value, "name")?, text(value, "module")?, text(value, "restart")?);
        Ok(View { name, module, policy, run: run_number(value)?, state, stop_requested, end })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    No,
    /// `--rm`.
    Remove,
    Always,
    UnlessStopped,
    OnFailure,
}

impl Policy {
    fn word(self) -> &'static str {
        match self {
            Policy::No | Policy::Remove => "no",
            Policy::Always => "always",
            Policy::UnlessStopped => "unless-stopped",
            Policy::OnFailure => "on-failure",
        }
    }

    pub fn restarts(self) -> bool {
        self.word() != "no"
    }
}

/// What is run, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    pub module: String,
    /// What it exits with; `None` runs for ever.
    pub code: Option<u64>,
    pub policy: Policy,
}

impl Launch {
    pub fn of(module: &str, policy: Policy) -> Launch {
        let code = match module {
            "hello" => Some(0),
            "exit_7" => Some(7),
            _ => None,
        };
        Launch { module: module.to_owned(), code, policy }
    }
}

// What may have ended a run, beside itself.
pub const STOP: u8 = 1;
pub const KILL: u8 = 2;
/// The daemon died.
pub const LOST: u8 = 4;
/// The daemon ended in order.
pub const SHUTDOWN: u8 = 8;

/// Where a run can be in its life.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Perhaps alive; if not, it ended by itself or by one of these.
    Alive(u8),
    /// Ended with its daemon or before, by itself or by one of these.
    Dead(u8),
    /// Ended like this: acknowledged, or shown by a daemon that had just started.
    Over { end: End, stopped: bool },
}

/// One way in which a known instance can stand.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub launch: Launch,
    /// The lowest and the highest number that its newest run can have.
    pub runs: (u32, u32),
    pub phase: Phase,
}

impl World {
    /// A policy makes further runs by itself.
    pub fn begun(launch: &Launch, (from, to): (u32, u32), asked: u8) -> World {
        let to = if launch.policy.restarts() { u32::MAX } else { to };
        World { launch: launch.clone(), runs: (from, to), phase: Phase::Alive(asked) }
    }

    /// The numbers that the next run can have.
    fn next_runs(&self) -> (u32, u32) {
        (self.runs.0 + 1, self.runs.1.saturating_add(1))
    }

    pub fn asked(mut self, by: u8) -> World {
        if let Phase::Alive(asked) = &mut self.phase {
            *asked |= by;
        }
        self
    }

    pub fn may_be_over(&self) -> bool {
        match self.phase {
            Phase::Alive(asked) => asked != 0 || (self.launch.code.is_some() && !self.launch.policy.restarts()),
            Phase::Dead(_) | Phase::Over { .. } => true,
        }
    }

    pub fn may_end(&self, asked: u8, end: &End) -> bool {
        let restarts = self.launch.policy.restarts();
        // Until it has come back, the end that it had in an earlier life is shown.
        if restarts && asked & (LOST | SHUTDOWN) != 0 {
            return true;
        }
        match (end.state.as_str(), end.code) {
            // With a policy only what cancels the next run leaves it at that.
            ("exited", code) => self.launch.code == Some(code) && (asked != 0 || !restarts),
            ("stopped", 143) => asked & (STOP | SHUTDOWN) != 0,
            ("killed", 137) => asked & KILL != 0,
            ("lost", 125) => asked & LOST != 0 && end.reason == "daemon-restart",
            _ => false,
        }
    }

    pub fn is_the_run_of(&self, view: &View) -> bool {
        let Launch { module, policy, .. } = &self.launch;
        *module == view.module && policy.word() == view.policy && (self.runs.0..=self.runs.1).contains(&view.run)
    }

    /// Whether a daemon that has been at work for a while can show this.
    fn permits(&self, view: &View) -> bool {
        self.is_the_run_of(view)
            && match &self.phase {
                Phase::Alive(asked) => view.end.as_ref().is_none_or(|end| self.may_end(*asked, end)),
                Phase::Dead(asked) => view.end.as_ref().is_some_and(|end| self.may_end(*asked, end)),
                Phase::Over { end, .. } => view.end.as_ref() == Some(end),
            }
    }

    /// The daemon is gone, by `cause`.
    pub fn die(&mut self, cause: u8) {
        let policy = self.launch.policy;
        match &mut self.phase {
            Phase::Alive(asked) if policy.restarts() => *asked |= cause,
            Phase::Alive(asked) => self.phase = Phase::Dead(*asked | cause),
            Phase::Dead(_) => {}
            Phase::Over { end, stopped } => {
                let comes_back = match policy {
                    Policy::No | Policy::Remove => false,
                    Policy::Always => true,
                    Policy::UnlessStopped => !*stopped,
                    Policy::OnFailure => !*stopped && end.reason == "shutdown",
                };
                if comes_back {
                    self.phase = Phase::Alive(cause);
                }
            }
        }
    }

    /// What is known once a daemon that has just started shows this. `None`: it must not, or not yet.
    fn settled(&self, view: &View) -> Option<World> {
        if !self.is_the_run_of(view) {
            return None;
        }
        let over = |end: &End, stopped| World {
            runs: (view.run, if self.launch.policy.restarts() { u32::MAX } else { view.run }),
            phase: Phase::Over { end: end.clone(), stopped },
            ..self.clone()
        };
        match (&self.phase, &view.end) {
            (Phase::Over { end, .. }, Some(found)) => {
                (end == found && self.launch.policy != Policy::Remove).then(|| self.clone())
            }
            (Phase::Dead(asked), Some(end)) => self.may_end(*asked, end).then(|| match self.launch.policy {
                // It is on its way out.
                Policy::Remove => self.clone(),
                _ => over(end, view.stop_requested),
            }),
            (Phase::Over { .. } | Phase::Dead(_), None) => None,
            // What keeps ending may be found between two runs, with a pause of up to a minute.
            (Phase::Alive(_), None) => {
                let back = self.launch.code.is_some() || (view.state == "running" && view.run > self.runs.0);
                // A run is shown as created before that is written down.
                let known = if view.state == "created" { self.runs.0 } else { view.run };
                back.then(|| World { runs: (known, u32::MAX), phase: Phase::Alive(0), ..self.clone() })
            }
            (Phase::Alive(asked), Some(end)) => {
                let stopped = asked & (STOP | KILL) != 0 && self.launch.policy != Policy::Always;
                stopped.then(|| if view.stop_requested { over(end, true) } else { self.clone() })
            }
        }
    }
}

/// A request about one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Run(Launch),
    Stop,
    Kill,
    Restart,
    Wait,
    Inspect,
    Rm { force: bool, volumes: bool },
}

/// What became of a request.
#[derive(Debug, Clone)]
pub enum Outcome {
    Done(Value),
    Refused(String),
    /// The daemon died over it.
    Unknown,
}

impl Outcome {
    /// One short line.
    pub fn brief(&self) -> String {
        match self {
            Outcome::Done(reply) => {
                let keys = ["run", "state", "exit_code", "reason", "stop_requested", "restart", "digest", "removed"];
                let said = keys.iter().filter(|key| !reply[**key].is_null());
                said.map(|key| format!("{key}={} ", reply[*key])).collect()
            }
            Outcome::Refused(code) => format!("refused, {code}"),
            Outcome::Unknown => "not answered".to_owned(),
        }
    }
}

impl Op {
    pub fn words<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        match self {
            Op::Run(Launch { module, policy: Policy::No, .. }) => vec!["run", "--name", name, module],
            Op::Run(Launch { module, policy: Policy::Remove, .. }) => vec!["run", "--rm", "--name", name, module],
            Op::Run(Launch { module, policy, .. }) => vec!["run", "--restart", policy.word(), "--name", name, module],
            Op::Stop | Op::Kill | Op::Restart | Op::Wait | Op::Inspect => vec![self.verb(), name],
            Op::Rm { force, volumes } => {
                let flags = [(*force, "-f"), (*volumes, "-v")];
                let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag);
                ["rm"].into_iter().chain(flags).chain([name]).collect()
            }
        }
    }

    pub fn verb(&self) -> &'static str {
        match self {
            Op::Run(_) => "run",
            Op::Stop => "stop",
            Op::Kill => "kill",
            Op::Restart => "restart",
            Op::Wait => "wait",
            Op::Inspect => "inspect",
            Op::Rm { .. } => "rm",
        }
    }

    pub fn asks(&self) -> u8 {
        match self {
            // A restart stops first.
            Op::Stop | Op::Restart => STOP,
            Op::Kill | Op::Rm { force: true, .. } => KILL,
            _ => 0,
        }
    }

    /// What follows from an answer, if it can be one in this world. `ending`: what the daemon may be at.
    fn done(&self, world: Option<&World>, reply: &Value, ending: u8) -> Check<Option<Option<World>>> {
        let is_next = |(from, to): (u32, u32)| Ok::<_, String>((from..=to).contains(&run_number(reply)?));
        Ok(match (self, world) {
            (Op::Run(launch), world) => {
                let fits = match world {
                    Some(world) => world.may_be_over() && is_next(world.next_runs())?,
                    None => is_next((1, 1))?,
                };
                let run = run_number(reply)?;
                fits.then(|| Some(World::begun(launch, (run, run), ending)))
            }
            (_, None) => None,
            (Op::Restart, Some(world)) => {
                let run = run_number(reply)?;
                is_next(world.next_runs())?.then(|| Some(World::begun(&world.launch, (run, run), ending)))
            }
            (Op::Rm { force, .. }, Some(world)) => (*force || world.may_be_over()).then_some(None),
            (Op::Inspect, Some(world)) => world.permits(&View::of(reply)?).then(|| Some(world.clone())),
            (Op::Stop | Op::Kill, Some(world)) if reply["state"] == "never-started" => {
                Some(Some(world.clone().asked(self.asks())))
            }
            (Op::Stop | Op::Kill | Op::Wait, Some(world)) => {
                let (view, world) = (View::of(reply)?, world.clone().asked(self.asks()));
                let restarts = world.launch.policy.restarts();
                // A stop that meets the daemon's own end may be either's, and what was between two runs stays there.
                let either = restarts && ending != 0;
                let Some(end) = view.end.clone().filter(|_| world.permits(&view)) else {
                    let between = either && view.state == "restarting" && world.permits(&view);
                    return Ok(between.then_some(Some(world)));
                };
                if either {
                    return Ok(Some(Some(world)));
                }
                let runs = (view.run, if restarts { u32::MAX } else { view.run });
                let phase = Phase::Over { end, stopped: self.asks() != 0 || view.stop_requested };
                Some(Some(World { runs, phase, ..world }))
            }
        })
    }

    /// What may have come of a request that was not answered.
    fn perhaps(&self, world: Option<&World>, ending: u8) -> Vec<Option<World>> {
        let mut worlds = vec![world.map(|w| w.clone().asked(self.asks()))];
        match (self, world) {
            (Op::Run(launch), None) => worlds.push(Some(World::begun(launch, (1, 1), ending))),
            (Op::Run(launch), Some(w)) if w.may_be_over() => {
                worlds.push(Some(World::begun(launch, w.next_runs(), ending)));
            }
            (Op::Restart, Some(w)) => {
                // With a policy it comes back from between the two runs, too.
                let runs = if w.launch.policy.restarts() { w.runs } else { w.next_runs() };
                worlds.push(Some(World::begun(&w.launch, runs, ending)));
            }
            (Op::Rm { force, .. }, Some(w)) if *force || w.may_be_over() => worlds.push(None),
            _ => {}
        }
        worlds
    }

    /// Whether it can be refused like this.
    fn refusable(world: Option<&World>, code: &str, ending: u8) -> bool {
        match code {
            "not-found" => world.is_none(),
            // What goes by itself may be on its way out.
            "busy" if world.is_some_and(|w| w.launch.policy == Policy::Remove) => true,
            "exists" | "busy" => world.is_some_and(|w| matches!(w.phase, Phase::Alive(_))),
            "shutting-down" => ending != 0,
            _ => false,
        }
    }
}

/// What is known of an instance that one client owns.
#[derive(Debug)]
pub struct Instance {
    /// All that can be; `None` is that there is no such instance.
    pub worlds: Vec<Option<World>>,
    /// Whether its directory is there, where that is known.
    pub directory: Option<bool>,
    pub log: Vec<String>,
}

impl Default for Instance {
    fn default() -> Instance {
        Instance { worlds: vec![None], directory: None, log: vec![] }
    }
}

impl Instance {
    /// What has ended may have gone, by its own `--rm` or a `prune`; `asked`: what a request does to it first.
    pub fn vanish(&mut self, pruned: bool, asked: u8) {
        let goes = |w: &World| pruned || w.launch.policy == Policy::Remove;
        if self.worlds.iter().flatten().any(|w| goes(w) && w.clone().asked(asked).may_be_over()) {
            self.become_one_of([self.worlds.clone(), vec![None]].concat());
        }
    }

    pub fn become_one_of(&mut self, worlds: Vec<Option<World>>) {
        self.worlds.clear();
        for world in worlds {
            if !self.worlds.contains(&world) {
                self.worlds.push(world);
            }
        }
    }

    pub fn finish(&mut self, op: &Op, outcome: &Outcome, ending: u8, pruned: bool) -> Check {
        self.vanish(pruned, op.asks());
        match outcome {
            Outcome::Done(reply) => {
                let mut worlds = vec![];
                for world in &self.worlds {
                    worlds.extend(op.done(world.as_ref(), reply, ending)?);
                }
                if worlds.is_empty() {
                    return Err(format!("{op:?} cannot be answered with {reply}"));
                }
                // Reading shows what is not written down yet; it settles nothing.
                if *op != Op::Inspect {
                    self.become_one_of(worlds);
                }
            }
            Outcome::Refused(code) => {
                if !self.worlds.iter().any(|w| Op::refusable(w.as_ref(), code, ending)) {
                    return Err(format!("{op:?} cannot be refused with {code}"));
                }
                // One of two steps may have been taken, the kill of `rm -f` for one.
                let worlds = self.worlds.iter().cloned();
                self.become_one_of(worlds.map(|world| world.map(|w| w.asked(op.asks()))).collect());
            }
            Outcome::Unknown => {
                let worlds = self.worlds.iter().flat_map(|w| op.perhaps(w.as_ref(), ending)).collect();
                self.become_one_of(worlds);
            }
        }
        self.vanish(pruned, 0);
        self.directory = match (op, outcome) {
            // It goes with the instance, at a moment of the daemon's.
            (Op::Run(launch), _) if launch.policy == Policy::Remove => None,
            (Op::Run(_) | Op::Restart, Outcome::Done(_)) => Some(true),
            (Op::Run(_) | Op::Restart, _) => self.directory.filter(|there| *there),
            (Op::Rm { volumes: true, .. }, Outcome::Done(_)) => Some(false),
            (Op::Rm { volumes: true, .. }, Outcome::Unknown) => None,
            _ => self.directory,
        };
        Ok(())
    }

    /// Takes what a daemon shows that has just started. False: it must not, or not yet.
    pub fn settle(&mut self, view: Option<&View>) -> bool {
        self.vanish(false, 0);
        let fit = |world: &Option<World>| match (world, view) {
            (Some(world), Some(view)) => world.settled(view).map(Some),
            (None, None) => Some(None),
            (Some(_), None) | (None, Some(_)) => None,
        };
        let fitting: Vec<Option<World>> = self.worlds.iter().filter_map(fit).collect();
        let fits = !fitting.is_empty();
        if fits {
            self.become_one_of(fitting);
        }
        fits
    }

    /// Whether waiting for it comes to an end.
    pub fn ends_by_itself(&self) -> bool {
        let short = |w: &World| w.launch.code.is_some() && !w.launch.policy.restarts();
        self.worlds.iter().flatten().all(short)
    }

    pub fn may_come_back(&self) -> bool {
        self.worlds.iter().flatten().any(|w| matches!(w.phase, Phase::Alive(_)))
    }

    pub fn check_directory(&self, path: &Path) -> Check {
        match self.directory {
            Some(true) if !path.is_dir() => Err(format!("its directory {} is gone", path.display())),
            Some(false) if path.symlink_metadata().is_ok() => Err(format!("its directory {} is back", path.display())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spin(policy: Policy) -> Launch {
        Launch::of("spin", policy)
    }

    fn created(run: u32) -> Outcome {
        Outcome::Done(json!({ "name": "a", "run": run }))
    }

    fn shown(launch: &Launch, run: u32, state: &str, code: Option<u8>, reason: &str) -> Value {
        let (asked, reason) = (reason == "stop" || reason == "kill", code.map(|_| reason));
        json!({
            "name": "a", "module": launch.module, "restart": launch.policy.word(), "run": run, "state": state,
            "exit_code": code, "reason": reason, "stop_requested": asked,
        })
    }

    fn view(launch: &Launch, run: u32, state: &str, code: Option<u8>, reason: &str) -> View {
        View::of(&shown(launch, run, state, code, reason)).unwrap()
    }

    fn alive(launch: &Launch, run: u32) -> View {
        view(launch, run, "running", None, "")
    }

    fn stopped(launch: &Launch, run: u32) -> View {
        view(launch, run, "stopped", Some(143), "stop")
    }

    fn lost(launch: &Launch, run: u32) -> View {
        view(launch, run, "lost", Some(125), "daemon-restart")
    }

    /// An instance with these requests behind it.
    fn after(requests: &[(Op, Outcome)]) -> Instance {
        let mut instance = Instance::default();
        for (op, outcome) in requests {
            instance.finish(op, outcome, 0, false).unwrap();
        }
        instance
    }

    /// Whether the next daemon may show this.
    fn may(requests: &[(Op, Outcome)], cause: u8, view: Option<&View>) -> bool {
        let mut instance = after(requests);
        instance.worlds.iter_mut().flatten().for_each(|world| world.die(cause));
        instance.settle(view)
    }

    fn stop(launch: &Launch, run: u32) -> (Op, Outcome) {
        (Op::Stop, Outcome::Done(shown(launch, run, "stopped", Some(143), "stop")))
    }

    #[test]
    fn a_lost_run_is_noticed() {
        let launch = spin(Policy::No);
        let run = [(Op::Run(launch.clone()), created(1))];
        assert!(!may(&run, LOST, None));
        assert!(may(&run, LOST, Some(&lost(&launch, 1))));
        let unanswered = [(Op::Run(launch.clone()), Outcome::Unknown)];
        assert!(may(&unanswered, LOST, None) && may(&unanswered, LOST, Some(&lost(&launch, 1))));
        let second = [stop(&launch, 1), (Op::Run(launch.clone()), created(2))];
        assert!(
            !may(&[&run[..], &second[..]].concat(), LOST, Some(&stopped(&launch, 1))),
            "the first in place of the second"
        );
    }

    #[test]
    fn a_phantom_that_runs_and_a_run_too_many_are_noticed() {
        let launch = spin(Policy::No);
        let run = [(Op::Run(launch.clone()), created(1))];
        assert!(!may(&run, LOST, Some(&alive(&launch, 1))) && !may(&run, LOST, Some(&alive(&launch, 2))));
        assert!(!may(&run, LOST, Some(&lost(&launch, 2))));
        assert!(!may(&[], LOST, Some(&lost(&launch, 1))), "nobody ran it");
        let mut twice = after(&run);
        assert!(twice.finish(&Op::Run(launch), &created(2), 0, false).is_err(), "a run beside one that is alive");
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_noticed() {
        let launch = spin(Policy::No);
        let run = (Op::Run(launch.clone()), created(1));
        let zero = view(&launch, 1, "exited", Some(0), "exit");
        let of_the_end = view(&launch, 1, "stopped", Some(143), "shutdown");
        let runs = [run.clone()];
        assert!(!may(&runs, LOST, Some(&stopped(&launch, 1))) && !may(&runs, LOST, Some(&zero)));
        assert!(may(&runs, SHUTDOWN, Some(&of_the_end)) && !may(&runs, SHUTDOWN, Some(&lost(&launch, 1))));
        let asked = [run, (Op::Stop, Outcome::Unknown)];
        assert!(may(&asked, LOST, Some(&stopped(&launch, 1))) && may(&asked, LOST, Some(&lost(&launch, 1))));
        let exit_7 = Launch::of("exit_7", Policy::No);
        let mut wrong = after(&[(Op::Run(exit_7.clone()), created(1))]);
        let reply = Outcome::Done(shown(&exit_7, 1, "exited", Some(8), "exit"));
        assert!(wrong.finish(&Op::Wait, &reply, 0, false).is_err(), "another module's exit code");
    }

    #[test]
    fn a_lost_stop_is_noticed() {
        let launch = spin(Policy::No);
        let requests = [(Op::Run(launch.clone()), created(1)), stop(&launch, 1)];
        assert!(may(&requests, LOST, Some(&stopped(&launch, 1))));
        assert!(!may(&requests, LOST, Some(&lost(&launch, 1))) && !may(&requests, LOST, Some(&alive(&launch, 1))));
        let launch = spin(Policy::UnlessStopped);
        let requests = [(Op::Run(launch.clone()), created(1)), stop(&launch, 1)];
        assert!(may(&requests, LOST, Some(&stopped(&launch, 1))) && !may(&requests, LOST, Some(&alive(&launch, 2))));
    }

    #[test]
    fn what_was_shown_once_stays_so() {
        let launch = spin(Policy::No);
        let mut instance = after(&[(Op::Run(launch.clone()), created(1)), (Op::Stop, Outcome::Unknown)]);
        for _ in 0..2 {
            instance.worlds.iter_mut().flatten().for_each(|world| world.die(LOST));
            assert!(instance.settle(Some(&lost(&launch, 1))));
        }
        assert!(!instance.settle(Some(&stopped(&launch, 1))));
    }

    #[test]
    fn what_has_a_policy_comes_back_with_a_new_run() {
        for policy in [Policy::Always, Policy::UnlessStopped, Policy::OnFailure] {
            let launch = spin(policy);
            let run = (Op::Run(launch.clone()), created(3));
            for cause in [LOST, SHUTDOWN] {
                let runs = [(Op::Run(launch.clone()), created(1)), stop(&launch, 1), (Op::Restart, created(2))];
                assert!(may(&runs, cause, Some(&alive(&launch, 3))));
                for not in [Some(alive(&launch, 2)), Some(lost(&launch, 2)), Some(stopped(&launch, 2)), None] {
                    assert!(!may(&runs, cause, not.as_ref()), "{policy:?} {not:?}");
                }
            }
            let mut instance = Instance::default();
            assert!(instance.finish(&run.0, &run.1, 0, false).is_err(), "the first run has the number 1");
            let asked = [(Op::Run(launch.clone()), created(1)), (Op::Kill, Outcome::Unknown)];
            let killed = view(&launch, 1, "killed", Some(137), "kill");
            assert!(may(&asked, LOST, Some(&alive(&launch, 2))));
            assert_eq!(may(&asked, LOST, Some(&killed)), policy != Policy::Always);
            let stops = [(Op::Run(launch.clone()), created(1)), stop(&launch, 1)];
            assert_eq!(may(&stops, LOST, Some(&alive(&launch, 2))), policy == Policy::Always);
        }
    }

    #[test]
    fn a_lost_removal_is_noticed() {
        let launch = spin(Policy::No);
        let run = (Op::Run(launch.clone()), created(1));
        let force = Op::Rm { force: true, volumes: true };
        let removed = [run.clone(), (force.clone(), Outcome::Done(json!({ "removed": "a" })))];
        assert!(may(&removed, LOST, None) && !may(&removed, LOST, Some(&lost(&launch, 1))));
        let asked = [run, (force, Outcome::Unknown)];
        assert!(may(&asked, LOST, None) && may(&asked, LOST, Some(&lost(&launch, 1))));
        let once = Launch::of("hello", Policy::Remove);
        let zero = shown(&once, 1, "exited", Some(0), "exit");
        let ended = [(Op::Run(once.clone()), created(1)), (Op::Wait, Outcome::Done(zero.clone()))];
        assert!(may(&ended, LOST, None) && !may(&ended, LOST, Some(&View::of(&zero).unwrap())));
        let directory = tempfile::tempdir().unwrap();
        assert!(after(&removed).check_directory(directory.path()).is_err(), "it is still there");
        assert!(after(&removed[..1]).check_directory(&directory.path().join("a")).is_err(), "it is gone");
    }

    #[test]
    fn a_refusal_that_denies_what_was_acknowledged_is_noticed() {
        let mut instance = after(&[(Op::Run(spin(Policy::No)), created(1))]);
        let refused = |code: &str| Outcome::Refused(code.to_owned());
        assert!(instance.finish(&Op::Stop, &refused("not-found"), 0, false).is_err());
        assert!(instance.finish(&Op::Stop, &refused("internal"), 0, false).is_err());
        assert!(instance.finish(&Op::Run(spin(Policy::No)), &refused("exists"), 0, false).is_ok());
        assert!(Instance::default().finish(&Op::Run(spin(Policy::No)), &refused("exists"), 0, false).is_err());
        assert!(Instance::default().finish(&Op::Stop, &stop(&spin(Policy::No), 1).1, 0, false).is_err());
    }

    #[test]
    fn what_has_ended_may_be_pruned_and_what_is_alive_may_not() {
        let (short, long) = (Launch::of("hello", Policy::No), spin(Policy::No));
        for (launch, gone) in [(short, true), (long, false)] {
            let mut instance = after(&[(Op::Run(launch), created(1))]);
            instance.vanish(true, 0);
            instance.worlds.iter_mut().flatten().for_each(|world| world.die(LOST));
            assert_eq!(instance.settle(None), gone);
        }
    }
}
