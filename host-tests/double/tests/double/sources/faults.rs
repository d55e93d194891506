//! Faults of single services, and how long keys live.

use std::time::Duration;

use bedrock_double::Keyring;
use bedrock_double::sources::{CONTAINER_TOKEN, Service, Sources, Trouble};
use time::OffsetDateTime;

use super::certificates::Made;
use super::{Post, get};

const GOVCLOUD: &str = "sts.us-gov-west-1.amazonaws.com";
const COMMERCIAL: &str = "sts.us-east-1.amazonaws.com";
const ANYWHERE: &str = "rolesanywhere.us-east-1.amazonaws.com";

fn post(host: &str) -> Post {
    let path = if host == ANYWHERE { "/sessions" } else { "/" };
    Post { host: host.into(), path: path.into(), headers: Vec::new(), body: String::new() }
}

#[test]
fn a_service_has_faults_of_its_own() {
    let sources = Sources::start(Duration::from_secs(3600), &Keyring::default(), false).unwrap();
    for (service, faulty) in
        [(Service::GovCloudSts, GOVCLOUD), (Service::CommercialSts, COMMERCIAL), (Service::RolesAnywhere, ANYWHERE)]
    {
        let throttled =
            if faulty == ANYWHERE { (429, "ThrottlingException") } else { (400, "<Code>Throttling</Code>") };
        for (trouble, (status, code)) in
            [(Trouble::Throttled, throttled), (Trouble::Unavailable, (503, "ServiceUnavailable"))]
        {
            sources.set_trouble_of(service, trouble);
            for host in [GOVCLOUD, COMMERCIAL, ANYWHERE] {
                let reply = post(host).send(sources.addr());
                let text = format!("{}{}", reply.head, reply.body).to_lowercase();
                assert_eq!(
                    reply.status == status && text.contains(&code.to_lowercase()),
                    host == faulty,
                    "{host}: {text}"
                );
                assert!(reply.head.contains("x-amzn-requestid: "), "{}", reply.head);
            }
        }
        sources.set_trouble_of(service, Trouble::Down);
        assert!(post(faulty).try_send(sources.addr()).is_none());
        sources.set_trouble_of(service, Trouble::None);
        assert_eq!(post(faulty).send(sources.addr()).status / 100, 4);
    }
    sources.set_trouble(Trouble::Unavailable);
    assert_eq!([GOVCLOUD, COMMERCIAL, ANYWHERE].map(|host| post(host).send(sources.addr()).status), [503; 3]);
}

#[test]
fn lifetimes_are_the_tests() {
    let bedrock = Keyring::default();
    let sources = Sources::start(Duration::from_secs(30), &bedrock, false).unwrap();
    let headers = [("authorization", CONTAINER_TOKEN)];
    let govcloud = |sources: &Sources| {
        let body: serde_json::Value =
            serde_json::from_str(&get(sources.addr(), "/v1/credentials", &headers).body).unwrap();
        let expires = body["Expiration"].as_str().unwrap();
        let expires = OffsetDateTime::parse(expires, &time::format_description::well_known::Rfc3339).unwrap();
        (expires - OffsetDateTime::now_utc()).whole_seconds()
    };
    assert!((21_590..=21_600).contains(&govcloud(&sources)));
    sources.set_govcloud_lifetime(Duration::from_secs(100));
    assert!((90..=100).contains(&govcloud(&sources)));

    let made = Made::new();
    sources.change(|account| *account = made.account());
    let send = || made.leaf(|_| {}).post(&[], OffsetDateTime::now_utc()).send(sources.addr());
    assert_eq!(send().status, 201);
    let left = |key: &str| (bedrock.find(key).unwrap().expires - OffsetDateTime::now_utc()).whole_seconds();
    assert!((20..=30).contains(&left("ASIACERT00000001")));
    sources.set_trouble_of(Service::RolesAnywhere, Trouble::Expired);
    assert_eq!(send().status, 201);
    assert!(left("ASIACERT00000002") <= 0);
}
