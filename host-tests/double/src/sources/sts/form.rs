//! The parameters of a query request, and the constraints of botocore's model of STS.
//!
//! Stricter than AWS: a parameter that is unknown or repeated is refused, and the content type must be a form's.

use hyper::http::request::Parts;

use super::super::answer::{Refused, header};
use crate::sigv4::percent_decode;

/// Parameters that no rule has taken yet.
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn parse(parts: &Parts, body: &[u8]) -> Result<Self, Refused> {
        let kind = header(parts, "content-type").split(';').next().unwrap_or_default();
        if kind != "application/x-www-form-urlencoded" || parts.uri.query().is_some() {
            return Err(invalid("the parameters must be a form in the body (this double's rule)"));
        }
        let body = std::str::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
        let text = |part: &str| {
            String::from_utf8(percent_decode(&part.replace('+', " "))).map_err(|_| invalid("a parameter is not UTF-8"))
        };
        let mut form = Self(Vec::new());
        for pair in body.split('&') {
            let (name, value) = pair.split_once('=').ok_or_else(|| invalid("a parameter is not name=value"))?;
            let (name, value) = (text(name)?, text(value)?);
            if form.0.iter().any(|(known, _)| *known == name) {
                return Err(invalid(format!("{name} is sent twice (this double's rule)")));
            }
            form.0.push((name, value));
        }
        Ok(form)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// The members of a list: `Audience.member.1` and so on.
    pub(super) fn take_list(&mut self, name: &str) -> Vec<String> {
        (1..).map_while(|nth| self.take(&format!("{name}.member.{nth}"))).collect()
    }

    /// The members of a list of keys and values. A value that is missing is `None`.
    pub(super) fn take_pairs(&mut self, name: &str) -> Vec<(Option<String>, Option<String>)> {
        (1..)
            .map(|nth| {
                (self.take(&format!("{name}.member.{nth}.Key")), self.take(&format!("{name}.member.{nth}.Value")))
            })
            .take_while(|(key, value)| key.is_some() || value.is_some())
            .collect()
    }

    /// Refuses what is left.
    pub(super) fn end(self) -> Result<(), Refused> {
        let left: Vec<String> = self.0.into_iter().map(|(name, _)| name).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(invalid(format!("{} is unknown (this double's rule)", left.join(", "))))
        }
    }
}

/// The constraints that a request breaks, in AWS's words.
/// Observed: https://github.com/mmmorris1975/aws-runas/issues/80 (STS), https://github.com/DataDog/stratus-red-team/issues/331.
#[derive(Debug, Default)]
pub(super) struct Constraints(Vec<String>);

impl Constraints {
    pub(super) fn broken(&mut self, value: &str, name: &str, constraint: &str) {
        let value = if value == "null" { value.to_owned() } else { format!("'{value}'") };
        self.0.push(format!("Value {value} at '{name}' failed to satisfy constraint: {constraint}"));
    }

    /// A required text with a length in characters.
    pub(super) fn length(&mut self, name: &str, value: Option<&str>, min: usize, max: usize) {
        let Some(value) = value else { return self.broken("null", name, "Member must not be null") };
        let length = value.chars().count();
        if length < min {
            self.broken(value, name, &format!("Member must have length greater than or equal to {min}"));
        } else if length > max {
            self.broken(value, name, &format!("Member must have length less than or equal to {max}"));
        }
    }

    /// An optional number within bounds.
    pub(super) fn number(&mut self, name: &str, value: Option<&str>, min: u64, max: u64, default: u64) -> u64 {
        let Some(value) = value else { return default };
        match value.parse::<u64>() {
            Ok(number) if number < min => {
                self.broken(value, name, &format!("Member must have value greater than or equal to {min}"));
            }
            Ok(number) if number > max => {
                self.broken(value, name, &format!("Member must have value less than or equal to {max}"));
            }
            Ok(number) => return number,
            Err(_) => self.broken(value, name, "Member must be an integer"),
        }
        default
    }

    pub(super) fn check(self) -> Result<(), Refused> {
        let errors = if self.0.len() == 1 { "error" } else { "errors" };
        match self.0.len() {
            0 => Ok(()),
            n => Err(invalid(format!("{n} validation {errors} detected: {}", self.0.join("; ")))),
        }
    }
}

/// ValidationError, 400: "Common Errors" of STS.
pub(super) fn invalid(message: impl Into<String>) -> Refused {
    Refused::new(400, "ValidationError", message)
}
