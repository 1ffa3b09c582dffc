//! What can go wrong: a [`Code`] that a program branches on, and one line that a person reads.
//!
//! A guest that fails is not an error of ours; it is an [`ExitStatus`](crate::model::instance::ExitStatus). Text that
//! derives from guests, modules or clients is put into these messages as it is: the doors escape it, once, on the way out.

use crate::model::name::Name;
use serde::{Deserialize, Serialize};

/// The machine-readable half of a refusal; its spelling is the wire's (`ERR <code> <text>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request does not fit the grammar.
    Usage,
    /// A line or a transfer is longer than its limit.
    TooLong,
    /// A byte that is not printable text.
    BadByte,
    /// A name outside the rule of [`Name`].
    BadName,
    /// The name is taken.
    Exists,
    /// The instance is in the middle of something else.
    Busy,
    /// No such instance.
    NotFound,
    /// No such module.
    NoModule,
    /// There are bytes, but they cannot run here.
    BadModule,
    /// A limit is reached; the text names it and its value.
    Limit,
    /// Not allowed.
    Denied,
    /// Not authenticated.
    Auth,
    /// A file or a socket failed.
    Io,
    /// The daemon is on its way out.
    ShuttingDown,
    /// A defect of ours.
    Internal,
}

impl Code {
    /// The spelling on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Usage => "usage",
            Code::TooLong => "too-long",
            Code::BadByte => "bad-byte",
            Code::BadName => "bad-name",
            Code::Exists => "exists",
            Code::Busy => "busy",
            Code::NotFound => "not-found",
            Code::NoModule => "no-module",
            Code::BadModule => "bad-module",
            Code::Limit => "limit",
            Code::Denied => "denied",
            Code::Auth => "auth",
            Code::Io => "io",
            Code::ShuttingDown => "shutting-down",
            Code::Internal => "internal",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the daemon did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The verb is unknown; the original daemon's sentence in plain format.
    #[error("Unknown command {0}")]
    UnknownVerb(String),
    /// An argument is missing; the original daemon's sentence for `run` and `stop`.
    #[error("Usage: {0}")]
    MissingArgument(String),
    /// The request does not fit the grammar otherwise.
    #[error("{0}")]
    Usage(String),
    /// A request line over the limit.
    #[error("a request is at most {limit} bytes long")]
    LineTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A byte that is not printable UTF-8 text.
    #[error("requests are printable UTF-8 text; byte 0x{byte:02x} is not")]
    BadByte {
        /// The first offending byte.
        byte: u8,
    },
    /// Bytes that are not UTF-8.
    #[error("requests are printable UTF-8 text; these bytes are not UTF-8")]
    NotUtf8,
    /// Another protocol knocked.
    #[error("this port speaks the coracle line protocol, not {0}")]
    ForeignProtocol(&'static str),
    /// A name outside the rule.
    #[error("bad name '{name}': {why}")]
    BadName {
        /// What was given, shortened by the door that prints it.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A live instance has this name already.
    #[error("'{0}' is already running; stop it first, or give the new one another name with --name")]
    Exists(Name),
    /// A known name differs only in case.
    #[error("'{asked}' differs only in case from '{known}', which exists; names are unique ignoring case")]
    ExistsOtherCase {
        /// The name that was asked for.
        asked: Name,
        /// The name that is known.
        known: Name,
    },
    /// The instance is being stopped.
    #[error("'{0}' is being stopped; try again when it has ended")]
    Stopping(Name),
    /// The instance is live and the request needs one that has ended.
    #[error("'{0}' is running; stop it first, or remove it with --force")]
    StillRunning(Name),
    /// A wait for something that is not going to be.
    #[error("'{name}' is not running: it is {state}")]
    NotRunning {
        /// The instance.
        name: Name,
        /// What it is instead.
        state: String,
    },
    /// No such instance; the original daemon's sentence in plain format.
    #[error("no instance named '{0}'")]
    NotFound(String),
    /// No such module.
    #[error("no module named '{name}'{hint}")]
    NoModule {
        /// The name that was looked up.
        name: String,
        /// Empty, or ` (did you mean 'x'?)`.
        hint: String,
    },
    /// There are bytes under that name, but they cannot run.
    #[error("module '{name}' cannot run: {why}")]
    BadModule {
        /// The module's name.
        name: String,
        /// One line that says why.
        why: String,
    },
    /// A limit is reached.
    #[error("{what} is limited to {limit} ({name})")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit, with its unit.
        limit: String,
        /// The flag that sets the limit.
        name: &'static str,
    },
    /// The peer took longer than it may.
    #[error("{what} did not arrive within {limit} ({name})")]
    TooSlow {
        /// What was waited for.
        what: &'static str,
        /// The limit, with its unit.
        limit: String,
        /// The flag that sets the limit.
        name: &'static str,
    },
    /// Not allowed.
    #[error("{0}")]
    Denied(String),
    /// The client has not shown who it is.
    #[error("this is for the daemon's user: connect as that user, or show with `auth` that you have the token")]
    Unproved,
    /// What was to show who the client is does not.
    #[error("{0}")]
    NotProved(&'static str),
    /// A file or socket failed.
    #[error("{what}: {why}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// What the system said.
        why: String,
    },
    /// What happened can no longer be written down, so nothing new is begun.
    #[error("the state directory cannot be written, so nothing new is accepted: {0}")]
    StateRefuses(String),
    /// It is done, and will be written down when that is possible again.
    #[error("it is done, and not written down yet: {0}")]
    NotWrittenYet(String),
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// A defect of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The code that goes with this error on the wire.
    pub fn code(&self) -> Code {
        match self {
            Error::UnknownVerb(_) | Error::MissingArgument(_) | Error::Usage(_) => Code::Usage,
            Error::LineTooLong { .. } => Code::TooLong,
            Error::BadByte { .. } | Error::NotUtf8 => Code::BadByte,
            Error::ForeignProtocol(_) | Error::Denied(_) => Code::Denied,
            Error::Unproved | Error::NotProved(_) => Code::Auth,
            Error::BadName { .. } => Code::BadName,
            Error::Exists(_) | Error::ExistsOtherCase { .. } => Code::Exists,
            Error::Stopping(_) | Error::StillRunning(_) | Error::NotRunning { .. } => Code::Busy,
            Error::NotFound(_) => Code::NotFound,
            Error::NoModule { .. } => Code::NoModule,
            Error::BadModule { .. } => Code::BadModule,
            Error::Limit { .. } | Error::TooSlow { .. } => Code::Limit,
            Error::Io { .. } | Error::StateRefuses(_) | Error::NotWrittenYet(_) => Code::Io,
            Error::ShuttingDown => Code::ShuttingDown,
            Error::Internal(_) => Code::Internal,
        }
    }

    /// An [`Error::Io`] from what was tried and what came of it.
    pub fn io(what: impl Into<String>, why: &dyn std::fmt::Display) -> Error {
        Error::Io { what: what.into(), why: why.to_string() }
    }
}

/// `Result` with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_spelled_alike_in_plain_and_in_json() {
        for code in [Code::Usage, Code::TooLong, Code::BadByte, Code::NoModule, Code::ShuttingDown, Code::Internal] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
