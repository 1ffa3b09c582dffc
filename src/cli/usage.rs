//! `coracle stats`: what instances and the daemon use, once or as it goes.
//!
//! The daemon tells numbers of one moment; the shares are made here, of two samples.

use super::colour::Paint;
use super::show::{size, span};
use super::table::{Cell, Column, table};
use super::terminal::{self, Look};
use super::{Outcome, again, print, print_json, template_lines};
use crate::client::Client;
use crate::model::request::{OutputFormat, StatsArgs};
use crate::model::stats::{DaemonStats, InstanceStats, Sample};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// Between the two samples of one that is shown once.
const BETWEEN: Duration = Duration::from_millis(250);
/// Between two that are shown one after the other.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// A sample with what only two of them tell.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    pub(super) daemon: DaemonUsage,
    pub(super) instances: Vec<InstanceUsage>,
}

#[derive(Debug, Serialize)]
pub(super) struct DaemonUsage {
    #[serde(flatten)]
    pub(super) stats: DaemonStats,
    /// Of one processor, in percent, guests included; null where there is no telling.
    pub(super) cpu_percent: Option<f64>,
    /// What of that was not of guests.
    pub(super) own_percent: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct InstanceUsage {
    #[serde(flatten)]
    pub(super) stats: InstanceStats,
    /// Of one processor, in percent; null where there is no telling.
    pub(super) cpu_percent: Option<f64>,
}

impl Usage {
    /// What `now` shows, with shares since `before`.
    pub(super) fn between(before: Option<&Sample>, now: &Sample) -> Usage {
        let earlier: HashMap<&str, &InstanceStats> =
            before.iter().flat_map(|sample| &sample.instances).map(|stats| (stats.name.as_str(), stats)).collect();
        let instances = now.instances.iter().map(|stats| {
            let cpu_percent = earlier.get(stats.name.as_str()).and_then(|before| stats.cpu_percent_since(before));
            InstanceUsage { cpu_percent: cpu_percent.map(tenths), stats: stats.clone() }
        });
        let daemon = DaemonUsage {
            stats: now.daemon,
            cpu_percent: before.and_then(|before| now.daemon.cpu_percent_since(&before.daemon)).map(tenths),
            own_percent: before.and_then(|before| now.daemon.own_percent_since(&before.daemon)).map(tenths),
        };
        Usage { daemon, instances: instances.collect() }
    }
}

fn tenths(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

pub(super) async fn stats(client: &mut Client, args: &StatsArgs) -> Outcome {
    let format = args.show.format();
    let streams = args.watch || (terminal::is_terminal() && !args.no_stream && format == OutputFormat::Table);
    let mut before = client.stats(&args.names, args.all).await?;
    tokio::time::sleep(BETWEEN).await;
    let now = client.stats(&args.names, args.all).await?;
    let mut usage = Usage::between(Some(&before), &now);
    if !streams {
        return match &format {
            OutputFormat::Json => print_json(&usage),
            OutputFormat::Template(template) => print(&template_lines(template, &usage.instances)?),
            OutputFormat::Table => print(&shown(&usage, Look::of_stdout(args.show.no_trunc))),
        };
    }
    before = now;
    let mut screen = again::Screen::begin(format == OutputFormat::Table)?;
    loop {
        let text = match &format {
            OutputFormat::Json => again::json_line(&usage)?,
            OutputFormat::Template(template) => template_lines(template, &usage.instances)?,
            OutputFormat::Table if screen.in_place() => live(&usage, Look::of_stdout(args.show.no_trunc)),
            OutputFormat::Table => shown(&usage, Look::of_stdout(args.show.no_trunc)),
        };
        if !screen.show(&text)? || !screen.pause(EVERY).await {
            return Ok(0);
        }
        let now = client.stats(&args.names, args.all).await?;
        usage = Usage::between(Some(&before), &now);
        before = now;
    }
}

/// As it is printed once: instances, and the daemon below.
fn shown(usage: &Usage, look: Look) -> String {
    format!(
        "{}\n{}\n",
        instances(&usage.instances, look),
        super::table::cut(&daemon(&usage.daemon), look.width.unwrap_or(usize::MAX))
    )
}

/// As it is redrawn: the daemon stays in sight.
fn live(usage: &Usage, look: Look) -> String {
    format!(
        "{}\n{}",
        super::table::cut(&daemon(&usage.daemon), look.width.unwrap_or(usize::MAX)),
        instances(&usage.instances, look)
    )
}

/// The daemon in a line.
pub(super) fn daemon(usage: &DaemonUsage) -> String {
    let stats = &usage.stats;
    let rss = stats.rss_bytes.map(|rss| format!(", {} resident", size(rss))).unwrap_or_default();
    format!(
        "Daemon: {}/{} instances alive, memory {}/{}, CPU {} of {} processors, {} of them its own{rss}",
        stats.live,
        stats.live_max,
        size(stats.memory_bytes),
        size(stats.memory_bytes_max),
        percent(usage.cpu_percent),
        stats.processors,
        percent(usage.own_percent),
    )
}

fn instances(all: &[InstanceUsage], look: Look) -> String {
    const COLUMNS: [Column; 11] = [
        Column::new("NAME").shrinks(8),
        Column::new("STATE").spare(2),
        Column::new("CPU %").right(),
        Column::new("TIME").right().spare(4),
        Column::new("MEMORY").right(),
        Column::new("PEAK").right().spare(3),
        Column::new("DISK").right().spare(1),
        Column::new("FILES").right().spare(6),
        Column::new("LOG").right().spare(7),
        Column::new("RESTARTS").right().spare(8),
        Column::new("AGE").right().spare(5),
    ];
    let rows = all.iter().map(|usage| {
        let stats = &usage.stats;
        [
            Cell::from(stats.name.as_str()),
            Cell::painted(&stats.status(), Paint::of_state(&stats.state, stats.exit_code)),
            percent(usage.cpu_percent).into(),
            or_dash(stats.cpu_us.map(span)).into(),
            of(stats.memory_bytes, stats.memory_bytes_max).into(),
            or_dash(stats.memory_peak_bytes.map(size)).into(),
            of(stats.disk_bytes, stats.disk_bytes_max).into(),
            or_dash(stats.files.map(|n| n.to_string())).into(),
            or_dash(stats.log_bytes.map(size)).into(),
            stats.restarts.to_string().into(),
            or_dash(stats.age_us.map(span)).into(),
        ]
    });
    table(&COLUMNS, rows, look)
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn of(used: Option<u64>, max: u64) -> String {
    or_dash(used.map(|used| format!("{}/{}", size(used), size(max))))
}

/// `12.5%`
pub(super) fn percent(percent: Option<f64>) -> String {
    or_dash(percent.map(|percent| format!("{percent:.1}%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent() {
        assert_eq!(
            (percent(None), percent(Some(0.0)), percent(Some(199.96))),
            ("-".into(), "0.0%".into(), "200.0%".into())
        );
    }

    fn sample(at_us: u64, cpu_us: u64) -> Sample {
        let stats = InstanceStats {
            name: "web".parse().unwrap(),
            module: "spin".parse().unwrap(),
            run: 1,
            state: "running".to_owned(),
            exit_code: None,
            restarts: 2,
            created_at: String::new(),
            started_at: None,
            age_us: Some(75_000_000),
            at_us,
            cpu_us: Some(cpu_us),
            share: crate::model::instance::Share::default(),
            memory_bytes: Some(65_536),
            memory_peak_bytes: Some(131_072),
            memory_bytes_max: 256 << 20,
            disk_bytes: None,
            files: None,
            disk_bytes_max: 256 << 20,
            files_max: 10_000,
            log_bytes: Some(300),
            output_bytes: Some(200),
        };
        let other = InstanceStats {
            name: "ended".parse().unwrap(),
            state: "exited".to_owned(),
            exit_code: Some(3),
            memory_bytes: None,
            memory_peak_bytes: None,
            log_bytes: None,
            cpu_us: Some(5_000),
            ..stats.clone()
        };
        let daemon = DaemonStats {
            at_us,
            cpu_us: Some(cpu_us + 40_000),
            guests_cpu_us: cpu_us,
            rss_bytes: Some(45 << 20),
            memory_bytes: 65_536,
            memory_bytes_max: 8 << 30,
            live: 1,
            live_max: 4096,
            instances: 2,
            processors: 2,
        };
        Sample { daemon, instances: vec![stats, other] }
    }

    #[test]
    fn two_samples_make_a_table() {
        let mut before = sample(1_000_000, 500_000);
        before.daemon.cpu_us = Some(520_000);
        let usage = Usage::between(Some(&before), &sample(2_000_000, 1_255_000));
        assert_eq!(
            shown(&usage, Look::default()),
            "\
NAME   STATE       CPU %   TIME    MEMORY  PEAK  DISK  FILES   LOG  RESTARTS    AGE
web    running     75.5%  1.25s  64K/256M  128K     -      -  300B         2  1m15s
ended  exited (3)   0.0%  0.00s         -     -     -      -     -         2  1m15s

Daemon: 1/4096 instances alive, memory 64K/8.0G, CPU 77.5% of 2 processors, 2.0% of them its own, 45M resident
"
        );
        let narrow = live(&usage, Look { width: Some(46), colour: false });
        assert_eq!(
            narrow,
            "\
Daemon: 1/4096 instances alive, memory 64K/8.…
NAME   STATE       CPU %    MEMORY  PEAK  DISK
web    running     75.5%  64K/256M  128K     -
ended  exited (3)   0.0%         -     -     -
"
        );
        let first = Usage::between(None, &sample(1, 1));
        assert_eq!((first.instances[0].cpu_percent, first.daemon.cpu_percent), (None, None));
    }
}
