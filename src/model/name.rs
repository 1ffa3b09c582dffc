//! [`Name`]: what instances, modules and directories are called. There is no other constructor than the rule: with
//! [`FromStr`] for what somebody asks for, and without its part on verbs for what has its name already (`TryFrom<String>`).

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

/// Verbs of the protocol and words of the command line, present and to come: a name that reads like one makes a typing slip
/// run something. `hello` is left out on purpose: it is the first module anybody runs (`run hello`).
const VERBS: [&str; 31] = [
    "run",
    "stop",
    "list",
    "ls",
    "ps",
    "kill",
    "restart",
    "rm",
    "wait",
    "logs",
    "inspect",
    "stats",
    "events",
    "prune",
    "put",
    "get",
    "modules",
    "forget",
    "ping",
    "format",
    "auth",
    "help",
    "shutdown",
    "limits",
    // Of the command line.
    "daemon",
    "top",
    "explain",
    "doctor",
    "completions",
    "install-service",
    "man",
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
        Ok(())
    }

    fn is_verb(&self) -> bool {
        VERBS.contains(&self.folded().as_str())
    }
}

/// A name that somebody asks for.
impl FromStr for Name {
    type Err = Error;

    fn from_str(s: &str) -> Result<Name, Error> {
        let name = Name::try_from(s.to_owned())?;
        if name.is_verb() {
            return Err(Error::BadName { name: name.0, why: "it is a command" });
        }
        Ok(name)
    }
}

/// A name that was given before, to what is stored or shown. It may have become a verb since, and is a name all the same:
/// nothing that is written down gets lost with a new version.
impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(s: String) -> Result<Name, Error> {
        match Name::check(&s) {
            Ok(()) => Ok(Name(s)),
            Err(why) => Err(Error::BadName { name: s, why }),
        }
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
        for name in ["abc1", "com", "come", "lptx", "comet1", "nulls", "aux1"] {
            assert!(name.parse::<Name>().is_ok(), "{name} is no device");
        }
    }

    #[test]
    fn a_name_is_its_text() {
        let name: Name = "Web-1".parse().unwrap();
        assert_eq!(
            (name.to_string(), format!("{name:>7}|"), name.folded()),
            ("Web-1".into(), "  Web-1|".into(), "web-1".into())
        );
        assert_eq!(std::collections::HashMap::from([(name.clone(), 7)]).get("Web-1"), Some(&7), "found by its text");
        assert_eq!(String::from(name), "Web-1");
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
            "ls",
            "PS",
            "daemon",
            "Top",
            "install-service",
            &long,
            &huge,
        ] {
            assert!(matches!(name.parse::<Name>(), Err(Error::BadName { .. })), "{name:?} was accepted");
        }
    }

    /// Only the part on verbs: what was never a name is none in a file either.
    #[test]
    fn a_name_that_was_given_before_it_became_a_verb_is_still_a_name() {
        for verb in VERBS {
            assert_eq!(Name::try_from(verb.to_owned()).unwrap().as_str(), verb);
            assert_eq!(serde_json::from_str::<Name>(&format!("\"{verb}\"")).unwrap().as_str(), verb);
        }
        for never in ["", "../x", "a/b", "con", "NUL.txt", "com1", "-a", "a."] {
            assert!(matches!(Name::try_from(never.to_owned()), Err(Error::BadName { .. })), "{never:?} was accepted");
            assert!(serde_json::from_str::<Name>(&format!("\"{never}\"")).is_err(), "{never:?} was accepted");
        }
    }

    /// Names, and what nearly is one: devices and verbs in any case, with something before or behind.
    fn nearly_a_name() -> impl Strategy<Value = String> {
        let words: Vec<&str> = DEVICE_STEMS.into_iter().chain(["com", "lpt"]).chain(VERBS).collect();
        let word = proptest::sample::select(words).prop_flat_map(|word| {
            let upper = proptest::collection::vec(any::<bool>(), word.len());
            upper.prop_map(move |upper| {
                let letters = word.chars().zip(upper);
                letters.map(|(c, upper)| if upper { c.to_ascii_uppercase() } else { c }).collect::<String>()
            })
        });
        let near = ("|[a-z.]", word, "|[0-9]|\\.[a-z]{0,3}|[0-9]\\.wasm|[a-z-]{1,3}");
        prop_oneof![
            "\\PC{0,70}",
            "[A-Za-z0-9._-]{1,70}",
            near.prop_map(|(before, word, after)| before + &word + &after)
        ]
    }

    proptest! {
        /// A name is one plain component under the rules of Linux, macOS and Windows, and no word that is a command.
        #[test]
        fn an_accepted_name_is_one_path_component(s in nearly_a_name()) {
            if let Ok(name) = s.parse::<Name>() {
                let path = std::path::Path::new(name.as_str());
                let parts: Vec<_> = path.components().collect();
                prop_assert_eq!(parts.len(), 1);
                prop_assert!(matches!(parts[0], std::path::Component::Normal(_)));
                prop_assert!(!name.as_str().contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|', ' ']));
                prop_assert!(!name.as_str().ends_with('.'));
                prop_assert!(name.as_str().len() <= NAME_BYTES_MAX);
                prop_assert!(name.as_str().is_ascii());
                // Microsoft's list, told in another way than the rule's.
                let upper = s.to_ascii_uppercase();
                let stem = upper.split_once('.').map_or(upper.as_str(), |(stem, _)| stem);
                let devices = ["CON", "PRN", "AUX", "NUL"].map(str::to_owned).into_iter();
                let mut devices = devices.chain((0..10).flat_map(|n| [format!("COM{n}"), format!("LPT{n}")]));
                prop_assert!(devices.all(|device| device != stem), "{} is a device", s);
                prop_assert!(VERBS.iter().all(|verb| !verb.eq_ignore_ascii_case(&s)), "{} is a verb", s);
                prop_assert_eq!(Name::try_from(s).unwrap(), name);
            } else if let Ok(name) = Name::try_from(s) {
                prop_assert!(VERBS.iter().any(|verb| verb.eq_ignore_ascii_case(name.as_str())), "{} is refused", name);
            }
        }
    }
}
