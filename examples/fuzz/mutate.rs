//! Damages inputs in the ways that numbers, lengths and lists break.

/// Pseudo-random numbers that are the same for the same seed (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `sides`, which is at least 1.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % sides.max(1) as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).expect("below 256")
    }
}

/// Values that counts, offsets and lengths go wrong at.
const EDGES: [u64; 16] = [0, 1, 2, 7, 8, 23, 24, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF];

/// One of the seeds with a few changes.
pub(crate) fn mutated(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[dice.roll(seeds.len())].clone();
    for _ in 0..=dice.roll(4) {
        change(dice, &mut input, seeds);
    }
    input
}

fn change(dice: &mut Dice, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    // Half of the changes near the front, where headers are.
    let reach = if dice.roll(2) == 0 { input.len().min(120) } else { input.len() };
    let at = dice.roll(reach);
    match dice.roll(10) {
        0 | 1 => overwrite(input, at, &[dice.byte()]),
        2 => {
            let flipped = input.get(at).map_or(0, |byte| byte ^ (1 << dice.roll(8)));
            overwrite(input, at, &[flipped]);
        }
        3..=5 => {
            let edge = EDGES[dice.roll(EDGES.len())].to_le_bytes();
            overwrite(input, at, &edge[..1 << dice.roll(4)]);
        }
        6 => input.truncate(at),
        7 => {
            let extra: Vec<u8> = (0..=dice.roll(16)).map(|_| dice.byte()).collect();
            drop(input.splice(at..at, extra));
        }
        8 => {
            let end = (at + dice.roll(64)).min(input.len());
            drop(input.drain(at.min(end)..end));
        }
        _ => {
            // A stretch of another input.
            let other = &seeds[dice.roll(seeds.len())];
            let from = dice.roll(other.len());
            let len = dice.roll(200).min(other.len() - from);
            overwrite(input, at, &other[from..from + len]);
        }
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in input.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}
