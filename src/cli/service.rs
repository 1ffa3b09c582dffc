//! `coracle install-service`: what a service manager of the user's own needs to keep a daemon running. Nothing here needs root,
//! and nothing is started: what to type next is said.

use super::daemon::DaemonArgs;
use super::{Failure, Outcome, command, line_of, print, say};
use crate::config::Config;
use clap::{Args, FromArgMatches, ValueEnum};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the service for systemd.
const UNIT: &str = "coracle.service";
/// And for launchd.
const LABEL: &str = "coracle.daemon";
/// How long the daemon may take to end, besides what guests have: it promises five seconds; behind as many again it is killed.
const REST_SECONDS: u64 = 5;
/// Open files, where the system allows as many; each instance may take some hundreds. The daemon takes what it gets.
const OPEN_FILES: u32 = 524_288;
/// Where directories and state are, for the daemon as for whoever installs it.
const ENVIRONMENT: [&str; 2] = ["CORACLE_STATE_DIR", "CORACLE_ROOT"];

/// Arguments of `install-service`.
#[derive(Debug, Clone, Args)]
pub(super) struct ServiceArgs {
    /// The service manager [default: launchd on macOS, systemd elsewhere]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Write it to where the service manager looks, instead of printing it
    #[arg(long)]
    write: bool,
    /// Also over a file that is there and is another one
    #[arg(long, requires = "write")]
    force: bool,
    /// Flags of `coracle daemon` for the service, behind `--`
    #[arg(last = true, value_name = "FLAG")]
    flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Systemd,
    Launchd,
}

impl Kind {
    fn of_this_system() -> Kind {
        if cfg!(target_os = "macos") { Kind::Launchd } else { Kind::Systemd }
    }
}

/// What is to be run, all of it as text that fits a line.
#[derive(Debug, Clone)]
struct Service {
    program: String,
    flags: Vec<String>,
    environment: Vec<(&'static str, String)>,
    home: String,
    /// Seconds within which the daemon promises to be gone.
    ends_within: u64,
}

/// Prints or writes the service, and says what to type next.
pub(super) fn install(args: &ServiceArgs) -> Outcome {
    let directories = directories::BaseDirs::new().ok_or_else(|| Failure::new("there is no home directory"))?;
    let service = Service::of(&args.flags, directories.home_dir())?;
    let kind = args.kind.unwrap_or_else(Kind::of_this_system);
    let (text, path) = match kind {
        Kind::Systemd => {
            let config = match cfg!(target_os = "linux") {
                true => directories.config_dir().to_owned(),
                false => directories.home_dir().join(".config"),
            };
            (service.unit(), config.join("systemd/user").join(UNIT))
        }
        Kind::Launchd => {
            let file = format!("{LABEL}.plist");
            (service.property_list(), directories.home_dir().join("Library/LaunchAgents").join(file))
        }
    };
    let shown = path.display();
    if args.write {
        put(&path, &text, args.force)?;
        print(&line_of(&shown.to_string()))?;
    } else {
        print(&text)?;
        say(&format!("this goes to {shown}; --write writes it"));
    }
    let next: &[String] = match kind {
        Kind::Systemd => &[
            format!(
                "to start it now and at each login: systemctl --user daemon-reload && systemctl --user enable --now {UNIT}"
            ),
            "to have it run while you are not logged in: loginctl enable-linger".to_owned(),
        ],
        Kind::Launchd => &[format!("to start it now and at each login: launchctl bootstrap gui/$(id -u) '{shown}'")],
    };
    next.iter().for_each(|line| say(line));
    Ok(0)
}

/// Writes a file whole or not at all; one that is there and is another stays, unless it is to go.
fn put(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| Failure::new(format!("cannot write {}: {e}", path.display()));
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory).map_err(|e| failed(&e))?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|e| failed(&e))?;
    file.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
    if force {
        return file.persist(path).map(drop).map_err(|e| failed(&e.error));
    }
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => match std::fs::read(path) {
            Ok(there) if there == text.as_bytes() => Ok(()),
            _ => Err(Failure::new(format!("{} is there, and is another one", path.display()))
                .hint("--force replaces it; without --write this one is printed")),
        },
        Err(e) => Err(failed(&e.error)),
    }
}

