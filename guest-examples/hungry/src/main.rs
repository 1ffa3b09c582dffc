//! Takes one mebibyte of memory after the other until there are no more.

use std::{thread::sleep, time::Duration};

fn main() {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1u8; 1 << 20]);
        println!("{} MiB", kept.len());
        sleep(Duration::from_millis(20));
    }
}
