//! A document of the filter: as the filter reads it, against the paths that are given, and against a bootstrap.

use std::time::SystemTime;

use filter_core::config::ConfigError;
use filter_core::operation::Service;

use super::{At, Fault, File, Options, bootstrap, mistakes, regions};
use crate::document::Document;
use crate::{fips, paths};
use filter_core::route::RouteClass;

pub(super) fn check(file: &File, envoy: Option<&File>, options: &Options, found: &mut Vec<Fault>) {
    let at = At { file, document: 0, object: "" };
    let say = |finding: ConfigError| at.fault(&finding.key, finding.detail());
    let values = file.documents.first().into_iter();
    found.extend(values.flat_map(|value| regions::findings(value, &options.known_regions)).map(say));
    let Some(document) = mistakes::compile(file, found) else { return };
    found.extend(document.policy().findings().into_iter().map(say));
    let expired = document.policy().rules.expired(SystemTime::now());
    found.extend(expired.into_iter().map(|expired| say(expired).note()));
    found.extend(document.policy().warnings().into_iter().map(|warning| say(warning).note()));
    if !options.paths.is_empty() {
        addresses(&at, &document, options, found);
    }
    if let Some(envoy) = envoy.and_then(|envoy| Some((envoy, envoy.documents.first()?))) {
        bootstrap::check(envoy.0, envoy.1, Some(&document), options, found);
    }
}

fn is_reached(class: &RouteClass, service: &str, options: &Options) -> bool {
    let regions = |path| class.regions().iter().map(move |region| (path, region.as_str()));
    let mut all = class.paths().iter().copied().flat_map(regions);
    all.any(|(path, region)| paths::find(&options.paths, path, service, region).is_some())
}

/// Classes without an address, and addresses without a class.
fn addresses(at: &At<'_>, document: &Document, options: &Options, found: &mut Vec<Fault>) {
    for (index, class) in document.policy().classes().iter().enumerate() {
        let key = format!("route_classes[{index}].paths");
        let names: Vec<&str> = class.paths().iter().map(|path| path.as_str()).collect();
        let names = names.join(" or ");
        if !is_reached(class, "bedrock-runtime", options) {
            let problem =
                format!("no --path is given for {names}: every call of class '{}' would get 503", class.name());
            found.push(at.fault(&key, problem));
            continue;
        }
        // A service that the document asks for.
        let optional = document.policy().services().filter(|service| service.group().is_some());
        for service in optional.map(Service::name).filter(|service| !is_reached(class, service, options)) {
            let problem = format!(
                "no --path is given for {service} by {names}: every call of class '{}' to it would get 503",
                class.name()
            );
            found.push(at.fault(&key, problem));
        }
    }
    for path in &options.paths {
        let address = path.address.as_ref().map(|address| address.host.as_str());
        let regions = document.regions().filter(|region| path.region.as_ref().is_none_or(|own| own == *region));
        let services =
            document.policy().services().filter(|service| path.service.is_none_or(|own| own == service.name()));
        let hosts = regions.filter_map(|region| document.policy().region(region.as_str()));
        let mut hosts = hosts.flat_map(|region| services.clone().map(|service| region.host(path.name, service)));
        if let Some(problem) = hosts.find_map(|host| fips::mismatch(&host, address?)) {
            found.push(at.fault("fips", format!("--path {}: {problem}", path.label())));
        }
        let used = document.policy().classes().iter().any(|class| class.paths().contains(&path.name));
        if !used {
            found.push(at.fault("route_classes", format!("no class takes path {}, which --path gives", path.name)));
        }
    }
}
