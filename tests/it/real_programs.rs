//! Two real programs that somebody else compiled, with real work: CPython and esbuild.

use crate::support::{Cli, Harness, cannot_try, source};
use std::path::PathBuf;

/// The program's file. Fetched in CI; elsewhere only if it was fetched before, for tests do not download behind one's back.
fn fetched(name: &str) -> Option<PathBuf> {
    let path = source().join("target/real-programs").join(name);
    if std::env::var_os("CI").is_some() {
        let script = source().join("tests/real-programs/fetch.sh");
        let output = std::process::Command::new("bash").arg(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    if path.is_file() {
        return Some(path);
    }
    cannot_try(&format!("{name}: fetch it with tests/real-programs/fetch.sh"));
    None
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cpython_runs_a_script_of_its_directory_and_keeps_a_file_there() {
    let Some(python) = fetched("python.wasm") else { return };
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let python = python.to_str().unwrap();
    let (code, out, err) = cli.run(&["run", python, "-c", "print(6*7)"]).await;
    assert_eq!((code, out.as_str()), (0, "42\n"), "{err}");
    for file in ["report.py", "input.csv"] {
        std::fs::copy(source().join("tests/real-programs").join(file), daemon.root.join("python").join(file)).unwrap();
    }
    let (code, first, err) = cli.run(&["run", python, "/report.py"]).await;
    assert!(
        code == 0 && first.starts_with("run 1 (new input ") && first.ends_with("warmest: harbour\n"),
        "{code} {first} {err}"
    );
    assert!(daemon.root.join("python/state.json").exists());
    let (_, second, _) = cli.run(&["run", python, "/report.py"]).await;
    assert!(second.starts_with("run 2 (same input "), "{second}");
    let (code, out, _) =
        cli.run_with_input(&["run", "-i", python, "-"], b"import sys; print('from stdin'); sys.exit(200)").await;
    assert_eq!((code, out.as_str()), (200, "from stdin\n"));
    let (code, _, err) = cli.run(&["run", python, "-c", "bytearray(10**9)"]).await;
    assert!(code == 1 && err.contains("MemoryError"), "{err}");
    for (name, script) in [("loop", "while True: pass"), ("nap", "import time; time.sleep(3600)")] {
        assert_eq!(cli.run(&["run", "-d", "--name", name, python, "-c", script]).await.0, 0);
        daemon.wait_for_state(name, "running").await;
        assert_eq!(cli.run(&["stop", name]).await.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn esbuild_bundles_a_typescript_project_of_its_directory() {
    let Some(esbuild) = fetched("esbuild.wasm") else { return };
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let esbuild = esbuild.to_str().unwrap();
    let (code, out, err) = cli.run(&["run", esbuild, "--version"]).await;
    assert_eq!((code, out.as_str()), (0, "0.27.2\n"), "{err}");
    copy_tree(&source().join("tests/real-programs/ts"), &daemon.root.join("esbuild/ts"));
    let (code, _, err) = cli.run(&["run", esbuild, "--bundle", "/ts/index.ts", "--outfile=/out.js"]).await;
    assert_eq!(code, 0, "{err}");
    let bundle = std::fs::read_to_string(daemon.root.join("esbuild/out.js")).unwrap();
    assert!(bundle.contains("largest") && !bundle.contains("interface ") && !bundle.contains("import "), "{bundle}");
    let (code, out, _) = cli
        .run_with_input(&["run", "-i", esbuild, "--loader=ts"], b"const x: number = 1 as number; console.log(x)")
        .await;
    assert_eq!((code, out.as_str()), (0, "const x = 1;\nconsole.log(x);\n"));
}
