//! A serial number in decimal, as `Credential=` has it. It has up to 20 bytes, more than any integer type.

/// A big-endian unsigned number in decimal.
pub(super) fn decimal(bytes: &[u8]) -> String {
    // The least significant digit first.
    let mut digits: Vec<u16> = vec![0];
    for byte in bytes {
        let mut carry = u16::from(*byte);
        for digit in &mut digits {
            let value = *digit * 256 + carry;
            *digit = value % 10;
            carry = value / 10;
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().filter_map(|digit| char::from_digit(u32::from(*digit), 10)).collect()
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn agrees_with_the_standard_library() {
        // A linear congruential generator (Knuth's MMIX): all lengths, always the same numbers.
        let mut random = 1_u128;
        for round in 0..4000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = random.wrapping_mul(random) >> (round % 128);
            assert_eq!(decimal(&number.to_be_bytes()), number.to_string());
        }
    }

    #[test]
    fn twenty_bytes_and_zero() {
        assert_eq!(decimal(&[0xff; 20]), "1461501637330902918203684832716283019655932542975");
        assert_eq!(decimal(&[0]), "0");
        assert_eq!(decimal(&[]), "0");
    }
}
