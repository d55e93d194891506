//! The form in which records and queries write times.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// `2026-01-02T03:04:05.678Z`: text order is time order.
const FORMAT: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// RFC 3339 in UTC with milliseconds. None for years that do not fit four digits.
pub fn timestamp(time: OffsetDateTime) -> Option<String> {
    time.to_utc().format(FORMAT).ok()
}
