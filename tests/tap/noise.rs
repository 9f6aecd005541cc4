//! Bytes that no mistake turns into others unnoticed: a seed's noise, compared by hash.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// The noise of one seed.
pub struct Noise(StdRng);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Self::new(seed).fill(&mut bytes);
        bytes
    }
}

/// How many bytes there were, and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    pub bytes: u64,
    pub hash: [u8; 32],
}

/// Sums a stream up, piece by piece.
#[derive(Default)]
pub struct Summer {
    bytes: u64,
    hash: Sha256,
}

impl Summer {
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    pub fn sum(self) -> Sum {
        Sum { bytes: self.bytes, hash: self.hash.finalize().into() }
    }
}
