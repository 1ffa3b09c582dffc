//! What somebody probably meant who made a slip.

/// How alike two names have to be, from 0 to 1.
const ALIKE: f64 = 0.75;
/// How alike names are that one slip of the fingers lies between: in short ones Jaro does not see two letters that changed places.
const ONE_SLIP: f64 = 0.9;
/// In shorter names than this a slip may be anything.
const SLIP_CHARS_MIN: usize = 3;
/// Nothing is called by a longer name.
const BYTES_MAX: usize = 256;

/// The one of the known names that is most like what was asked for, if one is.
pub fn closest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if asked.len() > BYTES_MAX {
        return None;
    }
    known
        .into_iter()
        .map(|name| (alike(name, asked), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn alike(name: &str, asked: &str) -> f64 {
    let letters = strsim::jaro_winkler(name, asked);
    let long = asked.chars().count() >= SLIP_CHARS_MIN;
    if long && strsim::osa_distance(name, asked) == 1 { letters.max(ONE_SLIP) } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_other_words_are_not() {
        let known = ["web", "database", "worker-1", "worker-2"];
        for (asked, meant) in [
            ("wbe", Some("web")),
            ("databse", Some("database")),
            ("worker2", Some("worker-2")),
            ("wep", Some("web")),
            ("xy", None),
            ("nobody", None),
            ("", None),
        ] {
            assert_eq!(closest(asked, known), meant, "{asked}");
        }
        assert_eq!(closest("web", []), None);
        assert_eq!(closest(&"web".repeat(1_000_000), known), None);
    }
}
