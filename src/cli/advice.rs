//! What a person probably meant, and what to type next: asked of the daemon when it has refused something. Whatever goes wrong
//! with that is not told: there is a refusal to tell already.

use super::failure::Failure;
use super::file;
use crate::client::{Client, Target};
use crate::error::Code;
use crate::model::alike;
use crate::model::reply::Hello;
use crate::model::request::Request;
use std::path::Path;
use std::time::Duration;

/// How long advice may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What a request was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    /// A run of a module, as an instance.
    Run { module: String, instance: String },
    /// An instance.
    Instance(String),
    /// Neither, or several: each is told by itself.
    Other,
}

impl About {
    pub(super) fn of(request: &Request) -> About {
        match request {
            Request::Run(args) => {
                let module = args.module().to_owned();
                let instance = args.name.clone().or_else(|| match file::is_path(&module) {
                    true => file::name_of(Path::new(&module)).map(String::from),
                    false => Some(module.clone()),
                });
                About::Run { instance: instance.unwrap_or_default(), module }
            }
            Request::Logs(args) => About::Instance(args.name.clone()),
            _ => About::Other,
        }
    }
}

/// What `list -q` answers.
#[derive(Debug, serde::Deserialize)]
struct Listed {
    names: Vec<String>,
}

/// The names of all instances; none if they cannot be had.
pub(super) async fn instances(client: &mut Client) -> Vec<String> {
    match tokio::time::timeout(PATIENCE, client.request::<Listed>(&["list", "-q"])).await {
        Ok(Ok(listed)) => listed.names,
        _ => vec![],
    }
}

/// There is no such instance: what was meant?
pub(super) fn of_unknown(mut failure: Failure, name: &str, known: &[String]) -> Failure {
    match alike::closest(name, known.iter().map(String::as_str)) {
        Some(meant) => {
            failure.message.push_str(&format!(" (did you mean '{meant}'?)"));
            failure
        }
        None => failure.hint("`coracle list` shows those that there are"),
    }
}

/// Adds to a refusal what may help.
pub(super) async fn advise(target: Target, failure: Failure, about: &About) -> Failure {
    let connected = async {
        match tokio::time::timeout(PATIENCE, Client::connect(target)).await {
            Ok(Ok(client)) => Some(client),
            _ => None,
        }
    };
    match (failure.refused, about) {
        (Some(Code::NotFound), About::Instance(name)) => match connected.await {
            Some(mut client) => of_unknown(failure, name, &instances(&mut client).await),
            None => failure,
        },
        (Some(Code::Exists), About::Run { instance, .. }) => {
            let known = match connected.await {
                Some(mut client) => instances(&mut client).await,
                None => vec![],
            };
            let holder = known.iter().find(|name| name.eq_ignore_ascii_case(instance)).unwrap_or(instance);
            failure
                .hint(format!("coracle rm -f {holder}, or coracle restart {holder}"))
                .hint("or give the new one another name: coracle run --name OTHER …")
        }
        (Some(Code::Busy), About::Run { instance, .. }) => failure.hint(format!("coracle wait {instance}")),
        (Some(Code::NoModule), About::Run { module, .. }) => match file_of(module) {
            Some(hint) => failure.hint(hint),
            None => failure,
        },
        (Some(Code::BadModule), About::Run { module, .. }) => {
            failure.hint(format!("`coracle explain {module}` says what it is, and what it wants"))
        }
        (Some(Code::Usage), _) => match connected.await {
            Some(mut client) => of_version(failure, &mut client).await,
            None => failure,
        },
        _ => failure,
    }
}

/// This program understood the command, and the daemon did not: it may be of another version.
async fn of_version(failure: Failure, client: &mut Client) -> Failure {
    let ours = env!("CARGO_PKG_VERSION");
    match tokio::time::timeout(PATIENCE, client.request::<Hello>(&["hello"])).await {
        Ok(Ok(hello)) if hello.version != ours => failure.hint(format!(
            "the daemon is of version {}, and this program of {ours}: `coracle shutdown`, and start it again",
            hello.version
        )),
        _ => failure,
    }
}

/// A file of that name, which is run by its path.
fn file_of(module: &str) -> Option<String> {
    let names = [format!("./{module}.wasm"), format!("./{module}.wat")];
    if let Some(path) = names.iter().find(|path| Path::new(path).is_file()) {
        return Some(format!("there is a file of that name: coracle run {path}"));
    }
    let directory = format!("./{module}");
    Path::new(&directory).is_dir().then(|| file::in_directory(Path::new(&directory)))
}
