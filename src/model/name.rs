//! [`Name`]: what instances, modules and directories are called. There is no other constructor than the rule.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Device stems that Windows reserves in every directory, whatever the extension (Microsoft, "Naming Files, Paths, and
/// Namespaces"). Refused everywhere, so that a name means the same on every platform.
const DEVICE_STEMS: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Verbs of the protocol, present and to come: a name that reads like a verb makes a typing slip run something.
/// `hello` is left out on purpose: it is the first module anybody runs (`run hello`).
const VERBS: [&str; 21] = [
    "run", "stop", "list", "kill", "restart", "rm", "wait", "logs", "inspect", "stats", "events", "prune", "put",
    "modules", "forget", "ping", "format", "auth", "help", "shutdown", "limits",
];

/// A valid name: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`, no trailing dot, no `..`, no Windows device stem, no verb.
///
/// It is therefore exactly one ordinary path component on every platform. Names are unique ignoring ASCII case:
/// compare [`Name::folded`] where that matters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as it was spelled.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in the form that uniqueness is judged by.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    fn check(s: &str) -> Result<(), &'static str> {
        let bytes = s.as_bytes();
        let Some(first) = bytes.first() else { return Err("it is empty") };
        if bytes.len() > NAME_BYTES_MAX {
            return Err("it is longer than 63 bytes");
        }
        if !first.is_ascii_alphanumeric() {
            return Err("it must begin with a letter or a digit");
        }
        if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err("only letters, digits, '.', '_' and '-' are allowed");
        }
        if s.ends_with('.') || s.contains("..") {
            return Err("it must not end with '.' or contain '..'");
        }
        let folded = s.to_ascii_lowercase();
        let stem = folded.split('.').next().unwrap_or_default();
        let numbered = (stem.starts_with("com") || stem.starts_with("lpt"))
            && stem.len() == 4
            && stem.ends_with(|c: char| c.is_ascii_digit());
        if numbered || DEVICE_STEMS.contains(&stem) {
            return Err("it is a device name on Windows");
        }
        if VERBS.contains(&folded.as_str()) {
            return Err("it is a command");
        }
        Ok(())
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(s: &str) -> Result<Name, Error> {
        Name::check(s).map_err(|why| Error::BadName { name: s.to_owned(), why })?;
        Ok(Name(s.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(s: String) -> Result<Name, Error> {
        s.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_are_accepted() {
        for name in ["hello", "a", "9", "web-1", "a.b_c-d", "X", &"x".repeat(63), "console", "com10", "runner"] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        let long = "x".repeat(64);
        let huge = "x".repeat(10_000);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/etc",
            "C:\\x",
            "a:b",
            "a*",
            "a b",
            "'a'",
            "\"a\"",
            "é",
            "🛶",
            "-a",
            ".a",
            "a.",
            "a..b",
            "a\0",
            "a\n",
            "con",
            "CON",
            "nul.txt",
            "com1",
            "LPT9.wasm",
            "run",
            "Stop",
            "list",
            &long,
            &huge,
        ] {
            assert!(matches!(name.parse::<Name>(), Err(Error::BadName { .. })), "{name:?} was accepted");
        }
    }

    proptest! {
        /// A name is one plain component under the rules of Linux, macOS and Windows.
        #[test]
        fn an_accepted_name_is_one_path_component(s in "\\PC{0,70}|[A-Za-z0-9._-]{1,70}") {
            if let Ok(name) = s.parse::<Name>() {
                let path = std::path::Path::new(name.as_str());
                let parts: Vec<_> = path.components().collect();
                prop_assert_eq!(parts.len(), 1);
                prop_assert!(matches!(parts[0], std::path::Component::Normal(_)));
                prop_assert!(!name.as_str().contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|', ' ']));
                prop_assert!(!name.as_str().ends_with('.'));
                prop_assert!(name.as_str().len() <= NAME_BYTES_MAX);
                prop_assert!(name.as_str().is_ascii());
            }
        }
    }
}
