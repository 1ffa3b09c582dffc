//! The arguments of `run`: read from a line or a command line, and written as the words of one.

use crate::error::{Error, Result};
use crate::model::escape;
use crate::model::mount::Mount;
use crate::model::request::{parse_count, parse_duration, parse_size};
use crate::model::restart::RestartPolicy;
use clap::Args;
use std::time::Duration;

/// Arguments of a run: each costs several times what it takes in a request, in every record.
pub const ARGUMENTS_MAX: usize = 1024;
/// Variables of a run.
const VARIABLES_MAX: usize = 512;

/// Arguments of `run`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Default)]
pub struct RunArgs {
    /// Print the name and return; do not stay attached
    #[arg(short, long)]
    pub detach: bool,
    /// Stream output over this connection (what the command line does unless -d is given; needs `format json`)
    #[arg(long, conflicts_with = "detach", hide = true)]
    pub attach: bool,
    /// Name of the instance [default: the module's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Pass standard input to the guest
    #[arg(short, long, conflicts_with = "detach")]
    pub interactive: bool,
    /// Set an environment variable (KEY alone takes the value from your environment)
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one KEY=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Lend a directory of the host, at an absolute path of the guest's (repeatable)
    #[arg(short, long = "volume", value_name = "HOST:GUEST[:ro]", value_parser = Mount::parse_volume)]
    pub volume: Vec<Mount>,
    /// The same, as wasmtime spells it; HOST alone is found under its own path
    #[arg(long, value_name = "HOST[::GUEST]", value_parser = Mount::parse_dir)]
    pub dir: Vec<Mount>,
    /// Limit of all memories and tables together, e.g. 64m [default: 256m, or what the daemon was given]
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<usize>,
    /// Limit of all files in its directory together, e.g. 64m [default: 256m, or what the daemon was given]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub disk: Option<usize>,
    /// Limit of files, links and directories in its directory [default: 10000, or what the daemon was given]
    #[arg(long, value_name = "N", value_parser = parse_count::<1_000_000_000>)]
    pub files: Option<usize>,
    /// The most that it may use of the processors, e.g. 0.25 for a quarter of one [default: no limit]
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    pub cpus: Option<u32>,
    /// Its part where others compute too, from 1 to 10000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub cpu_weight: Option<u32>,
    /// End the run when it has used this much CPU time, e.g. 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub cpu_time: Option<Duration>,
    /// End the run after this much time, e.g. 30s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// What happens when the run is over: no, on-failure, on-failure:N, always, unless-stopped [default: no]
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<RestartPolicy>,
    /// Remove the instance and its log when it has ended, and its directory if that was made for it
    #[arg(long, conflicts_with = "restart")]
    pub rm: bool,
    /// Label the instance, for --filter
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Name that the guest finds as its argument zero [default: the module's name]
    #[arg(long, value_name = "NAME")]
    pub argv0: Option<String>,
    /// On the wire: run the stored module with this content, whatever its name leads to by now
    #[arg(long, value_name = "HEX", hide = true)]
    pub sha256: Option<String>,
    /// Fail when no daemon is running, instead of starting one
    #[arg(long)]
    pub no_autostart: bool,
    /// Run the file again whenever it changes, once what it has become compiles (on the command line)
    #[arg(long)]
    pub watch: bool,
    /// A module's name, or a file (./app.wasm, ./app.wat); then the guest's arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "MODULE [ARG]")]
    pub command: Vec<String>,
}

/// Parses `0.25`, `2`: a number of processors, into thousandths of one.
///
/// # Errors
///
/// One line that says what is wanted.
pub fn parse_cpus(s: &str) -> Result<u32, String> {
    const LEAST: f64 = 0.01;
    const MOST: f64 = 1024.0;
    match s.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 10 and 1,024,000")]
        Ok(n) if (LEAST..=MOST).contains(&n) => Ok((n * 1000.0).round() as u32),
        _ => Err(format!("'{}' is not a number of processors; try 0.25, from {LEAST} to {MOST}", escape::short(s, 40))),
    }
}

impl RunArgs {
    /// The module: the first word of the command.
    pub fn module(&self) -> &str {
        self.command.first().map(String::as_str).unwrap_or_default()
    }

    /// The guest's arguments.
    pub fn guest_args(&self) -> &[String] {
        self.command.get(1..).unwrap_or_default()
    }

    /// The directories of the host that it is lent, however they were spelled.
    pub fn mounts(&self) -> impl Iterator<Item = &Mount> {
        self.volume.iter().chain(&self.dir)
    }

    /// The environment given as `-e KEY=VALUE`; of two with one key the later stands.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an entry that is not `KEY=VALUE`: the command line resolves `KEY` and files before it sends.
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        if !self.env_file.is_empty() {
            return Err(Error::Usage("--env-file is read by the command line; send -e KEY=VALUE".into()));
        }
        if self.env.len() > VARIABLES_MAX {
            let limit = VARIABLES_MAX.to_string();
            return Err(Error::Limit { what: "the number of variables", limit, name: "-e" });
        }
        let mut all: Vec<(String, String)> = Vec::with_capacity(self.env.len());
        for entry in &self.env {
            let (key, value) = split_env(entry)?;
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => all.push((key, value)),
            }
        }
        Ok(all)
    }
}

