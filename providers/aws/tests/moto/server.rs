//! One moto server for all tests of this process. It ends with the process, however that ends.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use peerpods_test_require::Need;

/// The path of `moto_server`; `make test` installs it and says where (`.ci/moto`).
const PROGRAM: &str = "PEERPODS_TEST_MOTO";
/// What every test here needs.
pub(crate) const NEEDS: &[Need] = &[Need::Variable(PROGRAM)];

/// How long moto may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of what it said before is told when it did not start.
const TOLD: usize = 4000;

/// Runs the program and ends it when the input closes, as it does when this process ends; ends at once when the program does.
const KEEPER: &str = r#"
"$0" -H 127.0.0.1 -p "$1" >/dev/null 3<&- & server=$!
{ cat >/dev/null; kill $server 2>/dev/null; } <&3 3<&- &
exec 3<&-
wait $server
"#;

struct Moto {
    address: SocketAddr,
    /// Its input is held open.
    _child: Child,
}

/// Where moto listens.
///
/// # Panics
/// When it does not start, with what it said; every later call at once with the same.
pub(crate) fn address() -> SocketAddr {
    static MOTO: OnceLock<Result<Moto, String>> = OnceLock::new();
    let program = std::env::var(PROGRAM).unwrap();
    match MOTO.get_or_init(|| start(&program)) {
        Ok(moto) => moto.address,
        Err(why) => panic!("{why}"),
    }
}

fn start(program: &str) -> Result<Moto, String> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec 3<&0; {KEEPER}"), program, &address.port().to_string()])
        .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "true")
        .env("MOTO_ENABLE_AMI_VALIDATION", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = listen_to(&mut child);
    let began = Instant::now();
    loop {
        // First whether it lives: by then somebody else may listen there.
        if let Some(status) = child.try_wait().unwrap() {
            // What it said last may still be on its way.
            std::thread::sleep(Duration::from_millis(200));
            return Err(format!("{program} ended at once ({status}): {}", last_of(&said)));
        }
        if TcpStream::connect(address).is_ok() {
            return Ok(Moto { address, _child: child });
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{program} does not listen after {PATIENCE:?}: {}", last_of(&said)));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads what the server says for as long as it lives, or it would wait for somebody to.
fn listen_to(child: &mut Child) -> Arc<Mutex<Vec<u8>>> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let (mut errors, heard) = (child.stderr.take().unwrap(), said.clone());
    std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(length @ 1..) = errors.read(&mut some) {
            let mut heard = heard.lock().unwrap();
            heard.extend_from_slice(&some[..length]);
            let surplus = heard.len().saturating_sub(TOLD);
            heard.drain(..surplus);
        }
    });
    said
}

fn last_of(said: &Mutex<Vec<u8>>) -> String {
    let said = String::from_utf8_lossy(&said.lock().unwrap()).trim().to_owned();
    if said.is_empty() { "it said nothing".to_owned() } else { said }
}

#[test]
fn a_server_that_ends_at_once_is_noticed_and_what_it_said_is_told() {
    // It takes the address for a file's name.
    let why = start("ls").err().unwrap();
    assert!(why.starts_with("ls ended at once (exit status: 2)") && why.contains("127.0.0.1"), "{why}");
}
