//! What is wrong with an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bedrock_load::frames::{Frames, StreamEnd};
use serde_json::json;

use super::load::{Kind, nonce, words};

/// An answer as the client got it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) error: String,
    pub(super) body: Vec<u8>,
    /// Why it broke off.
    pub(super) broken: Option<String>,
}

/// What was asked, and what happened meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) nth: u64,
    pub(super) caller: usize,
    /// Whether the document refuses the model that changes; `None` if it changed during the call.
    pub(super) refuses: Option<bool>,
    /// Whether connections were cut during the call.
    pub(super) cut: bool,
}

/// What an answer is: its name in the report, or what is wrong.
pub(super) fn judge(asked: Asked, answer: &Answer) -> Result<String, &'static str> {
    let Asked { kind, nth, caller, refuses, cut } = asked;
    if answer.broken.is_some() {
        // The answer had begun, so it could not be had elsewhere. A stream ends with an exception instead.
        return if cut && answer.status == 200 && !kind.streams() && kind != Kind::Leaver {
            Ok("200, then cut".to_owned())
        } else {
            Err("it broke off")
        };
    }
    let said = format!("{} {}", answer.status, answer.error).trim_end().to_owned();
    let denied = match kind {
        Kind::Forbidden => Some(true),
        Kind::CountTokens => Some(caller == 1),
        Kind::Changing if caller == 1 => refuses,
        _ => Some(false),
    };
    let refused = said == "403 AccessDeniedException";
    match denied {
        Some(true) if refused => return Ok(said),
        Some(true) => return Err("the document refuses it"),
        None if refused => return Ok(said),
        _ => {}
    }
    if kind == Kind::Malformed {
        return if said == "400 ValidationException" { Ok(said) } else { Err("its body is not JSON") };
    }
    if answer.status != 200 {
        return Err("it could be served");
    }
    let text = String::from_utf8_lossy(&answer.body);
    if kind == Kind::CountTokens {
        let own = text == json!({ "inputTokens": words(nth) }).to_string();
        return if own { Ok(said) } else { Err("the count is of another call") };
    }
    if kind == Kind::Leaver {
        return Ok("left".to_owned());
    }
    let text = if kind == Kind::InvokeStream { chunks(&text) } else { text.into_owned() };
    let all: Vec<Option<&str>> = text.split("nonce-").skip(1).map(|rest| rest.get(..12)).collect();
    let own = nonce(nth);
    if !all.iter().all(|found| *found == own.get(6..)) {
        return Err("the answer is of another call");
    }
    if kind.streams() {
        let mut frames = Frames::default();
        frames.add(&answer.body);
        return match frames.ending() {
            StreamEnd::Complete if kind != Kind::InvokeStream && all.len() == 1 => Ok(said),
            StreamEnd::Short("no metadata at its end") if text.contains("invocationMetrics") && all.len() == 1 => {
                Ok(said)
            }
            StreamEnd::Exception(name) if cut && name == "serviceUnavailableException" => Ok(format!("200, {name}")),
            StreamEnd::Exception(_) => Err("an exception without a cut"),
            StreamEnd::Complete | StreamEnd::Short(_) => Err("the stream is cut off without an exception"),
        };
    }
    if all.len() == 1 { Ok(said) } else { Err("the answer lacks the call's word") }
}

