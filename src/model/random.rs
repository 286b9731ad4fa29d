//! Randomness for generated names, seeded from outside so that pure code stays pure.

/// SplitMix64 (Steele, Lea, Flood 2014): enough for names that must not collide, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 22 characters hold 128 bits, as many as RabbitMQ's generated names have.
const GENERATED_CHARACTERS: usize = 22;

impl Random {
    /// A generator; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `prefix` and 22 URL-safe base64 characters, as in `amq.gen-...` and `amq.ctag-...`.
    pub fn generated_name(&mut self, prefix: &str) -> String {
        let mut name = String::with_capacity(prefix.len() + GENERATED_CHARACTERS);
        name.push_str(prefix);
        let mut bits = 0u64;
        for at in 0..GENERATED_CHARACTERS {
            if at % 10 == 0 {
                bits = self.next_u64();
            }
            name.push(char::from(BASE64_URL[(bits & 63) as usize]));
            bits >>= 6;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_have_the_length_clients_know_and_differ() {
        let mut random = Random::new(7);
        let first = random.generated_name("amq.gen-");
        assert_eq!(first.len(), "amq.gen-".len() + 22);
        assert_ne!(first, random.generated_name("amq.gen-"));
    }
}
