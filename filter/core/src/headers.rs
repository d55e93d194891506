//! Header lists as Envoy has them: lower-case names, any bytes as values, repeated names kept.

/// Headers in order, pseudo-headers (`:path` …) included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

/// A header that must be unique is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header '{0}' is repeated")]
pub struct Repeated(pub String);

impl Headers {
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
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Replaces a header, or adds it after the others.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.retain(|(key, _)| key != name);
        self.push(name, value);
    }

    /// Adds a header after the others.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }
}

impl FromIterator<(String, Vec<u8>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}
