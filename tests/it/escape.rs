//! A guest that tries to leave its directory: by every operation that takes a path, along every way that a path can go.

use crate::support::Harness;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const WORLDS: [&str; 2] = ["escape", "escape-p2"];

/// What is outside: all that an operation could change of it, and that listing it does not.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    mode: u32,
    links: u64,
    modified: (i64, i64),
    content: Vec<u8>,
}

/// Everything below `directory` and itself, but for what is below `except`.
fn snapshot(directory: &Path, except: &Path) -> BTreeMap<PathBuf, Seen> {
    fn walk(path: &Path, except: &Path, seen: &mut BTreeMap<PathBuf, Seen>) {
        if path == except {
            return;
        }
        let meta = path.symlink_metadata().unwrap();
        let content = match meta.file_type() {
            kind if kind.is_dir() => vec![],
            kind if kind.is_symlink() => std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes(),
            _ => std::fs::read(path).unwrap(),
        };
        let (inode, mode, links) = (meta.ino(), meta.mode(), meta.nlink());
        seen.insert(path.to_owned(), Seen { inode, mode, links, modified: (meta.mtime(), meta.mtime_nsec()), content });
        if meta.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), except, seen));
        }
    }
    let mut seen = BTreeMap::new();
    walk(directory, except, &mut seen);
    seen
}

/// A guest's directory and what is around it.
struct Cage {
    daemon: Harness,
    world: &'static str,
    inside: PathBuf,
}

impl Cage {
    /// With a file, a directory and a link outside, and a directory with a file inside.
    async fn new(world: &'static str) -> Cage {
        let daemon = Harness::start().await;
        let root = &daemon.root;
        std::fs::write(root.join("secret"), "secret").unwrap();
        std::fs::create_dir_all(root.join("dir/empty")).unwrap();
        std::fs::write(root.join("dir/file"), "another").unwrap();
        std::os::unix::fs::symlink("secret", root.join("link")).unwrap();
        let inside = root.join("g");
        let cage = Cage { daemon, world, inside };
        // The daemon makes the directory at the first run.
        assert_eq!(cage.attempt(&["m", "sub"]).await, 0);
        cage
    }

    /// One attempt, with the errno that the guest got.
    async fn attempt(&self, words: &[&str]) -> u8 {
        let view = self.daemon.run_to_end(&[&["--name", "g", self.world], words].concat()).await;
        assert_eq!(view.state, "exited", "{words:?}: {view:?}");
        view.exit_code.unwrap()
    }

    /// Inside, anew: `sub` with a file in it, and `mine`.
    fn tidy(&self) {
        for entry in std::fs::read_dir(&self.inside).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::create_dir(self.inside.join("sub")).unwrap();
        std::fs::write(self.inside.join("sub/file"), "inside").unwrap();
        std::fs::write(self.inside.join("mine"), "inside").unwrap();
    }

    fn around(&self) -> BTreeMap<PathBuf, Seen> {
        snapshot(&self.daemon.root, &self.inside)
    }
}

/// Each operation with a second path, where it takes one.
const OPERATIONS: &[&[&str]] = &[
    &["o"],
    &["w"],
    &["c"],
    &["e"],
    &["t"],
    &["d"],
    &["l", "new"],
    &["L", "mine"],
    &["r", "new"],
    &["R", "mine"],
    &["y", "mine"],
    &["u"],
    &["m"],
    &["k"],
    &["n"],
    &["s"],
    &["S"],
    &["i"],
    &["I"],
];

fn words<'a>(operation: &'a [&'a str], from: &str, path: &'a str) -> (String, Vec<&'a str>) {
    (format!("{}{from}", operation[0]), [&[path], &operation[1..]].concat())
}

impl Cage {
    /// Tries everything with `path`, which leads outside. `from`: the directory that it begins at. `what`: the operations.
    async fn nothing_leaves(&self, prepare: &[&[&str]], operations: &[&[&str]], from: &str, path: &str) {
        for operation in operations {
            self.tidy();
            for step in prepare {
                assert_eq!(self.attempt(step).await, 0, "{}: {step:?} is the guest's right", self.world);
            }
            let before = self.around();
            let (first, rest) = words(operation, from, path);
            let errno = self.attempt(&[&[first.as_str()], &rest[..]].concat()).await;
            assert_ne!(errno, 0, "{}: {first} {rest:?} behind {prepare:?}", self.world);
            assert_eq!(self.around(), before, "{}: {first} {rest:?} behind {prepare:?}", self.world);
        }
    }
}

/// Without this the tests below would pass with a guest that does nothing right.
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_works_inside() {
    for world in WORLDS {
        let cage = Cage::new(world).await;
        for operation in OPERATIONS {
            let path = match operation[0] {
                "c" | "e" | "L" | "R" | "y" | "m" => "fresh",
                "d" => "sub",
                "k" => "empty",
                "n" => "text",
                _ => "file",
            };
            for (from, path) in [("", format!("sub/../sub/{path}")), ("sub", path.to_owned())] {
                cage.tidy();
                std::fs::create_dir_all(cage.inside.join("sub/sub")).unwrap();
                std::fs::create_dir(cage.inside.join("sub/empty")).unwrap();
                std::os::unix::fs::symlink("file", cage.inside.join("sub/text")).unwrap();
                let (first, rest) = words(operation, from, &path);
                let errno = cage.attempt(&[&[first.as_str()], &rest[..]].concat()).await;
                assert_eq!(errno, 0, "{world}: {first} {rest:?}");
            }
        }
        cage.tidy();
        assert_eq!(cage.attempt(&["w", "mine"]).await, 0);
        assert_eq!(std::fs::read_to_string(cage.inside.join("mine")).unwrap(), "written by the guest");
        assert_eq!(cage.attempt(&["i", "mine"]).await, 0);
        assert_eq!(cage.inside.join("mine").metadata().unwrap().mtime(), 1);
        assert_eq!(cage.attempt(&["o", "mine"]).await, 0);
        assert!(cage.daemon.log("g").await.contains("written by the guest"));
    }
}

