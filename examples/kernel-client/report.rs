//! The table at the end.

use crate::latency::Times;

/// One line of the table.
pub struct Row<'a> {
    pub protocol: &'a str,
    pub path: &'a str,
    pub times: &'a Times,
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

pub fn print_table(title: &str, rows: &[Row<'_>]) {
    println!("\n{title}\n");
    print!("{:<22}", "");
    for (name, _) in QUANTILES {
        print!("{name:>10}");
    }
    println!();
    for row in rows {
        print!("{:<4}{:<18}", row.protocol, row.path);
        for (_, quantile) in QUANTILES {
            print!("{:>10.1}", row.times.value_at_quantile(quantile) as f64 / 1e3);
        }
        println!();
    }
}
