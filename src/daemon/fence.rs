//! A fence of the kernel's around the whole daemon (Linux, landlock(7)): what a flaw in the engine could not be used for.
//!
//! It is raised before there is a second thread, and cannot be taken down. Behind it nothing but our own program is executed, no
//! TCP connection is made and no other port than ours listened on, no device, FIFO or socket is made outside the state directory, and the
//! system's directories are not written to, by root neither. With `--mount-root` only those directories, the state and the
//! directories of instances can be written to, and little else read; without it a client may have any directory lent later, so
//! the rest of the machine's files stays as open as its permissions are.

use crate::config::{Config, FenceMode};
use crate::error::{Error, Result};
use std::path::Path;

/// What is told where there is none.
pub const WITHIN_ANOTHER: &str = "none: the daemon is within another program";

/// Raises the fence, as far as the kernel has one. Says what there is now.
///
/// # Errors
///
/// [`Error::Denied`] if one is required and cannot be had whole.
pub fn raise(config: &Config, state_dir: &Path) -> Result<String> {
    let raised = match config.fence {
        FenceMode::Off => return Ok("none: --fence off".to_owned()),
        FenceMode::On | FenceMode::Required => raise_here(config, state_dir),
    };
    match raised {
        Ok(whole) => Ok(whole),
        Err(less) if config.fence == FenceMode::Required => Err(Error::Denied(format!("--fence required: {less}"))),
        Err(less) => Ok(less),
    }
}

#[cfg(not(target_os = "linux"))]
fn raise_here(_: &Config, _: &Path) -> Result<String, String> {
    Err("none: this system has nothing that it could be made of".to_owned())
}

/// `Err`: there is less than there should be.
#[cfg(target_os = "linux")]
fn raise_here(config: &Config, state_dir: &Path) -> Result<String, String> {
    use landlock::RulesetStatus;
    match linux::restrict(config, state_dir) {
        Ok(RulesetStatus::FullyEnforced) => Ok("landlock: paths, execution, TCP, signals".to_owned()),
        Ok(RulesetStatus::PartiallyEnforced) => {
            Err("landlock, as far as this kernel has it: paths and execution (TCP since Linux 6.7, signals since 6.12)"
                .to_owned())
        }
        Ok(RulesetStatus::NotEnforced) => Err("none: this kernel has no landlock, or one before Linux 5.19".to_owned()),
        Err(e) => Err(format!("none: landlock: {e}")),
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use crate::config::Config;
    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
        RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    };
    use std::path::{Path, PathBuf};

    /// What the rules are written for; older kernels do what they can of it.
    const ABI_WANTED: ABI = ABI::V6;

    /// Directories of the system, which no guest is lent to write to.
    const SYSTEM: [&str; 11] = ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr"];

    pub(super) fn restrict(config: &Config, state_dir: &Path) -> Result<RulesetStatus, RulesetError> {
        // Before rename(2) between directories could be allowed (ABI 2) no guest could do it any more: then rather none.
        let whole = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::Refer);
        let Ok(ruleset) = whole else { return Ok(RulesetStatus::NotEnforced) };
        let mut rules = ruleset
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI_WANTED))?
            .handle_access(AccessNet::from_all(ABI_WANTED))?
            .scope(Scope::from_all(ABI_WANTED))?
            .create()?;
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let special =
            AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::MakeSock | AccessFs::IoctlDev;
        let write = read | (AccessFs::from_write(ABI_WANTED) & !special);
        for path in readable(config) {
            rules = allow(rules, &path, read)?;
        }
        for path in writable(config) {
            rules = allow(rules, &path, write)?;
        }
        rules = allow(rules, state_dir, write | AccessFs::MakeSock)?;
        for path in executed(config) {
            rules = allow(rules, &path, AccessFs::Execute | AccessFs::ReadFile)?;
        }
        for address in std::iter::once(&config.listen).chain(&config.metrics) {
            rules = rules.add_rule(NetPort::new(address.port(), AccessNet::BindTcp))?;
        }
        let status = rules.restrict_self()?;
        Ok(status.ruleset)
    }

    /// What is not there needs no rule.
    fn allow(
        rules: RulesetCreated,
        path: &Path,
        access: impl Into<BitFlags<AccessFs>>,
    ) -> Result<RulesetCreated, RulesetError> {
        let access = access.into();
        match PathFd::new(path) {
            // Rights that only directories have are refused for a file.
            Ok(fd) if path.is_dir() => rules.add_rule(PathBeneath::new(fd, access)),
            Ok(fd) => rules.add_rule(PathBeneath::new(fd, access & AccessFs::from_file(ABI_WANTED))),
            Err(_) => Ok(rules),
        }
    }

    fn readable(config: &Config) -> Vec<PathBuf> {
        if config.mount_roots.is_empty() {
            return vec!["/".into()];
        }
        let system = SYSTEM.iter().map(|name| Path::new("/").join(name));
        let named = config.module_dirs.iter().chain(&config.tls_cert).chain(&config.tls_key).cloned();
        system.chain(named).collect()
    }

    fn writable(config: &Config) -> Vec<PathBuf> {
        let mut all = vec![config.root.clone(), "/dev/null".into()];
        if config.mount_roots.is_empty() {
            let top = std::fs::read_dir("/").into_iter().flatten().flatten();
            // What is a link there leads to something that has an entry of its own.
            let ours = top.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let names = ours.filter(|entry| !SYSTEM.iter().any(|name| entry.file_name() == *name));
            all.extend(names.map(|entry| entry.path()));
        } else {
            all.extend(config.mount_roots.iter().cloned());
            // SQLite's, for what it cannot hold in memory.
            all.push(std::env::temp_dir());
        }
        all
    }

    /// Our own program, which compiles, and what loads it: the files among our mappings that are named like a loader (ld.so(8)).
    fn executed(config: &Config) -> Vec<PathBuf> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let files = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
        let is_loader = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("ld-") || name.starts_with("ld."))
        };
        let loaders = files.filter(is_loader);
        loaders.chain(std::env::current_exe()).chain(config.program.clone()).collect()
    }
}
