//! `install-service`: what is printed is exact, is quoted, is taken by systemd, and replaces nothing of somebody else's.

use crate::support::{Cli, cannot_try};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program at a path of its own, and a home.
struct Installed {
    cli: Cli,
    program: PathBuf,
    home: PathBuf,
}

impl Installed {
    fn at(place: &str) -> Installed {
        let cli = Cli::alone();
        let (program, home) = (cli.directory.path().join(place), cli.directory.path().join("home"));
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::create_dir(&home).unwrap();
        // A link to the file, and no second one of some hundred megabytes, where that goes.
        let built = env!("CARGO_BIN_EXE_coracle");
        std::fs::hard_link(built, &program).or_else(|_| std::fs::copy(built, &program).map(drop)).unwrap();
        Installed { cli, program, home }
    }

    async fn run(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(&self.program);
        command
            .arg("install-service")
            .args(words)
            .env("HOME", &self.home)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("CORACLE_STATE_DIR")
            .env_remove("CORACLE_ROOT");
        self.cli.finish(command, b"").await
    }

    fn unit(&self) -> PathBuf {
        self.home.join(".config/systemd/user/coracle.service")
    }
}

const SETTINGS: &str = "Restart=on-failure
RestartSec=1
# The daemon ends its guests and its compilers by itself, within 10 seconds.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=15
# A compiler that takes too much memory is not the end of the daemon.
OOMPolicy=continue
LimitNOFILE=524288
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
";

#[tokio::test(flavor = "multi_thread")]
async fn the_unit_is_exact_and_systemd_takes_it() {
    let installed = Installed::at("my programs/50% $off/coracle");
    let kind = ["--kind", "systemd"];
    let (code, unit, err) =
        installed.run(&[&kind[..], &["--", "--listen", "127.0.0.1:0", "--modules", "/a b/$x%y\"z"]].concat()).await;
    let program = installed.program.display().to_string().replace('%', "%%");
    let head = format!(
        "# Written by `coracle install-service`.\n\n[Unit]\nDescription=Coracle, which runs WebAssembly programs in \
         sandboxes\nDocumentation=man:coracle-daemon(1)\n\n[Service]\nType=exec\nExecStart=\"{program}\" daemon --listen \
         127.0.0.1:0 --modules \"/a b/$$x%%y\\\"z\"\n"
    );
    assert_eq!((code, unit.as_str()), (0, format!("{head}{SETTINGS}").as_str()), "{err}");
    let path = installed.unit();
    let next = format!(
        "coracle: this goes to {}; --write writes it\ncoracle: to start it now and at each login: systemctl --user \
         daemon-reload && systemctl --user enable --now coracle.service\ncoracle: to have it run while you are not logged in: \
         loginctl enable-linger\n",
        path.display()
    );
    assert_eq!(err, next);
    assert!(!path.exists(), "printed, and not written");
    let (code, said, err) = installed.run(&[&kind[..], &["--write"]].concat()).await;
    assert_eq!((code, said), (0, format!("{}\n", path.display())), "{err}");
    for unit in [unit.as_str(), &std::fs::read_to_string(&path).unwrap()] {
        taken_by_systemd(&installed, unit);
    }
}

/// A hundred thousand guests take longer to end, and the daemon promises no more than that.
#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn a_dense_daemon_is_given_the_time_that_it_may_take() {
    let installed = Installed::at("coracle");
    for (kind, ordinary, dense) in [
        ("systemd", "TimeoutStopSec=15\n", "TimeoutStopSec=40\n"),
        ("launchd", "<integer>15</integer>", "<integer>40</integer>"),
    ] {
        let (_, unit, _) = installed.run(&["--kind", kind]).await;
        assert!(unit.contains(ordinary) && !unit.contains(dense), "{unit}");
        let (code, unit, err) = installed.run(&["--kind", kind, "--", "--dense"]).await;
        assert!(code == 0 && unit.contains(dense) && !unit.contains(ordinary), "{unit} {err}");
    }
}

