//! Faults: of one call, by the name of a model, which passes any gateway; or of a whole path, by the handle.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Answer, Step};

/// A fault of one call, named by a model id such as `fault.status-429` or `us.fault.slow-500ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFault {
    /// `status-N`, or `status-N-ErrorType`: the answer has this status.
    Status(u16, String),
    /// `stream-exception`, or `stream-exception-NAME`: a modelled exception after the first words; default `throttlingException`.
    StreamException(String),
    /// `slow-DURATION` (`60s`, `500ms`): delays the answer.
    Slow(Duration),
    /// `drip-DURATION`: pauses before each frame of a stream.
    Drip(Duration),
    /// `silent`: no answer, ever.
    Silent,
    /// `reset`: the connection (HTTP/1.1) or stream (HTTP/2) is reset instead of an answer.
    Reset,
    /// `reset-midstream`: the same, after half of the answer.
    ResetMidstream,
    /// `truncate`: the answer ends, valid as HTTP, in the middle of a frame or of its JSON.
    Truncate,
    /// `bad-crc`: one frame of a stream fails its CRC.
    BadCrc,
    /// `large-Nk`: the answer is at least N KiB long. White space follows the JSON; a stream repeats a frame.
    Large(usize),
    /// `no-usage`: no token counts in headers, JSON or stream.
    NoUsage,
}

impl ModelFault {
    /// Reads `fault.…`; `None` for an unknown fault.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix("fault.")?;
        Some(match name {
            "stream-exception" => Self::StreamException("throttlingException".to_owned()),
            "silent" => Self::Silent,
            "reset" => Self::Reset,
            "reset-midstream" => Self::ResetMidstream,
            "truncate" => Self::Truncate,
            "bad-crc" => Self::BadCrc,
            "no-usage" => Self::NoUsage,
            _ => return Self::with_argument(name),
        })
    }

    fn with_argument(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("status-") {
            let (status, error_type) = match rest.split_once('-') {
                Some((status, error_type)) => (status.parse().ok()?, error_type.to_owned()),
                None => {
                    let status = rest.parse().ok()?;
                    (status, error_type_of(status).to_owned())
                }
            };
            return (400..600).contains(&status).then_some(Self::Status(status, error_type));
        }
        if let Some(exception) = name.strip_prefix("stream-exception-") {
            return Some(Self::StreamException(exception.to_owned()));
        }
        if let Some(size) = name.strip_prefix("large-") {
            return size.strip_suffix('k')?.parse().ok().map(|kib: usize| Self::Large(kib << 10));
        }
        if let Some(duration) = name.strip_prefix("slow-") {
            return parse_duration(duration).map(Self::Slow);
        }
        parse_duration(name.strip_prefix("drip-")?).map(Self::Drip)
    }
}

/// `60s` or `500ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

/// Bedrock's most frequent error type for a status.
#[must_use]
pub fn error_type_of(status: u16) -> &'static str {
    match status {
        400 => "ValidationException",
        403 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        503 => "ServiceUnavailableException",
        _ => "InternalServerException",
    }
}

/// A fault of ListFoundationModels and ListInferenceProfiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListFault {
    #[default]
    None,
    /// An error of this status.
    Status(u16),
    /// 200, and no JSON.
    Garbage,
    /// 200, and the JSON ends in its middle.
    Truncated,
    /// A list of 8 MiB.
    Huge,
    /// A list without an entry.
    Empty,
    /// Each page of profiles has the token of the first.
    Endless,
}

impl ListFault {
    /// The answer instead of a good one.
    #[must_use]
    pub fn spoil(self, answer: Answer) -> Answer {
        let good = answer.body.iter().find_map(|step| match step {
            Step::Send(bytes) => Some(bytes.to_vec()),
            _ => None,
        });
        let good = good.unwrap_or_default();
        let mut list: Value = serde_json::from_slice(&good).unwrap_or_default();
        let body = match self {
            Self::None => return answer,
            Self::Status(status) => {
                return Answer::error(status, error_type_of(status), "The lists are answered so.");
            }
            Self::Garbage => b"<html>not a list</html>".to_vec(),
            Self::Truncated => good.get(..good.len() / 2).unwrap_or_default().to_vec(),
            Self::Huge => [good, vec![b' '; 8 << 20]].concat(),
            Self::Empty => {
                list.as_object_mut().into_iter().flatten().for_each(|(_, value)| *value = json!([]));
                if let Some(object) = list.as_object_mut() {
                    object.remove("nextToken");
                }
                list.to_string().into_bytes()
            }
            Self::Endless => {
                if let Some(object) = list.as_object_mut().filter(|object| !object.contains_key("modelSummaries")) {
                    object.insert("nextToken".to_owned(), json!("0"));
                }
                list.to_string().into_bytes()
            }
        };
        Answer::whole(200, vec![("content-type", "application/json".to_owned())], body)
    }
}

