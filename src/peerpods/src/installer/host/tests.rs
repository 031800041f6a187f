use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

#[test]
fn links_mean_what_they_mean_on_the_host_and_none_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let root = inside.path();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("real")).unwrap();
    // Up and out, and absolute to a place that only the container has.
    symlink("../../../../../../../real", root.join("etc/up")).unwrap();
    symlink(outside.path(), root.join("etc/out")).unwrap();
    symlink("/real", root.join("etc/absolute")).unwrap();
    symlink(outside.path().join("secret"), root.join("etc/file")).unwrap();
    let host = Host::at(root).unwrap();
    host.write("/etc/up/a", "a").unwrap();
    host.write("/etc/absolute/b", "b").unwrap();
    assert_eq!(fs::read_to_string(root.join("real/a")).unwrap(), "a");
    assert_eq!(fs::read_to_string(root.join("real/b")).unwrap(), "b");
    assert!(host.write("/etc/out/c", "c").is_err());
    assert!(!host.has("/etc/out/secret").unwrap());
    assert_eq!(host.read("/etc/file").unwrap(), File::Other("a symbolic link to nothing".to_owned()));
    // In place of a link, not through it.
    host.write("/etc/file", "mine").unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
    assert_eq!(host.read("/etc/file").unwrap(), File::Text("mine".to_owned()));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_file_keeps_its_mode_and_a_new_one_is_everybodys_to_read() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/crio/crio.conf.d")).unwrap();
    fs::write(root.path().join("etc/a"), "old").unwrap();
    fs::set_permissions(root.path().join("etc/a"), fs::Permissions::from_mode(0o640)).unwrap();
    let host = Host::at(root.path()).unwrap();
    host.write("/etc/a", "new").unwrap();
    host.write("/etc/crio/crio.conf.d/b", "new").unwrap();
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("etc/a"), mode("etc/crio/crio.conf.d/b")), (0o640, 0o644));
    assert_eq!(staging("/etc/crio/crio.conf.d/b"), "/etc/crio/.peerpods-install-node");
    fs::write(root.path().join("etc/crio/.peerpods-install-node"), "half").unwrap();
    host.sweep("/etc/crio/crio.conf.d/b").unwrap();
    assert_eq!(host.list("/etc/crio").unwrap(), ["crio.conf.d"]);
}

#[test]
fn one_works_on_a_host_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("var/lib")).unwrap();
    let (first, second) = (Host::at(root.path()).unwrap(), Host::at(root.path()).unwrap());
    let held = first.lock().unwrap();
    assert!(held.is_some() && second.lock().unwrap().is_none());
    drop(held);
    assert!(second.lock().unwrap().is_some());
}
