//! Columns for people.

/// Returns rows in aligned columns two spaces apart, the last one ragged. Control characters are made visible: what is
/// printed came over the network.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head = head
        .iter()
        .map(|name| (*name).to_owned())
        .collect::<Vec<_>>();
    let all: Vec<Vec<String>> = std::iter::once(&head)
        .filter(|head| !head.is_empty())
        .chain(rows)
        .map(|row| row.iter().map(|cell| clean(cell)).collect())
        .collect();
    let columns = all.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &all {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Makes control characters visible.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["é".into(), "b".into()],
            vec!["long".into(), "x\u{1b}[2J".into()],
        ];
        assert_eq!(
            table(&["A", "B"], &rows),
            "A     B\né     b\nlong  x\u{fffd}[2J\n"
        );
        assert_eq!(table(&[], &rows[..1]), "é  b\n");
    }
}