/// A fault of the whole path: what the listener does to everyone, health checks included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathFault {
    #[default]
    None,
    /// Every request is checked and recorded as usual, then answered with this status.
    Status(u16),
    /// The port is closed; open connections are reset.
    Refuse,
    /// Connections are accepted and reset at once; open ones are reset.
    Reset,
    /// Connections are accepted and no byte is ever read or written: a black hole.
    Silent,
    /// TLS works and requests are read, but never answered.
    Mute,
    /// Delays every answer.
    Delay(Duration),
    /// Calls to models are checked and recorded as usual, then stall for this time: without an answer, or (`true`) after the headers
    /// of a stream's answer. Bedrock's documents do not say when it sends these. Other requests, health checks too, are not
    /// affected.
    Stall(Duration, bool),
    /// Calls to models whose id contains this text are checked and recorded as usual, then answered with this status, as by a
    /// region that throttles. Other requests, health checks too, are not affected.
    Throttle(u16, String),
}

impl PathFault {
    /// Reads `status-N`, `refuse`, `reset`, `silent`, `mute`, `slow-DURATION`, `stall-DURATION`, `stall-body-DURATION` or
    /// `throttle-N-MODEL`; the empty text is
    /// [`PathFault::None`]. `None` for an unknown fault.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::None,
            "refuse" => Self::Refuse,
            "reset" => Self::Reset,
            "silent" => Self::Silent,
            "mute" => Self::Mute,
            _ => return Self::with_argument(name),
        })
    }

    fn with_argument(name: &str) -> Option<Self> {
        if let Some(duration) = name.strip_prefix("slow-") {
            return parse_duration(duration).map(Self::Delay);
        }
        if let Some(duration) = name.strip_prefix("stall-body-") {
            return parse_duration(duration).map(|time| Self::Stall(time, true));
        }
        if let Some(duration) = name.strip_prefix("stall-") {
            return parse_duration(duration).map(|time| Self::Stall(time, false));
        }
        if let Some((status, model)) = name.strip_prefix("throttle-").and_then(|rest| rest.split_once('-')) {
            return parse_status(status).map(|status| Self::Throttle(status, model.to_owned()));
        }
        parse_status(name.strip_prefix("status-")?).map(Self::Status)
    }
}

/// An error's status.
fn parse_status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (400..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_faults() {
        for (name, want) in [
            ("fault.status-429", Some(ModelFault::Status(429, "ThrottlingException".into()))),
            ("fault.status-429-ModelNotReadyException", Some(ModelFault::Status(429, "ModelNotReadyException".into()))),
            ("fault.status-200", None),
            ("fault.status-x", None),
            ("fault.slow-60s", Some(ModelFault::Slow(Duration::from_secs(60)))),
            ("fault.slow-500ms", Some(ModelFault::Slow(Duration::from_millis(500)))),
            ("fault.slow-5", None),
            ("fault.drip-20ms", Some(ModelFault::Drip(Duration::from_millis(20)))),
            ("fault.stream-exception", Some(ModelFault::StreamException("throttlingException".into()))),
            (
                "fault.stream-exception-modelStreamErrorException",
                Some(ModelFault::StreamException("modelStreamErrorException".into())),
            ),
            ("fault.large-64k", Some(ModelFault::Large(65_536))),
            ("fault.large-64", None),
            ("fault.reset-midstream", Some(ModelFault::ResetMidstream)),
            ("fault.", None),
            ("silent", None),
        ] {
            assert_eq!(ModelFault::from_name(name), want, "{name}");
        }
    }

    #[test]
    fn names_of_faults_of_a_path() {
        let throttled = PathFault::Throttle(429, "claude-3-5".into());
        for (name, want) in [
            ("", Some(PathFault::None)),
            ("mute", Some(PathFault::Mute)),
            ("status-503", Some(PathFault::Status(503))),
            ("status-200", None),
            ("slow-2s", Some(PathFault::Delay(Duration::from_secs(2)))),
            ("stall-500ms", Some(PathFault::Stall(Duration::from_millis(500), false))),
            ("stall-body-2s", Some(PathFault::Stall(Duration::from_secs(2), true))),
            ("stall-body", None),
            ("throttle-429-claude-3-5", Some(throttled)),
            ("throttle-429", None),
            ("fault.silent", None),
        ] {
            assert_eq!(PathFault::from_name(name), want, "{name}");
        }
    }
}
