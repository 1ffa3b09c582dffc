//! What a client holds that started a run: its name, and its streams if it asked for them.

use crate::daemon::live::Done;
use crate::daemon::logs::Log;
use crate::engine::StdinPipe;
use crate::model::reply::{Created, InstanceView, Output};
use std::sync::Arc;

/// An accepted run.
pub struct Started {
    /// What to reply.
    pub created: Created,
    /// The streams, if they were asked for.
    pub attachment: Option<Attachment>,
}

/// A client's hold on the streams of a run: the guest waits for it. Dropped, it lets go, and the run goes on.
pub struct Attachment {
    log: Arc<Log>,
    run: u32,
    stdin: Option<StdinPipe>,
    done: Done,
}

impl Attachment {
    pub(super) fn new(log: Arc<Log>, run: u32, stdin: Option<StdinPipe>, done: Done) -> Attachment {
        Attachment { log, run, stdin, done }
    }

    /// The next output. `None`: the run is over and all of its output was handed out.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&self) -> Option<Vec<Output>> {
        self.log.take(self.run).await
    }

    /// The guest's stdin, if it is open.
    pub fn stdin(&self) -> Option<&StdinPipe> {
        self.stdin.as_ref()
    }

    /// How the run ended, whatever follows it.
    pub async fn ended(&self) -> InstanceView {
        self.done.clone().wait_for_run(self.run).await
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.log.detach(self.run);
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
    }
}
