//! What a region offers, in the form in which all workers share it: a line for each model, sorted by id.

use std::fmt::Write as _;

/// What a region offers.
///
/// A line is `ID KIND GEOGRAPHIES`: the bare model id; `o` if it can be called by this id (on-demand throughput), `l` if it is listed
/// only, `p` if only profiles have it; and the geographies of its system-defined inference profiles, with commas between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers(String);

/// What a region offers of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<'a> {
    kind: &'a str,
    geographies: &'a str,
}

impl Offers {
    /// From models in the order of their ids: id, whether it is listed, whether on-demand, geographies.
    pub(super) fn of<'a, G>(models: impl Iterator<Item = (&'a str, bool, bool, G)>) -> Self
    where
        G: Iterator<Item = &'a str>,
    {
        let mut lines = String::new();
        for (id, listed, on_demand, geographies) in models {
            let kind = match (on_demand, listed) {
                (true, _) => 'o',
                (false, true) => 'l',
                (false, false) => 'p',
            };
            // Writing to a String cannot fail.
            let _ = write!(lines, "{id} {kind} ");
            for (index, geography) in geographies.enumerate() {
                lines.push_str(if index == 0 { "" } else { "," });
                lines.push_str(geography);
            }
            lines.push('\n');
        }
        lines.shrink_to_fit();
        Self(lines)
    }

    /// As they were shared.
    pub(super) fn read(value: Vec<u8>) -> Option<Self> {
        String::from_utf8(value).ok().map(Self)
    }

    /// As they are shared.
    pub(super) fn as_bytes(&self) -> &[u8] {
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
            let mut fields = text.get(start..end)?.splitn(3, ' ');
            match fields.next()?.cmp(id) {
                std::cmp::Ordering::Equal => {
                    return Some(Offer { kind: fields.next()?, geographies: fields.next()? });
                }
                std::cmp::Ordering::Less => low = end + 1,
                std::cmp::Ordering::Greater => high = start,
            }
        }
        None
    }
}

impl<'a> Offer<'a> {
    /// Whether it can be called by its bare id.
    pub fn on_demand(self) -> bool {
        self.kind == "o"
    }

    /// The geographies of its profiles, in alphabetical order.
    pub fn geographies(self) -> impl Iterator<Item = &'a str> {
        self.geographies.split(',').filter(|geography| !geography.is_empty())
    }
}
