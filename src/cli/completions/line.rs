//! A line that is not finished, as the words it would be.

/// Splits what stands before the cursor as a POSIX shell would; a quote that is open is closed at the end. The last word is the
/// one that is being typed, and empty behind a blank.
pub(super) fn split(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word = String::new();
    let mut begun = false;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (_, Some('\'')) if c != '\'' => word.push(c),
            ('\\', Some('"')) => match chars.next_if(|next| matches!(next, '"' | '\\' | '$' | '`')) {
                Some(next) => word.push(next),
                None => word.push('\\'),
            },
            ('\\', None) => {
                begun = true;
                word.extend(chars.next());
            }
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => word.push(c),
            ('\'' | '"', None) => (quote, begun) = (Some(c), true),
            (' ' | '\t' | '\n', None) => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (_, None) => {
                begun = true;
                word.push(c);
            }
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_being_typed_is_the_last_word() {
        for (line, words) in [
            ("", &[""][..]),
            ("coracle st", &["coracle", "st"]),
            ("coracle  stop ", &["coracle", "stop", ""]),
            ("coracle logs --stream=std", &["coracle", "logs", "--stream=std"]),
            ("coracle run 'my app", &["coracle", "run", "my app"]),
            ("coracle run my\\ a", &["coracle", "run", "my a"]),
            ("coracle run \"a\\\"b\\c", &["coracle", "run", "a\"b\\c"]),
            ("coracle run '' x", &["coracle", "run", "", "x"]),
            ("coracle run \\", &["coracle", "run", ""]),
        ] {
            assert_eq!(split(line), words, "{line}");
        }
    }

    proptest! {
        /// A finished line is split as shlex does it.
        #[test]
        fn finished_words_come_back(words in prop::collection::vec("[^\\x00\\n\\r]{0,12}", 1..6)) {
            let line = shlex::try_join(words.iter().map(String::as_str)).unwrap();
            prop_assert_eq!(split(&line), words);
        }
    }
}
