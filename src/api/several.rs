//! Verbs that take several names: what comes of each is told as it comes, so that nothing is gathered for a slow reader.

use super::text::{Connection, Outcome};
use crate::config::fixed;
use crate::daemon::{Done, Supervisor};
use crate::error::Result;
use crate::model::name::Name;
use crate::model::reply::{InstanceView, Reply, Several};

/// What a client that is gone means for the names that are still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// They are done all the same: it gets what it asked for.
    Done,
    /// They are not: nothing is begun for nobody, and nothing waited for.
    Left,
}

/// A reply that is put together, and sent in pieces of [`fixed::REPLY_PIECE_BYTES`].
struct Telling {
    several: Several,
    text: String,
    outcome: Outcome,
}

impl Telling {
    fn new(connection: &Connection) -> Telling {
        let several = Several::new(connection.format);
        Telling { text: several.head().to_owned(), several, outcome: Outcome::Next }
    }

    async fn push(&mut self, connection: &mut Connection, result: &Result<Reply>) {
        if let Outcome::Next = self.outcome {
            self.several.push(&mut self.text, result);
            if self.text.len() >= fixed::REPLY_PIECE_BYTES {
                self.outcome = connection.deliver(&self.text).await;
                self.text.clear();
            }
        }
    }

    async fn end(mut self, connection: &mut Connection) -> Outcome {
        if let Outcome::Next = self.outcome {
            connection.refusals = 0;
            self.text.push_str(self.several.tail());
            self.outcome = connection.deliver(&self.text).await;
        }
        self.outcome
    }
}

impl Connection {
    /// Each name in its turn. One name: its own reply.
    pub(super) async fn one_by_one<F: Future<Output = Result<Reply>>>(
        &mut self,
        names: &[String],
        gone: Gone,
        one: impl Fn(Supervisor, Name) -> F,
    ) -> Outcome {
        let mut telling = Telling::new(self);
        for name in names {
            let result = match self.supervisor.name(name) {
                Ok(name) => {
                    let work = one(self.supervisor.clone(), name);
                    tokio::select! {
                        biased;
                        result = work => result,
                        () = self.incoming.gone(), if gone == Gone::Left => return Outcome::Close,
                    }
                }
                Err(error) => Err(error),
            };
            if names.len() == 1 {
                return self.reply(result).await;
            }
            telling.push(self, &result).await;
            if let (Outcome::Close, Gone::Left) = (&telling.outcome, gone) {
                return Outcome::Close;
            }
        }
        telling.end(self).await
    }

    /// Verbs that wait for ends: all are asked first, so that the waits run side by side.
    pub(super) async fn end_each(
        &mut self,
        names: &[String],
        ask: impl Fn(&Supervisor, &Name) -> Result<Option<Done>>,
        say: fn(Box<InstanceView>) -> Reply,
    ) -> Outcome {
        let ask = |name: &String| self.supervisor.name(name).and_then(|name| ask(&self.supervisor, &name));
        let asked: Vec<Result<Option<Done>>> = names.iter().map(ask).collect();
        let mut telling = Telling::new(self);
        for (name, asked) in names.iter().zip(asked) {
            let result = match asked {
                Ok(Some(done)) => tokio::select! {
                    biased;
                    view = done.wait() => Ok(say(Box::new(view))),
                    () = self.incoming.gone() => return Outcome::Close,
                },
                Ok(None) => name.clone().try_into().map(Reply::NeverStarted),
                Err(error) => Err(error),
            };
            if names.len() == 1 {
                return self.reply(result).await;
            }
            telling.push(self, &result).await;
            if let Outcome::Close = telling.outcome {
                return Outcome::Close;
            }
        }
        telling.end(self).await
    }
}
