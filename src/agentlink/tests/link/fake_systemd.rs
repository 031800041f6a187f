//! A whole D-Bus peer that stands for the host's systemd, as far as links need one: it runs what it is asked to in processes of their own,
//! knows their states, collects what ended, and can be told to misbehave. It answers `Hello` as the bus
//! before it would, and hangs up on whoever does not begin with it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::message::{Header, Type};
use zbus::{Connection, Guid, Message, OwnedObjectPath, OwnedVariant, Variant};

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What it is asked.
    Obliging,
    /// Starts are answered with this error.
    Refusing(&'static str),
    /// Starts are never answered.
    HangingAtStart,
    /// Nothing is ever answered.
    Hanging,
    /// What it starts ends at once, as where the program is not on the host.
    StartingNothing,
}

/// One unit it knows.
pub(crate) struct FakeUnit {
    pub(crate) description: String,
    pub(crate) program: String,
    /// None: a unit that failed and was kept.
    pub(crate) child: Option<Child>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) units: BTreeMap<String, FakeUnit>,
    /// Every method that was called, and for starts the unit's properties.
    pub(crate) calls: Vec<String>,
    pub(crate) properties: BTreeMap<String, OwnedVariant>,
}

impl World {
    /// As `CollectMode=inactive-or-failed` does.
    fn collect(&mut self) {
        self.units
            .retain(|_, unit| unit.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_none()));
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.calls.iter().filter(|call| *call == method).count()
    }
}

/// The peer. Dropped, it is gone; what it started stays.
pub(crate) struct FakeSystemd {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) socket: PathBuf,
    accepting: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl FakeSystemd {
    pub(crate) fn start(manner: Manner) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let shared = world.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream.into_std().unwrap(), shared.clone(), manner));
            }
        });
        Self { world, socket, accepting, _dir: dir }
    }

    /// What `systemctl` would list.
    pub(crate) fn units(&self) -> Vec<String> {
        let mut world = self.world.lock().unwrap();
        world.collect();
        world.units.keys().cloned().collect()
    }
}

impl Drop for FakeSystemd {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: std::os::unix::net::UnixStream, world: Arc<Mutex<World>>, manner: Manner) {
    let server = Builder::unix_stream(stream).server(Guid::generate()).p2p();
    let Ok(mut messages) = server.build_message_stream().await else { return };
    let connection = Connection::from(&messages);
    let mut greeted = false;
    while let Some(Ok(message)) = messages.next().await {
        let header = message.header();
        if header.message_type() != Type::MethodCall || manner == Manner::Hanging {
            continue;
        }
        let member = header.member().unwrap().to_string();
        if !greeted {
            if member != "Hello" {
                return;
            }
            greeted = true;
            connection.reply(&header, &":1.1").await.unwrap();
            continue;
        }
        world.lock().unwrap().calls.push(member.clone());
        let answered = match member.as_str() {
            "StartTransientUnit" => start(&connection, &message, &world, manner).await,
            _ => answer(&connection, &message, &world).await,
        };
        if answered.is_err() {
            return;
        }
    }
}

type Properties = Vec<(String, OwnedVariant)>;

async fn start(
    connection: &Connection,
    message: &Message,
    world: &Mutex<World>,
    manner: Manner,
) -> zbus::Result<()> {
    let header = message.header();
    match manner {
        Manner::Refusing(error) => return connection.reply_error(&header, error, &("no",)).await,
        Manner::HangingAtStart => return Ok(()),
        _ => {}
    }
    let (name, mode, properties, _): (String, String, Properties, Vec<(String, Properties)>) =
        message.body().deserialize()?;
    assert_eq!(mode, "fail");
    let exists = {
        let mut world = world.lock().unwrap();
        world.collect();
        world.units.contains_key(&name)
    };
    if exists {
        return connection.reply_error(&header, "org.freedesktop.systemd1.UnitExists", &("there",)).await;
    }
    let properties: BTreeMap<String, OwnedVariant> = properties.into_iter().collect();
    let unit = spawn(&properties, manner);
    {
        let mut world = world.lock().unwrap();
        world.units.insert(name, unit);
        world.properties = properties;
    }
    connection.reply(&header, &job()).await
}

