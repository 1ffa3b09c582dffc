//! Numbers for Prometheus: they are well formed, they move, papers and dashboard name those that there are, and only who may
//! reads them.

use crate::support::{Cli, Foreground, Harness, Raw, soon, source};
use coracle::config::MetricsReaders;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

async fn with_metrics() -> Harness {
    Harness::with(|config| config.metrics = Some(([127, 0, 0, 1], 0).into())).await
}

/// What is answered to a request: the status line, the headers and the body.
async fn ask(address: SocketAddr, request: &str) -> (String, String, String) {
    let mut raw = Raw::connect(address).await;
    raw.send(request).await;
    let answer = String::from_utf8(raw.rest().await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let (status, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    (status.to_owned(), headers.to_owned(), body.to_owned())
}

async fn scrape(daemon: &Harness) -> String {
    let address = daemon.metrics.unwrap();
    let (status, headers, body) = ask(address, &format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains("Content-Type: text/plain; version=0.0.4"), "{headers}");
    assert!(headers.contains(&format!("Content-Length: {}\r\n", body.len())), "{headers}");
    body
}

/// Each sample with its labels as they are written.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name, value.parse().unwrap())).collect()
}

/// Name, type and help of each family.
fn families(text: &str) -> Vec<(String, String, String)> {
    let help = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    std::iter::zip(help, kinds)
        .map(|((name, help), (same, kind))| {
            assert_eq!(name, same);
            (name.to_owned(), kind.to_owned(), help.to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_own_tool_has_nothing_to_say_of_them() {
    let daemon = with_metrics().await;
    daemon.run_to_end(&["hello"]).await;
    let text = scrape(&daemon).await;
    let check = |text: String| {
        tokio::task::spawn_blocking(move || {
            let mut promtool = Command::new("promtool");
            promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = promtool.spawn().expect("promtool(1) is needed here: apt-get install prometheus");
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        })
    };
    let (well, said) = soon("promtool", check(text.clone())).await.unwrap();
    assert!(well && said.is_empty(), "{said}\n{text}");
    let (well, _) = soon("promtool", check(text.replace("coracle_runs_started_total", "coracle_runs"))).await.unwrap();
    assert!(!well, "it looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_move_with_what_happens() {
    let daemon = with_metrics().await;
    let before = scrape(&daemon).await;
    let before = samples(&before);
    let states = before.keys().filter(|name| name.starts_with("coracle_instances{")).count();
    assert_eq!(states, 10, "every state, also those that nobody is in");
    let none = before["coracle_runs_started_total"] + before["coracle_instances{state=\"exited\"}"];
    assert_eq!((none, before["coracle_store_health{state=\"healthy\"}"]), (0.0, 1.0));
    assert!(before["coracle_guest_memory_limit_bytes"] > 0.0 && before["coracle_directories_reserved_bytes"] > 0.0);
    daemon.run_to_end(&["hello"]).await;
    daemon.run_to_end(&["--name", "again", "hello"]).await;
    daemon.run_to_end(&["trap"]).await;
    let mut client = daemon.client().await;
    client.run(&["spin"]).await.unwrap();
    daemon.wait_for_state("spin", "running").await;
    let cpu = async {
        loop {
            let now = scrape(&daemon).await;
            let now = samples(&now);
            if now["coracle_guest_cpu_seconds_total"] > 0.05 {
                return now["coracle_guest_memory_bytes"];
            }
        }
    };
    assert!(soon("CPU time of one that goes on", cpu).await > 0.0);
    assert_eq!(daemon.raw().await.ask("frobnicate").await, "Unknown command frobnicate");
    client.request::<serde_json::Value>(&["stop", "spin"]).await.unwrap();
    let text = scrape(&daemon).await;
    let after = samples(&text);
    for (name, value) in [
        ("coracle_runs_created_total", 4.0),
        ("coracle_runs_started_total", 4.0),
        ("coracle_runs_ended_total{result=\"exited\"}", 2.0),
        ("coracle_runs_ended_total{result=\"trapped\"}", 1.0),
        ("coracle_runs_ended_total{result=\"stopped\"}", 1.0),
        ("coracle_runs_ended_total{result=\"killed\"}", 0.0),
        ("coracle_instances{state=\"exited\"}", 2.0),
        ("coracle_instances{state=\"stopped\"}", 1.0),
        ("coracle_instances{state=\"running\"}", 0.0),
        ("coracle_run_duration_seconds_count", 4.0),
        ("coracle_run_start_seconds_count", 4.0),
        ("coracle_run_duration_seconds_bucket{le=\"86400\"}", 4.0),
        ("coracle_requests_total{verb=\"run\"}", 4.0),
        ("coracle_requests_total{verb=\"stop\"}", 1.0),
        ("coracle_requests_total{verb=\"wait\"}", 3.0),
        ("coracle_bad_requests_total", 1.0),
        ("coracle_compilations_total", 3.0),
        ("coracle_compilations_failed_total", 0.0),
        ("coracle_module_loads_total", 4.0),
        ("coracle_module_memory_hits_total", 1.0),
        ("coracle_output_bytes_total", 40.0),
        ("coracle_output_dropped_bytes_total", 0.0),
        ("coracle_guest_memory_bytes", 0.0),
        ("coracle_descriptors_promised", 0.0),
        ("coracle_store_queue", 0.0),
    ] {
        assert_eq!(after[name], value, "{name}\n{text}");
    }
    for grown in [
        "coracle_store_commits_total",
        "coracle_compile_seconds_total",
        "coracle_compile_cache_bytes",
        "coracle_run_duration_seconds_sum",
        "coracle_connections_accepted_total{door=\"tcp\"}",
        "process_cpu_seconds_total",
    ] {
        assert!(after[grown] > before[grown], "{grown}: {} and then {}", before[grown], after[grown]);
    }
    assert!(after["coracle_connections_open"] >= 1.0 && after["process_start_time_seconds"] > 1.7e9);
    #[cfg(target_os = "linux")]
    assert!(after["process_open_fds"] > 3.0 && after["process_resident_memory_bytes"] > 1e6);
}

/// What is refused, dropped and made to wait is counted as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_and_dropped_is_counted() {
    let daemon = Harness::with(|config| {
        config.metrics = Some(([127, 0, 0, 1], 0).into());
        config.limits.connections_max = 1;
        config.limits.log_bytes_per_second = 64;
    })
    .await;
    let mut one = daemon.raw().await;
    assert_eq!(one.ask("ping").await, "pong");
    assert!(daemon.raw().await.line().await.starts_with("ERR limit "));
    let created = one.ask("run hello 0123456789012345678901234567890123456789012345678901234567890123456789").await;
    assert!(created.contains("created"), "{created}");
    daemon.supervisor.wait(&"hello".parse().unwrap()).unwrap().wait().await;
    let text = scrape(&daemon).await;
    let now = samples(&text);
    assert_eq!(now["coracle_connections_refused_total{reason=\"connections\"}"], 1.0);
    assert_eq!((now["coracle_connections_open"], now["coracle_connections_limit"]), (1.0, 1.0));
    assert!(now["coracle_output_dropped_bytes_total"] > 0.0, "{text}");
    let token = Harness::with(|config| {
        config.metrics = Some(([127, 0, 0, 1], 0).into());
        config.tcp_auth = Some(coracle::config::TcpAuth::Token);
        config.limits.unproved_max = 1;
    })
    .await;
    let mut stranger = token.raw().await;
    assert!(stranger.ask("list").await.starts_with("ERR auth "));
    assert!(token.raw().await.line().await.starts_with("ERR limit "));
    let text = scrape(&token).await;
    let now = samples(&text);
    assert_eq!(now["coracle_unproved_requests_total"], 1.0);
    assert_eq!(now["coracle_connections_refused_total{reason=\"unproved\"}"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_a_browser_and_no_stranger_reads_them() {
    let daemon = with_metrics().await;
    let address = daemon.metrics.unwrap();
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "200 OK"),
        ("GET /metrics HTTP/1.0\r\nHost: [::1]:1\r\n\r\n".to_owned(), "200 OK"),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), "421 Misdirected Request"),
        (
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nOrigin: http://evil.example\r\n\r\n"),
            "421 Misdirected Request",
        ),
        ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), "400 Bad Request"),
        ("list\r\n\r\n".to_owned(), "400 Bad Request"),
        (format!("POST /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n"), "405 Method Not Allowed"),
        (format!("GET /favicon.ico HTTP/1.1\r\nHost: {address}\r\n\r\n"), "404 Not Found"),
        (format!("GET /metrics HTTP/1.1\r\nX: {}\r\n", "x".repeat(9000)), "431 Request Header Fields Too Large"),
    ] {
        let (said, headers, body) = ask(address, &request).await;
        assert_eq!(said, format!("HTTP/1.1 {status}"), "{request}");
        assert!(!headers.to_lowercase().contains("access-control"), "{headers}");
        assert_eq!(body.contains("coracle_build_info"), status == "200 OK", "{request}");
    }
    // One that says nothing, or too little, is not waited for for ever, and keeps nobody away.
    let mut silent = vec![];
    for _ in 0..6 {
        let mut raw = Raw::connect(address).await;
        raw.send("GET /metrics HTTP/1.1\r\n").await;
        silent.push(raw);
    }
    scrape(&daemon).await;
    for raw in silent {
        assert_eq!(raw.rest().await, b"", "closed without a word");
    }
}

/// The kernel's word decides: root may be anybody for a moment.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn another_user_reads_them_only_if_told_that_all_may() {
    for (readers, status) in [(None, "403 Forbidden"), (Some(MetricsReaders::All), "200 OK")] {
        let daemon = Harness::with(move |config| {
            config.metrics = Some(([127, 0, 0, 1], 0).into());
            config.metrics_readers = readers;
        })
        .await;
        let address = daemon.metrics.unwrap();
        if !rustix::process::geteuid().is_root() {
            return crate::support::cannot_try("another user, without being root");
        }
        let mut nc = Command::new("setpriv");
        nc.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "nc",
            "-N",
            "127.0.0.1",
            &address.port().to_string(),
        ]);
        nc.stdin(Stdio::piped());
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let cli = Cli::of(&daemon);
        let (_, said, err) = cli.finish(nc, request.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{said}{err}");
    }
}

