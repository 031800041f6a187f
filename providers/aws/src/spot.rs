//! What spot instances of the configured types cost now, in the zones of the VMs' subnets. Kept for a while and asked for beside the
//! starts that need it: a start takes what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::SpotPrice;
use peerpods_provider::ProviderError;
use tokio::time::Instant;

use crate::api::{Action, Api};
use crate::prices::Price;
use crate::site::Site;

/// How long prices are believed. They follow demand slowly, some few times a day.
const BELIEVED: Duration = Duration::from_secs(600);
/// What VMs run, as EC2's price history names it.
const PRODUCT: &str = "Linux/UNIX";

/// Prices by type: the lowest of the zones.
pub(crate) type ByType = BTreeMap<String, Price>;

/// What EC2 told last.
#[derive(Debug, Default)]
pub(crate) struct SpotPrices(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    prices: Arc<ByType>,
    asked: Option<Instant>,
    /// A failure was told; the next one is not.
    complained: bool,
}

impl SpotPrices {
    /// What is known now. Old prices are asked for anew meanwhile.
    pub(crate) fn known(
        self: &Arc<Self>,
        api: &Arc<Api>,
        site: &Site,
        types: impl FnOnce() -> Vec<String>,
    ) -> Arc<ByType> {
        let mut told = self.locked();
        if told.asked.is_none_or(|asked| asked.elapsed() >= BELIEVED) {
            told.asked = Some(Instant::now());
            let (spot, api, site, types) = (self.clone(), api.clone(), site.clone(), types());
            tokio::spawn(async move { spot.refresh(&api, &site, &types).await });
        }
        told.prices.clone()
    }

    /// Asks now. A failure leaves what was known, and is told once until it is mended.
    pub(crate) async fn refresh(&self, api: &Api, site: &Site, types: &[String]) {
        self.locked().asked = Some(Instant::now());
        let answer = Box::pin(ask(api, site, types)).await;
        let mut told = self.locked();
        match answer {
            Ok(prices) => (told.prices, told.complained) = (Arc::new(prices), false),
            Err(error) if !told.complained => {
                told.complained = true;
                tracing::warn!(%error, "spot prices are not known: types are ordered by vCPUs and memory");
            }
            Err(error) => tracing::debug!(%error, "spot prices are still not known"),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(api: &Api, site: &Site, types: &[String]) -> Result<ByType, ProviderError> {
    if types.is_empty() {
        return Ok(ByType::new());
    }
    let zones = zones(api, site).await?;
    let operation = "look at spot prices";
    let wanted: Vec<_> = types.iter().map(|name| name.as_str().into()).collect();
    // From now on: EC2 then tells the price that holds, for each type and zone.
    let now = DateTime::from(SystemTime::now());
    let (mut prices, mut next) = (ByType::new(), None::<String>);
    loop {
        let send = |client: aws_sdk_ec2::Client| {
            let call = client.describe_spot_price_history().set_instance_types(Some(wanted.clone()));
            call.product_descriptions(PRODUCT).start_time(now).set_next_token(next.clone()).send()
        };
        let answer = api.call(&site.client, Action::Describe, operation, send).await?;
        cheapest(answer.spot_price_history(), &zones, &mut prices);
        next = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(prices);
        }
    }
}

/// The zones VMs are made in; empty: not known.
async fn zones(api: &Api, site: &Site) -> Result<BTreeSet<String>, ProviderError> {
    if site.subnets.is_empty() {
        return Ok(BTreeSet::new());
    }
    let ids = Some(site.subnets.clone());
    let send = |client: aws_sdk_ec2::Client| client.describe_subnets().set_subnet_ids(ids.clone()).send();
    let answer = api.call(&site.client, Action::Describe, "look at the subnets' zones", send).await?;
    Ok(answer.subnets().iter().filter_map(|subnet| subnet.availability_zone().map(str::to_owned)).collect())
}

/// Takes the lowest price of each type in the zones. What cannot be read is not known.
fn cheapest(history: &[SpotPrice], zones: &BTreeSet<String>, prices: &mut ByType) {
    for told in history {
        let here = zones.is_empty() || told.availability_zone().is_some_and(|zone| zones.contains(zone));
        let price = told.spot_price().and_then(|text| text.parse::<Price>().ok());
        let (true, Some(name), Some(price)) = (here, told.instance_type(), price) else { continue };
        let lowest = prices.entry(name.as_str().to_owned()).or_insert(price);
        *lowest = price.min(*lowest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, zone: &str, price: &str) -> SpotPrice {
        SpotPrice::builder().instance_type(name.into()).availability_zone(zone).spot_price(price).build()
    }

    #[test]
    fn a_type_costs_what_it_costs_in_the_cheapest_zone_that_has_a_subnet() {
        let history = [
            told("m6a.large", "a", "0.040000"),
            told("m6a.large", "b", "0.030000"),
            told("m6a.large", "c", "0.010000"),
            told("t3.medium", "c", "0.010000"),
            told("r5.xlarge", "a", "soon"),
        ];
        let shown = |zones: &[&str]| {
            let mut prices = ByType::new();
            cheapest(&history, &zones.iter().map(|zone| (*zone).to_owned()).collect(), &mut prices);
            prices.into_iter().map(|(name, price)| format!("{name} {price}")).collect::<Vec<_>>()
        };
        assert_eq!(shown(&["a", "b"]), ["m6a.large 0.03"]);
        assert_eq!(shown(&[]), ["m6a.large 0.01", "t3.medium 0.01"]);
    }
}
