//! FIPS endpoints: Host, SNI and the certificate's name are the FIPS endpoint's or not, for both ends of a connection.

/// Where AWS lists FIPS endpoints of Bedrock, in the Commercial partition: the United States and Canada
/// (<https://docs.aws.amazon.com/general/latest/gr/bedrock.html>).
pub(crate) fn has_endpoint(region: &str) -> bool {
    ["us-", "ca-"].iter().any(|start| region.starts_with(start))
}

/// Whether a host's first label is a FIPS endpoint's, or its service's for the name of a VPC endpoint.
pub(crate) fn is_fips(host: &str) -> bool {
    let label = match of_vpc_endpoint(host) {
        Some(service) => Some(service),
        None => host.split('.').next(),
    };
    label.is_some_and(|label| label.ends_with("-fips"))
}

/// The service of the DNS name of a VPC endpoint: `vpce-0a1b-c2d3.bedrock-runtime.us-east-1.vpce.amazonaws.com`.
fn of_vpc_endpoint(host: &str) -> Option<&str> {
    let mut labels = host.strip_suffix(".vpce.amazonaws.com")?.rsplit('.');
    labels.next()?;
    labels.next()
}

/// Why a VPC endpoint cannot serve calls to `host`: its certificate has the names of its own service. `None` where it can, or
/// where the address does not say what is there.
pub(crate) fn mismatch(host: &str, address: &str) -> Option<String> {
    let service = of_vpc_endpoint(address)?;
    if is_fips(host) == is_fips(address) {
        return None;
    }
    let wanted = service.strip_suffix("-fips").map_or_else(|| format!("{service}-fips"), str::to_owned);
    Some(format!(
        "{address} is a VPC endpoint of the service {service}, whose certificate does not have the name {host}; want an endpoint of \
         com.amazonaws.REGION.{wanted}, or change `fips` or `hosts` of the document"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vpc_endpoint_serves_its_own_service() {
        let (plain, fips) = ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock-runtime-fips.us-east-1.amazonaws.com");
        let endpoint = |service: &str| format!("vpce-0a1b-c2d3.{service}.us-east-1.vpce.amazonaws.com");
        let (own, other) = (endpoint("bedrock-runtime"), endpoint("bedrock-runtime-fips"));
        assert_eq!((mismatch(plain, &own), mismatch(fips, &other)), (None, None));
        assert!(mismatch(fips, &own).unwrap().contains("com.amazonaws.REGION.bedrock-runtime-fips"));
        assert!(mismatch(plain, &other).unwrap().contains("com.amazonaws.REGION.bedrock-runtime,"));
        for address in ["10.1.0.10", "bedrock.vpn.gateway.internal"] {
            assert_eq!(mismatch(fips, address), None, "{address}");
        }
    }
}
