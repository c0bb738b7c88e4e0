//! Random passwords that can be read from paper and over the telephone.
//!
//! Five groups such as `zapod`: consonant, vowel, consonant, vowel, consonant. Sixteen consonants and four vowels make
//! 4 + 2 + 4 + 2 + 4 = 16 bits a group and 80 in all, each bit straight from the system's random source. There are no
//! digits, no capitals, and of the letters neither `i` nor `l`, so nothing looks like anything else.

use zeroize::Zeroizing;

use super::UserError;

const CONSONANTS: &[u8; 16] = b"bdfghjkmnprstvwz";
const VOWELS: &[u8; 4] = b"aeou";
const GROUPS: usize = 5;

/// A new one.
pub(super) fn password() -> Result<Zeroizing<String>, UserError> {
    let mut random = Zeroizing::new([0; 2 * GROUPS]);
    getrandom::fill(&mut *random).map_err(|error| UserError::Random(error.to_string()))?;
    Ok(spell(&random))
}

fn spell(random: &[u8; 2 * GROUPS]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(6 * GROUPS));
    for pair in random.chunks_exact(2) {
        if !text.is_empty() {
            text.push('-');
        }
        let bits = usize::from(u16::from_be_bytes([pair[0], pair[1]]));
        for letter in [
            CONSONANTS[bits >> 12],
            VOWELS[bits >> 10 & 3],
            CONSONANTS[bits >> 6 & 15],
            VOWELS[bits >> 4 & 3],
            CONSONANTS[bits & 15],
        ] {
            text.push(char::from(letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_changes_the_password() {
        let zero = spell(&[0; 10]);
        assert_eq!(*zero, "babab-babab-babab-babab-babab");
        let mut seen = std::collections::BTreeSet::from([zero.to_string()]);
        for bit in 0..80 {
            let mut random = [0; 10];
            random[bit / 8] = 1 << (bit % 8);
            assert!(seen.insert(spell(&random).to_string()), "bit {bit}");
        }
        assert_eq!(*spell(&[0xff; 10]), "zuzuz-zuzuz-zuzuz-zuzuz-zuzuz");
    }

    #[test]
    fn no_letter_stands_for_two_values() {
        let mut letters = [&CONSONANTS[..], VOWELS].concat();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), 20);
    }
}
