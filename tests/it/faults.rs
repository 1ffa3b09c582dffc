//! What breaks within the daemon harms one run, and the rest goes on.

use crate::support::{Harness, soon};
use coracle::model::reply::InstanceView;

/// Where host code panics: as the guest is entered, and in a call of the guest's, with its stack in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_the_run_that_it_happened_in_and_no_other() {
    let daemon = Harness::with(|config| {
        config.faults.panics_at_entry = vec!["entry".into(), "entry-p2".into()];
        config.faults.panics_at_output = vec!["output".into(), "output-p2".into()];
    })
    .await;
    let mut client = daemon.client().await;
    client.run(&["--name", "bystander", "spin"]).await.unwrap();
    daemon.wait_for_state("bystander", "running").await;
    for _ in 0..3 {
        for (name, guest) in [("entry", "both"), ("output", "both"), ("entry-p2", "both-p2"), ("output-p2", "both-p2")]
        {
            let view = daemon.run_to_end(&["--name", name, guest]).await;
            assert_eq!((view.state.as_str(), view.exit_code), ("killed", Some(137)), "{view:?}");
            assert_eq!(view.reason.as_deref(), Some("internal"));
            assert!(view.message.unwrap().contains("the daemon's log"));
        }
    }
    assert_eq!(daemon.supervisor.live(), 1, "the bystander");
    assert_eq!(daemon.run_to_end(&["both"]).await.exit_code, Some(0));
    let mut raw = daemon.raw().await;
    assert_eq!(raw.ask("stop bystander").await, "Container 'bystander' stopped");
    assert_eq!(daemon.supervisor.memory_bytes_used(), 0, "what the broken ones had is given back");
}

/// What was promised to a run that broke is there for the next one, also where there is just enough for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_broke_holds_nothing_back() {
    let daemon = Harness::with(|config| {
        config.faults.panics_at_output = vec!["chatty".into()];
        config.faults.panics_in_task = vec!["both".into()];
        config.limits.mappings_max = Some(5);
        config.limits.instances_max = 1;
    })
    .await;
    for _ in 0..3 {
        assert_eq!(daemon.run_to_end(&["chatty"]).await.reason.as_deref(), Some("internal"));
        assert_eq!(daemon.run_to_end(&["both"]).await.reason.as_deref(), Some("internal"), "a task that broke");
        assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_policy_takes_a_panic_for_a_failure() {
    let daemon = Harness::with(|config| config.faults.panics_at_output = vec!["few".into(), "many".into()]).await;
    let view = daemon.run_to_end(&["--name", "few", "--restart", "on-failure:2", "chatty"]).await;
    assert_eq!((view.state.as_str(), view.reason.as_deref(), view.run), ("killed", Some("internal"), 3), "{view:?}");
    let mut client = daemon.client().await;
    client.run(&["--name", "many", "--restart", "always", "chatty"]).await.unwrap();
    daemon.wait_for("many", "has run again", |view| view.run > 2).await;
    let view: InstanceView = soon("the stop", client.request(&["stop", "many"])).await.unwrap();
    assert!(!view.is_live(), "{view:?}");
    assert_eq!(daemon.supervisor.live(), 0);
}

/// `stop` asks whoever computes by itself, and waits for no clock.
#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_an_endless_loop_while_the_clock_of_preemption_stands_still() {
    let daemon = Harness::with(|config| config.faults.no_ticks = true).await;
    let mut client = daemon.client().await;
    for request in ["stop", "kill"] {
        client.run(&["spin"]).await.unwrap();
        daemon.wait_for_state("spin", "running").await;
        let view: InstanceView = soon("its end", client.request(&[request, "spin"])).await.unwrap();
        assert_eq!(view.reason.as_deref(), Some(request), "{view:?}");
        assert_eq!(daemon.supervisor.live(), 0);
    }
}
