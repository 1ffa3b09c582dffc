//! Where the dependencies come from: every lock file names crates.io and a digest for each of them.

use crate::support::source;

/// The values of `key` in the packages of a lock file, in their order; `None` where a package has none.
fn packages<'a>(lock: &'a str, key: &str) -> Vec<Option<&'a str>> {
    let value = |package: &'a str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        line.strip_suffix('"')
    };
    lock.split("[[package]]").skip(1).map(value).collect()
}

#[test]
fn every_dependency_is_of_crates_io_and_has_its_digest() {
    for (folder, own) in [
        ("", &["coracle"][..]),
        ("fuzz", &["coracle-fuzz"]),
        ("guest-examples", &["hungry", "notes", "primes", "wordcount"]),
    ] {
        let path = source().join(folder).join("Cargo.lock");
        let lock = std::fs::read_to_string(&path).unwrap();
        let all = packages(&lock, "name").into_iter().zip(packages(&lock, "source")).zip(packages(&lock, "checksum"));
        let mut ours = vec![];
        for ((name, from), digest) in all {
            let name = name.unwrap();
            match from {
                Some(from) => {
                    assert_eq!(from, "registry+https://github.com/rust-lang/crates.io-index", "{name} in {folder}");
                    let hex = |digest: &str| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
                    assert!(digest.is_some_and(hex), "{name} in {folder}");
                }
                None => ours.push(name),
            }
        }
        assert_eq!(ours, own, "packages without a source are our own: {}", path.display());
    }
}
