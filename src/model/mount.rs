//! Directories of the host that a run is lent besides its own: what is written, and what it means.

use crate::model::escape;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most that a run may be lent.
pub const MOUNTS_MAX: usize = 16;

/// A directory of the host, and where the guest finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The directory, as it was written.
    pub host: String,
    /// Its place in the guest: an absolute path, and not `/`.
    pub guest: String,
    /// Whether the guest may only read.
    pub read_only: bool,
}

impl Mount {
    /// Reads `HOST:GUEST`, with `:ro` or `:rw` behind it, as docker does.
    ///
    /// # Errors
    ///
    /// One line that says what is wanted.
    pub fn parse_volume(text: &str) -> Result<Mount, String> {
        let bad = || format!("'{}' is not HOST:GUEST or HOST:GUEST:ro", escape::short(text, 80));
        let (rest, read_only) = match text.rsplit_once(':') {
            Some((rest, "ro")) => (rest, true),
            Some((rest, "rw")) => (rest, false),
            _ => (text, false),
        };
        // From the right: a path of Windows has a colon behind its drive, and a guest's path has none.
        let (host, guest) = rest.rsplit_once(':').ok_or_else(bad)?;
        Mount::new(host, guest, read_only)
    }

    /// Reads `HOST::GUEST`, as wasmtime does; `HOST` alone is found under the same path.
    ///
    /// # Errors
    ///
    /// One line that says what is wanted.
    pub fn parse_dir(text: &str) -> Result<Mount, String> {
        let (host, guest) = text.rsplit_once("::").unwrap_or((text, text));
        Mount::new(host, guest, false)
    }

    fn new(host: &str, guest: &str, read_only: bool) -> Result<Mount, String> {
        let shown = |path: &str| escape::short(path, 80);
        if host.is_empty() || host.contains('\0') {
            return Err("a directory of the host is missing in front of the colon".into());
        }
        let guest_parts: Vec<&str> = guest.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if !guest.starts_with('/') || guest_parts.contains(&"..") || guest.contains(['\0', ':']) {
            return Err(format!("the guest's path '{}' has to begin with / and to be without '..'", shown(guest)));
        }
        if guest_parts.is_empty() {
            return Err("the guest has its own directory as /; choose another path, such as /data".into());
        }
        Ok(Mount { host: host.to_owned(), guest: format!("/{}", guest_parts.join("/")), read_only })
    }
}

impl fmt::Display for Mount {
    /// As [`Mount::parse_volume`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.host, self.guest, if self.read_only { "ro" } else { "rw" })
    }
}

/// Refuses what no run can be lent: too many, or two in one place.
///
/// # Errors
///
/// One line that says why.
pub fn check_together(mounts: &[Mount]) -> Result<(), String> {
    if mounts.len() > MOUNTS_MAX {
        return Err(format!("a run is lent at most {MOUNTS_MAX} directories"));
    }
    for (i, mount) in mounts.iter().enumerate() {
        if mounts[..i].iter().any(|other| other.guest == mount.guest) {
            return Err(format!("two directories are to be at '{}'", escape::short(&mount.guest, 80)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mount(host: &str, guest: &str, read_only: bool) -> Mount {
        Mount { host: host.into(), guest: guest.into(), read_only }
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(Mount::parse_volume("/srv/x:/data"), Ok(mount("/srv/x", "/data", false)));
        assert_eq!(Mount::parse_volume("./x:/data//a/./b/:ro"), Ok(mount("./x", "/data/a/b", true)));
        assert_eq!(Mount::parse_volume("C:\\x:/data:rw"), Ok(mount("C:\\x", "/data", false)));
        assert_eq!(Mount::parse_dir("/srv/x::/data"), Ok(mount("/srv/x", "/data", false)));
        assert_eq!(Mount::parse_dir("/srv/x"), Ok(mount("/srv/x", "/srv/x", false)));
        for bad in [
            "",
            ":",
            "/x",
            "/x:",
            ":/x",
            "/x:data",
            "/x:/",
            "/x:/.",
            "/x:/a/../b",
            "/x:/..",
            "/x:/a\0",
            "/x:ro",
            "/x:/:ro",
        ] {
            assert!(Mount::parse_volume(bad).is_err(), "{bad}");
        }
        for bad in ["x", "", "/x::", "/x::data", "/", "/a::/b:c"] {
            assert!(Mount::parse_dir(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_taken_once_and_places_are_few() {
        let all: Vec<Mount> = (0..=MOUNTS_MAX).map(|i| mount("/x", &format!("/{i}"), false)).collect();
        assert_eq!(check_together(&all[1..]), Ok(()));
        assert!(check_together(&all).unwrap_err().contains("16"));
        assert!(check_together(&[mount("/a", "/x", true), mount("/b", "/x", false)]).unwrap_err().contains("/x"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(text in "\\PC{0,40}|[a-z/.:]{0,20}") {
            if let Ok(mount) = Mount::parse_volume(&text) {
                prop_assert_eq!(Mount::parse_volume(&mount.to_string()), Ok(mount));
            }
        }
    }
}
