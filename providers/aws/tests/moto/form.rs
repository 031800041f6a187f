//! EC2's Query protocol, as far as a proxy has to read it: a form in, XML out.

use std::collections::BTreeMap;

/// A request's parameters.
pub(crate) type Parameters = BTreeMap<String, String>;

/// Reads a form.
pub(crate) fn read(body: &[u8]) -> Parameters {
    form_urlencoded::parse(body).into_owned().collect()
}

/// Reads a call of a service that speaks JSON: `ServiceQuotasV20190624.GetServiceQuota`.
pub(crate) fn of_json(target: &str, body: &[u8]) -> Parameters {
    let object: serde_json::Value = serde_json::from_slice(body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut all: Parameters =
        object.as_object().unwrap().iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let action = target.split_once('.').unwrap().1;
    all.insert("Action".to_owned(), action.to_owned());
    all
}

/// Writes a form.
pub(crate) fn write(parameters: &Parameters) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

/// The values of a list, such as `InstanceId.1`, `InstanceId.2`.
pub(crate) fn list(parameters: &Parameters, name: &str) -> Vec<String> {
    let prefix = format!("{name}.");
    parameters.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, value)| value.clone()).collect()
}

/// The texts of every element of that name.
pub(crate) fn texts(xml: &str, element: &str) -> Vec<String> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let after = xml.split(open.as_str()).skip(1);
    after.filter_map(|rest| rest.split_once(close.as_str())).map(|(text, _)| text.to_owned()).collect()
}

/// AWS's error document.
pub(crate) fn error(code: &str, message: &str, request: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
         <Message>{message}</Message></Error></Errors><RequestID>{request}</RequestID></Response>"
    )
}

/// A `DescribeInstances` answer without the reservations that have one of these instances.
pub(crate) fn without(xml: &str, hidden: &[String]) -> String {
    let marker = "<item><reservationId>";
    let Some(first) = xml.find(marker) else { return xml.to_owned() };
    let end = xml.find("</reservationSet>").unwrap_or(xml.len());
    let kept = xml[first..end].split(marker).skip(1).filter(|one| !hidden.iter().any(|id| one.contains(id)));
    let kept: String = kept.map(|one| format!("{marker}{one}")).collect();
    format!("{}{kept}{}", &xml[..first], &xml[end..])
}

#[test]
fn reservations_are_cut_out_whole() {
    let one =
        |id: &str| format!("<item><reservationId>r</reservationId><instanceId>{id}</instanceId></item>");
    let xml = format!("<a><reservationSet>{}{}</reservationSet></a>", one("i-1"), one("i-2"));
    assert_eq!(
        without(&xml, &["i-1".to_owned()]),
        format!("<a><reservationSet>{}</reservationSet></a>", one("i-2"))
    );
    assert_eq!(without(&xml, &[]), xml);
}
