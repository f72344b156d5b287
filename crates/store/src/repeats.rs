//! Counts what one batch overwrites of itself: values of one series and time, of which the last counts. Pure.

use crate::record::Row;

/// What later lines of a batch overwrite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overwritten {
    pub(crate) values: u64,
    /// Lines of which no value is left.
    pub(crate) lines: u64,
}

/// Counts the overwritten values and lines of a batch; `ends` are the places in `rows` where the lines end.
pub(crate) fn overwritten(rows: &[Row], ends: &[usize]) -> Overwritten {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|&i| (rows[i].series, rows[i].time, i));
    let mut gone = vec![false; rows.len()];
    let mut found = Overwritten::default();
    for pair in order.windows(2) {
        let (row, next) = (&rows[pair[0]], &rows[pair[1]]);
        if (row.series, row.time) == (next.series, next.time) {
            gone[pair[0]] = true;
            found.values += 1;
        }
    }
    let mut from = 0;
    for &end in ends {
        found.lines += u64::from(from < end && gone[from..end].iter().all(|&gone| gone));
        from = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use graylogic_line::FieldType;

    #[test]
    fn the_last_of_equal_rows_is_left_and_a_line_is_gone_with_its_last_value() {
        let row = |series, time| Row { series, field_type: FieldType::Float, time, bits: 0 };
        let check = |lines: &[&[(u32, i64)]], values: u64, gone: u64| {
            let rows: Vec<Row> = lines.iter().flat_map(|l| l.iter()).map(|&(s, t)| row(s, t)).collect();
            let ends: Vec<usize> = lines
                .iter()
                .scan(0, |end, l| {
                    *end += l.len();
                    Some(*end)
                })
                .collect();
            assert_eq!(overwritten(&rows, &ends), Overwritten { values, lines: gone }, "{lines:?}");
        };
        check(&[], 0, 0);
        check(&[&[(1, 5)], &[(1, 6)], &[(2, 5)]], 0, 0);
        check(&[&[(1, 5)], &[(1, 5)], &[(1, 5)]], 2, 2);
        check(&[&[(1, 5), (2, 5)], &[(1, 5)]], 1, 0);
        check(&[&[(1, 5), (2, 5)], &[(2, 5)], &[(1, 5)]], 2, 1);
        check(&[&[(1, 5), (1, 5)]], 1, 0);
    }
}