/// To a file, a directory, an empty one, a link and nothing; and the directory above itself.
#[tokio::test(flavor = "multi_thread")]
async fn no_operation_leaves_by_the_path_itself() {
    for world in WORLDS {
        let cage = Cage::new(world).await;
        let root = cage.daemon.root.display().to_string();
        for path in ["../secret", "../dir", "../dir/empty", "../link", "../new", "..", "sub/../../secret", "./.././new"]
        {
            cage.nothing_leaves(&[], OPERATIONS, "", path).await;
        }
        for path in
            [format!("{root}/secret"), format!("{root}/dir/empty"), format!("{root}/new"), "/".into(), "/..".into()]
        {
            cage.nothing_leaves(&[], OPERATIONS, "", &path).await;
        }
        // A directory that the guest opened is the end of the way up, too.
        for path in ["..", "../mine", "../new", "../../secret", "../../new"] {
            cage.nothing_leaves(&[], OPERATIONS, "sub", path).await;
        }
    }
}

/// The guest may make links that lead nowhere good, as long as they are relative; nothing goes along them.
#[tokio::test(flavor = "multi_thread")]
async fn no_operation_leaves_along_a_link_of_the_guests_own() {
    for world in WORLDS {
        let cage = Cage::new(world).await;
        let up: &[&[&str]] = &[&["y", "up", ".."]];
        let deep: &[&[&str]] = &[&["y", "sub/up", "../.."]];
        let chain: &[&[&str]] = &[&["y", "a", "b"], &["y", "b", "sub/c"], &["y", "sub/c", "../../dir"]];
        for (links, path) in [
            (up, "up/secret"),
            (up, "up/dir/empty"),
            (up, "up/link"),
            (up, "up/new"),
            (up, "up/g/../secret"),
            (up, "sub/../up/secret"),
            (deep, "sub/up/secret"),
            (deep, "sub/up/new"),
            (chain, "a/file"),
            (chain, "a/empty"),
            (chain, "a/new"),
        ] {
            cage.nothing_leaves(links, OPERATIONS, "", path).await;
        }
        cage.nothing_leaves(deep, OPERATIONS, "sub", "up/secret").await;
        let circle: &[&[&str]] = &[&["y", "one", "two"], &["y", "two", "one"]];
        cage.nothing_leaves(circle, OPERATIONS, "", "one/secret").await;
    }
}

/// A link as the last name of a path: what goes along it stays inside. What is done to the link itself is the guest's business.
#[tokio::test(flavor = "multi_thread")]
async fn no_operation_follows_a_last_name_that_leads_outside() {
    const FOLLOWS: &[&[&str]] = &[&["o"], &["w"], &["c"], &["e"], &["t"], &["d"], &["s"], &["i"]];
    for world in WORLDS {
        let cage = Cage::new(world).await;
        for text in ["../secret", "../dir", "../new", "..", "last"] {
            let links: &[&[&str]] = &[&["y", "last", text]];
            cage.nothing_leaves(links, FOLLOWS, "", "last").await;
            for operation in OPERATIONS.iter().filter(|operation| !FOLLOWS.contains(operation)) {
                cage.tidy();
                assert_eq!(cage.attempt(links[0]).await, 0);
                let before = cage.around();
                let (first, rest) = words(operation, "", "last");
                cage.attempt(&[&[first.as_str()], &rest[..]].concat()).await;
                assert_eq!(cage.around(), before, "{world}: {first} {rest:?} to {text}");
            }
        }
    }
}

/// An absolute link cannot be made; one that the host left there leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn absolute_links_lead_nowhere() {
    for world in WORLDS {
        let cage = Cage::new(world).await;
        let root = cage.daemon.root.display().to_string();
        for text in [format!("{root}/secret"), format!("{root}/dir"), "/".into(), "/etc/passwd".into()] {
            cage.tidy();
            assert_ne!(cage.attempt(&["y", "absolute", &text]).await, 0, "{world}: {text}");
            assert!(cage.inside.join("absolute").symlink_metadata().is_err());
        }
        for operation in OPERATIONS {
            for path in ["absolute/secret", "absolute/dir/empty", "absolute/new"] {
                cage.tidy();
                std::os::unix::fs::symlink(&root, cage.inside.join("absolute")).unwrap();
                let before = cage.around();
                let (first, rest) = words(operation, "", path);
                let errno = cage.attempt(&[&[first.as_str()], &rest[..]].concat()).await;
                assert_ne!(errno, 0, "{world}: {first} {rest:?}");
                assert_eq!(cage.around(), before, "{world}: {first} {rest:?}");
            }
        }
    }
}
