//! What AWS has and moto does not: dry runs of every call, quotas, spot prices that differ, spot instances that are taken back.

use crate::form::Parameters;
use crate::front::Decision;

/// Calls whose `DryRun` moto overlooks.
const OVERLOOKED: [&str; 3] = ["ModifyInstanceAttribute", "DescribeVolumes", "DescribeSpotPriceHistory"];
/// Calls of services that speak JSON.
const JSON: [&str; 1] = ["GetServiceQuota"];

#[derive(Default)]
pub(crate) struct Beyond {
    /// The quota of vCPUs.
    pub(crate) vcpus: Option<f64>,
    /// Type, zone and price of spot instances.
    pub(crate) spot_prices: Vec<(&'static str, &'static str, &'static str)>,
    /// Whether what ended was taken back by EC2.
    pub(crate) took_back: bool,
}

pub(crate) fn is_json(action: &str) -> bool {
    JSON.contains(&action)
}

pub(crate) fn json_error(status: u16, code: &str) -> Decision {
    Decision::Answer(status, format!(r#"{{"__type":"{code}","message":"injected {code}"}}"#))
}

/// EC2's words.
pub(crate) fn denial(action: &str) -> String {
    format!(
        "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/pp is not authorized to perform: \
         {action} on resource: arn:aws:ec2:us-east-1:123456789012:instance/* because no identity-based policy allows the {action} action"
    )
}

impl Beyond {
    /// The answer to what moto cannot answer.
    pub(crate) fn answer(&self, action: &str, parameters: &Parameters) -> Option<Decision> {
        if OVERLOOKED.contains(&action) && parameters.get("DryRun").is_some_and(|dry| dry == "true") {
            let text = "Request would have succeeded, but DryRun flag is set.";
            return Some(Decision::Answer(412, crate::form::error("DryRunOperation", text, "req-dry")));
        }
        match action {
            "GetServiceQuota" => Some(self.quota(&parameters["QuotaCode"])),
            "DescribeSpotPriceHistory" => Some(self.prices()),
            _ => None,
        }
    }

    fn quota(&self, code: &str) -> Decision {
        let Some(vcpus) = self.vcpus else { return json_error(400, "NoSuchResourceException") };
        let quota = format!(
            r#"{{"Quota":{{"QuotaCode":"{code}","QuotaName":"Running instances","Value":{vcpus:.1}}}}}"#
        );
        Decision::Answer(200, quota)
    }

    fn prices(&self) -> Decision {
        let item = |(name, zone, price): &(&str, &str, &str)| {
            format!(
                "<item><instanceType>{name}</instanceType><productDescription>Linux/UNIX</productDescription>\
                 <spotPrice>{price}</spotPrice><availabilityZone>{zone}</availabilityZone></item>"
            )
        };
        let items: String = self.spot_prices.iter().map(item).collect();
        Decision::Answer(
            200,
            format!(
                "<DescribeSpotPriceHistoryResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
                 <spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken></nextToken></DescribeSpotPriceHistoryResponse>"
            ),
        )
    }

    /// Moto knows one reason for an end.
    pub(crate) fn reason(&self, xml: String) -> String {
        match self.took_back {
            true => xml
                .replace("Client.UserInitiatedShutdown: User initiated shutdown", "Spot instance termination")
                .replace("Client.UserInitiatedShutdown", "Server.SpotInstanceTermination"),
            false => xml,
        }
    }
}
