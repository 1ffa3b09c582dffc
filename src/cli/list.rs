//! `list`, `modules`, `limits` and `inspect`: what is asked once and shown as a table, JSON or lines of one's own; `list` also
//! again and again.

use super::terminal::{self, Look};
use super::{Outcome, again, each, page, print, print_json, show, template_lines};
use crate::client::{Client, Target};
use crate::model::limit::LimitViews;
use crate::model::reply::{Inspection, InstanceView, json_pretty};
use crate::model::request::{InspectArgs, LimitsArgs, ListArgs, ModulesArgs, OutputFormat};
use std::time::Duration;

/// Ages are shown: they grow also where nothing happens.
const EVERY: Duration = Duration::from_secs(1);
/// What happens at once is shown once.
const AT_ONCE: Duration = Duration::from_millis(100);

pub(super) async fn list(target: Target, client: &mut Client, args: &ListArgs) -> Outcome {
    let format = args.show.format();
    if !args.watch {
        let list = client.list_filtered(&args.filter).await?;
        return match (&format, args.quiet) {
            (OutputFormat::Json, _) => print_json(&list),
            _ => print(&listed(&list, args, &format)?),
        };
    }
    let mut happenings = again::Happenings::listen(Client::connect(target).await?).await?;
    let mut screen = again::Screen::begin(format == OutputFormat::Table)?;
    loop {
        let list = client.list_filtered(&args.filter).await?;
        let text = match &format {
            OutputFormat::Json => again::json_line(&list)?,
            format => listed(&list, args, format)?,
        };
        if !screen.show(&text)? || !screen.pause_until(happenings.next(AT_ONCE, EVERY)).await {
            return Ok(0);
        }
    }
}

fn listed(list: &[InstanceView], args: &ListArgs, format: &OutputFormat) -> Result<String, super::Failure> {
    match format {
        OutputFormat::Template(template) => template_lines(template, list),
        _ if args.quiet => Ok(list.iter().map(|v| format!("{}\n", v.name)).collect()),
        _ => Ok(show::instances(list, Look::of_stdout(args.show.no_trunc))),
    }
}

pub(super) async fn modules(client: &mut Client, args: &ModulesArgs) -> Outcome {
    let modules = client.modules().await?;
    match args.show.format() {
        OutputFormat::Json => print_json(&modules),
        OutputFormat::Template(template) => print(&template_lines(&template, &modules)?),
        OutputFormat::Table if args.quiet => {
            print(&modules.iter().map(|m| format!("{}\n", m.name)).collect::<String>())
        }
        OutputFormat::Table => print(&show::modules(&modules, Look::of_stdout(args.show.no_trunc))),
    }
}

pub(super) async fn limits(client: &mut Client, args: &LimitsArgs) -> Outcome {
    let all: LimitViews = client.request(&["limits"]).await?;
    match args.show.format() {
        OutputFormat::Json => print_json(&all),
        OutputFormat::Template(template) => print(&template_lines(&template, &all.limits)?),
        OutputFormat::Table if args.quiet => {
            print(&all.limits.iter().map(|limit| super::line_of(&limit.flag)).collect::<String>())
        }
        OutputFormat::Table => print(&show::limits(&all, Look::of_stdout(args.show.no_trunc))),
    }
}

/// A page where a person looks, JSON where a program reads.
pub(super) async fn inspect(client: &mut Client, args: &InspectArgs) -> Outcome {
    let default = if terminal::is_terminal() { OutputFormat::Table } else { OutputFormat::Json };
    let format = args.format.clone().unwrap_or(default);
    let mut first = true;
    let one = |_: &str, inspection: Inspection| match &format {
        OutputFormat::Json => Ok(format!("{}\n", json_pretty(&inspection))),
        OutputFormat::Template(template) => template_lines(template, [inspection]),
        OutputFormat::Table => {
            let between = if std::mem::take(&mut first) { "" } else { "\n" };
            Ok(format!("{between}{}", page::of(&inspection, Look::of_stdout(args.no_trunc))))
        }
    };
    each(client, &["inspect"], &args.names, one).await
}