impl Service {
    fn of(flags: &[String], home: &Path) -> Result<Service, Failure> {
        let drain = check(flags)?;
        let program = std::env::current_exe().map_err(|e| Failure::new(format!("where is this program? {e}")))?;
        let environment = ENVIRONMENT.iter().filter_map(|name| Some((*name, PathBuf::from(std::env::var_os(name)?))));
        let absolute = |(name, path): (&'static str, PathBuf)| {
            let path = std::path::absolute(path).map_err(|e| Failure::new(format!("{name}: {e}")))?;
            Ok((name, text(&path)?))
        };
        let service = Service {
            program: text(&program)?,
            flags: flags.to_vec(),
            environment: environment.map(absolute).collect::<Result<_, Failure>>()?,
            home: text(home)?,
            ends_within: drain.as_secs() + REST_SECONDS,
        };
        let all = [&service.program, &service.home].into_iter().chain(&service.flags);
        let values = service.environment.iter().map(|(_, value)| value);
        if let Some(part) = all.chain(values).find(|part| part.contains(char::is_control)) {
            return Err(Failure::new(format!("'{part}' has a control character, which does not go into a service")));
        }
        Ok(service)
    }

    /// For systemd, as the user's own service (systemd.service(5), systemd.exec(5)).
    fn unit(&self) -> String {
        let mut start = quoted(&self.program, &[('%', "%%")]);
        start.push_str(" daemon");
        for flag in &self.flags {
            start.push(' ');
            start.push_str(&quoted(flag, &[('%', "%%"), ('$', "$$")]));
        }
        let environment: String = self
            .environment
            .iter()
            .map(|(name, value)| format!("Environment={}\n", quoted(&format!("{name}={value}"), &[('%', "%%")])))
            .collect();
        let (within, stop) = (self.ends_within, self.ends_within + REST_SECONDS);
        format!(
            "# Written by `coracle install-service`.

[Unit]
Description=Coracle, which runs WebAssembly programs in sandboxes
Documentation=man:coracle-daemon(1)

[Service]
Type=exec
ExecStart={start}
{environment}Restart=on-failure
RestartSec=1
# The daemon ends its guests and its compilers by itself, within {within} seconds.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={stop}
# A compiler that takes too much memory is not the end of the daemon.
OOMPolicy=continue
LimitNOFILE={OPEN_FILES}
LimitCORE=0
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
# AF_NETLINK: the kernel is asked whose a connection is.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# Not here: MemoryDenyWriteExecute= (compiled code is made executable when it is loaded); RestrictSUIDSGID= (with it goes
# openat2, by which files of guests are opened in one step); and what takes a mount or user namespace, such as ProtectSystem=
# or PrivateTmp= (users would have other numbers, and run -v other files).

[Install]
WantedBy=default.target
"
        )
    }

    /// For launchd, as an agent of the user's (launchd.plist(5)).
    fn property_list(&self) -> String {
        let string = |indent: &str, text: &str| format!("{indent}<string>{}</string>\n", escaped(text));
        let words = [self.program.as_str(), "daemon"].into_iter().chain(self.flags.iter().map(String::as_str));
        let arguments: String = words.map(|word| string("        ", word)).collect();
        let mut environment = String::new();
        if !self.environment.is_empty() {
            environment.push_str("    <key>EnvironmentVariables</key>\n    <dict>\n");
            for (name, value) in &self.environment {
                environment.push_str(&format!("        <key>{name}</key>\n{}", string("        ", value)));
            }
            environment.push_str("    </dict>\n");
        }
        let stop = self.ends_within + REST_SECONDS;
        let log = string("    ", &format!("{}/Library/Logs/coracle.log", self.home));
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">
<!-- Written by `coracle install-service`. -->
<plist version=\"1.0\">
<dict>
    <key>Label</key>
    <string>{LABEL}</string>
    <key>ProgramArguments</key>
    <array>
{arguments}    </array>
{environment}    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <dict>
        <key>SuccessfulExit</key>
        <false/>
    </dict>
    <key>ExitTimeOut</key>
    <integer>{stop}</integer>
    <key>SoftResourceLimits</key>
    <dict>
        <key>NumberOfFiles</key>
        <integer>{OPEN_FILES}</integer>
    </dict>
    <key>Umask</key>
    <integer>63</integer>
    <key>StandardErrorPath</key>
{log}</dict>
</plist>
"
        )
    }
}

