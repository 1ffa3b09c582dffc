//! The text protocol: the original daemon's sentences and its client's habits, framing, and the format for programs.

use crate::support::{Harness, soon};
use coracle::model::filter::{Filter, Labels};
use coracle::model::instance::{RunSpec, Share};
use coracle::model::restart::RestartPolicy;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn the_original_sentences_stand_to_the_letter() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    let root = daemon.root.display().to_string();
    assert_eq!(raw.ask("list").await, "Available containers: []");
    assert_eq!(raw.ask("run spin").await, format!("Container 'spin' created at '{root}/spin'"));
    daemon.wait_for_state("spin", "running").await;
    assert_eq!(raw.ask("run exit_7").await, format!("Container 'exit_7' created at '{root}/exit_7'"));
    daemon.wait_for_state("exit_7", "exited").await;
    assert_eq!(raw.ask("list").await, "Available containers: ['spin - running', 'exit_7 - exited (7)']");
    assert_eq!(raw.ask("stop spin").await, "Container 'spin' stopped");
    assert_eq!(raw.ask("stop spin").await, "Container 'spin' stopped", "twice is the same stop");
    assert_eq!(raw.ask("stop exit_7").await, "Container 'exit_7' stopped", "it had ended by itself");
    assert_eq!(raw.ask("stop nobody").await, "Container not found");
    assert_eq!(raw.ask("run").await, "Usage: run <container_name>");
    assert_eq!(raw.ask("stop").await, "Usage: stop <container_name>");
    assert_eq!(raw.ask("start x").await, "Unknown command start");
    assert_eq!(raw.ask("RUN x").await, "Unknown command RUN");
    assert_eq!(raw.ask("list").await, "Available containers: ['spin - stopped', 'exit_7 - exited (7)']");
}

