//! One moto server for all tests of this process. It ends with the process, however that ends.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use peerpods_test_require::Need;

/// The path of `moto_server`; `make test` installs it and says where (`.ci/moto`).
const PROGRAM: &str = "PEERPODS_TEST_MOTO";
/// What every test here needs.
pub(crate) const NEEDS: &[Need] = &[Need::Variable(PROGRAM)];

/// How long moto may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Moto {
    address: SocketAddr,
    /// Its input is held open: when it closes, the shell below ends the server.
    _child: Child,
}

/// Where moto listens.
pub(crate) fn address() -> SocketAddr {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(start).address
}

fn start() -> Moto {
    let program = std::env::var_os(PROGRAM).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new("sh")
        .args([
            "-c",
            r#""$0" -H 127.0.0.1 -p "$1" >/dev/null 2>&1 & server=$!; cat >/dev/null; kill $server"#,
        ])
        .arg(program)
        .arg(address.port().to_string())
        .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "true")
        .env("MOTO_ENABLE_AMI_VALIDATION", "true")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(began.elapsed() < PATIENCE, "moto does not listen after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Moto { address, _child: child }
}
