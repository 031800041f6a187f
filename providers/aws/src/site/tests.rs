use std::collections::BTreeMap;
use std::net::SocketAddr;

use peerpods_podvm::guest_config::SecretText;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Instance metadata, version 2: a session token first, then paths.
async fn metadata(paths: BTreeMap<&'static str, &'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, paths.clone()));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, paths: BTreeMap<&'static str, &'static str>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let (status, body) = match head.split(' ').nth(1) {
        Some("/latest/api/token") => ("200 OK", "token"),
        _ if !head.contains("token") => ("401 Unauthorized", ""),
        Some(path) => paths.get(path).map_or(("404 Not Found", ""), |body| ("200 OK", *body)),
        None => ("400 Bad Request", ""),
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn told_by(paths: &[(&'static str, &'static str)]) -> Worker {
    let address = metadata(paths.iter().copied().collect()).await;
    let client = imds::Client::builder().endpoint(format!("http://{address}")).unwrap().build();
    look_around(&client).await
}

const MAC: (&str, &str) = ("/latest/meta-data/mac", "02:29:96:8f:6a:2d");

#[tokio::test]
async fn the_workers_own_subnet_and_groups_are_found() {
    let worker = told_by(&[
        MAC,
        ("/latest/meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/subnet-id", "subnet-01234567\n"),
        ("/latest/meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/security-group-ids", "sg-1\nsg-2"),
    ])
    .await;
    assert_eq!(worker.subnet.as_deref(), Some("subnet-01234567"));
    assert_eq!(worker.security_groups, ["sg-1", "sg-2"]);
}

#[tokio::test]
async fn what_metadata_does_not_tell_stays_unknown() {
    assert_eq!(told_by(&[]).await, Worker::default());
    assert_eq!(told_by(&[MAC]).await, Worker::default());
}

#[tokio::test]
async fn what_is_configured_is_not_looked_for() {
    let config = AwsConfig {
        access_key_id: Some(SecretText::new("AKIA")),
        secret_access_key: Some(SecretText::new("s")),
        region: Some("eu-central-1".to_owned()),
        subnets: vec!["subnet-01234567".to_owned()],
        security_groups: vec!["sg-01234567".to_owned()],
        ..AwsConfig::default()
    };
    let site = find(&config).await.unwrap();
    assert_eq!((site.region.as_str(), site.subnets.as_slice()), ("eu-central-1", config.subnets.as_slice()));
    assert_eq!(site.security_groups, config.security_groups);
}
