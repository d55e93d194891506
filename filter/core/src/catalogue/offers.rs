//! What a region offers, in the form in which all workers share it: a line for each model, sorted by id.

use super::details::Details;
use std::fmt::Write as _;

/// What a region offers.
///
/// A line is `ID KIND GEOGRAPHIES DETAILS`: the bare model id; `o` if it can be called by this id (on-demand throughput), `l` if it is
/// listed only, `p` if only profiles have it; the geographies of its system-defined inference profiles, with commas between; and
/// [what else its list says](Details).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers(String);

/// What a region offers of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<'a> {
    kind: &'a str,
    geographies: &'a str,
    details: &'a str,
}

/// A model as it is put among the offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) id: &'a str,
    /// Whether it is in the list of models.
    pub(super) listed: bool,
    pub(super) on_demand: bool,
    pub(super) geographies: &'a [String],
    /// As [`Details::read`] reads them.
    pub(super) details: &'a str,
}

impl Offers {
    /// From models in the order of their ids.
    pub(super) fn of<'a>(models: impl Iterator<Item = Listed<'a>>) -> Self {
        let mut lines = String::new();
        for Listed { id, listed, on_demand, geographies, details } in models {
            let kind = match (on_demand, listed) {
                (true, _) => 'o',
                (false, true) => 'l',
                (false, false) => 'p',
            };
            // Writing to a String cannot fail.
            let _ = write!(lines, "{id} {kind} ");
            for (index, geography) in geographies.iter().enumerate() {
                lines.push_str(if index == 0 { "" } else { "," });
                lines.push_str(geography);
            }
            let _ = writeln!(lines, " {details}");
        }
        lines.shrink_to_fit();
        Self(lines)
    }

    /// As they were shared.
    pub(super) fn read(value: Vec<u8>) -> Option<Self> {
        String::from_utf8(value).ok().map(Self)
    }

    /// As they are shared.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// How many models.
    pub fn len(&self) -> usize {
        self.0.bytes().filter(|byte| *byte == b'\n').count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What there is of a model, by its bare id.
    pub fn find(&self, id: &str) -> Option<Offer<'_>> {
        let text = self.0.as_str();
        // Both are the beginning of a line, or the end.
        let (mut low, mut high) = (0, text.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let start = text.get(low..middle)?.rfind('\n').map_or(low, |newline| low + newline + 1);
            let end = middle + text.get(middle..)?.find('\n')?;
            let (known, offer) = Offer::read(text.get(start..end)?)?;
            match known.cmp(id) {
                std::cmp::Ordering::Equal => return Some(offer),
                std::cmp::Ordering::Less => low = end + 1,
                std::cmp::Ordering::Greater => high = start,
            }
        }
        None
    }

    /// All models, in the order of their bare ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Offer<'_>)> {
        self.0.lines().filter_map(Offer::read)
    }
}

impl<'a> Offer<'a> {
    fn read(line: &'a str) -> Option<(&'a str, Self)> {
        let mut fields = line.splitn(4, ' ');
        let id = fields.next()?;
        Some((id, Self { kind: fields.next()?, geographies: fields.next()?, details: fields.next()? }))
    }

    /// Whether it can be called by its bare id.
    pub fn on_demand(self) -> bool {
        self.kind == "o"
    }

    /// All that is listed of it.
    pub(super) fn text(self) -> String {
        format!("{} {}", self.kind, self.geographies)
    }

    /// The geographies of its profiles, in alphabetical order.
    pub fn geographies(self) -> impl Iterator<Item = &'a str> {
        self.geographies.split(',').filter(|geography| !geography.is_empty())
    }

    /// What else its list says.
    pub fn details(self) -> Details<'a> {
        Details::read(self.details)
    }
}
