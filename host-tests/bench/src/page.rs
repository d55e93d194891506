//! The tables of docs/performance.md, each between two comments that mark it.

use crate::contender::Contender;
use crate::error::Error;
use crate::report::{Figure, Report};
use crate::slow::SlowStreams;

/// The page with the figures of a run in its tables: a run with other gateways in theirs, another run in the rest. A table of
/// which the run has no figures stays as it is.
pub(crate) fn rewrite(page: &str, report: &Report) -> Result<String, Error> {
    let is_peer = |figure: &Figure| Contender::find(figure.contender).is_some_and(Contender::is_peer);
    let (others, own): (Vec<&Figure>, Vec<&Figure>) = report.calls.iter().partition(|figure| is_peer(figure));
    let compared = own.iter().filter(|figure| ["bare", "native", "two"].contains(&figure.contender));
    let compared: Vec<&Figure> = compared.chain(&others).copied().collect();
    let tables = [
        ("calls", others.is_empty() && !own.is_empty(), sizes(&own, added)),
        ("streams", others.is_empty() && !report.streams.is_empty(), streams(&report.streams)),
        ("slow streams", others.is_empty() && !report.slow.is_empty(), slow(&report.slow)),
        ("other gateways", !others.is_empty(), sizes(&compared, in_all)),
    ];
    let mut page = page.to_owned();
    for (name, _, table) in tables.iter().filter(|(_, is_written, _)| *is_written) {
        page = put(&page, name, table)?;
    }
    Ok(page)
}

/// Replaces a table.
fn put(page: &str, name: &str, table: &str) -> Result<String, Error> {
    let (start, end) = marks(name);
    let absent = |mark: &str| Error::Page(mark.trim_end().to_owned());
    let (before, rest) = page.split_once(&start).ok_or_else(|| absent(&start))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| absent(&end))?;
    Ok(format!("{before}{start}{table}{end}{after}"))
}

/// The comments around a table.
fn marks(name: &str) -> (String, String) {
    (format!("<!-- {name}, by `cargo xtask bench --page` -->\n"), format!("<!-- the end of {name} -->\n"))
}

/// A row for each contender, and a column for each size.
fn sizes(calls: &[&Figure], cell: fn(&Figure, &[&Figure]) -> String) -> String {
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    for figure in calls {
        if !names.contains(&figure.contender) {
            names.push(figure.contender);
        }
        if !sizes.contains(&figure.bytes) {
            sizes.push(figure.bytes);
        }
    }
    let heads: Vec<String> = sizes.iter().map(|bytes| size(*bytes)).collect();
    let mut table = head(&heads);
    for name in names {
        let find = |bytes| calls.iter().find(|figure| figure.contender == name && figure.bytes == bytes);
        let cells = sizes.iter().map(|bytes| find(*bytes).map(|figure| cell(figure, calls)).unwrap_or_default());
        table += &row(name, cells);
    }
    table
}

/// What a call adds, and in brackets the ratio to `native`.
fn added(figure: &Figure, calls: &[&Figure]) -> String {
    let Some(added) = figure.added_us else { return format!("({} in all)", micros(figure.cpu_us[0])) };
    let native = calls.iter().find(|other| other.contender == "native" && other.bytes == figure.bytes);
    match native.and_then(|native| native.added_us) {
        Some(native) if figure.contender != "native" => format!("{} ({:.1})", micros(added), (added / native).max(0.0)),
        _ => micros(added),
    }
}

/// What a call takes in all.
fn in_all(figure: &Figure, _: &[&Figure]) -> String {
    micros(figure.cpu_us[0])
}

fn streams(streams: &[Figure]) -> String {
    let mut table = head(&["in all, µs", "adds, µs", "first byte, p50", "first byte, p99"]);
    for Figure { contender, cpu_us: [cpu, ..], added_us, first_us, .. } in streams {
        let added = added_us.map(micros).unwrap_or_default();
        let [p50, p99] = first_us.map(millis);
        table += &row(contender, [micros(*cpu), added, p50, p99]);
    }
    table
}

fn slow(slow: &[SlowStreams]) -> String {
    let columns = ["KiB for each", "growth", "CPU for a frame, µs", "first byte, p50", "first byte, p99"];
    let mut table = head(&columns);
    for SlowStreams { contender, kib_each, growth, frame_us, first_us, .. } in slow {
        let [p50, p99] = first_us.map(millis);
        table += &row(contender, [format!("{kib_each:.0}"), format!("{growth:.1} %"), micros(*frame_us), p50, p99]);
    }
    table
}