/// systemd's own reader has nothing to say of it, and finds the program.
fn taken_by_systemd(installed: &Installed, unit: &str) {
    let verify = |unit: &str| {
        let file = installed.home.join("coracle.service");
        std::fs::write(&file, unit).unwrap();
        Command::new("systemd-analyze")
            .args(["verify", "--user", "--man=no", "--recursive-errors=no"])
            .arg(&file)
            .env("HOME", &installed.home)
            .env("XDG_RUNTIME_DIR", &installed.home)
            .output()
    };
    match verify(unit) {
        Err(_) => cannot_try("systemd-analyze(1), the unit of install-service"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && !said.contains("coracle.service"), "{said}");
            // It looks, and at the path: otherwise this test would be of nothing.
            let program = installed.program.display().to_string().replace('%', "%%");
            for wrong in [unit.replace(&program, "/nowhere/coracle"), unit.replace("LimitCORE=0", "LimitCORE=x")] {
                let output = verify(&wrong).unwrap();
                assert!(String::from_utf8_lossy(&output.stderr).contains("coracle.service"), "{output:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_property_list_is_exact() {
    let installed = Installed::at("a & b/coracle");
    let (code, list, err) = installed.run(&["--kind", "launchd", "--", "--listen", "127.0.0.1:0"]).await;
    let (program, home) = (installed.program.display().to_string().replace('&', "&amp;"), installed.home.display());
    let wanted = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Written by `coracle install-service`. -->
<plist version="1.0">
<dict>
    <key>Label</key>
    <string>coracle.daemon</string>
    <key>ProgramArguments</key>
    <array>
        <string>{program}</string>
        <string>daemon</string>
        <string>--listen</string>
        <string>127.0.0.1:0</string>
    </array>
    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <dict>
        <key>SuccessfulExit</key>
        <false/>
    </dict>
    <key>ExitTimeOut</key>
    <integer>15</integer>
    <key>SoftResourceLimits</key>
    <dict>
        <key>NumberOfFiles</key>
        <integer>524288</integer>
    </dict>
    <key>Umask</key>
    <integer>63</integer>
    <key>StandardErrorPath</key>
    <string>{home}/Library/Logs/coracle.log</string>
</dict>
</plist>
"#
    );
    assert_eq!((code, list), (0, wanted));
    let path = format!("{home}/Library/LaunchAgents/coracle.daemon.plist");
    assert!(err.ends_with(&format!("launchctl bootstrap gui/$(id -u) '{path}'\n")), "{err}");
    let (code, said, _) = installed.run(&["--kind", "launchd", "--write"]).await;
    assert_eq!((code, said), (0, format!("{path}\n")));
    assert!(Path::new(&path).is_file());
}

/// Which one is meant without `--kind`, and where the state is.
#[tokio::test(flavor = "multi_thread")]
async fn the_systems_own_kind_is_the_default_and_the_environment_goes_along() {
    let installed = Installed::at("coracle");
    let (_, said, _) = installed.run(&[]).await;
    let begins = if cfg!(target_os = "macos") { "<?xml" } else { "# Written by" };
    assert!(said.starts_with(begins), "{said}");
    let mut command = Command::new(&installed.program);
    command.args(["install-service", "--kind", "systemd"]).current_dir(&installed.home).env("HOME", &installed.home);
    command.env("CORACLE_STATE_DIR", "my state").env("CORACLE_ROOT", "/srv/guests");
    let (code, unit, err) = installed.cli.finish(command, b"").await;
    let state = installed.home.canonicalize().unwrap().join("my state");
    let lines = format!(
        "daemon\nEnvironment=\"CORACLE_STATE_DIR={}\"\nEnvironment=CORACLE_ROOT=/srv/guests\nRestart=",
        state.display()
    );
    assert!(code == 0 && unit.contains(&lines), "{err}{unit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_another_one_stays() {
    let installed = Installed::at("coracle");
    let write = ["--kind", "systemd", "--write"];
    let with = |more: &'static [&'static str]| [&write[..], more].concat();
    assert_eq!(installed.run(&write).await.0, 0);
    assert_eq!(installed.run(&write).await.0, 0, "the same again");
    let (code, said, err) = installed.run(&with(&["--", "--memory", "64m"])).await;
    let path = installed.unit();
    let refused = format!("error: {} is there, and is another one\nhint: --force", path.display());
    assert!(code == 125 && said.is_empty() && err.starts_with(&refused), "{err}");
    assert!(!std::fs::read_to_string(&path).unwrap().contains("--memory"));
    assert_eq!(installed.run(&with(&["--force", "--", "--memory", "64m"])).await.0, 0);
    assert!(std::fs::read_to_string(&path).unwrap().contains("daemon --memory 64m\n"));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
    // A link is no file of ours either; what it leads to is not touched.
    #[cfg(unix)]
    {
        let precious = installed.home.join("precious");
        std::fs::write(&precious, "mine").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert_eq!(installed.run(&write).await.0, 125);
        assert_eq!(installed.run(&with(&["--force"])).await.0, 0);
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
        assert!(path.symlink_metadata().unwrap().is_file());
    }
    for (flags, why) in [
        (&["--", "--frobnicate"][..], "error: for the daemon: unexpected argument '--frobnicate'"),
        (&["--", "--root", "here"], "error: for the daemon: 'here' is a path from here\nhint: "),
        (&["--", "--root", "/a\nb"], "error: '/a\\nb' has a control character"),
    ] {
        let (code, said, err) = installed.run(&[&["--kind", "systemd"], flags].concat()).await;
        assert!(code == 125 && said.is_empty() && err.starts_with(why), "{err}");
    }
}