/// The events within the chunks of InvokeModelWithResponseStream.
fn chunks(text: &str) -> String {
    let parts = text.split("\"bytes\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let decoded = parts.filter_map(|part| STANDARD.decode(part).ok());
    decoded.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use bedrock_double::eventstream::frame;

    use super::*;

    const NTH: u64 = 7;

    fn answer(status: u16, error: &str, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, error: error.to_owned(), body: body.into(), broken: None }
    }

    fn verdict(kind: Kind, answer: &Answer) -> Result<String, &'static str> {
        judge(Asked { kind, nth: NTH, caller: 0, refuses: Some(false), cut: false }, answer)
    }

    fn event(kind: &str, payload: &str) -> Vec<u8> {
        frame(&[(":event-type", kind), (":message-type", "event")], payload.as_bytes())
    }

    /// A whole ConverseStream that repeats the word of a call.
    fn stream(nth: u64) -> Vec<u8> {
        let text = json!({ "delta": { "text": nonce(nth) } }).to_string();
        [event("contentBlockDelta", &text), event("metadata", "{}")].concat()
    }

    #[test]
    fn an_answer_of_another_call_is_wrong() {
        for kind in [Kind::Converse1k, Kind::Invoke, Kind::Changing] {
            let own = answer(200, "", format!("{{\"text\":\"{}\"}}", nonce(NTH)));
            assert_eq!(verdict(kind, &own), Ok("200".to_owned()), "{kind:?}");
            let other = answer(200, "", nonce(NTH + 1));
            assert_eq!(verdict(kind, &other), Err("the answer is of another call"), "{kind:?}");
            let both = answer(200, "", nonce(NTH) + &nonce(NTH + 1));
            assert_eq!(verdict(kind, &both), Err("the answer is of another call"), "{kind:?}");
            let twice = answer(200, "", nonce(NTH).repeat(2));
            assert_eq!(verdict(kind, &twice), Err("the answer lacks the call's word"), "{kind:?}");
            assert_eq!(verdict(kind, &answer(200, "", "")), Err("the answer lacks the call's word"), "{kind:?}");
            assert_eq!(verdict(kind, &answer(503, "", "")), Err("it could be served"), "{kind:?}");
        }
        let count = |words| answer(200, "", json!({ "inputTokens": words }).to_string());
        assert!(verdict(Kind::CountTokens, &count(words(NTH))).is_ok());
        assert_eq!(verdict(Kind::CountTokens, &count(words(NTH) + 1)), Err("the count is of another call"));
        assert_eq!(verdict(Kind::Stream, &answer(200, "", stream(NTH + 1))), Err("the answer is of another call"));
        let chunk = json!({ "bytes": STANDARD.encode(json!({ "text": nonce(NTH + 1) }).to_string()) });
        let chunks = answer(200, "", event("chunk", &chunk.to_string()));
        assert_eq!(verdict(Kind::InvokeStream, &chunks), Err("the answer is of another call"));
    }

    #[test]
    fn a_stream_without_its_end_is_wrong() {
        assert_eq!(verdict(Kind::Stream, &answer(200, "", stream(NTH))), Ok("200".to_owned()));
        for cut_off in [&stream(NTH)[..stream(NTH).len() - 1], &event("contentBlockDelta", &nonce(NTH)), b""] {
            let verdict = verdict(Kind::SlowStream, &answer(200, "", cut_off));
            assert_eq!(verdict, Err("the stream is cut off without an exception"));
        }
        let exception = |name: &str| {
            let headers = [(":exception-type", name), (":message-type", "exception")];
            answer(200, "", [stream(NTH), frame(&headers, b"{}")].concat())
        };
        let of =
            |cut, name| judge(Asked { kind: Kind::Stream, nth: NTH, caller: 0, refuses: None, cut }, &exception(name));
        assert!(of(true, "serviceUnavailableException").is_ok());
        assert_eq!(of(false, "serviceUnavailableException"), Err("an exception without a cut"));
        assert_eq!(of(true, "internalServerException"), Err("an exception without a cut"));
    }

    #[test]
    fn an_answer_that_breaks_off_is_wrong() {
        let broken = |status| Answer { broken: Some("closed".to_owned()), ..answer(status, "", nonce(NTH)) };
        let of = |kind, cut, status| judge(Asked { kind, nth: NTH, caller: 0, refuses: None, cut }, &broken(status));
        assert!(of(Kind::Converse1m, true, 200).is_ok(), "it had begun, and could not be had elsewhere");
        for (kind, cut, status) in [
            (Kind::Converse1m, false, 200),
            (Kind::Converse1m, true, 0),
            (Kind::Converse1m, true, 503),
            (Kind::Stream, true, 200),
            (Kind::InvokeStream, true, 200),
            (Kind::Leaver, true, 200),
        ] {
            assert_eq!(of(kind, cut, status), Err("it broke off"), "{kind:?} {cut} {status}");
        }
    }

    #[test]
    fn the_document_decides_who_is_refused() {
        let refused = answer(403, "AccessDeniedException", "");
        let served = answer(200, "", nonce(NTH));
        let of = |kind, caller, refuses, answer: &Answer| {
            judge(Asked { kind, nth: NTH, caller, refuses, cut: false }, answer).is_ok()
        };
        for caller in [0, 1] {
            assert!(of(Kind::Forbidden, caller, None, &refused));
            assert!(!of(Kind::Forbidden, caller, None, &served));
            assert!(!of(Kind::Converse1k, caller, None, &refused));
        }
        for (caller, refuses, may_refuse, may_serve) in [
            (0, Some(true), false, true),
            (1, Some(true), true, false),
            (1, Some(false), false, true),
            (1, None, true, true),
        ] {
            assert_eq!(of(Kind::Changing, caller, refuses, &refused), may_refuse, "{caller} {refuses:?}");
            assert_eq!(of(Kind::Changing, caller, refuses, &served), may_serve, "{caller} {refuses:?}");
        }
        assert!(of(Kind::CountTokens, 1, None, &refused) && !of(Kind::CountTokens, 0, None, &refused));
        assert!(of(Kind::Malformed, 0, None, &answer(400, "ValidationException", "")));
        assert!(!of(Kind::Malformed, 0, None, &served));
        assert!(!of(Kind::Malformed, 0, None, &answer(400, "", "")));
    }
}
