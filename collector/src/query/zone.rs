//! Times in the zone that the reader asks for. Records and stores have UTC.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::{ArgumentError, nearest};
use crate::timestamp::timestamp;

/// A time zone, by its name in the IANA database: the system's, or the one in this program.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl std::str::FromStr for Zone {
    type Err = ArgumentError;

    fn from_str(name: &str) -> Result<Self, ArgumentError> {
        TimeZone::get(name).map(Self).map_err(|_| {
            let names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
            let city = |known: &&String| known.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(name));
            let found = names.iter().find(city).map(String::as_str);
            ArgumentError::Zone(found.or_else(|| nearest(name, names.iter().map(String::as_str))).map(str::to_owned))
        })
    }
}

impl Zone {
    pub fn is_utc(&self) -> bool {
        self.0 == TimeZone::UTC
    }

    /// A record's time in this zone, with its offset. Other text stays as it is.
    pub fn local(&self, time: &str) -> String {
        match self.zoned(time) {
            Some(zoned) if !self.is_utc() => zoned.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            _ => time.to_owned(),
        }
    }

    fn zoned(&self, time: &str) -> Option<Zoned> {
        Some(time.parse::<Timestamp>().ok()?.to_zoned(self.0.clone()))
    }

    /// The start of a day, or a time without an offset. A time that the zone has twice is the first of them; one that it
    /// skips is taken that much later.
    fn instant(&self, text: &str) -> Option<OffsetDateTime> {
        let zoned = match text.parse::<Date>() {
            Ok(date) if text.len() == 10 => date.to_zoned(self.0.clone()),
            _ => text.parse::<DateTime>().ok()?.to_zoned(self.0.clone()),
        };
        OffsetDateTime::from_unix_timestamp_nanos(zoned.ok()?.timestamp().as_nanosecond()).ok()
    }
}

/// Parses an RFC 3339 time, a day or time in the zone, or an age before `now` (`15m`), into the form of [`timestamp`].
pub fn time_argument(text: &str, now: OffsetDateTime, zone: &Zone) -> Result<String, ArgumentError> {
    let age = || {
        let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let count: i64 = count.parse::<u32>().ok()?.into();
        now.checked_sub(Duration::seconds(count * unit))
    };
    let time = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(age).or_else(|| zone.instant(text));
    timestamp(time.ok_or(ArgumentError::Time)?).ok_or(ArgumentError::Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_in_their_zone() {
        let now = OffsetDateTime::now_utc();
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        for (zone, text, wanted) in [
            (&Zone::default(), "2026-01-02", "2026-01-02T00:00:00.000Z"),
            (&berlin, "2026-01-02", "2026-01-01T23:00:00.000Z"),
            (&berlin, "2026-07-02", "2026-07-01T22:00:00.000Z"),
            (&berlin, "2026-07-02T10:30", "2026-07-02T08:30:00.000Z"),
            (&berlin, "2026-07-02T10:30:00Z", "2026-07-02T10:30:00.000Z"),
            // The hour that is there twice, and the one that is not.
            (&berlin, "2026-10-25T02:30", "2026-10-25T00:30:00.000Z"),
            (&berlin, "2026-03-29T02:30", "2026-03-29T01:30:00.000Z"),
        ] {
            assert_eq!(time_argument(text, now, zone).unwrap(), wanted, "{text}");
        }
        assert_eq!(berlin.local("2026-07-01T22:30:00.123Z"), "2026-07-02T00:30:00.123+02:00");
        assert_eq!(Zone::default().local("2026-07-01T22:30:00.123Z"), "2026-07-01T22:30:00.123Z");
    }

    #[test]
    fn an_unknown_zone_is_answered_with_one() {
        for (typed, wanted) in [("Berlin", "Europe/Berlin"), ("Europe/Berln", "Europe/Berlin")] {
            let error = typed.parse::<Zone>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("did you mean {wanted}?")), "{error}");
        }
        assert!("utc".parse::<Zone>().unwrap().is_utc());
    }
}
