//! Strings of JSON that are wiped. serde_json unescapes a string in a buffer of its own, which it frees as it is; PEM has an
//! escape at the end of each line.

use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The text of a JSON string; `None` if the value is not a string, or holds half of a surrogate pair.
pub(super) fn unescaped(raw: &RawValue) -> Option<Zeroizing<String>> {
    let quoted = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    // Escapes are longer than what they stand for, so the text is never moved.
    let mut text = Zeroizing::new(String::with_capacity(quoted.len()));
    let mut rest = quoted.chars();
    while let Some(next) = rest.next() {
        text.push(match next {
            '\\' => match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => unicode(&mut rest)?,
                other => other,
            },
            other => other,
        });
    }
    Some(text)
}

/// After `\u`: four digits, or a surrogate pair with its second `\u`.
fn unicode(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let first = digits(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    (rest.next()? == '\\' && rest.next()? == 'u').then_some(())?;
    let second = digits(rest)?;
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + (first - 0xd800) * 0x400 + low)
}

fn digits(rest: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value * 16 + rest.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<String> {
        unescaped(serde_json::from_str(json).unwrap()).map(|text| text.as_str().to_owned())
    }

    #[test]
    fn agrees_with_serde_json() {
        for json in [
            r#""""#,
            r#""plain ä \u00e4 \u20AC""#,
            r#""-----BEGIN\nline\r\n\tend\/\\\"\b\f""#,
            r#""\ud83d\ude00 \u0000""#,
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\u0041""#,
            r#""\ude00""#,
        ] {
            assert_eq!(read(json), serde_json::from_str::<String>(json).ok(), "{json}");
        }
        for json in ["1", "null", "[]", "{}"] {
            assert_eq!(read(json), None);
        }
    }
}
