//! What a person is told when something did not go as it was meant to, in one shape: a line that names the thing, what caused it
//! below, and what to type.
//!
//! ```text
//! error: no daemon answers on 127.0.0.1:8080
//!   caused by: Connection refused (os error 111)
//! hint: start one with `coracle daemon`, or run something: `coracle run hello`
//! ```

use super::colour::Brush;
use super::{CANNOT_RUN, FAILED, NO_SUCH_MODULE};
use crate::client::ClientError;
use crate::error::Code;
use crate::model::{alike, escape};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::fmt::Display;
use std::io::Write;

/// What a person is told, and the exit code that goes with it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    /// Each caused the one before it.
    pub(super) causes: Vec<String>,
    pub(super) hints: Vec<String>,
    pub(super) code: u8,
    /// If it was the daemon that said no.
    pub(super) refused: Option<Code>,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), causes: vec![], hints: vec![], code: FAILED, refused: None }
    }

    pub(super) fn cause(mut self, cause: impl Display) -> Failure {
        self.causes.push(cause.to_string());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    pub(super) fn code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }

    /// All but the hints, for whoever reads one line.
    pub(super) fn one_line(&self) -> String {
        [std::slice::from_ref(&self.message), &self.causes].concat().join(": ")
    }

    /// What clap has to say of a command line (its words, without the program), and not its page of usage.
    pub(super) fn of_grammar(command: &clap::Command, words: &[String], error: &clap::Error) -> Failure {
        let text = error.render().to_string();
        // What is wrong comes first, in one paragraph.
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let what = lines.join(" ");
        let what = what.strip_prefix("error: ").unwrap_or(&what);
        if let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(word))) =
            (error.kind(), error.get(ContextKind::InvalidSubcommand))
        {
            return Failure::no_such_command(command, word);
        }
        let meant = [ContextKind::SuggestedArg, ContextKind::SuggestedValue].into_iter().find_map(|kind| {
            let Some(ContextValue::String(meant)) = error.get(kind) else { return None };
            Some(format!(" (did you mean '{meant}'?)"))
        });
        let usage = error.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
        let usage = usage.lines().next().unwrap_or_default().trim_start_matches("Usage: ");
        let failure = Failure::new(format!("{what}{}", meant.unwrap_or_default()));
        // `coracle VERB …`; of a bad value clap does not say where.
        let verb = usage.split_whitespace().nth(1).filter(|word| command.find_subcommand(word).is_some());
        let verb =
            verb.or_else(|| words.iter().map(String::as_str).find(|word| command.find_subcommand(word).is_some()));
        match (error.kind(), verb) {
            (ErrorKind::MissingRequiredArgument, Some(verb)) => failure.hint(usage_of(command, verb)),
            (_, Some(verb)) => failure.hint(format!("coracle help {verb}")),
            (_, None) => failure.hint("coracle help"),
        }
    }

    pub(super) fn no_such_command(command: &clap::Command, word: &str) -> Failure {
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let words: Vec<&str> =
            shown.flat_map(|sub| std::iter::once(sub.get_name()).chain(sub.get_visible_aliases())).collect();
        let meant = alike::closest(word, words).map(|meant| format!(" (did you mean '{meant}'?)"));
        Failure::new(format!("there is no command '{word}'{}", meant.unwrap_or_default())).hint("coracle help")
    }
}

/// How a verb is used, in one line. The usage in an error repeats what was given, and what a variable gave.
fn usage_of(command: &clap::Command, verb: &str) -> String {
    let Some(command) = command.find_subcommand(verb) else { return format!("coracle help {verb}") };
    let usage = command.clone().bin_name(format!("coracle {verb}")).render_usage().to_string();
    usage.trim_start_matches("Usage: ").lines().next().unwrap_or_default().to_owned()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let code = error.code();
        let mut failure = match &error {
            ClientError::Credentials(error) => Failure::from(error.clone()),
            error => Failure::new(error.to_string()),
        };
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            failure = failure.cause(cause);
            source = cause.source();
        }
        failure.refused = code;
        failure.code = match code {
            Some(Code::NoModule) => NO_SUCH_MODULE,
            Some(Code::BadModule) => CANNOT_RUN,
            _ => FAILED,
        };
        match error {
            ClientError::Connect { .. } => {
                failure.hint("start one with `coracle daemon`, or run something: `coracle run hello`")
            }
            ClientError::Unproved(_) | ClientError::Credentials(_) => {
                failure.hint("the token is in the daemon's state directory: --token-file FILE; as its user come in by --host unix:PATH")
            }
            ClientError::Foreign { .. } | ClientError::Unmapped { .. } => failure.hint(
                "start one of your own on another port, such as `coracle daemon --listen 127.0.0.1:0`: it is found by its socket",
            ),
            ClientError::Protocol(_) => failure.hint("`coracle doctor` looks what is there"),
            ClientError::Broken(_) => failure.hint("`coracle doctor` looks whether the daemon is still there"),
            ClientError::Refused(refusal) => match hint_of(refusal.code, &refusal.message) {
                Some(hint) => failure.hint(hint),
                None => failure,
            },
        }
    }
}

