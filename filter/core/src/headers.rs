//! Header lists as Envoy has them: lower-case names, any bytes as values, repeated names kept.

use std::fmt;

/// Headers in order, pseudo-headers (`:path` …) included. All names are in one buffer and all values in another: a request has
/// some thirty headers, and memory for each would cost more than to read them.
#[derive(Clone, Default)]
pub struct Headers {
    names: String,
    values: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(usize, usize)>,
}

/// A header that must be unique is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header '{0}' is repeated")]
pub struct Repeated(pub String);

impl Headers {
    /// An empty list with room for so many headers, whose names and values have so many bytes together.
    pub fn with_capacity(count: usize, names: usize, values: usize) -> Self {
        Self {
            names: String::with_capacity(names),
            values: Vec::with_capacity(values),
            ends: Vec::with_capacity(count),
        }
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The first value of a header, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// The only value of a header.
    ///
    /// # Errors
    /// [`Repeated`] names the header if there is more than one.
    pub fn get_only(&self, name: &str) -> Result<Option<&[u8]>, Repeated> {
        let mut values = self.iter().filter(|(key, _)| *key == name).map(|(_, value)| value);
        let value = values.next();
        if values.next().is_some() { Err(Repeated(name.to_owned())) } else { Ok(value) }
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        let mut start = (0, 0);
        self.ends.iter().map(move |end| {
            let name = self.names.get(start.0..end.0).unwrap_or_default();
            let value = self.values.get(start.1..end.1).unwrap_or_default();
            start = *end;
            (name, value)
        })
    }

    /// Replaces a header, or adds it after the others.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        if self.get(name).is_some() {
            *self = self.iter().filter(|(key, _)| *key != name).collect();
        }
        self.push(name, value);
    }

    /// Adds a header after the others.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        self.names.push_str(name.as_ref());
        self.values.extend_from_slice(value.as_ref());
        self.ends.push((self.names.len(), self.values.len()));
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut list = Self::default();
        headers.into_iter().for_each(|(name, value)| list.push(name, value));
        list
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_replaced_where_it_is_added() {
        let mut headers: Headers = [("a", "1"), ("b", ""), ("a", "2"), ("c", "3")].into_iter().collect();
        assert_eq!(headers.get_only("a"), Err(Repeated("a".to_owned())));
        headers.set("a", "4");
        headers.set("d", b"\xff");
        let listed: Vec<_> = headers.iter().collect();
        assert_eq!(listed, [("b", &b""[..]), ("c", b"3"), ("a", b"4"), ("d", b"\xff")]);
        assert_eq!((headers.get("b"), headers.get_str("d"), headers.get("e")), (Some(&b""[..]), None, None));
        assert_eq!(headers, listed.into_iter().collect());
    }
}