impl RunArgs {
    /// The words that [`crate::model::request::parse`] reads as these arguments.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec!["run".to_owned()];
        let flags = [
            (self.detach, "--detach"),
            (self.attach, "--attach"),
            (self.interactive, "--interactive"),
            (self.no_autostart, "--no-autostart"),
            (self.watch, "--watch"),
            (self.rm, "--rm"),
        ];
        words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| (*flag).to_owned()));
        // Joined to their flags, so that a value may begin with a dash.
        let mut option = |flag: &str, value: &str| words.push(format!("--{flag}={value}"));
        self.name.iter().for_each(|v| option("name", v));
        self.env.iter().for_each(|v| option("env", v));
        self.env_file.iter().for_each(|v| option("env-file", v));
        self.mounts().for_each(|v| option("volume", &v.to_string()));
        self.memory.iter().for_each(|v| option("memory", &v.to_string()));
        self.disk.iter().for_each(|v| option("disk", &v.to_string()));
        self.files.iter().for_each(|v| option("files", &v.to_string()));
        self.cpus.iter().for_each(|v| option("cpus", &format!("{}.{:03}", v / 1000, v % 1000)));
        self.cpu_weight.iter().for_each(|v| option("cpu-weight", &v.to_string()));
        self.cpu_time.iter().for_each(|v| option("cpu-time", &format!("{}ns", v.as_nanos())));
        self.timeout.iter().for_each(|v| option("timeout", &format!("{}ns", v.as_nanos())));
        self.restart.iter().for_each(|v| option("restart", &v.to_string()));
        self.label.iter().for_each(|v| option("label", v));
        self.argv0.iter().for_each(|v| option("argv0", v));
        self.sha256.iter().for_each(|v| option("sha256", v));
        // A module that looks like an option was given behind a `--`: it is refused for its name, and not taken for one.
        if self.module().starts_with('-') {
            words.push("--".to_owned());
        }
        words.extend(self.command.iter().cloned());
        words
    }
}

/// Splits `KEY=VALUE`.
///
/// # Errors
///
/// [`Error::Usage`] when the key is empty or there is no `=`, or where a NUL stands in it (it would end the string for a C guest).
pub fn split_env(entry: &str) -> Result<(String, String)> {
    match entry.split_once('=') {
        Some((key, value)) if !key.is_empty() && !entry.contains('\0') => Ok((key.to_owned(), value.to_owned())),
        // The entry may be a secret with a slip in it: not repeated.
        _ => Err(Error::Usage("an environment variable is given as KEY=VALUE".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::{Parsed, Request, parse};
    use proptest::prelude::*;

    #[test]
    fn processors_are_thousandths_within_bounds() {
        for (text, milli) in [("0.25", 250), ("2", 2000), ("0.01", 10), ("1024", 1_024_000), ("0.0126", 13)] {
            assert_eq!(parse_cpus(text), Ok(milli), "{text}");
        }
        for bad in ["0", "0.009", "1024.1", "-1", "nan", "inf", "x", ""] {
            assert!(parse_cpus(bad).unwrap_err().contains("0.01 to 1024"), "{bad}");
        }
    }

    #[test]
    fn of_two_variables_with_one_name_the_later_stands() {
        let texts = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let env = |env: &[&str]| RunArgs { env: texts(env), ..RunArgs::default() }.environment();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(env(&["A=1", "B=", "A=2=3"]).unwrap(), [pair("A", "2=3"), pair("B", "")]);
        for bad in ["A", "=1", "", "A=1\0", "A\0=1"] {
            let error = env(&[bad]).unwrap_err();
            assert_eq!((error.code(), error.to_string().contains(" A=1")), (crate::Code::Usage, false), "{bad:?}");
        }
        let file = RunArgs { env_file: texts(&["x"]), ..RunArgs::default() };
        assert!(file.environment().unwrap_err().to_string().contains("--env-file"));
    }

    #[test]
    fn a_module_that_looks_like_an_option_is_none() {
        for command in [&["--rm", "hello"][..], &["--", "hello"], &["-d"], &["hello", "--rm", "--"]] {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            let run = RunArgs { command, ..RunArgs::default() };
            assert_eq!(parse(&run.words()).unwrap(), Parsed::Request(Request::Run(Box::new(run))));
        }
    }

    proptest! {
        /// What the command line sends is what the daemon reads.
        #[test]
        fn the_words_of_a_run_are_read_back(
            (attach, interactive, watch) in any::<(bool, bool, bool)>(),
            (name, argv0) in any::<(Option<String>, Option<String>)>(),
            env in prop::collection::vec("[A-Z]{1,5}=\\PC{0,20}|-\\PC{0,5}", 0..4),
            memory in prop::option::of(1usize..1 << 40),
            volume in prop::collection::vec(("[^\\x00]{1,9}", "(/[a-z.]{1,5}x){1,3}", any::<bool>()), 0..3),
            timeout in prop::option::of(0u64..1 << 50),
            (cpus, cpu_weight) in prop::option::of((10u32..=1_024_000, 1u32..=10_000)).prop_map(Option::unzip),
            label in prop::collection::vec("[a-z]{1,5}(=\\PC{0,20})?", 0..3),
            (rm, retries) in (any::<bool>(), prop::option::of(1u32..9)),
            (module, args) in ("[a-z]{1,9}|-{1,2}[a-z]{0,4}|", prop::collection::vec(any::<String>(), 0..5)),
        ) {
            let run = RunArgs {
                attach, interactive, watch, name, argv0, env, memory,
                timeout: timeout.map(Duration::from_nanos),
                cpu_time: timeout.map(|t| Duration::from_nanos(t / 2)),
                cpus, cpu_weight,
                disk: memory, files: memory.map(|n| n % 1_000_000_000 + 1),
                volume: volume.into_iter().map(|(host, guest, read_only)| Mount { host, guest, read_only }).collect(),
                label, rm,
                restart: (!rm).then_some(RestartPolicy::OnFailure { retries_max: retries }),
                command: [vec![module], args].concat(),
                ..RunArgs::default()
            };
            prop_assert_eq!(parse(&run.words()).unwrap(), Parsed::Request(Request::Run(Box::new(run))));
        }
    }
}