/// What helps against a refusal, as far as its code tells.
fn hint_of(code: Code, message: &str) -> Option<String> {
    match code {
        Code::Limit => flag_in(message).map(|flag| {
            format!("`coracle limits` shows it, with what is used; the daemon takes another: `coracle daemon {flag} …`")
        }),
        Code::Io => Some("`coracle doctor` looks at the disk and the limits of this machine".to_owned()),
        Code::ShuttingDown => Some("it will be gone in a moment; `coracle run` starts another".to_owned()),
        Code::Auth => Some("the token is in the daemon's state directory: --token-file FILE".to_owned()),
        _ => None,
    }
}

/// A refusal for a limit ends in the flag that sets it, in brackets.
fn flag_in(message: &str) -> Option<&str> {
    let (_, last) = message.strip_suffix(')')?.rsplit_once('(')?;
    let flag = last.split(", ").next()?;
    let rest = flag.strip_prefix("--")?;
    rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-').then_some(flag)
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Failure {
        match error {
            crate::Error::Io { what, why } => Failure::new(what).cause(why),
            error => Failure::new(error.to_string()),
        }
    }
}

/// Writing to our own standard output failed. A reader that left (`| head`) is no failure.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new("cannot write the output").cause(error)
    }
}

/// Tells it on standard error. Each text is one line, escaped: it may quote a guest, a module or a stranger.
pub(super) fn complain(failure: &Failure) {
    let mut err = std::io::stderr().lock();
    let text = told(failure, Brush::on(&err));
    // Nobody is left to tell if even that fails.
    let _printed = err.write_all(text.as_bytes());
}

fn told(failure: &Failure, brush: Brush) -> String {
    let mut text = format!("{} {}\n", brush.bad("error:"), escape::line(&failure.message));
    for cause in &failure.causes {
        text.push_str(&format!("  caused by: {}\n", escape::line(cause)));
    }
    for hint in &failure.hints {
        text.push_str(&format!("{} {}\n", brush.advice("hint:"), escape::line(hint)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Target;

    #[test]
    fn a_failure_has_one_shape() {
        let failure = Failure::new("a\nb").cause("c\x1b[2J").cause("d").hint("e").hint("f\r");
        let plain = "error: a\\nb\n  caused by: c\\x1b[2J\n  caused by: d\nhint: e\nhint: f\\r\n";
        assert_eq!(told(&failure, Brush::default()), plain);
        let coloured = "\x1b[1;31merror:\x1b[0m a\\nb\n  caused by: c\\x1b[2J\n  caused by: d\n\x1b[36mhint:\x1b[0m e\n\x1b[36mhint:\x1b[0m f\\r\n";
        assert_eq!(told(&failure, Brush::wet()), coloured);
        assert_eq!(failure.one_line(), "a\nb: c\x1b[2J: d");
    }

    #[test]
    fn what_the_system_said_is_the_cause() {
        let to = Target::tcp(([127, 0, 0, 1], 9).into());
        let failure = Failure::from(ClientError::Connect { to, source: std::io::Error::from_raw_os_error(2) });
        assert_eq!(failure.message, "no daemon answers on 127.0.0.1:9");
        assert_eq!(failure.causes.len(), 1);
        let failure = Failure::from(crate::Error::io("cannot lock x", &"it is held"));
        assert_eq!((failure.message.as_str(), failure.causes), ("cannot lock x", vec!["it is held".to_owned()]));
    }

    #[test]
    fn a_limit_names_the_flag_that_raises_it() {
        for (message, flag) in [
            ("live instances is limited to 2 (--instances)", Some("--instances")),
            ("files are limited to 2 (--open-files, --handles, ulimit -n)", Some("--open-files")),
            ("variables are limited to 512 (-e)", None),
            ("something (--\x1b[2J)", None),
            ("something", None),
        ] {
            assert_eq!(flag_in(message), flag, "{message}");
        }
        assert!(
            hint_of(Code::Limit, "x is limited to 2 (--instances)").unwrap().contains("coracle daemon --instances …")
        );
    }
}