fn head(columns: &[impl AsRef<str>]) -> String {
    let names: String = columns.iter().map(|name| format!(" {} |", name.as_ref())).collect();
    format!("| |{names}\n|---|{}\n", "---|".repeat(columns.len()))
}

fn row(name: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells: String = cells.into_iter().map(|cell| format!(" {cell} |")).collect();
    format!("| `{name}` |{cells}\n")
}

/// Bytes as text, by thousands.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        1_000_000.. => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} KB", bytes / 1_000),
    }
}

/// Microseconds as text, with a comma for thousands.
fn micros(micros: f64) -> String {
    let whole = micros.round().max(0.0) as u64;
    match (whole / 1_000, whole % 1_000) {
        (0, 0) => "<1".to_owned(),
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

fn millis(micros: f64) -> String {
    format!("{:.2} ms", micros / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loading::Loading;

    fn figure(contender: &'static str, bytes: usize, cpu: f64, added_us: Option<f64>) -> Figure {
        Figure { contender, bytes, cpu_us: [cpu; 3], added_us, took_us: [0.0; 2], first_us: [720.0, 1_040.0] }
    }

    fn report() -> Report {
        Report {
            calls: vec![
                figure("bare", 1_000, 46.1, None),
                figure("native", 1_000, 60.2, Some(14.1)),
                figure("noop", 1_000, 46.0, Some(-0.3)),
                figure("two", 1_000, 158.1, Some(112.0)),
                figure("litellm", 1_000, 5_321.0, None),
                figure("bare", 1_000_000, 1_400.2, None),
                figure("native", 1_000_000, 2_040.0, Some(640.0)),
                figure("two", 1_000_000, 5_300.0, Some(3_900.0)),
            ],
            streams: vec![figure("bare", 1_000_000, 1_074.0, None), figure("two", 1_000_000, 2_250.0, Some(1_176.0))],
            slow: Vec::new(),
            loading: Loading { models: 500, gateway_ms: 0.0, signer_ms: 0.0 },
        }
    }

    #[test]
    fn a_run_rewrites_its_own_tables() {
        let page = |tables: [&str; 4]| {
            let names = ["calls", "streams", "slow streams", "other gateways"];
            let marked = names.iter().zip(tables).map(|(name, table)| {
                let (start, end) = marks(name);
                format!("before\n{start}{table}{end}")
            });
            marked.collect::<String>() + "after\n"
        };
        let others = "| | 1 KB | 1 MB |\n|---|---|---|\n| `bare` | 46 | 1,400 |\n| `native` | 60 | 2,040 |\n\
                      | `two` | 158 | 5,300 |\n| `litellm` | 5,321 |  |\n";
        let with_peers = report();
        assert_eq!(rewrite(&page(["old\n"; 4]), &with_peers).unwrap(), page(["old\n", "old\n", "old\n", others]));

        let calls = "| | 1 KB | 1 MB |\n|---|---|---|\n| `bare` | (46 in all) | (1,400 in all) |\n| `native` | 14 | 640 |\n\
                     | `noop` | <1 (0.0) |  |\n| `two` | 112 (7.9) | 3,900 (6.1) |\n";
        let streams = "| | in all, µs | adds, µs | first byte, p50 | first byte, p99 |\n|---|---|---|---|---|\n\
                       | `bare` | 1,074 |  | 0.72 ms | 1.04 ms |\n| `two` | 2,250 | 1,176 | 0.72 ms | 1.04 ms |\n";
        let own = Report {
            calls: with_peers.calls.into_iter().filter(|one| one.contender != "litellm").collect(),
            ..report()
        };
        assert_eq!(rewrite(&page(["old\n"; 4]), &own).unwrap(), page([calls, streams, "old\n", "old\n"]));
    }

    #[test]
    fn refuses_a_page_without_marks() {
        assert!(rewrite("before\nafter\n", &report()).is_err());
    }

    #[test]
    fn the_page_has_the_marks() {
        let page = include_str!("../../../docs/performance.md");
        for name in ["calls", "streams", "slow streams", "other gateways"] {
            assert!(put(page, name, "").is_ok(), "{name}");
        }
    }
}
