//! Describes a record's fields as data, so that stores and documentation need no list of their own.

use std::fmt;

use crate::text::bounded;

/// One field of [`AuditRecord`](crate::AuditRecord).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The JSON key, SQLite column and DynamoDB attribute.
    pub name: &'static str,
    /// The type of its values.
    pub kind: Kind,
    /// Whether it may be null. A field that is added later must be optional, since older records lack it.
    pub optional: bool,
    /// The component that knows its value.
    pub source: Source,
    /// The meaning, as `docs/audit.md` gives it.
    pub doc: &'static str,
}

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// An unsigned integer.
    Integer,
}

/// A field's value in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// Not known.
    Null,
    /// UTF-8 text.
    Text(&'a str),
    /// An unsigned integer.
    Integer(u64),
}

/// The component that a field's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The filter in role `gateway`, through [`ExchangeFacts`](crate::ExchangeFacts).
    Gateway,
    /// The filter in role `signer`, through [`AttemptFacts`](crate::AttemptFacts).
    Signer,
    /// Envoy's access log, through [`EnvoyEntry`](crate::EnvoyEntry).
    Envoy,
    /// The collector computes it.
    Collector,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Integer => "integer",
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Signer => "signer",
            Self::Envoy => "Envoy",
            Self::Collector => "collector",
        })
    }
}

/// Maps a Rust type to its [`Kind`].
pub(crate) trait FieldType: Sized {
    const KIND: Kind;
    const OPTIONAL: bool = false;

    /// The value as a record keeps it.
    #[must_use]
    fn kept(self) -> Self;

    fn value(&self) -> FieldValue<'_>;

    /// The opposite of [`Self::value`]. `None` if the value is of another type.
    fn read(value: FieldValue<'_>) -> Option<Self>;
}

impl FieldType for String {
    const KIND: Kind = Kind::Text;

    fn kept(self) -> Self {
        bounded(self)
    }

    fn value(&self) -> FieldValue<'_> {
        FieldValue::Text(self)
    }

    fn read(value: FieldValue<'_>) -> Option<Self> {
        if let FieldValue::Text(text) = value { Some(text.to_owned()) } else { None }
    }
}

macro_rules! integers {
    ($($integer:ty)+) => {
        $(impl FieldType for $integer {
            const KIND: Kind = Kind::Integer;

            fn kept(self) -> Self {
                self
            }

            fn value(&self) -> FieldValue<'_> {
                FieldValue::Integer((*self).into())
            }

            fn read(value: FieldValue<'_>) -> Option<Self> {
                if let FieldValue::Integer(number) = value { number.try_into().ok() } else { None }
            }
        })+
    };
}
integers!(u16 u32 u64);

impl<T: FieldType> FieldType for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;

    fn kept(self) -> Self {
        self.map(T::kept)
    }

    fn value(&self) -> FieldValue<'_> {
        self.as_ref().map_or(FieldValue::Null, T::value)
    }

    fn read(value: FieldValue<'_>) -> Option<Self> {
        if value == FieldValue::Null { Some(None) } else { T::read(value).map(Some) }
    }
}

/// Declares a record: each row gives a field's meaning, name, type, source and value. Expands to the struct, its
/// `FIELDS` and its constructor `new`, whose arguments the value expressions use.
macro_rules! audit_record {
    (
        $(#[$record_meta:meta])*
        $record:ident($($argument:ident: $argument_type:ty),+ $(,)?)
        $(
            $(#[doc = $doc:literal])+
            $name:ident: $type:ty = $source:ident($value:expr),
        )+
    ) => {
        $(#[$record_meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $record {
            $(
                $(#[doc = $doc])+
                pub $name: $type,
            )+
        }

        impl $record {
            /// The fields in the order of the JSON output.
            pub const FIELDS: &'static [Field] = &[
                $(Field {
                    name: stringify!($name),
                    kind: <$type as FieldType>::KIND,
                    optional: <$type as FieldType>::OPTIONAL,
                    source: Source::$source,
                    doc: concat!($($doc),+).trim_ascii(),
                },)+
            ];

            /// The record of one finished exchange. Its texts are [`bounded`](crate::text::bounded).
            #[must_use]
            pub fn new($($argument: $argument_type),+) -> Self {
                Self { $($name: <$type as FieldType>::kept($value),)+ }
            }

            /// The record with these values, asked for in the order of [`Self::FIELDS`].
            ///
            /// # Errors
            /// The name of a field whose value is of another type.
            pub fn read<'v>(mut value: impl FnMut(&Field) -> FieldValue<'v>) -> Result<Self, &'static str> {
                let mut fields = Self::FIELDS.iter();
                let mut next = || fields.next().map_or(FieldValue::Null, &mut value);
                Ok(Self {
                    $($name: <$type as FieldType>::read(next()).ok_or(stringify!($name))?,)+
                })
            }

            /// The values in the order of [`Self::FIELDS`].
            #[must_use]
            pub fn values(&self) -> [FieldValue<'_>; Self::FIELDS.len()] {
                [$(self.$name.value(),)+]
            }

            /// A field that both have, with different values. When it expires does not belong to the exchange.
            #[must_use]
            pub fn differing_field(&self, other: &Self) -> Option<&'static str> {
                let mut pairs = Self::FIELDS.iter().zip(self.values().into_iter().zip(other.values()));
                let differ = |a, b| a != FieldValue::Null && b != FieldValue::Null && a != b;
                pairs.find(|(field, (a, b))| field.name != crate::table::TTL && differ(*a, *b)).map(|(field, _)| field.name)
            }

            /// Bytes of all texts.
            #[must_use]
            pub fn text_bytes(&self) -> usize {
                let texts = self.values().into_iter();
                texts.map(|value| if let FieldValue::Text(text) = value { text.len() } else { 0 }).sum()
            }
        }
    };
}
pub(crate) use audit_record;
