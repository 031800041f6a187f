//! What a webhook's answer takes when 1,000 ask at once, beside a server on the same TLS and HTTP that sends back what it gets.
//!
//! ```text
//! 1,000 tasks ── HTTP/1.1 over TLS, as an API server: 25 idle connections are kept ──▶ echo | webhook, in turn, ROUNDS times
//!   always:  each asks again as soon as it is answered. 1,000 questions are under way at every moment, so that what one waits is
//!            1,000 ÷ (answers a second) on any machine: this says how many the machine can answer, and the ratio what we add.
//!   paced:   each asks once a second, 1,000 a second in all, spread evenly; counted from when a question is due.
//!   burst:   each asks once, all at the same moment, then a second of peace: 975 new connections.
//! ```
//!
//! Clients and servers share one machine, so half of every time is the clients', and more when others use it as well. Two numbers are not:
//! `cpu` is what the server's threads alone computed for one answer, TLS and HTTP included; `answer` is the webhook's own clock from the
//! last byte of a question to the first of its answer (`within` a bound of its histogram). `BENCH_ROUNDS` sets the number of turns.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

mod client;
mod cpu;
mod question;
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use client::Clients;
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Secret;
use peerpods_operator::webhook::certificates::{Serving, held, make, names_of};
use peerpods_operator::webhook::pods::Settings;
use peerpods_operator::webhook::server::took::Counted;
use peerpods_operator::webhook::server::{Question, Webhooks};
use servers::{Nobody, start_echo, start_webhook};

const AT_ONCE: usize = 1000;

fn main() {
    // `cargo test --all-targets` runs benchmarks too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = |name: &str| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name(name).enable_all().build().unwrap()
    };
    let (servers, clients) = (runtime(cpu::SERVER), runtime("client"));
    let made = make::make(&names_of("svc", "ns"), SystemTime::now()).unwrap();
    let serving = Serving::untrusted().unwrap();
    serving.show(&held::serving_of(&Secret { data: Some(held::fresh(&made)), ..Secret::default() }).unwrap());
    let webhooks = Arc::new(Webhooks::new(Settings::default(), Arc::new(Nobody), serving.clone()));
    let webhook = servers.block_on(start_webhook(webhooks.clone()));
    let echo = servers.block_on(start_echo(serving));
    let body = Bytes::from(question::question());
    println!("a pod of {} bytes, {AT_ONCE} clients, HTTP/1.1 over TLS 1.3", body.len());
    println!(
        "{:<8} {:<8} {:>10} {:>10} {:>10} {:>10}  {:>6} answer",
        "", "", "p50", "p99", "a second", "cpu", "opened"
    );
    clients.block_on(async {
        let tls = client::tls(&made.authority);
        let both = [Clients::new(&tls, echo, &body), Clients::new(&tls, webhook, &body)];
        let bench = Bench { both, webhooks };
        bench.compare("always", async |clients| clients.all_the_time(AT_ONCE, 10).await).await;
        let second = Duration::from_secs(1);
        bench.compare("paced", async |clients| clients.paced(AT_ONCE, 2, second).await).await;
        bench
            .compare("burst", async |clients| {
                tokio::time::sleep(second).await;
                clients.all_the_time(AT_ONCE, 1).await
            })
            .await;
        bench.compare("alone", async |clients| clients.all_the_time(1, 300).await).await;
        bench.by_itself(&body).await;
    });
}

struct Bench {
    both: [Arc<Clients>; 2],
    webhooks: Arc<Webhooks>,
}

impl Bench {
    /// Both in turn; the first turn warms up.
    async fn compare(&self, what: &str, ask: impl AsyncFn(&Arc<Clients>) -> Vec<Duration>) {
        let rounds = std::env::var("BENCH_ROUNDS").map_or(8, |text| text.parse().unwrap());
        let mut samples = [Vec::new(), Vec::new()];
        let mut spent = [Spent::default(); 2];
        let mut before = Counted::default();
        for round in 0..=rounds {
            if round == 1 {
                before = self.counted();
            }
            for (n, clients) in self.both.iter().enumerate() {
                let (began, computed, opened) = (Instant::now(), cpu::of_servers(), clients.opened());
                let took = ask(clients).await;
                if round > 0 {
                    spent[n].time += began.elapsed();
                    spent[n].computed += cpu::of_servers() - computed;
                    spent[n].opened += clients.opened() - opened;
                    samples[n].extend(took);
                }
            }
        }
        table(what, samples, spent, &self.counted().since(&before));
    }

    fn counted(&self) -> Counted {
        self.webhooks.counts().took(Question::Pod).counted()
    }

    async fn by_itself(&self, body: &Bytes) {
        let mut took = Vec::new();
        let all = Instant::now();
        for _ in 0..20_000 {
            let began = Instant::now();
            self.webhooks.answer(Question::Pod, body).await.unwrap();
            took.push(began.elapsed());
        }
        row("no net", "webhook", &mut took, &Spent { time: all.elapsed(), ..Spent::default() }, "");
    }
}

fn table(what: &str, mut samples: [Vec<Duration>; 2], spent: [Spent; 2], counted: &Counted) {
    let echo = row(what, "echo", &mut samples[0], &spent[0], "");
    let within = |part| counted.bound_of(part).map_or("beyond all bounds".to_owned(), ms);
    let mean = ms(counted.sum / u32::try_from(counted.count().max(1)).unwrap());
    let answer = format!("mean {mean}, p50 within {}, p99 within {}", within(0.5), within(0.99));
    let webhook = row(what, "webhook", &mut samples[1], &spent[1], &answer);
    let ratio = webhook.as_secs_f64() / echo.as_secs_f64();
    let more = webhook.saturating_sub(echo);
    println!("{what:<8} at p99 the webhook takes {ratio:.2} times what echo does, {} more", ms(more));
}

/// What turns took together.
#[derive(Clone, Copy, Default)]
struct Spent {
    time: Duration,
    computed: Duration,
    opened: usize,
}

/// Answers with p99.
fn row(what: &str, who: &str, took: &mut [Duration], spent: &Spent, answer: &str) -> Duration {
    let rate = took.len() as f64 / spent.time.as_secs_f64();
    let cpu = ms(spent.computed / u32::try_from(took.len()).unwrap());
    let (median, p99) = (ms(quantile(took, 0.5)), quantile(took, 0.99));
    let opened = spent.opened;
    println!("{what:<8} {who:<8} {median:>10} {:>10} {rate:>10.0} {cpu:>10}  {opened:>6} {answer}", ms(p99));
    p99
}

fn ms(took: Duration) -> String {
    format!("{:.3} ms", took.as_secs_f64() * 1e3)
}

fn quantile(samples: &mut [Duration], part: f64) -> Duration {
    samples.sort_unstable();
    samples[((samples.len() as f64 * part) as usize).min(samples.len() - 1)]
}