/// The original client: connect, send a command without a line end, `recv(1024)` once, close.
#[tokio::test(flavor = "multi_thread")]
async fn the_original_client_is_understood() {
    let daemon = Harness::start().await;
    let address = daemon.address;
    let ask = move |command: &'static str| {
        tokio::task::spawn_blocking(move || {
            use std::io::{Read, Write};
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
            socket.write_all(command.as_bytes()).unwrap();
            let mut reply = [0; 1024];
            let n = socket.read(&mut reply).unwrap();
            String::from_utf8(reply[..n].to_vec()).unwrap()
        })
    };
    let created = ask("run spin").await.unwrap();
    assert_eq!(created, format!("Container 'spin' created at '{}/spin'\n", daemon.root.display()));
    assert!(ask("list").await.unwrap().starts_with("Available containers: ['spin - "));
    assert_eq!(ask("stop spin").await.unwrap(), "Container 'spin' stopped\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_half_close_complete_a_request_and_the_connection_goes_on() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    raw.send("ping").await;
    assert_eq!(raw.line().await, "pong");
    // The line end that came late is no request of its own, nor one that came in two pieces.
    raw.send("\r\nlist\r").await;
    assert_eq!(raw.line().await, "Available containers: []");
    raw.send("\nlist").await;
    assert_eq!(raw.line().await, "Available containers: []");
    raw.send("stop x\nping").await;
    raw.stream.shutdown().await.unwrap();
    assert_eq!(raw.line().await, "Container not found");
    assert_eq!(raw.line().await, "pong");
    assert_eq!(raw.line().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let daemon = Harness::start().await;
    let (read, mut write) = daemon.raw().await.stream.into_split();
    let requests: String = (0..20_000).map(|i| format!("stop n{i}\r\nstart{i}\nping\n")).collect();
    let reading = async {
        let mut lines = BufReader::new(read).lines();
        for i in 0..20_000 {
            assert_eq!(lines.next_line().await.unwrap().unwrap(), "Container not found");
            assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("Unknown command start{i}"));
            assert_eq!(lines.next_line().await.unwrap().unwrap(), "pong");
        }
    };
    let (sent, ()) =
        soon("60,000 replies", async { tokio::join!(write.write_all(requests.as_bytes()), reading) }).await;
    sent.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_single_bytes_is_the_same_request() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    raw.stream.set_nodelay(true).unwrap();
    for byte in b"run --name 'one' exit_7\nwait one\n" {
        raw.send_bytes(&[*byte]).await;
    }
    assert_eq!(raw.line().await, format!("Container 'one' created at '{}/one'", daemon.root.display()));
    assert_eq!(raw.line().await, "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_split_as_in_a_shell_and_what_follows_the_module_is_the_guests() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    raw.ask(r#"run -e 'A=1 2' --name x args_env -d "two words" a\ b '' --name y"#).await;
    raw.ask("wait x").await;
    assert_eq!(
        daemon.log("x").await,
        "args_env\\x00-d\\x00two words\\x00a b\\x00\\x00--name\\x00y\\x00--\nA=1 2\\x00\n"
    );
    assert_eq!(raw.ask("run --argv0 zero --name z args_env").await.split(' ').nth(2), Some("created"));
    raw.ask("wait z").await;
    assert_eq!(daemon.log("z").await, "zero\\x00--\n", "nothing of the daemon's environment");
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_to_run_and_stop_fit_one_receive() {
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    let long = "x".repeat(8000);
    for request in [format!("run {long}"), format!("stop {long}"), format!("run --{long} y"), long.clone()] {
        let reply = raw.ask(&request).await;
        assert!(reply.len() < 1024 && !reply.is_empty(), "{}", reply.len());
    }
    assert_eq!(raw.ask("ping").await, "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_end_with_a_dot_and_hide_none() {
    let daemon = Harness::start().await;
    daemon.run_to_end(&["colours"]).await;
    let mut raw = daemon.raw().await;
    raw.send("logs colours\n").await;
    assert_eq!(raw.line().await, "\\x1b[2J\\xff\\x1b]0;x\\x07", "escaped for whoever reads it in a terminal");
    assert_eq!(raw.line().await, "..", "a line that is a dot gets another one");
    assert_eq!(raw.line().await, ".");
    raw.send("help\n").await;
    let help = raw.dotted().await.join("\n");
    for verb in "run stop kill list wait rm logs inspect put modules forget hello ping format help shutdown".split(' ')
    {
        assert!(help.contains(&format!("  {verb} ")), "{verb} is not in the help:\n{help}");
    }
    raw.send("help run\n").await;
    assert!(raw.dotted().await.join("\n").contains("--timeout"));
    raw.send("inspect colours\n").await;
    let view: Value = serde_json::from_str(&raw.dotted().await.join("\n")).unwrap();
    assert_eq!((&view["state"], &view["run"]), (&json!("exited"), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_does_what_it_says_in_both_formats() {
    let daemon = Harness::start().await;
    let mut plain = daemon.raw().await;
    let mut json = daemon.raw().await;
    assert_eq!(json.ask("format json").await, r#"{"ok":{"format":"json"}}"#);
    let ask = async |raw: &mut crate::support::Raw, request: &str| -> Value {
        serde_json::from_str(&raw.ask(request).await).unwrap()
    };
    assert_eq!(ask(&mut json, "ping").await, json!({"ok": {"pong": true}}));
    assert!(plain.ask("hello").await.starts_with("coracle 0.1.0 protocol 1 wasmtime 48 ["));
    assert_eq!(ask(&mut json, "hello").await["ok"]["protocol"], 1);
    assert_eq!(ask(&mut json, "run exit_7").await["ok"]["name"], "exit_7");
    assert_eq!(ask(&mut json, "wait exit_7").await["ok"]["exit_code"], 7);
    assert_eq!(plain.ask("wait exit_7").await, "7");
    assert_eq!(ask(&mut json, r#"["run","--name","j","args_env","a b","line\nend"]"#).await["ok"]["run"], 1);
    assert_eq!(ask(&mut json, "wait j").await["ok"]["args"], json!(["a b", "line\nend"]));
    assert_eq!(ask(&mut json, "list").await["ok"]["instances"].as_array().unwrap().len(), 2);
    assert_eq!(ask(&mut json, "list -q").await["ok"]["names"], json!(["exit_7", "j"]));
    plain.send("list -q\n").await;
    assert_eq!(plain.dotted().await, ["exit_7", "j"]);
    assert_eq!(ask(&mut json, "inspect j").await["ok"]["reason"], "exit");
    assert_eq!(ask(&mut json, "run spin").await["ok"]["name"], "spin");
    let refused = ask(&mut json, "rm spin").await;
    assert_eq!(refused["error"]["code"], "busy");
    let killed = ask(&mut json, "kill spin").await;
    assert_eq!((&killed["ok"]["state"], &killed["ok"]["exit_code"]), (&json!("killed"), &json!(137)));
    plain.ask("run spin").await;
    assert_eq!(plain.ask("kill spin").await, "Container 'spin' killed");
    assert_eq!(plain.ask("kill exit_7").await, "Container 'exit_7' exited (7)", "it had ended by itself");
    plain.send("# a comment\n").await;
    assert_eq!(ask(&mut json, "[]").await["error"]["code"], "usage");
    plain.ask("run spin").await;
    let stopped = ask(&mut json, "stop spin").await;
    assert_eq!((&stopped["ok"]["state"], &stopped["ok"]["exit_code"]), (&json!("stopped"), &json!(143)));
    plain.ask("run spin").await;
    assert_eq!(plain.ask("rm -f spin").await, "Container 'spin' removed");
    assert_eq!(ask(&mut json, "rm j").await, json!({"ok": {"removed": "j"}}));
    plain.send("stop exit_7 nobody\n").await;
    assert_eq!(plain.dotted().await, ["Container 'exit_7' stopped", "Container not found"]);
    let each = ask(&mut json, "wait exit_7 nobody").await["ok"]["each"].clone();
    assert_eq!((&each[0]["ok"]["exit_code"], &each[1]["error"]["code"]), (&json!(7), &json!("not-found")));
    assert_eq!(ask(&mut json, "frobnicate").await["error"]["code"], "usage");
    assert_eq!(plain.ask("format json").await, r#"{"ok":{"format":"json"}}"#);
    assert_eq!(plain.ask("format plain").await, "Format plain");
    assert!(ask(&mut json, "help").await["ok"]["help"].as_str().unwrap().contains("shutdown"));
    assert!(ask(&mut json, "modules").await["ok"]["modules"].as_array().unwrap().iter().any(|m| m["name"] == "hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_ends_the_guests_and_refuses_new_work() {
    let mut daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    for (name, module) in [("a", "spin"), ("b", "sleep"), ("c", "chatty"), ("d", "append")] {
        assert!(raw.ask(&format!("run --name {name} {module}")).await.contains("created"));
    }
    let mut waiting = daemon.raw().await;
    waiting.send("wait a\n").await;
    assert_eq!(raw.ask("shutdown").await, "Shutting down");
    assert_eq!(waiting.line().await, "143", "who waits for an end is told");
    daemon.end().await;
    assert_eq!(daemon.supervisor.live(), 0);
    let view = daemon.supervisor.view(&"a".parse().unwrap()).unwrap();
    assert_eq!(view.reason.as_deref(), Some("shutdown"));
    assert!(tokio::net::TcpStream::connect(daemon.address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_work_is_refused_while_the_daemon_ends() {
    let mut daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    raw.ask("run --name other sleep").await;
    daemon.supervisor.shut_down();
    let spec = RunSpec {
        mounts: vec![],
        module: "hello".parse().unwrap(),
        name: "hello".parse().unwrap(),
        argv0: None,
        args: vec![],
        env: vec![],
        stdin: false,
        memory_bytes_max: 1 << 20,
        disk_bytes_max: 1 << 20,
        files_max: 10,
        timeout: None,
        cpu_time: None,
        share: Share::default(),
        restart: RestartPolicy::No,
        remove: false,
        labels: Labels::new(),
        sha256: None,
    };
    let refused = daemon.supervisor.run(spec, false, |_| ()).await.err().expect("a refusal");
    assert_eq!(refused.code(), coracle::Code::ShuttingDown);
    let refused = daemon.supervisor.begin_put(&"x".parse().unwrap(), 1, false).err().expect("a refusal");
    assert_eq!(refused.code(), coracle::Code::ShuttingDown);
    daemon.end().await;
    assert_eq!(daemon.supervisor.list(&Filter::default()).len(), 1, "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_an_ended_name_is_a_new_run_with_its_directory_and_log() {
    let daemon = Harness::start().await;
    daemon.run_to_end(&["both"]).await;
    std::fs::write(daemon.root.join("both/kept"), "x").unwrap();
    let second = daemon.run_to_end(&["both"]).await;
    assert_eq!(second.run, 2);
    assert!(daemon.root.join("both/kept").exists());
    assert_eq!(daemon.log("both").await.matches("out\n").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_filtered_cut_and_dated() {
    let daemon = Harness::start().await;
    daemon.run_to_end(&["both"]).await;
    let mut raw = daemon.raw().await;
    raw.send("logs --stream stderr both\n").await;
    assert_eq!(raw.dotted().await, ["err"]);
    raw.send("logs -n 1 both\n").await;
    assert_eq!(raw.dotted().await, ["last"]);
    raw.send("logs -t both\n").await;
    for line in raw.dotted().await {
        let (time, text) = line.split_once(' ').unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok() && ["out", "err", "last"].contains(&text), "{line}");
    }
    // A follower gets what comes, and comes to an end with the run.
    raw.ask("run clock").await;
    let mut follower = daemon.raw().await;
    follower.send("logs -f clock\n").await;
    assert!(follower.line().await.ends_with('Z'));
    assert!(follower.line().await.ends_with('Z'), "the second line came a second later");
    raw.ask("stop clock").await;
    soon("the end of the log", async { while follower.line().await != "." {} }).await;
    assert_eq!(follower.ask("ping").await, "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_client_that_leaves_leaves_nothing_behind() {
    let daemon = Harness::with_limits(|l| l.connections_max = 8).await;
    let mut raw = daemon.raw().await;
    raw.ask("run spin").await;
    for _ in 0..50 {
        let mut other = daemon.raw().await;
        other.send("wait spin\n").await;
        // A reset, not a half-close: nobody is listening.
        other.stream.set_zero_linger().unwrap();
        drop(other);
        let mut follower = daemon.raw().await;
        follower.send("logs -f spin\n").await;
        follower.stream.set_zero_linger().unwrap();
        drop(follower);
        // Their places are free again; without it the ninth connection would be refused.
        daemon.wait_for_place().await;
    }
    assert_eq!(raw.ask("stop spin").await, "Container 'spin' stopped");
}
