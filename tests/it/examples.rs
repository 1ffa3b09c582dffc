//! The guest examples, built from source and run through the daemon.

use crate::support::{Cli, Harness, cannot_try, source};
use std::path::PathBuf;
use std::sync::OnceLock;

/// A built guest. `None`: this machine has no compiler for it, which was said.
pub fn built(name: &str) -> Option<PathBuf> {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let built = std::process::Command::new("bash").arg(source().join("guest-examples/build.sh")).output();
        let Ok(output) = built else {
            cannot_try("the guests of guest-examples: there is no bash");
            return ["wordcount", "hungry", "notes", "primes", "cat"].map(str::to_owned).to_vec();
        };
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => vec![],
            // Not in a position to: one line says which, and what is lacking.
            Some(3) => {
                let line = out
                    .lines()
                    .find_map(|l| l.strip_prefix("could not build: "))
                    .expect("build.sh says what it could not build");
                cannot_try(&format!("guests that could not be built: {line}"));
                line.split("; ")
                    .flat_map(|part| part.split(" (").next().unwrap_or_default().split(' ').map(str::to_owned))
                    .collect()
            }
            _ => panic!("guest-examples/build.sh failed:\n{out}{}", String::from_utf8_lossy(&output.stderr)),
        }
    });
    if missing.iter().any(|m| m == name) {
        return None;
    }
    let path = source().join(format!("guest-examples/target/guests/{name}.wasm"));
    assert!(path.is_file(), "build.sh reported success and left no {}", path.display());
    Some(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_greets_and_names_its_arguments() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", "hello"]).await.1, "Hello from Coracle!\n");
    assert_eq!(cli.run(&["run", "hello", "Ada", "Grace Hopper"]).await.1, "Hello, Ada Grace Hopper!\n");
    // As much as a request line carries.
    let many: Vec<String> = (0..700).map(|i| format!("name{i:04}")).collect();
    let words: Vec<&str> = ["run", "hello"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert_eq!(cli.run(&words).await.1, format!("Hello, {}!\n", many.join(" ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn wordcount_counts_its_input() {
    let Some(path) = built("wordcount") else { return };
    let daemon = Harness::start().await;
    let (code, out, err) =
        Cli::of(&daemon).run_with_input(&["run", "-i", path.to_str().unwrap()], b"one two\nthree\n").await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "2 3 14\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_kept_from_run_to_run() {
    let Some(path) = built("notes") else { return };
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let path = path.to_str().unwrap();
    assert_eq!(cli.run(&["run", path, "buy", "milk"]).await.1, "1 buy milk\n");
    assert_eq!(cli.run(&["run", path, "sell cow"]).await.1, "1 buy milk\n2 sell cow\n");
    assert_eq!(cli.run(&["run", path]).await.1, "1 buy milk\n2 sell cow\n");
    assert_eq!(std::fs::read_to_string(daemon.root.join("notes/notes.txt")).unwrap(), "1 buy milk\n2 sell cow\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn primes_computes() {
    let Some(path) = built("primes") else { return };
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    assert_eq!(cli.run(&["run", path.to_str().unwrap(), "1000000"]).await.1, "78498 primes below 1000000\n");
    assert_eq!(cli.run(&["run", path.to_str().unwrap(), "x"]).await.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn cat_copies_its_input_and_its_files() {
    let Some(path) = built("cat") else { return };
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let path = path.to_str().unwrap();
    let (code, out, _) = cli.run_with_input(&["run", "-i", path], "Grüße\n".as_bytes()).await;
    assert_eq!((code, out.as_str()), (0, "Grüße\n"));
    std::fs::write(daemon.root.join("cat/file"), "from a file\n").unwrap();
    assert_eq!(cli.run(&["run", path, "/file", "file"]).await.1, "from a file\nfrom a file\n");
    let (code, _, err) = cli.run(&["run", path, "nope"]).await;
    assert!(code == 1 && err.contains("nope"), "{err}");
}
