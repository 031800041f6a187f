use std::fmt::Write as _;

use super::*;

/// The head of what containerd 1.6 prints as its default.
const V1_6: &str = "disabled_plugins = []\nimports = []\noom_score = 0\nplugin_dir = \"\"\nrequired_plugins = []\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\ntemp = \"\"\nversion = 2\n\n[cgroup]\n  path = \"\"\n\n[plugins]\n\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"registry.k8s.io/pause:3.6\"\n\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      default_runtime_name = \"runc\"\n\n      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes]\n\n        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n          runtime_type = \"io.containerd.runc.v2\"\n\n          [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n            SystemdCgroup = true\n";
/// As kubeadm's guides have it.
const V1_7: &str = "version = 2\n# pods\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true";
/// The head of what containerd 2.0 prints.
const V2_0: &str = "version = 3\nroot = '/var/lib/containerd'\nstate = '/run/containerd'\ndisabled_plugins = []\nimports = []\n\n[grpc]\n  address = '/run/containerd/containerd.sock'\n\n[plugins]\n  [plugins.'io.containerd.cri.v1.runtime']\n    enable_selinux = false\n    [plugins.'io.containerd.cri.v1.runtime'.containerd]\n      default_runtime_name = 'runc'\n";
/// And 2.3.
const V2_3: &str =
    "version = 4\nimports = ['/etc/containerd/conf.d/*.toml']\n\n[plugins.'io.containerd.cri.v1.runtime']\n";

const SECTIONS: &str = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata-remote-cc]\nruntime_type = \"io.containerd.kata-remote-cc.v2\"\n";

#[test]
fn a_block_is_at_the_end_and_taking_it_away_gives_the_same_bytes() {
    for text in [V1_6, V1_7, "", "version = 2", "version = 2\n\n\n", "version = 2\r\n[plugins]\r\n"] {
        let edited = with_block(text, SECTIONS).unwrap();
        assert!(edited.starts_with(text) && edited.ends_with(END), "{edited}");
        assert!(Config::read(&edited).unwrap().has_handler("kata-remote-cc"));
        assert_eq!(without_ours(&edited).as_deref(), Some(text));
        assert_eq!(without_ours(text).as_deref(), Some(text));
    }
}

#[test]
fn what_somebody_wrote_below_the_block_stays_and_stays_good() {
    for text in [V1_6, V1_7] {
        let mut edited = with_block(text, SECTIONS).unwrap();
        writeln!(edited, "[ttrpc]\nuid = 7").unwrap();
        let without = without_ours(&edited).unwrap();
        let table: Table = without.parse().unwrap();
        assert_eq!(table["ttrpc"]["uid"].as_integer(), Some(7), "{without}");
        assert!(without.starts_with(text) && !without.contains(MARK));
    }
}

#[test]
fn an_import_is_added_where_there_is_none_that_covers_ours() {
    let commented = "# imports = [\"/x\"]\nversion = 3\n";
    let many = "version = 3\nimports = [\n  \"/a/*.toml\", # a\n  \"/b.toml\",\n]\n[grpc]\nuid = 0\n";
    let one = "version = 3\n  imports=['/a/*.toml']  # keep\n";
    for text in [V2_0, commented, many, one, "\u{feff}version = 3\n", "version = 3", "[grpc]\nuid = 0\n"] {
        assert!(!Config::read(text).is_ok_and(|config| config.imports_ours()));
        let edited = with_import(text).unwrap();
        assert!(Config::read(&edited).unwrap().imports_ours(), "{edited}");
        assert_eq!(without_ours(&edited).as_deref(), Some(text), "{edited}");
    }
    assert!(Config::read(V2_3).unwrap().imports_ours());
}

#[test]
fn where_it_is_not_certain_where_imports_are_nothing_is_edited() {
    for text in [
        // In a text that looks like it, in a form that is not looked for, and not as a list.
        "a = '''\nimports = [\n'''\n\"imports\" = []\n",
        "version = 3\n\"imports\" = []\n",
        "imports = \"x\"\n",
        "no toml",
    ] {
        assert_eq!(with_import(text), None, "{text}");
    }
    let taken = format!("version = 2\n{SECTIONS}");
    assert_eq!(with_block(&taken, SECTIONS), None, "a table may be there once");
    assert_eq!(with_block("version = 2\nplugins = {}\n", SECTIONS), None);
}

#[test]
fn a_part_that_somebody_changed_is_not_taken_for_ours() {
    let edited = with_block(V1_7, SECTIONS).unwrap();
    for bad in [
        edited.replace(END, ""),
        edited.replace("# BEGIN peerpods install-node", "# begin peerpods install-node"),
        with_import(V2_0).unwrap().replace("peerpods*.toml", "other.toml"),
    ] {
        assert_eq!(without_ours(&bad), None, "{bad}");
    }
    // A change inside is undone.
    let bent = edited.replace("kata-remote-cc.v2", "bent.v2");
    assert_eq!(without_ours(&bent).as_deref(), Some(V1_7));
}

#[test]
fn a_file_says_its_version_its_imports_and_its_handlers() {
    for (text, version, plugin) in [
        (V1_6, 2, Some("io.containerd.grpc.v1.cri")),
        (V2_0, 3, Some("io.containerd.cri.v1.runtime")),
        (V2_3, 4, Some("io.containerd.cri.v1.runtime")),
        ("root = '/x'\n", 1, None),
    ] {
        let config = Config::read(text).unwrap();
        assert_eq!((config.version(), config.written_as().map(ContainerdVersion::plugin)), (version, plugin));
    }
    assert!(Config::read(V1_6).unwrap().has_handler("runc"));
    assert!(!Config::read(V1_6).unwrap().has_handler("kata"));
    assert!(
        Config::read("disabled_plugins = [\"cri\"]\n").unwrap().has_no_cri()
            && !Config::read(V1_6).unwrap().has_no_cri()
    );
    let relative = Config::read("imports = ['conf.d/*.toml']\n").unwrap();
    assert!(relative.imports_ours() && relative.imports() == ["/etc/containerd/conf.d/*.toml"]);
}

#[test]
fn a_pattern_means_what_it_means_to_go() {
    for (pattern, path, expected) in [
        ("/etc/*.toml", "/etc/a.toml", true),
        ("/etc/*.toml", "/etc/b/a.toml", false),
        ("/etc/*/a*b.toml", "/etc/x/a.b.toml", true),
        ("/etc/a.toml", "/etc/a.toml", true),
        ("/etc/*", "/etc/", true),
        ("/etc/**", "/etc/a", true),
        ("/etc/[a].toml", "/etc/a.toml", false),
        ("*", "/etc", false),
    ] {
        assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
    }
}
