//! `coracle logs` and `coracle events`: streams that go on until their end, or for as long as somebody looks.

use super::failure::Failure;
use super::terminal::{self, Look};
use super::{Outcome, again, print, quiet_if_closed, say, show, template_lines};
use crate::client::{Client, Next};
use crate::model::escape;
use crate::model::event::EventView;
use crate::model::reply::StreamEvent;
use crate::model::request::{EventsArgs, LogsArgs, OutputFormat, StdStream};
use crate::model::when::{Moment, Position};
use serde_json::Value;
use std::io::IsTerminal;

pub(super) async fn logs(client: &mut Client, args: &LogsArgs) -> Outcome {
    let mut words = vec!["logs".to_owned()];
    words.extend(args.follow.then(|| "--follow".to_owned()));
    words.extend(args.tail.map(|n| format!("--tail={n}")));
    words.extend(args.stream.map(|s| format!("--stream={}", if s == StdStream::Stdout { "stdout" } else { "stderr" })));
    words.extend(args.since.map(|moment| format!("--since={}", moment_word(moment))));
    words.extend(args.until.map(|moment| format!("--until={}", moment_word(moment))));
    words.push(args.name.clone());
    client.send(&words).await?;
    let terminals = [std::io::stdout().is_terminal(), std::io::stderr().is_terminal()];
    let mut printer = show::LogPrinter::new(args.timestamps, terminals.map(|terminal| terminal && !args.raw));
    loop {
        match client.next::<Value>().await? {
            Next::Event(StreamEvent::Output(output)) => {
                if let Err(e) = printer.output(output) {
                    return quiet_if_closed(e);
                }
            }
            Next::Event(StreamEvent::Dropped { bytes }) => {
                say(&format!("{bytes} bytes of output were dropped"));
            }
            Next::Event(_) => {}
            Next::End(_) => {
                printer.finish()?;
                return Ok(0);
            }
        }
    }
}

pub(super) async fn events(client: &mut Client, args: &EventsArgs) -> Outcome {
    let mut words = vec!["events".to_owned()];
    words.extend(args.since.map(|position| format!("--since={}", position_word(position))));
    words.extend(args.until.map(|position| format!("--until={}", position_word(position))));
    words.extend(args.filter.iter().map(|filter| format!("--filter={filter}")));
    client.send(&words).await?;
    let format = args.show.format();
    loop {
        match client.next::<Value>().await? {
            Next::Event(StreamEvent::Registry { event }) => {
                let line = match &format {
                    OutputFormat::Json => again::json_line(&event)?,
                    OutputFormat::Template(template) => template_lines(template, [with_every_field(&event)?])?,
                    // A person's line; for others it is the wire's.
                    OutputFormat::Table if terminal::is_terminal() => {
                        show::event(&event, Look::of_stdout(args.show.no_trunc))
                    }
                    OutputFormat::Table => format!("{}\n", escape::line(&event.line())),
                };
                let mut out = std::io::stdout().lock();
                if let Err(e) =
                    std::io::Write::write_all(&mut out, line.as_bytes()).and_then(|()| std::io::Write::flush(&mut out))
                {
                    return quiet_if_closed(e);
                }
            }
            Next::Event(StreamEvent::Lost { events }) => say(&format!("{events} events were lost")),
            Next::Event(_) => {}
            Next::End(_) => return print(""),
        }
    }
}

/// An event leaves out what it has no value for; a template may ask for it all the same.
fn with_every_field(event: &EventView) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(event).map_err(|e| Failure::new(format!("an event: {e}")))?;
    if let Some(object) = value.as_object_mut() {
        for field in ["state", "exit_code", "reason", "message", "delay_ms"] {
            object.entry(field).or_insert(Value::Null);
        }
        object.entry("labels").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    Ok(value)
}

fn moment_word(moment: Moment) -> String {
    match moment {
        Moment::Ago(age) => format!("{}ns", age.as_nanos()),
        Moment::At(at) => at.to_string(),
    }
}

fn position_word(position: Position) -> String {
    match position {
        Position::Seq(seq) => seq.to_string(),
        Position::Moment(moment) => moment_word(moment),
    }
}
