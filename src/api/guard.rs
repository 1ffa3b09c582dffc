//! What a connection has to show before it is listened to, and how it does. The grammar of it is [`crate::model::auth`]'s.

use crate::config::fixed::{AUTH_DELAY, AUTH_FAILURES_MAX, UNPROVED_REQUESTS_MAX};
use crate::error::{Error, Result};
use crate::model::auth::{Nonce, Speaker, Token};
use crate::model::hex;
use crate::model::reply::Reply;
use crate::model::request::AuthArgs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// What is wanted of a client that the kernel does not vouch for.
pub(super) struct Wanted {
    /// Let go when it has shown who it is.
    _permit: OwnedSemaphorePermit,
    until: Instant,
    within: Duration,
}

impl Wanted {
    pub(super) fn new(permit: OwnedSemaphorePermit, until: Instant, within: Duration) -> Wanted {
        Wanted { _permit: permit, until, within }
    }
}

/// The guard of one connection.
pub(super) struct Guard {
    token: Arc<Token>,
    channel: Vec<u8>,
    /// A number is answered once.
    challenge: Option<Nonce>,
    failures: u32,
    /// Requests before it has been shown.
    asked: u32,
    /// `None`: it has been shown, or nothing was wanted.
    wanted: Option<Wanted>,
}

impl Guard {
    pub(super) fn new(token: Arc<Token>, channel: Vec<u8>, wanted: Option<Wanted>) -> Guard {
        Guard { token, channel, challenge: None, failures: 0, asked: 0, wanted }
    }

    /// Whether every verb is for this client.
    pub(super) fn is_open(&self) -> bool {
        self.wanted.is_none()
    }

    /// When it is to have been shown.
    pub(super) fn until(&self) -> Option<Instant> {
        self.wanted.as_ref().map(|wanted| wanted.until)
    }

    /// Counts a request. Whoever has nothing to show needs few, and could make work with many.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`]: it was one too many.
    pub(super) fn request(&mut self) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        self.asked += 1;
        match self.asked <= UNPROVED_REQUESTS_MAX {
            true => Ok(()),
            false => Err(Error::Limit {
                what: "the number of requests before it is shown who asks",
                limit: UNPROVED_REQUESTS_MAX.to_string(),
                name: "auth",
            }),
        }
    }

    /// Returns when it has taken too long to show who it is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn too_late(&self) -> Error {
        match &self.wanted {
            Some(wanted) => {
                tokio::time::sleep_until(wanted.until).await;
                let limit = humantime::format_duration(wanted.within).to_string();
                Error::TooSlow { what: "who you are", limit, name: "--prove" }
            }
            None => std::future::pending().await,
        }
    }

    /// Counts a failure, and lets it wait. False: it was one too many.
    pub(super) async fn failed(&mut self) -> bool {
        self.failures += 1;
        tokio::time::sleep(AUTH_DELAY * self.failures).await;
        self.failures < AUTH_FAILURES_MAX
    }

    /// `auth`: a number for who asks for one; for an answer to it, an answer back.
    ///
    /// # Errors
    ///
    /// [`Error::NotProved`], which counts as a failure.
    pub(super) fn auth(&mut self, args: &AuthArgs) -> Result<Reply> {
        let (Some(number), Some(answer)) = (&args.number, &args.answer) else {
            let mut challenge = [0; 32];
            getrandom::fill(&mut challenge).map_err(|e| Error::io("no random bytes", &e))?;
            self.challenge = Some(challenge);
            return Ok(Reply::Challenge(hex::encode(&challenge)));
        };
        let challenge = self.challenge.take().ok_or(Error::NotProved("ask for a number first, with `auth` alone"))?;
        let wrong = || Error::NotProved("that is not the answer");
        let (number, answer) = hex::decode_32(number).zip(hex::decode_32(answer)).ok_or_else(wrong)?;
        if !self.token.is_answer(&answer, Speaker::Client, &self.channel, &challenge, &number) {
            return Err(wrong());
        }
        self.wanted = None;
        let back = self.token.answer(Speaker::Daemon, &self.channel, &challenge, &number);
        Ok(Reply::Proved(hex::encode(&back)))
    }
}
