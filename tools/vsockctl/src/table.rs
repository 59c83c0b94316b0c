// SPDX-License-Identifier: GPL-2.0

//! Tables of text: columns as wide as what is in them.

use crate::sockets::Address;

/// Prints rows below their titles; numbers to the right.
pub fn print(titles: &[&str], rows: &[Vec<String>]) {
    print!("{}", render(titles, rows));
}

fn is_number(text: &str) -> bool {
    text == "-" || text.bytes().all(|byte| byte.is_ascii_digit())
}

pub fn render(titles: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column: usize| {
        let texts = rows.iter().map(|row| cell(row, column).chars().count());
        texts.chain([titles[column].len()]).max().unwrap_or(0)
    };
    let mut columns = Vec::new();
    for column in 0..titles.len() {
        let right = !rows.is_empty() && rows.iter().all(|row| is_number(&cell(row, column)));
        columns.push((width(column), right));
    }
    let mut text = String::new();
    let titles: Vec<String> = titles.iter().map(|&title| title.to_owned()).collect();
    for row in [&titles].into_iter().chain(rows) {
        let mut line = String::new();
        for (column, &(width, right)) in columns.iter().enumerate() {
            let word = cell(row, column);
            if right {
                line += &format!("{word:>width$}  ");
            } else {
                line += &format!("{word:<width$}  ");
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// An address; what a socket does not know is a star.
pub fn address(address: Address) -> String {
    let part = |value: u32| {
        if value == u32::MAX {
            "*".into()
        } else {
            value.to_string()
        }
    };
    format!("{}:{}", part(address.cid), part(address.port))
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_to_the_right() {
        let rows = [
            vec!["3".into(), "qemu".into()],
            vec!["1000".into(), "x".into()],
        ];
        assert_eq!(
            render(&["CID", "PROGRAM"], &rows),
            " CID  PROGRAM\n   3  qemu\n1000  x\n"
        );
    }

    #[test]
    fn units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
    }
}
