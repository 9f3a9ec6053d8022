//! Which log partition a key goes to: the rule of Kafka's default partitioner, so that our
//! producers and anyone's Java or Python ones put a record into the same log partition.
//!
//! The hash is Austin Appleby's MurmurHash2 with Kafka's seed; its sign bit is dropped, and what
//! remains is taken modulo the number of log partitions.

const SEED: u32 = 0x9747_b28c;
const MIX: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The log partition of `key` among `log_partitions`; 0 where there are none.
///
/// ```
/// use serviceradar_log::log_partition_of;
/// let at = log_partition_of(b"default/armis/hq/1234", 6);
/// assert!(at < 6);
/// assert_eq!(at, log_partition_of(b"default/armis/hq/1234", 6));
/// ```
pub fn log_partition_of(key: &[u8], log_partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff).checked_rem(log_partitions).unwrap_or(0)
}

fn murmur2(key: &[u8]) -> u32 {
    // The length counts modulo 2^32, as in the reference.
    let mut hash = SEED ^ (key.len() as u32);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        word ^= word >> SHIFT;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    if !tail.is_empty() {
        let tail = tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs that Kafka's own tests fix.
    #[test]
    fn keys_hash_as_in_kafka() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key) as i32, hash, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn no_log_partitions_is_no_division_by_zero() {
        assert_eq!(log_partition_of(b"key", 0), 0);
    }

    #[test]
    fn keys_spread_over_all_log_partitions() {
        let mut counts = [0_u32; 6];
        for n in 0..6_000 {
            counts[log_partition_of(format!("default/armis/hq/{n}").as_bytes(), 6) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
