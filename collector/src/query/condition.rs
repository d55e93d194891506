//! A condition on a record's fields, as data: each store asks for it in its own language.

use audit::FieldValue;

/// One of the fields passes the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<'q> {
    pub fields: &'static [&'static str],
    pub test: Test<'q>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test<'q> {
    Is(&'q str),
    /// Of ASCII letters.
    IsInAnyCase(&'q str),
    Contains(&'q str),
    /// Both included.
    Between(u64, u64),
    /// Null.
    Absent,
    /// Null, or one of these.
    AbsentOr(&'q [&'static str]),
}

impl Condition<'_> {
    /// `value` gives the value of a field.
    pub fn holds<'v>(&self, value: impl Fn(&'static str) -> FieldValue<'v>) -> bool {
        self.fields.iter().any(|field| match (&self.test, value(field)) {
            (Test::Is(wanted), FieldValue::Text(text)) => *wanted == text,
            (Test::IsInAnyCase(wanted), FieldValue::Text(text)) => wanted.eq_ignore_ascii_case(text),
            (Test::Contains(part), FieldValue::Text(text)) => text.contains(part),
            (Test::Between(first, last), FieldValue::Integer(number)) => (*first..=*last).contains(&number),
            (Test::Absent | Test::AbsentOr(_), FieldValue::Null) => true,
            (Test::AbsentOr(others), FieldValue::Text(text)) => others.contains(&text),
            _ => false,
        })
    }
}