/// That the daemon will take the flags, and find what they name wherever it is started from. How long its guests have when it
/// ends.
fn check(flags: &[String]) -> Result<Duration, Failure> {
    let words = ["coracle", "daemon"].into_iter().chain(flags.iter().map(String::as_str));
    let matches = command().try_get_matches_from(words).map_err(|e| {
        let text = e.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        Failure::new(format!("for the daemon: {}", first.strip_prefix("error: ").unwrap_or(first)))
    })?;
    let daemon = matches.subcommand_matches("daemon").ok_or_else(|| Failure::new("for the daemon: no flags"))?;
    let args = DaemonArgs::from_arg_matches(daemon).map_err(|e| Failure::new(e.to_string()))?;
    let config = args.config();
    let Config { root, state_dir, module_dirs, mount_roots, tls_cert, tls_key, .. } = config;
    let given = [state_dir, tls_cert, tls_key].into_iter().flatten().chain(module_dirs).chain(mount_roots);
    let of_the_environment =
        |path: &PathBuf| ENVIRONMENT.iter().any(|name| std::env::var_os(name).is_some_and(|v| v == *path));
    match given.chain([root]).find(|path| path.is_relative() && !of_the_environment(path)) {
        Some(path) => Err(Failure::new(format!("for the daemon: '{}' is a path from here", path.display()))
            .hint("a service begins somewhere else: give the whole path")),
        None => Ok(config.drain()),
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| Failure::new(format!("{} is not UTF-8", path.display())))
}

/// One word of a unit (systemd.syntax(7)): in quotes if it is not plain, and what means something there as itself.
fn quoted(word: &str, doubled: &[(char, &str)]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match doubled.iter().find(|(special, _)| *special == c) {
            Some((_, twice)) => quoted.push_str(twice),
            None if matches!(c, '"' | '\\') => quoted.extend(['\\', c]),
            None => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Text of a property list.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_unit_are_quoted_where_they_have_to_be() {
        let both = [('%', "%%"), ('$', "$$")];
        for (word, quoted_word) in [
            ("--root=/srv/a_b", "--root=/srv/a_b"),
            ("", "\"\""),
            ("/a b/c", "\"/a b/c\""),
            ("50%$x", "\"50%%$$x\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            (";", "\";\""),
            ("ü", "\"ü\""),
        ] {
            assert_eq!(quoted(word, &both), quoted_word);
        }
        assert_eq!(quoted("/$x", &[('%', "%%")]), "\"/$x\"");
    }

    #[test]
    fn flags_are_those_of_the_daemon_and_paths_are_whole() {
        let refused = |flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            check(&flags).err().map(|failure| failure.message)
        };
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&["--listen", "127.0.0.1:0", "--root=/srv/guests", "--memory", "64m"]), None);
        assert!(refused(&["--frobnicate"]).unwrap().starts_with("for the daemon: unexpected argument '--frobnicate'"));
        assert_eq!(refused(&["--root", "here"]).unwrap(), "for the daemon: 'here' is a path from here");
        assert_eq!(refused(&["--modules", "/a", "--modules", "b"]).unwrap(), "for the daemon: 'b' is a path from here");
    }
}
