//! `man`: a page for each command that the tools for pages take, and docs/reference.md as the grammar has it.

use crate::support::{Cli, cannot_try, source};
use std::process::{Command, Stdio};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_page_without_a_flaw() {
    let cli = Cli::alone();
    let pages = cli.directory.path().join("new/man1");
    let (code, said, err) = cli.run(&["man", "--out", pages.to_str().unwrap()]).await;
    assert_eq!((code, said.as_str(), err.as_str()), (0, "", ""));
    let mut names: Vec<String> =
        std::fs::read_dir(&pages).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let help = cli.run(&["help"]).await.1;
    let verbs = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| l.starts_with("  "));
    let mut wanted: Vec<String> = verbs
        .filter(|l| !l.starts_with("   "))
        .map(|l| format!("coracle-{}.1", l.split_whitespace().next().unwrap()))
        .collect();
    assert!(wanted.len() > 20, "{help}");
    wanted.push("coracle.1".to_owned());
    wanted.sort();
    assert_eq!(names, wanted);
    for (tool, flags) in [("groff", &["-man", "-Tutf8", "-ww", "-z"][..]), ("mandoc", &["-Tlint", "-Werror"])] {
        for name in &names {
            let mut check = Command::new(tool);
            check.args(flags).arg(pages.join(name)).stdin(Stdio::null());
            match check.output() {
                Err(_) => {
                    cannot_try(&format!("{tool}(1), the pages of the manual"));
                    break;
                }
                Ok(output) => {
                    let said = [output.stdout, output.stderr].concat();
                    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
                }
            }
        }
    }
    let run = std::fs::read_to_string(pages.join("coracle-run.1")).unwrap();
    for text in [
        ".TH coracle-run 1 \"\" \"coracle 0.",
        "\\-\\-timeout\\fR \\fI<TIME>\\fR",
        "[default: 256m, or what the daemon was given]",
    ] {
        assert!(run.contains(text), "{text} is not in {run}");
    }
    // What pages are made of is not of this machine.
    let mut other = cli.command(&["man", "daemon"]);
    other.env("CORACLE_ROOT", "/elsewhere").env("COLUMNS", "40");
    assert_eq!(cli.finish(other, b"").await.1, std::fs::read_to_string(pages.join("coracle-daemon.1")).unwrap());
    let (code, _, err) = cli.run(&["man", "nothing"]).await;
    assert!(code == 125 && err.starts_with("error: there is no command 'nothing'"), "{err}");
}

/// The default of --root is another one on other systems.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_is_that_of_the_program() {
    let cli = Cli::alone();
    let (code, said, err) = cli.run(&["man", "--markdown"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let written = std::fs::read_to_string(source().join("docs/reference.md")).unwrap_or_default();
    for (line, (new, old)) in said.lines().zip(written.lines()).enumerate() {
        assert_eq!(
            old,
            new,
            "docs/reference.md:{}; cargo run -- man --markdown > docs/reference.md writes it anew",
            line + 1
        );
    }
    assert_eq!(
        written.lines().count(),
        said.lines().count(),
        "cargo run -- man --markdown > docs/reference.md writes it anew"
    );
}
