//! Keeps numbered notes in a file. With arguments it adds them as a note;
//! then, and without arguments, it prints all notes.
//!
//! The directory that an instance sees as `/` stays from one run to the next,
//! and the notes in it.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::{env, fs};

const PATH: &str = "/notes.txt";

fn main() -> ExitCode {
    let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match run(&words.join(" ")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notes: {PATH}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(note: &str) -> io::Result<()> {
    let mut notes = match fs::read_to_string(PATH) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        result => result?,
    };
    if !note.is_empty() {
        let line = line_after(&notes, note);
        append(line.as_bytes())?;
        notes.push_str(&line);
    }
    io::stdout().write_all(notes.as_bytes())
}

/// Writes at the end of the file, in one call, so that a second instance that
/// shares the directory cannot write into the middle of a note.
fn append(text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(PATH)?;
    file.write_all(text)?;
    file.sync_all()
}

/// What to add to `notes` so that `note` becomes its next line.
fn line_after(notes: &str, note: &str) -> String {
    let number = notes.lines().count() + 1;
    // One note is one line, or the numbers would no longer be right.
    let note = note.replace(['\r', '\n'], " ");
    // Somebody may have edited the file and left the last line open.
    let separator = if notes.is_empty() || notes.ends_with('\n') { "" } else { "\n" };
    format!("{separator}{number} {note}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_numbered_from_one() {
        assert_eq!(line_after("", "buy milk"), "1 buy milk\n");
        assert_eq!(line_after("1 buy milk\n", "sell cow"), "2 sell cow\n");
    }

    #[test]
    fn a_note_is_one_line() {
        assert_eq!(line_after("", "two\nlines\r\n"), "1 two lines  \n");
    }

    #[test]
    fn an_open_last_line_is_closed_first() {
        assert_eq!(line_after("1 by hand", "next"), "\n2 next\n");
    }
}
