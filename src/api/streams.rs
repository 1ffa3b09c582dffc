//! Replies that go on: lists, logs and events, read piece by piece, so that nothing is gathered for a slow reader.

use super::text::{Connection, Outcome};
use crate::config::fixed;
use crate::daemon::{Followed, Follower, Query, Reader, clock};
use crate::error::{Error, Result};
use crate::model::escape;
use crate::model::event::EventView;
use crate::model::filter::Filter;
use crate::model::instance::LogTime;
use crate::model::name::Name;
use crate::model::reply::{
    self, ContentView, Line, LineAssembler, Listing, LogView, Output, Reply, Sampling, StreamEvent, json_line,
};
use crate::model::request::{EventsArgs, ListArgs, LogsArgs, StatsArgs, StdStream, WireFormat};
use std::sync::Arc;

impl Connection {
    /// A list, a page at a time. For a reader that takes its time a connection holds the records of one page, which share what
    /// is long in them with the registry, and [`fixed::REPLY_PIECE_BYTES`] of text with that of one record behind it: well
    /// below a megabyte, however long the list is. Each piece has to be taken within `--stall`.
    pub(super) async fn list(&mut self, args: &ListArgs) -> Outcome {
        let filter = match Filter::of_list(&args.filter) {
            Ok(filter) => filter,
            Err(error) => return self.reply(Err(error)).await,
        };
        self.refusals = 0;
        let mut listing = Listing::new(self.format, args.quiet);
        let mut text = listing.head().to_owned();
        let mut pages = self.supervisor.pages(filter);
        while let Some(page) = pages.take() {
            for record in page {
                listing.push(&mut text, &record);
                if text.len() >= fixed::REPLY_PIECE_BYTES {
                    let Outcome::Next = self.deliver(&text).await else { return Outcome::Close };
                    text.clear();
                }
            }
            // A reader that takes all at once would keep others waiting, and so would filters that want nothing.
            tokio::task::yield_now().await;
        }
        text.push_str(listing.tail());
        self.deliver(&text).await
    }

    /// A sample, a page at a time, with the bounds of [`Connection::list`].
    pub(super) async fn stats(&mut self, args: &StatsArgs) -> Outcome {
        let mut samples = match self.supervisor.samples(&args.names, args.all) {
            Ok(samples) => samples,
            Err(error) => return self.reply(Err(error)).await,
        };
        self.refusals = 0;
        let mut sampling = Sampling::new(self.format);
        let mut text = sampling.head(&self.supervisor.daemon_stats());
        while let Some(page) = samples.take() {
            for stats in page {
                sampling.push(&mut text, &stats);
                if text.len() >= fixed::REPLY_PIECE_BYTES {
                    let Outcome::Next = self.deliver(&text).await else { return Outcome::Close };
                    text.clear();
                }
            }
            // As for a list.
            tokio::task::yield_now().await;
        }
        text.push_str(sampling.tail());
        self.deliver(&text).await
    }

    pub(super) async fn logs(&mut self, args: &LogsArgs) -> Outcome {
        let log = match self.supervisor.name(&args.name).and_then(|name| self.supervisor.log(&name)) {
            Ok(log) => log,
            Err(error) => return self.reply(Err(error)).await,
        };
        let now = clock::now();
        let mut reader = log.reader(Query {
            tail: args.tail,
            since: args.since.map(|moment| moment.resolve(now).into()),
            until: args.until.map(|moment| moment.resolve(now).into()),
            stream: args.stream,
        });
        let mut lines = LogLines { timestamps: args.timestamps, ..LogLines::default() };
        loop {
            match self.log_pieces(&mut reader, &mut lines).await {
                Ok(true) => {}
                Ok(false) => return Outcome::Close,
                Err(error) => return self.reply(Err(error)).await,
            }
            if !args.follow {
                break;
            }
            tokio::select! {
                biased;
                more = reader.grown() => if !more { break },
                () = self.supervisor.drained() => break,
                () = self.incoming.gone() => return Outcome::Close,
            }
        }
        if self.format == WireFormat::Plain && self.outgoing.stream(&lines.finish()).await.is_err() {
            return Outcome::Close;
        }
        let dropped_bytes = log.dropped().await;
        self.reply(Ok(Reply::LogsEnd(LogView { dropped_bytes }))).await
    }

