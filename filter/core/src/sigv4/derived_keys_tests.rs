use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn signature(keys: &DerivedKeys, day: &str, region: &str, service: &str) -> [u8; 32] {
    keys.sign(SECRET, day, Scope { service, region }, b"text")
}

#[test]
fn a_kept_key_signs_as_a_new_one() {
    let kept = DerivedKeys::default();
    // More scopes than are kept, twice, so that some are dropped in between.
    for _ in 0..2 {
        for number in 0..2 * MAX_KEPT {
            let (day, region) = (format!("202601{:02}", number % 28 + 1), format!("region-{}", number / 4));
            for service in ["bedrock", "sts"] {
                let new = signature(&DerivedKeys::default(), &day, &region, service);
                assert_eq!(signature(&kept, &day, &region, service), new, "{day} {region} {service}");
            }
            assert!(kept.0.borrow().len() <= MAX_KEPT);
        }
    }
}

#[test]
fn parts_of_a_scope_do_not_run_together() {
    let kept = DerivedKeys::default();
    let signatures = [("a", "bc"), ("ab", "c"), ("abc", "")].map(|(a, b)| signature(&kept, "20260102", a, b));
    assert_ne!(signatures[0], signatures[1]);
    assert_ne!(signatures[1], signatures[2]);
}

#[test]
fn a_clone_shares_what_was_derived() {
    let kept = DerivedKeys::default();
    let clone = kept.clone();
    signature(&clone, "20260102", "us-east-1", "bedrock");
    assert_eq!(kept.0.borrow().len(), 1);
    assert_eq!(format!("{kept:?}"), "DerivedKeys");
}
