//! Which of two gateways has the routes.

use serde_json::{Value, json};

use crate::pair::{Pair, RETURN, ROUND, claims, free_port, rounds};
use crate::support::TABLES;

#[test]
fn b_takes_over_and_a_returns_without_flapping() {
    let mut pair = Pair::new("takeover");
    pair.a.well(true);
    pair.b.well(true);
    pair.start();
    pair.wait_for_holder("a");
    let mut wanted = claims("a", "create-route");
    assert_eq!(pair.claims(), wanted);
    pair.until("announcements", || pair.a.given() == ["GIVE-3", "GIVE-3"] && pair.b.given() == ["GIVE-6", "GIVE-6"]);

    // One tunnel of two: the gateway keeps the routes, and BGP moves to the other tunnel.
    pair.a.tunnel(0, true, false);
    pair.until("the second tunnel", || pair.a.given() == ["GIVE-4", "GIVE-2"]);
    assert!(pair.a.file("vtysh.calls").contains("-c clear bgp 169.254.101.1\n"), "{}", pair.a.file("vtysh.calls"));
    pair.a.tunnel(0, true, true);
    pair.until("both tunnels", || pair.a.given() == ["GIVE-3", "GIVE-3"]);
    assert_eq!(pair.claims(), wanted);

    // Both tunnels.
    pair.a.well(false);
    pair.wait_for_holder("b");
    wanted.extend(claims("b", "replace-route"));
    assert_eq!(pair.claims(), wanted);
    pair.until("b's announcements", || pair.b.given() == ["GIVE-1", "GIVE-1"]);

    // A short recovery does not count.
    // Of both tunnels: with one of them a is well.
    let falls =
        || ["tunnel 1", "tunnel 2"].map(|tunnel| pair.a.log().matches(&format!("{tunnel} is not well")).count());
    for _ in 0..3 {
        let before = falls();
        pair.a.well(true);
        rounds(RETURN / 2);
        pair.a.well(false);
        pair.until("a's fall", || falls().iter().zip(before).all(|(now, before)| *now > before));
    }
    assert_eq!(pair.claims(), wanted, "{}", pair.a.log());
    pair.a.well(true);
    let took = pair.wait_for_holder("a");
    assert!(took >= ROUND * (RETURN - 2), "{took:?}");
    wanted.extend(claims("a", "replace-route"));
    pair.until("b to step back", || pair.b.given() == ["GIVE-6", "GIVE-6"]);
    rounds(2 * RETURN);
    assert_eq!(pair.claims(), wanted, "a: {}\nb: {}", pair.a.log(), pair.b.log());

    // Neither is well: neither writes a route.
    pair.b.well(false);
    pair.a.well(false);
    rounds(RETURN);
    assert_eq!(pair.claims(), wanted);
    pair.assert_no_unknown_call();
}

#[test]
fn a_dead_machine_loses_the_routes() {
    let mut pair = Pair::new("dead");
    pair.a.well(true);
    pair.b.well(true);
    pair.start();
    pair.wait_for_holder("a");
    // A restart of the service loses nothing. On a busy machine one may last longer than b waits for a sign of life; not each.
    let b = pair.b.port;
    let restart = |pair: &mut Pair| {
        pair.wait_for_holder("a");
        let before = pair.claims();
        pair.a.kill();
        pair.a.start(b);
        rounds(2 * RETURN);
        (pair.claims() == before).then_some(before)
    };
    let before = (0..3).find_map(|_| restart(&mut pair));
    let before = before.unwrap_or_else(|| panic!("a: {}\nb: {}", pair.a.log(), pair.b.log()));
    pair.a.kill();
    pair.wait_for_holder("b");
    // The new machine must be well for RETURN rounds before it takes the routes from b.
    pair.a.start(b);
    pair.wait_for_holder("a");
    let both = [before, claims("b", "replace-route"), claims("a", "replace-route")].concat();
    assert_eq!(pair.claims(), both);
    pair.assert_no_unknown_call();
}

#[test]
fn gateways_that_cannot_talk_settle_on_a() {
    let mut pair = Pair::new("deaf");
    pair.a.well(true);
    pair.b.well(true);
    // Nothing listens on these ports.
    pair.a.start(free_port());
    pair.b.start(free_port());
    pair.until("a's sign of life", || pair.b.log().contains("the other gateway is alive"));
    pair.wait_for_holder("a");
    let settled = pair.claims();
    rounds(2 * RETURN);
    assert_eq!(pair.claims(), settled, "a: {}\nb: {}", pair.a.log(), pair.b.log());
    assert!(settled.len() <= 4 * TABLES.len(), "{settled:?}");
    pair.assert_no_unknown_call();
}

#[test]
fn retries_when_aws_fails_and_sends_metrics() {
    let mut pair = Pair::new("outage");
    pair.a.well(true);
    pair.cloud.fail(Some("An error occurred (RequestLimitExceeded)"));
    pair.start();
    pair.until("a's complaint", || pair.a.log().contains("routes: An error occurred (RequestLimitExceeded)"));
    pair.cloud.fail(None);
    pair.wait_for_holder("a");
    // Somebody else moves the route; a claims it again, since b has no tunnels.
    pair.cloud.point(Some("eni-0"));
    pair.wait_for_holder("a");
    let metrics = |gateway: &str| {
        let asked = pair.cloud.asked().into_iter().filter(|asked| asked.gateway == gateway);
        asked.rev().find_map(|asked| {
            let (_, data) = asked.words.split_once("put-metric-data --namespace BedrockGateway --metric-data ")?;
            serde_json::from_str::<Value>(data).ok()
        })
    };
    pair.until("metrics", || metrics("a").is_some() && metrics("b").is_some());
    let values = |gateway: &str| -> Vec<(String, Value, usize)> {
        let data = metrics(gateway).unwrap();
        let of = |datum: &Value| {
            let dimensions = datum["Dimensions"].as_array().unwrap();
            assert_eq!(dimensions[0], json!({ "Name": "Environment", "Value": "prod" }));
            assert_eq!(dimensions[1], json!({ "Name": "Gateway", "Value": gateway }));
            (datum["MetricName"].as_str().unwrap().to_owned(), datum["Value"].clone(), dimensions.len())
        };
        data.as_array().unwrap().iter().map(of).collect()
    };
    let expected = |held: u32, bgp: u32| {
        [("RouteHeld", held, 2), ("TunnelUp", 1, 3), ("BgpUp", bgp, 3), ("TunnelUp", 1, 3), ("BgpUp", bgp, 3)]
            .map(|(name, value, dimensions)| (name.to_owned(), json!(value), dimensions))
            .to_vec()
    };
    assert_eq!(values("b"), expected(0, 0));
    pair.until("a's metrics", || values("a") == expected(1, 1));
    pair.assert_no_unknown_call();
}
