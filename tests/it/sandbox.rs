//! What a guest gets, in both worlds, and what it does not get.

use crate::support::Harness;

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_guests_own() {
    let daemon = Harness::start().await;
    assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    assert_eq!(daemon.run_to_end(&["exit_200"]).await.exit_code, Some(200));
    // WASI 0.2's exit knows success and failure; the adapter for preview 1 modules uses it.
    assert_eq!(daemon.run_to_end(&["exit_7-p2"]).await.exit_code, Some(1));
    assert_eq!(daemon.run_to_end(&["exit_200-p2"]).await.exit_code, Some(1));
    assert_eq!(daemon.run_to_end(&["both-p2"]).await.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_environment_are_those_that_were_given() {
    let daemon = Harness::start().await;
    // The daemon's own environment holds PATH, at least; nothing of it may be seen.
    assert!(std::env::var_os("PATH").is_some());
    for guest in ["args_env", "args_env-p2"] {
        daemon.run_to_end(&["-e", "KEY=value with = in it", "-e", "EMPTY=", guest, "one", "", "dre\u{e9}"]).await;
        let expected = format!("{guest}\\x00one\\x00\\x00dre\u{e9}\\x00--\nKEY=value with = in it\\x00EMPTY=\\x00\n");
        assert_eq!(daemon.log(guest).await, expected);
    }
    let view = daemon.supervisor.view(&"args_env".parse().unwrap()).unwrap();
    assert_eq!(view.env, ["KEY", "EMPTY"], "names of variables, never their values");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_listed_whole_a_piece_at_a_time() {
    let daemon = Harness::start().await;
    for guest in ["entries", "entries-p2"] {
        daemon.run_to_end(&[guest]).await;
        let mut names: Vec<String> = (0..300).map(|i| format!("{i:0200}")).collect();
        names.extend(["short".to_owned(), "x".repeat(255)]);
        for name in &names {
            std::fs::write(daemon.root.join(guest).join(name), "").unwrap();
        }
        std::fs::create_dir(daemon.root.join(guest).join("directory")).unwrap();
        names.push("directory".to_owned());
        assert_eq!(daemon.run_to_end(&["--name", guest, guest]).await.exit_code, Some(0));
        let log = daemon.log(guest).await;
        let mut said: Vec<&str> = log.lines().collect();
        said.sort_unstable();
        names.sort_unstable();
        let expected: Vec<String> = names.iter().map(|name| format!("{name}=")).collect();
        assert_eq!(said, expected);
    }
}

/// Whatever else is polled, and that is told as well if it is ready. Nothing is read of the file to find out.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_polled_is_ready_at_once() {
    let daemon = Harness::start().await;
    assert_eq!(daemon.run_to_end(&["poll_file"]).await.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_and_standard_error_are_kept_apart() {
    let daemon = Harness::start().await;
    for guest in ["both", "both-p2"] {
        daemon.run_to_end(&[guest]).await;
        let mut raw = daemon.raw().await;
        raw.send(&format!("logs --stream stdout {guest}\n")).await;
        assert_eq!(raw.dotted().await, ["out", "last"]);
        raw.send(&format!("logs --stream stderr {guest}\n")).await;
        assert_eq!(raw.dotted().await, ["err"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_is_closed_unless_it_is_asked_for() {
    let daemon = Harness::start().await;
    for guest in ["cat", "cat-p2"] {
        assert_eq!(daemon.run_to_end(&[guest]).await.exit_code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_told_with_its_kind_and_a_short_backtrace() {
    let daemon = Harness::start().await;
    for guest in ["trap", "trap-p2"] {
        let view = daemon.run_to_end(&[guest]).await;
        assert_eq!((view.state.as_str(), view.exit_code), ("trapped", Some(134)));
        assert_eq!(view.reason.as_deref(), Some("trap:unreachable"));
        assert!(view.message.unwrap().contains("in inner < outer"));
    }
    for guest in ["overflow", "overflow-p2"] {
        let view = daemon.run_to_end(&[guest]).await;
        assert_eq!(view.reason.as_deref(), Some("trap:stack-overflow"), "{view:?}");
    }
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(0), "and the daemon is as before");
}

/// WASI's errno: 0 success, 44 no entry, 63 not permitted, 76 not capable; 8 would be a bad descriptor.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sees_its_directory_and_nothing_else() {
    use std::os::unix::fs::symlink;
    let daemon = Harness::start().await;
    for guest in ["open", "open-p2"] {
        let open = async |path: &str| daemon.run_to_end(&[guest, path]).await.exit_code.unwrap();
        assert_ne!(open("mine").await, 0);
        let directory = daemon.root.join(guest);
        let secret = daemon.root.join("secret");
        std::fs::write(&secret, "secret").unwrap();
        std::fs::write(directory.join("mine"), "mine").unwrap();
        std::fs::create_dir(directory.join("sub")).unwrap();
        symlink(&secret, directory.join("absolute")).unwrap();
        symlink("../secret", directory.join("relative")).unwrap();
        symlink("/", directory.join("top")).unwrap();
        symlink("mine", directory.join("inside")).unwrap();
        symlink("..", directory.join("sub/up")).unwrap();
        assert_eq!(open("mine").await, 0, "its own file opens");
        assert_eq!(open("inside").await, 0, "and a link that stays inside");
        assert_eq!(open("sub/up/mine").await, 0);
        for outside in [
            "../secret",
            "sub/../../secret",
            "sub/up/../secret",
            "absolute",
            "relative",
            "top/etc/passwd",
            "/etc/passwd",
            "../../../../../../../../etc/passwd",
            &secret.display().to_string(),
        ] {
            assert_ne!(open(outside).await, 0, "{guest} opened {outside}");
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_the_daemons_is_refused_and_left_alone() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Harness::start().await;
    let mine = daemon.root.join("hello");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("file"), "mine").unwrap();
    let mut raw = daemon.raw().await;
    let reply = raw.ask("run hello").await;
    assert!(reply.starts_with("ERR denied ") && reply.contains("--name"), "{reply}");
    assert_eq!(raw.ask("list").await, "Available containers: []");
    assert_eq!(std::fs::read_to_string(mine.join("file")).unwrap(), "mine");
    assert!(raw.ask("run --name other hello").await.contains("created"));
    let mode = daemon.root.join("other").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // Not at the second try either, however soon it comes and however much it looks like ours.
    for i in 0..20 {
        let path = daemon.root.join(format!("empty{i}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        raw.send(&format!("run --name empty{i} hello\nrun --name empty{i} hello\n")).await;
        for _ in 0..2 {
            assert!(raw.line().await.starts_with("ERR denied "));
        }
    }
}

/// The directory outlives the daemon, and the next daemon knows that it is its own.
#[tokio::test(flavor = "multi_thread")]
async fn directories_and_stored_modules_survive_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let start = async || {
        let path = path.clone();
        Harness::with(move |config| {
            config.state_dir = Some(path.join("state"));
            config.root = path.join("root");
        })
        .await
    };
    let mut first = start().await;
    first.run_to_end(&["both"]).await;
    let text = b"(module (func (export \"_start\")))";
    let digest = sha256(text);
    first.client().await.put("mine", text, &digest, true, |_| ()).await.unwrap();
    first.end().await;
    drop(first);
    let second = start().await;
    assert_eq!(second.run_to_end(&["both"]).await.exit_code, Some(0));
    assert_eq!(second.run_to_end(&["mine"]).await.digest, digest);
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
