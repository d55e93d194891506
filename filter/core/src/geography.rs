//! Geographies: groups of regions in which a system-defined inference profile runs calls.

/// Prefixes of system-defined inference profiles (`us.anthropic.…`).
pub(crate) const GEOGRAPHIES: &[&str] = &["us-gov", "us", "eu", "apac", "au", "jp", "global", "in", "ca"];

/// The geography whose profiles route to any Commercial region.
pub(crate) const GLOBAL: &str = "global";

/// The geographies that a region is in, in the order in which their profiles are taken. Others are not taken, though the region may
/// list them: such a profile runs calls elsewhere, as `us` does those from Canada.
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html>)
pub(crate) fn of_region(region: &str) -> &'static [&'static str] {
    match region {
        "ap-northeast-1" | "ap-northeast-3" => &["jp", "apac"],
        "ap-southeast-2" | "ap-southeast-4" => &["au", "apac"],
        "ap-south-1" | "ap-south-2" => &["in", "apac"],
        _ => match region.split('-').next() {
            Some("us") => &["us"],
            Some("ca") => &["ca"],
            Some("eu") => &["eu"],
            Some("ap") => &["apac"],
            _ => &[],
        },
    }
}
