//! The table of docs/performance.md, between two comments that mark it.

use crate::error::Error;
use crate::report::Figure;

const START: &str = "<!-- The table of `cargo xtask bench --page`. -->\n";
const END: &str = "<!-- The end of the table. -->\n";

/// The page with the figures of a run in its table.
pub(crate) fn rewrite(page: &str, calls: &[Figure]) -> Result<String, Error> {
    let (before, rest) = page.split_once(START).ok_or(Error::Page(START))?;
    let (_, after) = rest.split_once(END).ok_or(Error::Page(END))?;
    Ok(format!("{before}{START}{}{END}{after}", table(calls)))
}

/// A row for each contender, and a column for each size: what a call adds, and in brackets the ratio to `native`.
fn table(calls: &[Figure]) -> String {
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    for figure in calls {
        if !names.contains(&figure.contender) {
            names.push(figure.contender);
        }
        if !sizes.contains(&figure.bytes) {
            sizes.push(figure.bytes);
        }
    }
    let find = |name, bytes| calls.iter().find(|figure| figure.contender == name && figure.bytes == bytes);
    let cell = |name, bytes| {
        let Some(figure) = find(name, bytes) else { return String::new() };
        let Figure { cpu_us: [cpu, ..], added_us, .. } = figure;
        let Some(added) = added_us else { return format!(" ({cpu:.0} in all) |") };
        match find("native", bytes).and_then(|native| native.added_us) {
            Some(native) if name != "native" => format!(" {added:.0} ({:.1}) |", added / native),
            _ => format!(" {added:.0} |"),
        }
    };
    let heads: String = sizes.iter().map(|bytes| format!(" {} KB |", bytes / 1_000)).collect();
    let mut table = format!("| |{heads}\n|---|{}\n", "---|".repeat(sizes.len()));
    for name in names {
        let cells: String = sizes.iter().map(|bytes| cell(name, *bytes)).collect();
        table += &format!("| `{name}` |{cells}\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(contender: &'static str, bytes: usize, cpu: f64, added_us: Option<f64>) -> Figure {
        Figure { contender, bytes, cpu_us: [cpu; 3], added_us, took_us: [0.0; 2], first_us: [0.0; 2] }
    }

    #[test]
    fn only_the_table_is_rewritten() {
        let calls = [
            figure("bare", 1_000, 46.1, None),
            figure("native", 1_000, 60.2, Some(14.1)),
            figure("two", 1_000, 158.1, Some(112.0)),
            figure("bare", 100_000, 140.2, None),
            figure("native", 100_000, 204.0, Some(63.8)),
            figure("two", 100_000, 530.0, Some(390.0)),
        ];
        let page = rewrite(&format!("before\n{START}old\n{END}after\n"), &calls).unwrap();
        let table = "| | 1 KB | 100 KB |\n|---|---|---|\n| `bare` | (46 in all) | (140 in all) |\n| `native` | 14 | 64 |\n\
                     | `two` | 112 (7.9) | 390 (6.1) |\n";
        assert_eq!(page, format!("before\n{START}{table}{END}after\n"));
    }

    #[test]
    fn refuses_a_page_without_marks() {
        assert!(rewrite("before\nafter\n", &[]).is_err());
    }

    #[test]
    fn the_page_has_the_marks() {
        let page = include_str!("../../../docs/performance.md");
        assert!(rewrite(page, &[]).is_ok());
    }
}
