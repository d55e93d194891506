//! The numbers of a VM's log entries: which were received, which are missing.

use serde::{Deserialize, Serialize};

/// An entry, as far as windows need it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// When its call began, as records have it.
    pub(super) time: String,
    /// How long the call took, in milliseconds.
    pub(super) lasted: u64,
}

/// Every number up to `settled` was received or is known to be missing. Above it there are gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbers {
    settled: u64,
    /// The entry of `settled`, or the last one before it.
    last: Option<Seen>,
    /// Missing numbers, none above `settled`: first and last of each hole.
    holes: Vec<(u64, u64)>,
    /// Received numbers above `settled`, in order, with gaps before each.
    spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    first: u64,
    last: u64,
    /// The entries of the first and of the last number.
    begin: Seen,
    end: Seen,
}

/// Numbers that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The entries around it.
    pub(super) before: Option<Seen>,
    pub(super) after: Option<Seen>,
}

/// Most gaps that wait for their entries. Numbers that would make more count as missing, although they came.
const MAX_SPANS: usize = 4_096;
/// Most holes that are remembered, for entries of theirs that come late.
const MAX_HOLES: usize = 1_000;

impl Numbers {
    /// An entry was received. False if it had been before.
    pub(super) fn add(&mut self, number: u64, time: &str, lasted: u64) -> bool {
        if number <= self.settled {
            return self.fill(number);
        }
        if self.spans.is_empty() && number == self.settled + 1 {
            self.settled = number;
            let last = self.last.get_or_insert_default();
            last.time.clear();
            last.time.push_str(time);
            last.lasted = lasted;
            return true;
        }
        let seen = || Seen { time: time.to_owned(), lasted };
        let at = self.spans.partition_point(|span| span.first <= number);
        let full = self.spans.len() >= MAX_SPANS && self.spans.get(at).is_none_or(|next| next.first != number + 1);
        let before = at.checked_sub(1).and_then(|before| self.spans.get_mut(before));
        match before {
            Some(span) if number <= span.last => return false,
            Some(span) if number == span.last + 1 => {
                span.last = number;
                span.end = seen();
            }
            _ if full => return false,
            _ => self.spans.insert(at, Span { first: number, last: number, begin: seen(), end: seen() }),
        }
        self.merge();
        true
    }

    /// All received numbers, and those that are known to be missing.
    pub(super) fn count(&self) -> u64 {
        self.settled + self.spans.iter().map(|span| span.last - span.first + 1).sum::<u64>()
    }

    pub(super) fn highest(&self) -> u64 {
        self.spans.last().map_or(self.settled, |span| span.last)
    }

    /// Whether a number up to this one was not received, and is not known to be missing.
    pub(super) fn is_short_of(&self, number: u64) -> bool {
        self.settled < number
    }

    /// Numbers that are known to be missing.
    pub(super) fn missing(&self) -> u64 {
        self.holes.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Takes every number up to this one that was not received as missing.
    pub(super) fn settle(&mut self, number: u64) -> Vec<Hole> {
        let mut found = Vec::new();
        self.merge();
        while self.settled < number {
            let next = self.spans.first();
            let last = next.map_or(number, |next| (next.first - 1).min(number));
            let after = next.filter(|next| next.first == last + 1).map(|next| next.begin.clone());
            found.push(Hole { first: self.settled + 1, last, before: self.last.clone(), after });
            self.holes.push((self.settled + 1, last));
            self.settled = last;
            self.merge();
        }
        let spare = self.holes.len().saturating_sub(MAX_HOLES);
        self.holes.drain(..spare);
        found
    }

    /// A number that was taken as missing.
    fn fill(&mut self, number: u64) -> bool {
        let Some(at) = self.holes.iter().position(|(first, last)| (*first..=*last).contains(&number)) else {
            return false;
        };
        let (first, last) = self.holes.remove(at);
        let rest = [(first, number - 1), (number + 1, last)];
        self.holes.splice(at..at, rest.into_iter().filter(|(first, last)| first <= last));
        true
    }

    /// Joins spans that have no gap between them, and those that have none before them.
    fn merge(&mut self) {
        self.spans.dedup_by(|next, span| {
            let joins = next.first == span.last + 1;
            if joins {
                span.last = next.last;
                span.end = std::mem::take(&mut next.end);
            }
            joins
        });
        while self.spans.first().is_some_and(|span| span.first == self.settled + 1) {
            let span = self.spans.remove(0);
            self.settled = span.last;
            self.last = Some(span.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(received: impl IntoIterator<Item = u64>) -> Numbers {
        let mut numbers = Numbers::default();
        for number in received {
            assert!(numbers.add(number, &format!("t{number}"), number), "{number}");
        }
        numbers
    }

    fn holes(numbers: &mut Numbers, up_to: u64) -> Vec<(u64, u64, String, String)> {
        let time = |seen: Option<Seen>| seen.map_or("-".to_owned(), |seen| seen.time);
        let found = numbers.settle(up_to).into_iter();
        found.map(|hole| (hole.first, hole.last, time(hole.before), time(hole.after))).collect()
    }

    #[test]
    fn numbers_in_any_order_leave_no_hole() {
        for order in [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [2, 4, 6, 1, 3, 5], [1, 3, 2, 6, 5, 4]] {
            let mut numbers = numbers(order);
            assert_eq!((numbers.count(), numbers.highest(), numbers.missing()), (6, 6, 0), "{order:?}");
            assert!(order.iter().all(|number| !numbers.add(*number, "again", 0)), "{order:?}");
            assert!(numbers.settle(6).is_empty() && numbers.spans.is_empty(), "{order:?}");
        }
    }

    #[test]
    fn gaps_become_holes_between_their_entries() {
        let mut numbers = numbers([1, 2, 5, 6, 9]);
        assert_eq!((numbers.count(), numbers.highest()), (5, 9));
        let text = |text: &str| text.to_owned();
        assert_eq!(holes(&mut numbers, 7), [(3, 4, text("t2"), text("t5")), (7, 7, text("t6"), text("-"))]);
        assert_eq!((numbers.count(), numbers.missing()), (8, 3), "8 is not decided");
        assert!(numbers.add(8, "t8", 1));
        assert!(numbers.settle(9).is_empty());
        assert_eq!((numbers.count(), numbers.missing()), (9, 3));
        // Late entries.
        assert!(numbers.add(4, "late", 1) && !numbers.add(4, "late", 1) && numbers.add(7, "late", 1));
        assert_eq!((numbers.count(), numbers.missing(), numbers.holes.as_slice()), (9, 1, &[(3, 3)][..]));
    }

    #[test]
    fn scattered_numbers_do_not_fill_the_memory() {
        let mut scattered = Numbers::default();
        let taken = (1..10_000).filter(|number| scattered.add(number * 2, "t", 0)).count();
        assert_eq!((taken, scattered.spans.len()), (MAX_SPANS, MAX_SPANS));
        // Those that close a gap still count.
        assert!(scattered.add(3, "t", 0) && scattered.add(1, "t", 0));
        assert_eq!(scattered.settle(20_000).iter().map(|hole| hole.last - hole.first + 1).sum::<u64>(), 20_000 - 4_098);
    }

    #[test]
    fn numbers_that_were_only_reported_are_holes() {
        let mut numbers = numbers([]);
        assert_eq!(holes(&mut numbers, 3), [(1, 3, "-".to_owned(), "-".to_owned())]);
        assert!(numbers.add(2, "late", 0));
        assert_eq!((numbers.count(), numbers.missing()), (3, 2));
    }
}
