//! Medians, and how far they can be trusted.

/// Numbers that look random, the same in each run (xorshift).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// The numbers below `end` in some order.
    pub(crate) fn order(&mut self, end: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..end).collect();
        for place in (1..end).rev() {
            order.swap(place, self.below(place + 1));
        }
        order
    }
}

/// The value below which `share` of the samples lie; 0 without samples.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * (sorted.len().max(1) - 1) as f64;
    let at = |place: f64| sorted.get(place as usize).copied().unwrap_or_default();
    at(place.floor()) + (at(place.ceil()) - at(place.floor())) * place.fract()
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The ratio of the medians of two series, and between what bounds it lies with a probability of 95 % (bootstrap).
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> (f64, f64, f64) {
    let mut random = Random::new();
    let mut again = |samples: &[f64]| {
        let drawn: Vec<f64> = samples.iter().map(|_| samples[random.below(samples.len())]).collect();
        median(&drawn)
    };
    let ratios: Vec<f64> = (0..1000).map(|_| again(of) / again(to)).collect();
    (median(of) / median(to), quantile(&ratios, 0.025), quantile(&ratios, 0.975))
}