fn spawn(properties: &BTreeMap<String, OwnedVariant>, manner: Manner) -> FakeUnit {
    let exec = properties["ExecStart"].try_clone().unwrap();
    let exec: Vec<(String, Vec<String>, bool)> = exec.try_into().unwrap();
    let (program, argv, _) = &exec[0];
    let run = if manner == Manner::StartingNothing { Path::new("/bin/false") } else { Path::new(program) };
    let child = Command::new(run)
        .arg0(&argv[0])
        .args(argv[1..].iter().map(|argument| argument.replace("$$", "$")))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let description = properties["Description"].try_clone().unwrap().try_into().unwrap();
    FakeUnit { description, program: program.clone(), child: Some(child) }
}

async fn answer(connection: &Connection, message: &Message, world: &Mutex<World>) -> zbus::Result<()> {
    let header = message.header();
    world.lock().unwrap().collect();
    match header.member().unwrap().as_str() {
        "Get" => {
            let (_, property): (String, String) = message.body().deserialize()?;
            let found = get(&world.lock().unwrap(), header.path().unwrap().as_str(), &property);
            match found {
                Some(value) => connection.reply(&header, &value).await,
                None => {
                    let unknown = "org.freedesktop.DBus.Error.UnknownObject";
                    connection.reply_error(&header, unknown, &("gone",)).await
                }
            }
        }
        "ListUnitsByPatterns" => {
            let rows = list(&world.lock().unwrap());
            connection.reply(&header, &rows).await
        }
        "GetUnit" => with_unit(connection, &header, message, world, |_| {}).await,
        "ResetFailedUnit" | "StopUnit" => with_unit(connection, &header, message, world, end).await,
        _ => connection.reply_error(&header, "org.freedesktop.DBus.Error.UnknownMethod", &("what?",)).await,
    }
}

/// Does something to the unit that is named first in the body, and answers with a path.
async fn with_unit(
    connection: &Connection,
    header: &Header<'_>,
    message: &Message,
    world: &Mutex<World>,
    act: fn(&mut FakeUnit),
) -> zbus::Result<()> {
    let name: String = match message.body().deserialize::<(String, String)>() {
        Ok((name, _)) => name,
        Err(_) => message.body().deserialize()?,
    };
    let found = {
        let mut world = world.lock().unwrap();
        world.units.get_mut(&name).map(act).is_some_and(|()| {
            // A unit that failed and was kept is forgotten by whatever is asked of it but its state.
            let forgotten = header.member().unwrap() != "GetUnit" && world.units[&name].child.is_none();
            if forgotten {
                world.units.remove(&name);
            }
            true
        })
    };
    if found {
        connection.reply(header, &path_of(&name)).await
    } else {
        connection.reply_error(header, NO_SUCH_UNIT, &("not loaded",)).await
    }
}

fn end(unit: &mut FakeUnit) {
    if let Some(child) = &unit.child {
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL);
    }
}

fn get(world: &World, path: &str, property: &str) -> Option<Variant<'static>> {
    if property == "Version" {
        return Some("252 (fake)".to_owned().into());
    }
    let (_, unit) = world.units.iter().find(|(name, _)| path_of(name).as_str() == path)?;
    Some(match property {
        "ActiveState" => if unit.child.is_some() { "active" } else { "failed" }.to_owned().into(),
        "Description" => unit.description.clone().into(),
        "ExecStart" => {
            let (program, none) = (unit.program.clone(), 0u64);
            vec![(program, Vec::<String>::new(), false, none, none, none, none, 0u32, 0i32, 0i32)].into()
        }
        _ => return None,
    })
}

type Row = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

fn list(world: &World) -> Vec<Row> {
    let no = String::new;
    let row = |(name, unit): (&String, &FakeUnit)| {
        let description = unit.description.clone();
        (name.clone(), description, no(), no(), no(), no(), path_of(name), 0, no(), job())
    };
    world.units.iter().map(row).collect()
}

fn job() -> OwnedObjectPath {
    OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/1").unwrap()
}

/// As systemd escapes names in paths.
fn path_of(name: &str) -> OwnedObjectPath {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("_{other:02x}"),
        })
        .collect();
    OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/unit/{escaped}")).unwrap()
}
