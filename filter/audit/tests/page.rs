//! Compares the table of fields in `docs/audit.md` with [`AuditRecord::FIELDS`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use audit::AuditRecord;

const HEAD: &str = "| field | type | source | meaning |\n|---|---|---|---|\n";

fn table() -> String {
    AuditRecord::FIELDS.iter().fold(HEAD.to_owned(), |mut table, field| {
        let null = if field.optional { " or null" } else { "" };
        writeln!(table, "| `{}` | {}{null} | {} | {} |", field.name, field.kind, field.source, field.doc).unwrap();
        table
    })
}

#[test]
fn the_page_lists_the_fields() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.md");
    let page = fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(HEAD).expect("docs/audit.md has a table of fields");
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    let (rows, after) = rest.split_at(end);
    let wanted = table();
    if std::env::var_os("UPDATE_AUDIT_PAGE").is_some() {
        fs::write(&file, format!("{before}{wanted}{after}")).unwrap();
        return;
    }
    assert!(
        format!("{HEAD}{rows}") == wanted,
        "docs/audit.md is out of date; run UPDATE_AUDIT_PAGE=1 cargo test -p audit --test page. It should say:\n{wanted}"
    );
}