/// A daemon of the binary, behind the kernel's fence, says where; and one that others could reach does not start.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_is_told_and_is_never_one_that_others_reach() {
    let cli = Cli::alone();
    let mut daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let stdout = daemon.child.stdout.take().unwrap();
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        line
    });
    let line = soon("the second line", line).await.unwrap();
    let address =
        line.strip_prefix("metrics on http://").and_then(|rest| rest.strip_suffix("/metrics\n")).expect(&line);
    let (status, ..) = ask(address.parse().unwrap(), "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    drop(daemon);
    for (flags, why) in [
        (
            &["--metrics", "0.0.0.0:9464", "--listen", "127.0.0.1:0"][..],
            "error: --metrics 0.0.0.0:9464 can be reached from other machines: give a loopback",
        ),
        (&["--metrics", &cli.address.to_string(), "--listen", &cli.address.to_string()], "is in use"),
        (&["--metrics-readers", "all"], "--metrics <ADDR>"),
    ] {
        let (code, said, err) = cli.run(&[&["daemon"], flags].concat()).await;
        assert!(code == 125 && said.is_empty() && err.contains(why), "{flags:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_in_the_papers_is_what_is_served() {
    let daemon = with_metrics().await;
    let text = scrape(&daemon).await;
    let paper = std::fs::read_to_string(source().join("docs/metrics.md")).unwrap();
    let rows: Vec<&str> =
        paper.lines().filter(|line| line.starts_with("| `coracle_") || line.starts_with("| `process_")).collect();
    let wanted: Vec<String> = families(&text)
        .into_iter()
        .map(|(name, kind, help)| {
            let begins = [format!("{name}{{"), format!("{name}_bucket{{")];
            let labels: BTreeSet<&str> = text
                .lines()
                .filter(|line| begins.iter().any(|begin| line.starts_with(begin)))
                .flat_map(|line| line.split('{').nth(1).unwrap().split('}').next().unwrap().split("\","))
                .map(|label| label.split('=').next().unwrap())
                .filter(|label| *label != "le")
                .collect();
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{name}` | {kind} | {} | {help} |", labels.join(", ")).replace("|  |", "| |")
        })
        .collect();
    // On other systems there are fewer of the process.
    if cfg!(target_os = "linux") {
        assert_eq!(rows, wanted, "docs/metrics.md: the table should be\n{}\n", wanted.join("\n"));
    }
    assert!(wanted.iter().all(|row| rows.contains(&row.as_str())));
}

/// The configuration and the alerts that docs/metrics.md gives can be copied as they stand.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_in_the_papers_is_taken_by_prometheus() {
    let daemon = with_metrics().await;
    let text = scrape(&daemon).await;
    let paper = std::fs::read_to_string(source().join("docs/metrics.md")).unwrap();
    let blocks: Vec<&str> = paper.split("```yaml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    let directory = tempfile::tempdir().unwrap();
    for (kind, block) in [("config", blocks[0]), ("rules", blocks[1])] {
        let file = directory.path().join(kind);
        std::fs::write(&file, block).unwrap();
        let mut promtool = Command::new("promtool");
        let output = promtool.args(["check", kind]).arg(&file).stdin(Stdio::null()).output();
        let output = output.expect("promtool(1) is needed here: apt-get install prometheus");
        assert!(output.status.success(), "{output:?}");
    }
    let known: BTreeSet<String> = families(&text).into_iter().map(|(name, ..)| name).collect();
    let words = blocks[1].split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let asked: BTreeSet<String> = words.filter(|w| w.starts_with("coracle_")).map(str::to_owned).collect();
    assert!(asked.len() >= 4 && asked.is_subset(&known), "{asked:?}");
}

/// Every metric that a panel asks for is one that is served.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_what_there_is() {
    let daemon = with_metrics().await;
    let text = scrape(&daemon).await;
    let known: BTreeSet<String> = families(&text)
        .into_iter()
        .flat_map(|(name, kind, _)| match kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")).to_vec(),
            _ => vec![name],
        })
        .collect();
    let board = std::fs::read_to_string(source().join("docs/grafana.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&board).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["title"].is_string(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<&str> = words.filter(|w| w.starts_with("coracle_") || w.starts_with("process_")).collect();
            assert!(!names.is_empty(), "{expression}");
            asked.extend(names.into_iter().map(str::to_owned));
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
    assert_eq!(asked.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
}
