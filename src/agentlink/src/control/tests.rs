use super::*;

#[test]
fn what_is_asked_is_what_is_read() {
    let target = LinkTarget {
        address: "10.0.0.7:15150".parse().unwrap(),
        server_name: "podvm-x".to_owned(),
        identity: crate::link::LinkIdentity {
            certificate: "c\n".to_owned(),
            key: "k".to_owned(),
            authority: "a".to_owned(),
        },
        guest: GuestTrust::Authority,
        deadline: Duration::from_millis(1500),
    };
    let line = to_line(&Ask::connect(&target)).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(read["v"], 1, "the first links cannot read it");
    assert!(read["target"].get("guest").is_none());
    let Ok(Request::Connect(read)) = Asked::parse(&line).request else { panic!("not a connect") };
    assert_eq!((read.address, read.deadline), (target.address, target.deadline));
    assert_eq!(read.identity.certificate, "c\n");
    assert!(matches!(Asked::parse(&to_line(&Ask::status()).unwrap()).request, Ok(Request::Status)));
    assert!(matches!(Asked::parse(&to_line(&Ask::close()).unwrap()).request, Ok(Request::Close)));
}

#[test]
fn a_connect_that_says_how_the_guest_is_known_asks_for_a_link_that_understands_it() {
    let token = peerpods_podvm::token::AdmissionToken::new(Zeroizing::new([9; 32]));
    for guest in [GuestTrust::Token(token), GuestTrust::Key(peerpods_podvm::token::GuestKey([3; 32]))] {
        let target = LinkTarget {
            address: "10.0.0.7:15150".parse().unwrap(),
            server_name: "podvm-x".to_owned(),
            identity: crate::link::LinkIdentity {
                certificate: "c".to_owned(),
                key: "k".to_owned(),
                authority: "a".to_owned(),
            },
            guest: guest.clone(),
            deadline: Duration::from_millis(1500),
        };
        let Asked { v, request } = Asked::parse(&to_line(&Ask::connect(&target)).unwrap());
        let Ok(Request::Connect(read)) = request else { panic!("not a connect") };
        assert_eq!((v, read.guest), (2, guest));
        assert!(!format!("{target:?}").contains("CQkJ"), "the token is shown");
    }
}

#[test]
fn every_request_there_is_can_be_asked_of_the_first_links() {
    assert_eq!((Ask::status().v, Ask::close().v), (1, 1));
}

#[test]
fn other_operations_and_texts_are_told_so() {
    for (line, expected) in [
        (r#"{"v":1,"op":"dance"}"#, "\"dance\""),
        (r#"{"v":1}"#, "no JSON object"),
        ("", "no JSON object"),
        (r#"{"v":1,"op":"connect","target":{"key":"SECRET"}}"#, "target"),
    ] {
        let Err(Refusal::Fault(message)) = Asked::parse(line.as_bytes()).request else { panic!("{line}") };
        assert!(message.contains(expected) && !message.contains("SECRET"), "{line}: {message}");
    }
}

#[test]
fn versions_outside_the_range_are_unsupported_whatever_they_ask() {
    for (line, v) in [(r#"{"v":0,"op":"status"}"#, 2), (r#"{"v":3,"op":"dance","x":{}}"#, 2)] {
        let asked = Asked::parse(line.as_bytes());
        assert_eq!((asked.v, asked.request.unwrap_err()), (v, Refusal::Unsupported), "{line}");
    }
}

#[test]
fn a_status_of_any_version_can_be_read() {
    // As the links of commit dfd8ffc write it, and as one might that is not written yet.
    let read = |text: &str| match serde_json::from_str::<Answer>(text).unwrap().body {
        Body::Status(status) => status,
        other => panic!("{other:?}"),
    };
    let old = read(
        r#"{"v":1,"answer":"status","sandbox":"s","pid":7,"version":"0.1.0","guest":"connected","shims":2}"#,
    );
    assert_eq!((old.shim, old.speaks), (ShimProcess::Unknown, Speaks { oldest: 1, newest: 1 }));
    let new = read(
        r#"{"v":1,"answer":"status","sandbox":"s","pid":7,"version":"9","guest":"dreaming","shims":2,"shim":"asleep",
            "speaks":{"oldest":1,"newest":9,"dialect":"x"},"more":[1]}"#,
    );
    assert_eq!((new.guest, new.shim, new.speaks.newest), (GuestState::Unknown, ShimProcess::Unknown, 9));
}

#[tokio::test]
async fn lines_are_bounded_and_kept_apart() {
    let mut lines = Lines::new(&b"one\ntwo\nthr"[..]);
    assert_eq!(lines.next().await.unwrap().unwrap().as_slice(), b"one");
    assert_eq!(lines.next().await.unwrap().unwrap().as_slice(), b"two");
    assert_eq!(lines.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let long = vec![b'x'; MAX_LINE + 1];
    let error = Lines::new(&long[..]).next().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
