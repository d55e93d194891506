//! The clusters that a source of credentials names.

use filter_core::config::{CertificateSource, Credentials, Signer, TokenFile};

/// A cluster of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourcesCluster<'a> {
    pub name: &'a str,
    /// It answers with a token. Its calls have no secret.
    pub is_token: bool,
}

/// The clusters of a source.
pub(crate) fn of(source: &Credentials) -> Vec<SourcesCluster<'_>> {
    match source {
        Credentials::Environment {} => Vec::new(),
        Credentials::Container { cluster, token } => container(cluster, token.as_ref()),
        Credentials::Imds { cluster, .. } => vec![called(cluster)],
        Credentials::SecretsManager { cluster, using, .. } => secret(cluster, using.as_ref()),
        Credentials::Federation { using, govcloud, commercial, .. } => {
            let own = [called(&govcloud.cluster), called(&commercial.cluster)];
            signer(using).into_iter().chain(own).collect()
        }
        Credentials::WebIdentity { token, commercial, .. } => vec![token_file(token), called(&commercial.cluster)],
        Credentials::RolesAnywhere { cluster, certificate, .. } => {
            let mut clusters = match certificate {
                CertificateSource::Environment {} => Vec::new(),
                CertificateSource::SecretsManager { cluster, using, .. } => secret(cluster, using.as_ref()),
            };
            clusters.push(called(cluster));
            clusters
        }
    }
}

fn called(name: &str) -> SourcesCluster<'_> {
    SourcesCluster { name, is_token: false }
}

fn token_file(token: &TokenFile) -> SourcesCluster<'_> {
    SourcesCluster { name: &token.cluster, is_token: true }
}

fn secret<'a>(cluster: &'a str, using: Option<&'a Signer>) -> Vec<SourcesCluster<'a>> {
    std::iter::once(called(cluster)).chain(using.into_iter().flat_map(signer)).collect()
}

fn signer(signer: &Signer) -> Vec<SourcesCluster<'_>> {
    match signer {
        Signer::Container { cluster, token } => container(cluster, token.as_ref()),
        Signer::Imds { cluster, .. } => vec![called(cluster)],
    }
}

fn container<'a>(cluster: &'a str, token: Option<&'a TokenFile>) -> Vec<SourcesCluster<'a>> {
    token.into_iter().map(token_file).chain([called(cluster)]).collect()
}
