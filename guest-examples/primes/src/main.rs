//! Counts the prime numbers below a limit: pure computation, without a single
//! call to the host between the argument and the answer.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

const LIMIT_DEFAULT: u64 = 5_000_000;
/// Some minutes of work.
const LIMIT_MAX: u64 = 100_000_000_000;

/// Odd numbers sieved at a time, one byte each: fits a processor's cache.
const SEGMENT_LEN: usize = 32 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let limit = match arguments.as_slice() {
        [] => Some(LIMIT_DEFAULT),
        [argument] => argument.to_str().and_then(|text| text.parse().ok()),
        _ => None,
    };
    let Some(limit) = limit.filter(|&limit| limit <= LIMIT_MAX) else {
        eprintln!("usage: primes [LIMIT]   (at most {LIMIT_MAX})");
        return ExitCode::from(2);
    };

    let count = count_below(limit);
    match writeln!(io::stdout(), "{count} primes below {limit}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("primes: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The number of primes below `limit`, by a sieve of Eratosthenes that holds
/// only a segment of the odd numbers at a time: `sqrt(limit)` bytes and a bit.
fn count_below(limit: u64) -> u64 {
    if limit <= 2 {
        return 0;
    }
    // Number 2 is the only even prime. Entry i stands for 2 * i + 1, and there
    // are limit / 2 odd numbers below limit; entry 0 is 1, which is no prime.
    let entries = limit / 2;
    let mut count = 1;

    let mut primes = odd_primes_to(limit.isqrt())
        .into_iter()
        .map(|prime| Striker { prime, next: prime * prime / 2 })
        .collect::<Vec<_>>();
    let mut composite = vec![false; SEGMENT_LEN];
    let mut begin = 0;
    while begin < entries {
        let end = entries.min(begin + SEGMENT_LEN as u64);
        let segment = &mut composite[..(end - begin) as usize];
        segment.fill(false);
        if begin == 0 {
            segment[0] = true;
        }
        for striker in &mut primes {
            if striker.next >= end {
                continue;
            }
            // From one odd multiple to the next it is 2 * prime, so in entries
            // it is prime.
            let step = striker.prime as usize;
            let mut entry = (striker.next - begin) as usize;
            while entry < segment.len() {
                segment[entry] = true;
                entry += step;
            }
            striker.next = begin + entry as u64;
        }
        count += segment.iter().filter(|&&composite| !composite).count() as u64;
        begin = end;
    }
    count
}

/// A prime, and the entry of its next odd multiple that is not struck out yet.
struct Striker {
    prime: u64,
    next: u64,
}

/// The odd primes up to and including `max`, by a plain sieve.
fn odd_primes_to(max: u64) -> Vec<u64> {
    let mut composite = vec![false; max as usize + 1];
    let mut primes = Vec::new();
    for number in (3..=max).step_by(2) {
        if composite[number as usize] {
            continue;
        }
        primes.push(number);
        for multiple in (number * number..=max).step_by(2 * number as usize) {
            composite[multiple as usize] = true;
        }
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_trial_division() {
        let mut count = 0;
        for limit in 0..2_000 {
            assert_eq!(count_below(limit), count, "below {limit}");
            let is_prime = limit >= 2 && (2..limit).all(|divisor| limit % divisor != 0);
            count += u64::from(is_prime);
        }
    }

    #[test]
    fn agrees_with_the_known_counts() {
        assert_eq!(count_below(1_000_000), 78_498);
        assert_eq!(count_below(LIMIT_DEFAULT), 348_513);
    }
}
