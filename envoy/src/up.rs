//! `bedrock-gateway up`: the gateway in the foreground.

use std::io::Write;
use std::time::Duration;

use crate::credentials::Environment;
use crate::gateway::{Gateway, Options};
use crate::live::Change;
use crate::programs::shown;
use crate::signals::Signals;
use crate::{Error, net, process, progress};
use filter_core::config::Auth;
use filter_core::names::PathName;

/// Runs until SIGINT or SIGTERM; a second signal cuts the draining short.
pub fn run(options: &Options) -> Result<(), Error> {
    let signals = Signals::listen()?;
    process::leave_no_core();
    process::keep_files_private();
    let mut gateway = Gateway::start(options, || signals.count() > 0)?;
    if !gateway.credentials.any {
        progress::note(
            "no credentials: every call is answered with 503. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and \
             AWS_SESSION_TOKEN), or AWS_BEARER_TOKEN_BEDROCK, of the Commercial partition",
        );
    }
    let _ = writeln!(std::io::stdout(), "{}", ready_line(&gateway, options));
    while signals.count() == 0 {
        gateway.check()?;
        follow(&mut gateway, options);
        std::thread::sleep(Duration::from_millis(50));
    }
    gateway.stop(|| signals.count() > 1);
    Ok(())
}

/// Reports a change of the document.
fn follow(gateway: &mut Gateway, options: &Options) {
    let file = options.policy.as_deref().map(shown).unwrap_or_default();
    match gateway.follow() {
        Ok(Change::None) => {}
        Ok(Change::Taken(number)) => progress::say(&format!("{file}: taken (change {number})")),
        Ok(Change::Restored) => progress::say(&format!("{file}: valid again; same as the running document")),
        Err(error) => progress::say(&format!("refused, the old document stays: {error}")),
    }
}

/// `ready http://… https://… (CA …) region … auth … paths … [audit …] admin http://…`
fn ready_line(gateway: &Gateway, options: &Options) -> String {
    let mut paths: Vec<&str> = options.paths.iter().map(|path| path.name.as_str()).collect();
    paths.dedup();
    let paths = if paths.is_empty() { PathName::Internet.as_str().to_owned() } else { paths.join(",") };
    let auth = match gateway.credentials {
        Environment { any: false, .. } => "none",
        Environment { auth: Auth::Sigv4, .. } => "sigv4",
        Environment { auth: Auth::Bearer, .. } => "bearer",
    };
    let audit = options.audit.as_ref().map(|file| format!(" audit {}", file.display())).unwrap_or_default();
    format!(
        "ready http://{} https://{} (CA {}) region {} auth {auth} paths {paths}{audit} admin http://{}",
        net::reachable(gateway.plain),
        net::reachable(gateway.tls),
        shown(&gateway.ca),
        gateway.regions.join(","),
        gateway.admin,
    )
}
