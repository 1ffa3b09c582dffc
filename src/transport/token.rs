//! The token in its file: made at the first start, and the same at every further one.

use crate::error::{Error, Result};
use crate::model::auth::Token;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the token of a daemon with this state directory is.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("token")
}

/// Reads a token.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Denied`] if others may read or change it, or it is none.
pub fn read(path: &Path) -> Result<Token> {
    let io = |e: &std::io::Error| Error::io(format!("cannot read the token {}", path.display()), e);
    let denied = |why: &str| Error::Denied(format!("{} {why}", path.display()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::symlink_metadata(path).map_err(|e| io(&e))?;
        if !meta.is_file() || meta.mode() & 0o077 != 0 {
            return Err(denied("is not a file for its owner alone (mode 0600)"));
        }
    }
    let text = std::fs::read_to_string(path).map_err(|e| io(&e))?;
    Token::parse(&text)
        .ok_or_else(|| denied("holds no token (64 hexadecimal digits); remove it, and the daemon makes a new one"))
}

/// Reads the daemon's token, or makes it. The state directory is ours alone.
///
/// # Errors
///
/// As [`read`].
pub fn read_or_make(state_dir: &Path) -> Result<Token> {
    let path = path(state_dir);
    if path.symlink_metadata().is_ok() {
        return read(&path);
    }
    let io = |e: &dyn std::fmt::Display| Error::io(format!("cannot make the token {}", path.display()), e);
    let mut random = [0; crate::model::auth::BYTES];
    getrandom::fill(&mut random).map_err(|e| io(&e))?;
    let token = Token::new(random);
    // Whole or not at all; `tempfile` makes it for its owner alone.
    let mut file = tempfile::NamedTempFile::new_in(state_dir).map_err(|e| io(&e))?;
    file.write_all(token.to_file().as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(|e| io(&e))?;
    file.persist_noclobber(&path).map_err(|e| io(&e.error))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_refused_if_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let token = read_or_make(dir.path()).unwrap();
        assert_eq!(read_or_make(dir.path()).unwrap(), token);
        assert_ne!(read_or_make(tempfile::tempdir().unwrap().path()).unwrap(), token);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |mode| std::fs::set_permissions(path(dir.path()), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(std::fs::metadata(path(dir.path())).unwrap().permissions().mode() & 0o777, 0o600);
            mode(0o640);
            assert!(matches!(read_or_make(dir.path()), Err(Error::Denied(_))));
            mode(0o600);
        }
        std::fs::write(path(dir.path()), "abc").unwrap();
        let refused = read_or_make(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("no token") && !refused.contains("abc"), "{refused}");
    }
}
