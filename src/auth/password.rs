//! Password hashes in the format of RabbitMQ's definitions: base64 of a four-byte salt and H(salt, password).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

/// Random bytes that are hashed before the password, so that equal passwords have different hashes.
pub(crate) type Salt = [u8; SALT_BYTES];

const SALT_BYTES: usize = 4;

/// The hash algorithm, with its name in definitions (`hashing_algorithm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// The algorithm of new passwords.
    Sha256,
    /// `rabbit_password_hashing_sha512`.
    Sha512,
    /// From definitions written before RabbitMQ 3.6.
    Md5,
}

impl Algorithm {
    /// The algorithm of this name; `None` for an unknown one, whose hashes match no password.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "rabbit_password_hashing_sha256" => Some(Self::Sha256),
            "rabbit_password_hashing_sha512" => Some(Self::Sha512),
            "rabbit_password_hashing_md5" => Some(Self::Md5),
            _ => None,
        }
    }

    /// The name that definitions carry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
            Self::Md5 => "rabbit_password_hashing_md5",
        }
    }

    fn digest(self, salt: &[u8], password: &[u8]) -> Vec<u8> {
        fn digest_with<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
            D::new().chain_update(salt).chain_update(password).finalize().to_vec()
        }
        match self {
            Self::Sha256 => digest_with::<Sha256>(salt, password),
            Self::Sha512 => digest_with::<Sha512>(salt, password),
            Self::Md5 => digest_with::<Md5>(salt, password),
        }
    }
}

/// The hash of a password, to be stored with the algorithm's name.
pub(crate) fn hash(algorithm: Algorithm, salt: Salt, password: &[u8]) -> String {
    let mut bytes = salt.to_vec();
    bytes.extend(algorithm.digest(&salt, password));
    BASE64_STANDARD.encode(bytes)
}

/// Whether `password` has this hash; the time that the check takes does not depend on how much of it is right. An empty
/// password matches no hash; an empty or malformed hash matches no password.
pub(crate) fn verify(algorithm: Algorithm, password_hash: &str, password: &[u8]) -> bool {
    if password.is_empty() {
        return false;
    }
    let Ok(bytes) = BASE64_STANDARD.decode(password_hash) else { return false };
    let Some((salt, expected)) = bytes.split_at_checked(SALT_BYTES) else { return false };
    algorithm.digest(salt, password).ct_eq(expected).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_test_vector_holds() {
        let expected = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        assert_eq!(hash(Algorithm::Sha256, [0x90, 0x8D, 0xC6, 0x0A], b"test12"), expected);
        assert!(verify(Algorithm::Sha256, expected, b"test12"));
        assert!(!verify(Algorithm::Sha256, expected, b"test13"));
        assert!(!verify(Algorithm::Sha512, expected, b"test12"));
    }

    #[test]
    fn every_algorithm_accepts_its_own_hashes_only_and_is_found_by_its_name() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Md5] {
            let stored = hash(algorithm, [1, 2, 3, 4], b"secret");
            assert!(verify(algorithm, &stored, b"secret"));
            assert!(!verify(algorithm, &stored, b"Secret"));
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("my_own_hash"), None);
    }

    #[test]
    fn empty_passwords_and_malformed_hashes_never_match() {
        let of_empty = hash(Algorithm::Sha256, [1, 2, 3, 4], b"");
        assert!(!verify(Algorithm::Sha256, &of_empty, b""));
        for malformed in ["", "AAAA", "!", "kI3GCg=="] {
            assert!(!verify(Algorithm::Sha256, malformed, b"x"), "{malformed}");
        }
    }
}
