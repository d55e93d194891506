//! The known name that a mistyped one most likely means.

/// The name of `known` that is nearest to `name`, if it is near enough to be a likely mistake: at most a third of the
/// letters of the longer differ, and at most three. Of equally near names the first wins.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    let limit = |candidate: &str| (candidate.chars().count().max(length) / 3).clamp(1, 3);
    let measured = known.into_iter().map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate));
    measured
        .filter(|(distance, candidate)| *distance <= limit(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours that turn `left`
/// into `right`.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    // Rows of the table: two letters of `left` ago, one letter ago.
    let (mut before, mut above): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=right.len()).collect());
    let mut last_left = None;
    for (row, letter) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        let mut last_right = None;
        for (column, other) in right.iter().copied().enumerate() {
            let cell = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX - 1);
            let substituted = cell(&above, column) + usize::from(letter != other);
            let mut best = substituted.min(cell(&above, column + 1) + 1).min(cell(&current, column) + 1);
            if last_left == Some(other) && last_right == Some(letter) {
                best = best.min(cell(&before, column.wrapping_sub(1)) + 1);
            }
            current.push(best);
            last_right = Some(other);
        }
        last_left = Some(letter);
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (left, right, wanted) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("role", "role", 0),
            ("rolle", "role", 1),
            ("rloe", "role", 1),
            ("kitten", "sitting", 3),
            ("ab", "ba", 1),
            ("ca", "abc", 3),
            ("ä", "a", 1),
        ] {
            assert_eq!((distance(left, right), distance(right, left)), (wanted, wanted), "{left} {right}");
        }
    }

    /// Every single edit of a name is at distance one, a swap included.
    #[test]
    fn one_edit_is_distance_one() {
        let name: Vec<char> = "route_classes".chars().collect();
        let text = |letters: &[char]| letters.iter().collect::<String>();
        for index in 0..name.len() {
            let (mut less, mut more, mut other, mut swapped) = (name.clone(), name.clone(), name.clone(), name.clone());
            less.remove(index);
            more.insert(index, '#');
            other[index] = '#';
            if index > 0 {
                swapped.swap(index - 1, index);
            }
            for edited in [less, more, other] {
                assert_eq!(distance(&text(&edited), "route_classes"), 1, "{}", text(&edited));
            }
            assert!(distance(&text(&swapped), "route_classes") <= 1, "{}", text(&swapped));
        }
    }

    #[test]
    fn suggests_only_likely_names() {
        let known = ["role", "regions", "region", "route_classes", "aliases"];
        for (name, wanted) in [
            ("rolle", Some("role")),
            ("Role", Some("role")),
            ("route_class", Some("route_classes")),
            ("routeclasses", Some("route_classes")),
            ("regoin", Some("region")),
            ("region", Some("region")),
            ("zzzz", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, known), wanted, "{name}");
        }
    }
}
