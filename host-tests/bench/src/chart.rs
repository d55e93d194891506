//! A chart of what calls add (SVG): a bar for each contender and size, and a line where `native` ends.

use crate::page::size;
use crate::report::Figure;

/// Pixels: a row, the space for names, and the longest bar.
const ROW: f64 = 20.0;
const NAMES: f64 = 90.0;
const LONGEST: f64 = 520.0;

/// The chart of a run's figures. Each size has its own scale.
pub(crate) fn svg(calls: &[Figure]) -> String {
    let mut sizes: Vec<usize> = Vec::new();
    for figure in calls {
        if !sizes.contains(&figure.bytes) {
            sizes.push(figure.bytes);
        }
    }
    let (mut body, mut top) = (String::new(), 0.0);
    for bytes in sizes {
        let rows: Vec<(&str, f64)> = calls
            .iter()
            .filter(|figure| figure.bytes == bytes)
            .filter_map(|figure| Some((figure.contender, figure.added_us?)))
            .collect();
        let most = rows.iter().map(|(_, added)| *added).fold(1.0, f64::max);
        body += &format!("<text x=\"0\" y=\"{}\" font-weight=\"bold\">{}</text>\n", top + 15.0, size(bytes));
        top += ROW;
        let start = top;
        for (name, added) in &rows {
            let (width, text) = (added.max(0.0) / most * LONGEST, top + 14.0);
            let fill = if *name == "native" { "#888888" } else { "#4477aa" };
            body += &format!(
                "<text x=\"10\" y=\"{text}\">{name}</text>\n\
                 <rect x=\"{NAMES}\" y=\"{}\" width=\"{width:.1}\" height=\"14\" fill=\"{fill}\"/>\n\
                 <text x=\"{:.1}\" y=\"{text}\">{added:.0} µs</text>\n",
                top + 3.0,
                NAMES + width + 5.0
            );
            top += ROW;
        }
        if let Some((_, native)) = rows.iter().find(|(name, _)| *name == "native") {
            let x = NAMES + native.max(0.0) / most * LONGEST;
            body += &format!("<path d=\"M{x:.1} {start}V{top}\" stroke=\"#cc3311\" stroke-dasharray=\"3\"/>\n");
        }
        top += ROW / 2.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"{top}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"680\" height=\"{top}\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(contender: &'static str, added_us: Option<f64>) -> Figure {
        Figure { contender, bytes: 1_000, cpu_us: [0.0; 3], added_us, took_us: [0.0; 2], first_us: [0.0; 2] }
    }

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let svg = svg(&[figure("bare", None), figure("native", Some(25.0)), figure("two", Some(100.0))]);
        assert!(svg.contains("width=\"130.0\" height=\"14\" fill=\"#888888\""), "{svg}");
        assert!(svg.contains("width=\"520.0\" height=\"14\" fill=\"#4477aa\""), "{svg}");
        assert!(svg.contains("<path d=\"M220.0 20V60\""), "{svg}");
        assert!(svg.contains(">100 µs</text>") && !svg.contains("bare"), "{svg}");
    }
}
