//! What instance types cost, as far as it is known, to order them by. Pure.
//!
//! For a type it is the first of these that there is: the price configured; for spot instances what EC2 told (`spot`); the estimate.
//! On-demand prices stand in another service's catalogue of some hundred megabytes, which is not worth asking: within a generation
//! they lie on a line, on which one vCPU costs as much as eleven GiB. The test below compares that with prices AWS publishes: among
//! types of different size the order by the line is the order by price. Types of one size in vCPUs and memory are a tie, though the
//! newer ones cost up to a fifth more: the one configured first is taken.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::catalog::MachineType;
use crate::config::AwsConfig;

/// What one vCPU costs, in MiB of memory.
const VCPU_IN_MIB: u64 = 11 * 1024;
/// What one GPU costs: more than any difference in the rest.
const GPU_IN_MIB: u64 = 1 << 40;
/// What one GiB costs an hour, in millionths of a dollar: m6a in us-east-1. Only so that estimates can stand beside prices.
const GIB_COSTS: u64 = 2880;

/// What an instance costs an hour, in millionths of a dollar, or of whatever all of them are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 = text.trim().parse().unwrap_or(f64::NAN);
        // No machine costs as much; and it must fit.
        if !(0.0..=100_000.0).contains(&number) {
            return Err(format!("{text:?} is no price: write one such as 0.0864"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "its range was looked at"
        )]
        let millionths = (number * 1e6).round() as u64;
        Ok(Self(millionths))
    }
}

impl std::fmt::Display for Price {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Prices in one market.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prices<'a> {
    configured: &'a BTreeMap<String, Price>,
    told: Option<&'a BTreeMap<String, Price>>,
}

impl<'a> Prices<'a> {
    /// Those of the configuration, and estimates.
    pub(crate) fn of_config(config: &'a AwsConfig) -> Self {
        Self { configured: &config.prices, told: None }
    }

    /// With what EC2 told.
    pub(crate) fn and_told(self, told: &'a BTreeMap<String, Price>) -> Self {
        Self { told: Some(told), ..self }
    }

    /// What a type costs.
    pub(crate) fn of(&self, known: &MachineType) -> Price {
        let told = self.told.and_then(|told| told.get(&known.name));
        self.configured.get(&known.name).or(told).copied().unwrap_or_else(|| estimate(known))
    }
}

fn estimate(known: &MachineType) -> Price {
    Price(weight(known.gpus, known.vcpus, known.memory_mib).saturating_mul(GIB_COSTS) / 1024)
}

/// So many GPUs, vCPUs and MiB on the line, in MiB.
pub(crate) fn weight(gpus: u32, vcpus: u32, memory_mib: u64) -> u64 {
    u64::from(gpus) * GPU_IN_MIB + u64::from(vcpus) * VCPU_IN_MIB + memory_mib
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, vcpus: u32, gib: u64) -> MachineType {
        MachineType {
            name: name.to_owned(),
            vcpus,
            memory_mib: gib * 1024,
            gpus: 0,
            architectures: Vec::new(),
            sev_snp: false,
        }
    }

    /// Linux on demand in us-east-1, dollars an hour, from AWS's price list (aws.amazon.com/ec2/pricing/on-demand) as it has stood since
    /// m7i came out in 2023.
    const PUBLISHED: [(&str, u32, u64, &str); 15] = [
        ("t3.large", 2, 8, "0.0832"),
        ("t3.xlarge", 4, 16, "0.1664"),
        ("t3.2xlarge", 8, 32, "0.3328"),
        ("m6a.large", 2, 8, "0.0864"),
        ("m6a.xlarge", 4, 16, "0.1728"),
        ("m6a.2xlarge", 8, 32, "0.3456"),
        ("c6a.large", 2, 4, "0.0765"),
        ("c6a.xlarge", 4, 8, "0.153"),
        ("c6a.2xlarge", 8, 16, "0.306"),
        ("r6a.large", 2, 16, "0.1134"),
        ("r6a.xlarge", 4, 32, "0.2268"),
        ("r6a.2xlarge", 8, 64, "0.4536"),
        ("m7i.large", 2, 8, "0.1008"),
        ("m7i.xlarge", 4, 16, "0.2016"),
        ("m7i.2xlarge", 8, 32, "0.4032"),
    ];

    #[test]
    fn types_of_different_size_are_ordered_as_their_published_prices_are() {
        let priced = PUBLISHED
            .map(|(name, vcpus, gib, price)| (machine(name, vcpus, gib), price.parse::<Price>().unwrap()));
        for (one, its) in &priced {
            for (other, others) in &priced {
                if estimate(one) < estimate(other) {
                    assert!(its < others, "{} is estimated below {}", one.name, other.name);
                }
            }
            let off = estimate(one).0.abs_diff(its.0) as f64 / its.0 as f64;
            assert!(off < 0.15, "{} is off by {off}", one.name);
        }
    }

    #[test]
    fn a_tie_costs_no_more_than_a_fifth_or_so() {
        for (name, vcpus, gib, price) in PUBLISHED {
            let same = PUBLISHED.iter().filter(|(_, cpus, memory, _)| (*cpus, *memory) == (vcpus, gib));
            let cheapest = same.map(|(.., price)| price.parse::<Price>().unwrap()).min().unwrap();
            assert!(price.parse::<Price>().unwrap().0 * 100 <= cheapest.0 * 122, "{name}");
        }
    }

    #[test]
    fn what_is_configured_goes_before_what_ec2_told_and_that_before_the_estimate() {
        let map = |price: &str| BTreeMap::from([("m6a.large".to_owned(), price.parse().unwrap())]);
        let (config, told) = (AwsConfig { prices: map("0.5"), ..AwsConfig::default() }, map("0.03"));
        let none = AwsConfig::default();
        let of = |prices: Prices<'_>| prices.of(&machine("m6a.large", 2, 8)).to_string();
        assert_eq!(of(Prices::of_config(&config).and_told(&told)), "0.5");
        assert_eq!(of(Prices::of_config(&none).and_told(&told)), "0.03");
        assert_eq!(of(Prices::of_config(&none)), "0.0864");
    }

    #[test]
    fn prices_are_decimal_numbers() {
        for (text, shown) in [("0.0864", "0.0864"), (" 1 ", "1"), ("0", "0"), ("10.250000", "10.25")] {
            assert_eq!(text.parse::<Price>().map(|price| price.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "-1", "0,08", "NaN", "inf", "$1", "1e9"] {
            assert!(text.parse::<Price>().is_err(), "{text:?}");
        }
    }
}
