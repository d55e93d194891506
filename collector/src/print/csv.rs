//! CSV by RFC 4180. Callers choose some of the text, and spreadsheets run a cell that begins as a formula does
//! (<https://owasp.org/www-community/attacks/CSV_Injection>): such a text gets an apostrophe before it.

use std::io::{self, Write};

use audit::FieldValue;
use audit::text::visible;

use super::Column;

/// Where a spreadsheet takes a cell for a formula. Tab and carriage return are escaped already.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '＝', '＠'];

pub(super) fn headings(columns: &[Column], to: &mut impl Write) -> io::Result<()> {
    let names: Vec<_> = columns.iter().map(|column| FieldValue::Text(column.name)).collect();
    row(&names, to)
}

pub(super) fn row(values: &[FieldValue<'_>], to: &mut impl Write) -> io::Result<()> {
    let mut line = String::new();
    for (at, value) in values.iter().enumerate() {
        line += if at > 0 { "," } else { "" };
        match value {
            FieldValue::Null => {}
            FieldValue::Integer(number) => line += &number.to_string(),
            FieldValue::Text(text) => cell(text, &mut line),
        }
    }
    write!(to, "{line}\r\n")
}

fn cell(text: &str, line: &mut String) {
    let text = visible(text);
    let guard = if text.trim_start().starts_with(FORMULA) { "'" } else { "" };
    if guard.is_empty() && !text.contains(['"', ',', ' ']) {
        *line += &text;
    } else {
        *line += &format!("\"{guard}{}\"", text.replace('"', "\"\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formulas() {
        let mut out = Vec::new();
        let texts = ["plain", "a,b", "say \"no\"", "=1+1", "+49", "-2", "@SUM(A1)", " =1", "a=b", "x\r\ny", "\t=1", ""];
        let mut values: Vec<_> = texts.into_iter().map(FieldValue::Text).collect();
        values.extend([FieldValue::Null, FieldValue::Integer(7)]);
        row(&values, &mut out).unwrap();
        let wanted = r#"plain,"a,b","say ""no""","'=1+1","'+49","'-2","'@SUM(A1)","' =1",a=b,x\r\ny,\t=1,,,7"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{wanted}\r\n"));
    }
}
