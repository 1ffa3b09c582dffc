//! The life of an instance: what follows a run, what an operator asks for, what is removed and what is kept.

use crate::support::{Cli, Harness, large_module, soon};
use coracle::model::filter::Filter;
use coracle::model::reply::{Created, Inspection, InstanceView};
use serde_json::Value;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn on_failure_runs_again_until_it_succeeds() {
    let daemon = Harness::start().await;
    let view = daemon.run_to_end(&["--restart", "on-failure", "flaky"]).await;
    assert_eq!((view.status().as_str(), view.run, view.restarts), ("exited (0)", 3, 2));
    let mut client = daemon.client().await;
    let inspection: Inspection = client.request(&["inspect", "flaky"]).await.unwrap();
    let codes: Vec<_> = inspection.runs.iter().map(|run| (run.run, run.exit_code.unwrap())).collect();
    assert_eq!(codes, [(1, 1), (2, 2), (3, 0)], "inspect shows all runs");
    assert!(inspection.runs.iter().all(|run| run.started_at.is_some() && run.ended_at.is_some()));
    assert_eq!(inspection.instance.restart, "on-failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_of_retries_is_kept_and_the_pause_doubles() {
    let daemon = Harness::start().await;
    let begun = Instant::now();
    let view = daemon.run_to_end(&["--restart", "on-failure:3", "exit_7"]).await;
    assert_eq!((view.status().as_str(), view.run, view.restarts), ("exited (7)", 4, 3));
    // 100, 200 and 400 ms: shorter would be no back-off.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    let mut raw = daemon.raw().await;
    raw.send("events --since 0 --until 0s --filter type=restarting\n").await;
    let lines = raw.dotted().await;
    let delays: Vec<&str> = lines.iter().filter_map(|l| l.split("delay=").nth(1)).collect();
    assert_eq!(delays, ["100ms", "200ms", "400ms"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn always_runs_again_whatever_the_code_and_a_stop_ends_it_for_good() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.run(&["--restart", "always", "hello"]).await.unwrap();
    let view = daemon.wait_for("hello", "ran three times", |view| view.run >= 3).await;
    assert!(view.is_live());
    let taken = client.run(&["hello"]).await.unwrap_err();
    assert!(taken.to_string().contains("already running"), "{taken}");
    let stopped: InstanceView = soon("the stop", client.request(&["stop", "hello"])).await.unwrap();
    assert!(!stopped.is_live() && stopped.stop_requested);
    // Longer than any pause that it had come to.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let now: InstanceView = client.request(&["wait", "hello"]).await.unwrap();
    assert_eq!(now.run, stopped.run);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_stop_and_kill_are_no_failures() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    for (verb, state) in [("stop", "stopped"), ("kill", "killed")] {
        for policy in ["always", "unless-stopped", "on-failure"] {
            client.run(&["--restart", policy, "--name", "x", "sleep"]).await.unwrap();
            let view: InstanceView = soon(verb, client.request(&[verb, "x"])).await.unwrap();
            assert_eq!((view.state.as_str(), view.restarts), (state, 0), "{policy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_ends_a_run_and_begins_the_next() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.run(&["-e", "A=1", "-l", "k=v", "--name", "s", "sleep", "an argument"]).await.unwrap();
    let created: Created = soon("the restart", client.request(&["restart", "s"])).await.unwrap();
    assert_eq!(created.run, 2);
    let view = daemon.wait_for("s", "is running again", |view| view.run == 2 && view.state == "running").await;
    assert_eq!((view.args, view.env, view.restarts), (vec!["an argument".to_owned()], vec!["A".to_owned()], 0));
    let inspection: Inspection = client.request(&["inspect", "s"]).await.unwrap();
    let first = &inspection.runs[0];
    assert_eq!((first.state.as_str(), first.reason.as_deref()), ("stopped", Some("restart")));
    client.request::<Value>(&["stop", "s"]).await.unwrap();
    assert_eq!(daemon.raw().await.ask("restart s").await, "Container 's' restarted", "also one that has ended");
    daemon.wait_for("s", "runs a third time", |view| view.run == 3 && view.state == "running").await;
    assert_eq!(daemon.raw().await.ask("restart nobody").await, "Container not found");
    // The values of its environment were kept for it, and are shown nowhere.
    client.run(&["-e", "SECRET=mellon", "--name", "env", "args_env"]).await.unwrap();
    client.request::<Value>(&["wait", "env"]).await.unwrap();
    client.request::<Value>(&["restart", "env"]).await.unwrap();
    client.request::<Value>(&["wait", "env"]).await.unwrap();
    assert_eq!(daemon.log("env").await.matches("SECRET=mellon").count(), 2);
    for request in ["inspect env", "list", "events --since 0 --until 0s"] {
        let mut raw = daemon.raw().await;
        raw.send(&format!("format json\n{request}\nping\n")).await;
        raw.line().await;
        loop {
            let line = raw.line().await;
            assert!(!line.contains("mellon"), "{request}: {line}");
            if line.contains("pong") {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_gives_time_like_a_stop_and_yields_to_one() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    client.run(&["--name", "s", "sleep"]).await.unwrap();
    daemon.wait_for_state("s", "running").await;
    let name = "s".parse().unwrap();
    let mut restart = std::pin::pin!(daemon.supervisor.restart(&name, Duration::from_secs(3600)));
    tokio::select! {
        biased;
        done = &mut restart => panic!("it has an hour: {done:?}"),
        () = std::future::ready(()) => {}
    }
    let stopped: InstanceView = soon("the stop", client.request(&["stop", "s"])).await.unwrap();
    assert_eq!((stopped.state.as_str(), stopped.reason.as_deref(), stopped.run), ("stopped", Some("stop"), 1));
    assert_eq!(soon("an answer", restart).await.unwrap_err().code(), coracle::Code::Busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_knows_two_conditions_and_several_names() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    let mut waiting = daemon.raw().await;
    client.run(&["--name", "s", "sleep"]).await.unwrap();
    assert_eq!(waiting.ask("wait --condition running s").await, "Container 's' running");
    client.run(&["--name", "again", "--restart", "on-failure:1", "exit_7"]).await.unwrap();
    waiting.send("wait again s\n").await;
    daemon.wait_for_state("again", "exited").await;
    client.request::<Value>(&["stop", "s"]).await.unwrap();
    assert_eq!(waiting.dotted().await, ["7", "143"], "the end, not the pause before another run");
    assert_eq!(
        waiting.ask("wait --condition running again").await,
        "ERR busy 'again' is not running: it is exited (7)"
    );
    let cli = Cli::of(&daemon);
    client.run(&["--name", "s", "sleep"]).await.unwrap();
    assert_eq!(cli.run(&["wait", "--condition", "running", "s"]).await, (0, "s\n".to_owned(), String::new()));
    // One that is between two runs will be there.
    client.run(&["--name", "loop", "--restart", "always", "exit_7"]).await.unwrap();
    daemon.wait_for_state("loop", "restarting").await;
    let line = waiting.ask("wait --condition running loop").await;
    assert!(line.starts_with("Container 'loop' "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rm_keeps_the_directory_unless_it_is_told_otherwise() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    for name in ["kept", "gone"] {
        daemon.run_to_end(&["--name", name, "exit_7"]).await;
        std::fs::write(daemon.root.join(name).join("file"), "x").unwrap();
        std::fs::create_dir_all(daemon.root.join(name).join("a/b/c")).unwrap();
    }
    client.request::<Value>(&["rm", "kept"]).await.unwrap();
    client.request::<Value>(&["rm", "-v", "gone"]).await.unwrap();
    assert!(daemon.root.join("kept/file").exists());
    assert!(!daemon.root.join("gone").exists(), "it is out of the way when rm returns");
    soon("an empty root", async {
        while std::fs::read_dir(&daemon.root).unwrap().count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The name is free, and what is left is still the instance's.
    let view = daemon.run_to_end(&["--name", "gone", "exit_7"]).await;
    assert_eq!(view.run, 1);
    daemon.run_to_end(&["--name", "kept", "exit_7"]).await;
    assert!(daemon.root.join("kept/file").exists());
    client.run(&["--name", "gone2", "sleep"]).await.unwrap();
    assert_eq!(client.request::<Value>(&["rm", "gone2"]).await.unwrap_err().code(), Some(coracle::Code::Busy));
    client.request::<Value>(&["rm", "-f", "-v", "gone2"]).await.unwrap();
    assert!(!daemon.root.join("gone2").exists());
    // One that goes by itself when it is killed, from a directory that was there before.
    daemon.run_to_end(&["--name", "mixed", "exit_7"]).await;
    client.run(&["--rm", "--name", "mixed", "sleep"]).await.unwrap();
    client.request::<Value>(&["rm", "-f", "-v", "mixed"]).await.unwrap();
    assert!(!daemon.root.join("mixed").exists());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_ours_is_not_removed() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    daemon.run_to_end(&["--name", "a", "exit_7"]).await;
    let path = daemon.root.join("a");
    std::fs::rename(&path, daemon.root.join("elsewhere")).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("precious"), "x").unwrap();
    let refused = client.request::<Value>(&["rm", "-v", "a"]).await.unwrap_err();
    assert_eq!(refused.code(), Some(coracle::Code::Denied), "{refused}");
    assert!(path.join("precious").exists() && daemon.root.join("elsewhere").exists());
    let outside = daemon.root.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    assert!(client.request::<Value>(&["rm", "-v", "a"]).await.is_err());
    assert!(outside.join("precious").exists());
    client.request::<Value>(&["rm", "a"]).await.unwrap();
}

/// A tree that a guest built to make its removal hard: the answers go on meanwhile.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_deep_and_wide_is_removed_off_the_path() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    daemon.run_to_end(&["--name", "t", "exit_7"]).await;
    let path = daemon.root.join("t");
    for i in 0..20_000 {
        std::fs::write(path.join(format!("f{i}")), "").unwrap();
    }
    let mut deep = path.clone();
    for _ in 0..1000 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    client.request::<Value>(&["rm", "-v", "t"]).await.unwrap();
    assert!(!path.exists());
    soon("the tree's end", async {
        while std::fs::read_dir(&daemon.root).unwrap().next().is_some() {
            client.request::<Value>(&["ping"]).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_run_with_rm_leaves_nothing() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "--rm", "exit_7"]).await.0, 7);
    assert_eq!(cli.run(&["run", "--rm", "--name", "h", "hello"]).await.1, "Hello from Coracle!\n");
    soon("nothing is left", async {
        while !daemon.supervisor.list(&Filter::default()).is_empty()
            || std::fs::read_dir(&daemon.root).unwrap().next().is_some()
            || std::fs::read_dir(daemon.state.join("logs")).unwrap().next().is_some()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Nothing of it is in the way of the next one.
    for _ in 0..20 {
        assert_eq!(cli.run(&["run", "--rm", "hello"]).await.0, 0);
    }
    // A directory that was there before is not the run's to remove.
    daemon.run_to_end(&["--name", "kept", "hello"]).await;
    std::fs::write(daemon.root.join("kept/file"), "x").unwrap();
    daemon.client().await.request::<Value>(&["rm", "kept"]).await.unwrap();
    assert_eq!(cli.run(&["run", "--rm", "--name", "kept", "hello"]).await.0, 0);
    assert!(daemon.root.join("kept/file").exists());
    let (code, _, err) = cli.run(&["run", "--rm", "--restart", "always", "hello"]).await;
    assert!(code == 125 && err.contains("cannot be used with"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_filters_choose() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    for words in [
        &["run", "-d", "-l", "tier=front", "--label", "team=a", "--name", "web1", "sleep"][..],
        &["run", "-d", "-l", "tier=back", "--name", "db", "sleep"],
        &["run", "-d", "-l", "tier=front", "--name", "web2", "exit_7"],
    ] {
        assert_eq!(cli.run(words).await.0, 0);
    }
    cli.run(&["wait", "web2"]).await;
    for (filters, names) in [
        (&["--filter", "label=tier=front"][..], "web1\nweb2\n"),
        (&["-f", "label=tier", "-f", "status=running"], "web1\ndb\n"),
        (&["-f", "name=web", "-f", "exited=7"], "web2\n"),
        (&["-f", "module=sleep", "-f", "label=team=a"], "web1\n"),
        (&["-f", "status=lost"], ""),
    ] {
        let words = [&["ps", "-q"], filters].concat();
        assert_eq!(cli.run(&words).await.1, names, "{filters:?}");
    }
    assert_eq!(daemon.raw().await.ask("list -f name=db").await, "Available containers: ['db - running']");
    let (code, _, err) = cli.run(&["ps", "-f", "colour=red"]).await;
    assert!(code == 125 && err.contains("name, module, status, exited, label"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_what_has_ended_and_is_wanted() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    for (name, label) in [("a", "keep=no"), ("b", "keep=yes"), ("c", "keep=no")] {
        daemon.run_to_end(&["--name", name, "-l", label, "exit_7"]).await;
    }
    daemon.client().await.run(&["--name", "alive", "-l", "keep=no", "sleep"]).await.unwrap();
    assert_eq!(cli.run(&["prune", "-f", "until=1h"]).await.1, "", "nothing is that old");
    assert_eq!(cli.run(&["prune", "-f", "label=keep=no"]).await.1, "a\nc\n");
    assert!(daemon.root.join("a").exists());
    assert_eq!(cli.run(&["prune", "-v"]).await.1, "b\n");
    assert!(!daemon.root.join("b").exists());
    assert_eq!(cli.run(&["ps", "-q"]).await.1, "alive\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_kept_by_age_too() {
    let mut daemon = Harness::with_limits(|l| l.ended_for = Duration::from_secs(2)).await;
    daemon.run_to_end(&["--name", "old", "hello"]).await;
    assert_eq!(daemon.supervisor.list(&Filter::default()).len(), 1);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    daemon.run_to_end(&["--name", "young", "exit_7"]).await;
    soon("the old record's end", async {
        while daemon.supervisor.list(&Filter::default()).len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(daemon.root.join("old").exists(), "directories stay");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    daemon.restart().await;
    assert!(daemon.supervisor.list(&Filter::default()).is_empty(), "what grew old while nobody looked");
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_runs_are_kept_within_their_limit() {
    let daemon = Harness::with_limits(|l| l.runs_max = 2).await;
    for _ in 0..4 {
        daemon.run_to_end(&["exit_7"]).await;
    }
    let mut client = daemon.client().await;
    let inspection: Inspection = client.request(&["inspect", "exit_7"]).await.unwrap();
    assert_eq!(inspection.runs.iter().map(|r| r.run).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_run_ends_with_its_first_run_and_the_policy_goes_on() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let (code, _, err) = cli.run(&["run", "--restart", "on-failure", "flaky"]).await;
    assert!(code == 1 && err.contains("runs again"), "{code} {err}");
    let end = daemon.wait_for_state("flaky", "exited").await;
    assert_eq!((end.run, end.exit_code), (3, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_gone_fails_the_run_and_the_policy_tries_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.wat");
    std::fs::copy(crate::support::source().join("tests/guests/exit_7.wat"), &file).unwrap();
    let modules = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(modules)).await;
    daemon.client().await.run(&["--restart", "unless-stopped", "app"]).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let view = daemon.wait_for("app", "failed", |view| view.reason.as_deref() == Some("no-module")).await;
    assert_eq!((view.state.as_str(), view.exit_code), ("restarting", Some(126)));
    std::fs::copy(crate::support::source().join("tests/guests/sleep.wat"), &file).unwrap();
    daemon.wait_for_state("app", "running").await;
}

/// The case that the time is for: the guest leaves by itself, and is run again all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_leaves_in_the_time_that_a_restart_gives_is_run_again() {
    let daemon = Harness::start().await;
    let mut attached = daemon.client().await;
    attached.send(&["run", "--attach", "-i", "cat"]).await.unwrap();
    daemon.wait_for_state("cat", "running").await;
    let created: Created =
        soon("the restart", daemon.client().await.request(&["restart", "-t", "1h", "cat"])).await.unwrap();
    assert_eq!(created.run, 2);
    let mut client = daemon.client().await;
    let inspection: Inspection = client.request(&["inspect", "cat"]).await.unwrap();
    assert_eq!(inspection.runs[0].reason.as_deref(), Some("exit"), "its input ended, and so did it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_cannot_begin_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.wat");
    let modules = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(modules)).await;
    let mut client = daemon.client().await;
    for policy in ["no", "always"] {
        std::fs::copy(crate::support::source().join("tests/guests/sleep.wat"), &file).unwrap();
        client.run(&["--restart", policy, "--name", policy, "app"]).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        let refused = soon("an answer", client.request::<Value>(&["restart", policy])).await.unwrap_err();
        assert!(refused.to_string().contains("no module named 'app'"), "{policy}: {refused}");
    }
}

/// A restart during a pause with time to give: there is nobody to give it to, and the next run is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_during_a_pause_does_not_reach_into_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.wat");
    let guest = |name: &str| {
        std::fs::copy(crate::support::source().join(format!("tests/guests/{name}.wat")), &file).unwrap();
    };
    guest("exit_7");
    let modules = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(modules)).await;
    let mut client = daemon.client().await;
    client.run(&["--restart", "on-failure:9", "app"]).await.unwrap();
    let pausing = daemon.wait_for("app", "has a long pause", |v| v.restarts >= 5 && v.state == "restarting").await;
    guest("sleep");
    let created: Created = soon("the restart", client.request(&["restart", "-t", "300ms", "app"])).await.unwrap();
    assert_eq!(created.run, pausing.run + 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(daemon.wait_for_state("app", "running").await.run, created.run);
}

/// A name that is run with and without --rm: what was not to go stays.
#[tokio::test(flavor = "multi_thread")]
async fn rm_of_one_run_does_not_take_the_next() {
    let daemon = Harness::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..4 {
        let (mut with, mut without) = (daemon.client().await, daemon.client().await);
        tasks.spawn(async move {
            let name = format!("n{i}");
            for _ in 0..100 {
                let _taken = with.run(&["--rm", "--name", &name, "hello"]).await;
            }
        });
        tasks.spawn(async move {
            let name = format!("n{i}");
            for _ in 0..100 {
                let _taken = without.run(&["--label", "keep=yes", "--name", &name, "hello"]).await;
            }
        });
    }
    tasks.join_all().await;
    let mut raw = daemon.raw().await;
    raw.send("events --since 0 --until 0s -f type=removed -f label=keep=yes\n").await;
    assert_eq!(raw.dotted().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rm_f_takes_what_is_still_being_prepared() {
    let directory = large_module(3000);
    let modules = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(modules)).await;
    let mut starting = daemon.raw().await;
    starting.send("run --name slow large\n").await;
    let mut client = daemon.client().await;
    soon("the removal of a run that is being prepared", async {
        while client.request::<Value>(&["rm", "-f", "slow"]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(starting.line().await.starts_with("ERR busy "));
    assert!(daemon.supervisor.list(&Filter::default()).is_empty());
}