    /// Sends all that is there. False: the client is gone.
    async fn log_pieces(&mut self, reader: &mut Reader, lines: &mut LogLines) -> Result<bool> {
        loop {
            let read = reader.next().await?;
            if read.outputs.is_empty() && read.dropped == 0 {
                return Ok(true);
            }
            let format = self.format;
            let mut dropped = String::new();
            if read.dropped > 0 {
                match format {
                    WireFormat::Plain => lines.dropped(&mut dropped, read.dropped),
                    WireFormat::Json => dropped = event_line(StreamEvent::Dropped { bytes: read.dropped }),
                }
            }
            let outputs = read.outputs.into_iter().map(|output| match format {
                WireFormat::Plain => {
                    let mut text = String::new();
                    lines.push(&mut text, output);
                    text
                }
                WireFormat::Json => event_line(StreamEvent::Output(output)),
            });
            if self.stream(std::iter::once(dropped).chain(outputs)).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// The bytes of a module, a piece at a time. Each has to be taken within `--stall`.
    pub(super) async fn get(&mut self, name: &str) -> Outcome {
        use base64::Engine as _;
        let opened = async {
            if self.format != WireFormat::Json {
                return Err(Error::Usage("get streams events, which needs `format json` first".into()));
            }
            // Also one that got its name before that was a verb.
            let name = Name::try_from(name.to_owned())?;
            let content = self.supervisor.open_module(&name).await?;
            Ok((name, content))
        };
        let (name, mut content) = match opened.await {
            Ok(opened) => opened,
            Err(error) => return self.reply(Err(error)).await,
        };
        self.refusals = 0;
        let mut bytes: u64 = 0;
        loop {
            match content.next().await {
                Ok(Some(piece)) => {
                    bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    let base64 = base64::engine::general_purpose::STANDARD.encode(&piece);
                    let Outcome::Next = self.deliver(&event_line(StreamEvent::Content { base64 })).await else {
                        return Outcome::Close;
                    };
                }
                Ok(None) => break,
                Err(error) => return self.reply(Err(error)).await,
            }
        }
        self.reply(Ok(Reply::Content(ContentView { name, bytes, text: content.is_text() }))).await
    }

    pub(super) async fn events(&mut self, args: &EventsArgs) -> Outcome {
        let follower = async {
            let filter = Filter::of_events(&args.filter)?;
            self.supervisor.follow(args.since, args.until, filter).await
        };
        let mut follower: Follower = match follower.await {
            Ok(follower) => follower,
            Err(error) => return self.reply(Err(error)).await,
        };
        let mut ending = false;
        loop {
            let followed = tokio::select! {
                biased;
                followed = follower.next() => followed,
                // The ends that the daemon's end brings are events too.
                () = self.supervisor.drained(), if !ending => {
                    ending = true;
                    follower.end_now();
                    continue;
                }
                () = self.incoming.gone() => return Outcome::Close,
            };
            let format = self.format;
            let sent = match followed {
                Ok(Some(Followed::Events(events))) => {
                    self.stream(events.into_iter().map(|event| event_text(format, event))).await
                }
                Ok(Some(Followed::Lost(events))) => {
                    let line = match format {
                        WireFormat::Json => event_line(StreamEvent::Lost { events }),
                        WireFormat::Plain => dotted_line(&format!("[{events} events were lost]")),
                    };
                    self.stream([line]).await
                }
                Ok(None) => break,
                Err(error) => return self.reply(Err(error)).await,
            };
            if sent.is_err() {
                return Outcome::Close;
            }
        }
        self.reply(Ok(Reply::EventsEnd(self.supervisor.newest_event()))).await
    }
}

fn event_text(format: WireFormat, event: Arc<EventView>) -> String {
    match format {
        WireFormat::Json => event_line(StreamEvent::Registry { event: Box::new(Arc::unwrap_or_clone(event)) }),
        WireFormat::Plain => dotted_line(&event.line()),
    }
}

/// An event of a stream in JSON.
pub(super) fn event_line(event: StreamEvent) -> String {
    json_line(&Line::<()>::Event(event))
}

fn dotted_line(line: &str) -> String {
    let mut text = String::new();
    reply::dotted_line(&mut text, line);
    text
}

/// A log as lines for people: each stream's pieces put together, escaped, with times if they are wanted.
#[derive(Default)]
struct LogLines {
    timestamps: bool,
    run: u32,
    streams: [(LineAssembler, Option<Output>); 2],
}

impl LogLines {
    fn push(&mut self, text: &mut String, output: Output) {
        if output.run != self.run {
            // No line goes on in the next run.
            text.push_str(&self.finish());
            self.run = output.run;
        }
        let timestamps = self.timestamps;
        let (assembler, begun) = &mut self.streams[usize::from(output.stream == StdStream::Stderr)];
        let Some(bytes) = output.data.clone().into_bytes() else { return };
        // The time of a line is that of its first piece.
        let first = begun.take().unwrap_or_else(|| output.clone());
        let mut at = first.at;
        assembler.push(&bytes, |line| {
            log_line(text, timestamps.then_some(at), line);
            at = output.at;
        });
        if !assembler.is_empty() {
            *begun = Some(Output { at, ..output });
        }
    }

    fn dropped(&mut self, text: &mut String, bytes: u64) {
        reply::dotted_line(text, &format!("[{bytes} bytes of output were dropped]"));
    }

    fn finish(&mut self) -> String {
        let mut text = String::new();
        for (assembler, begun) in &mut self.streams {
            let at = begun.take().map(|o| o.at).filter(|_| self.timestamps);
            assembler.finish(|line| log_line(&mut text, at, line));
        }
        text
    }
}

fn log_line(text: &mut String, at: Option<LogTime>, line: &[u8]) {
    let line = escape::line_of_bytes(line);
    match at {
        Some(at) => reply::dotted_line(text, &format!("{at} {line}")),
        None => reply::dotted_line(text, &line),
    }
}
