//! Operating systems, by where they keep the CA certificates that they trust. Envoy refuses a bootstrap that names a
//! missing file.

use std::path::{Path, PathBuf};

/// An operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Platform {
    /// Amazon Linux 2023, as on the machines of infra/; also Fedora, RHEL and their kin.
    AmazonLinux,
    /// Debian and Ubuntu, and Istio's proxy images.
    Debian,
}

impl Platform {
    /// All of them.
    pub const ALL: [Platform; 2] = [Platform::AmazonLinux, Platform::Debian];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Platform::AmazonLinux => "amazon-linux",
            Platform::Debian => "debian",
        }
    }

    /// Its CA bundle. Go's `crypto/x509/root_linux.go` lists these paths with their systems.
    ///
    /// Amazon Linux 2023 has no `/etc/ssl/certs/ca-certificates.crt`: its `/etc/ssl/certs` holds `ca-bundle.crt` (listed in
    /// <https://github.com/quiltdata/quilt/pull/3737>). Istio's proxy images are Ubuntu and Chainguard's static image, whose
    /// bundle has Debian's path (`docker/Dockerfile.base` and `docker/Dockerfile.distroless` of istio/istio).
    pub fn ca_bundle(self) -> &'static str {
        match self {
            Platform::AmazonLinux => "/etc/pki/tls/certs/ca-bundle.crt",
            Platform::Debian => "/etc/ssl/certs/ca-certificates.crt",
        }
    }

    /// The one whose CA bundle has this path.
    pub fn of_bundle(file: &str) -> Option<Platform> {
        Platform::ALL.into_iter().find(|platform| platform.ca_bundle() == file)
    }
}

/// No CA bundle is where any known system has it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this host has no CA bundle at {}; name one with --upstream-ca FILE", Platform::ALL.map(Platform::ca_bundle).join(" or "))]
pub struct NoBundle;

/// This host's CA bundle.
///
/// # Errors
/// [`NoBundle`].
pub fn host_bundle() -> Result<PathBuf, NoBundle> {
    bundle_below(Path::new("/"))
}

fn bundle_below(root: &Path) -> Result<PathBuf, NoBundle> {
    let mut bundles = Platform::ALL.into_iter().map(Platform::ca_bundle);
    let found = bundles.find(|file| root.join(file.trim_start_matches('/')).is_file());
    found.map(PathBuf::from).ok_or(NoBundle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_bundle_of_each_system() {
        for platform in Platform::ALL {
            let root = tempfile::tempdir().unwrap();
            assert_eq!(bundle_below(root.path()), Err(NoBundle));
            let file = root.path().join(platform.ca_bundle().trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            assert_eq!(bundle_below(root.path()), Ok(PathBuf::from(platform.ca_bundle())));
        }
    }

    #[test]
    fn a_host_without_a_bundle_is_told_where() {
        let said = NoBundle.to_string();
        assert!(Platform::ALL.iter().all(|platform| said.contains(platform.ca_bundle())), "{said}");
    }
}
