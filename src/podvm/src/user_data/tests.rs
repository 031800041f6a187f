//! The golden document, the round trip of every content, and hostile documents.

use proptest::prelude::*;

use super::*;
use crate::guest_config::ApfConfig;
use crate::hostile::any_text;

const GOLDEN: &str = include_str!("../../tests/golden/user-data.yaml");

fn of(path: &str, content: &str) -> CloudConfig {
    CloudConfig::new(vec![File::new(path, content)])
}

fn full() -> CloudConfig {
    let apf = ApfConfig { pod_namespace: "default".into(), pod_name: "nginx".into(), ..ApfConfig::default() };
    CloudConfig::new(vec![
        File::new(APF_PATH, apf.to_json()),
        File::new(AUTH_PATH, "{\"auths\":{\"quay.io\":{\"auth\":\"dXNlcjpwYXNz\"}}}\n"),
        File::new(INITDATA_PATH, "H4sIAAAAAAAA/w=="),
        File::new(SCRATCH_PATH, ""),
    ])
}

fn round_trip(files: &[File]) {
    let text = CloudConfig::new(files.to_vec()).render().unwrap();
    let parsed = CloudConfig::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text:?}"));
    assert!(parsed.skipped.is_empty());
    assert_eq!(parsed.files.len(), files.len(), "{text:?}");
    for (read, written) in parsed.files.iter().zip(files) {
        assert_eq!(read.path, written.path);
        assert_eq!(read.content, written.content, "{text:?}");
    }
}

#[test]
fn the_document_is_the_golden_one() {
    assert_eq!(full().render().unwrap(), GOLDEN);
    assert_eq!(CloudConfig::parse(GOLDEN).unwrap().files, full().files());
}

#[test]
fn contents_that_yaml_treats_specially_come_back_unchanged() {
    for content in [
        "x",
        "x\n",
        "x\n\n",
        "x\n\n\n",
        "\n",
        "\n\n",
        "\nx",
        "\n\nx\n",
        " x",
        "  x\n y\n",
        "\tx",
        "x\t\n\ty",
        " ",
        "  ",
        " \n",
        "\t",
        "\t\n",
        " \n x",
        "   \nx",
        "\n   \nx\n",
        "x\n   ",
        "x\n   \n",
        "x\n \n\n",
        "#",
        "# x\n#y",
        "x # y",
        "---\nx\n...\n",
        "- path: /x\n  content: y\n",
        "write_files:\n",
        "null",
        "~",
        "true\n",
        "1",
        "!!int 3",
        "&a *a",
        "\"quoted\"",
        "'",
        "{",
        "}",
        "|",
        ">-",
        "%YAML 1.2",
        "a: b: c",
        "ключ → 🐧\n",
        "\u{A0}",
        "x ",
        "x \n",
        "\u{10FFFD}",
    ] {
        round_trip(&[File::new(APF_PATH, content), File::new(AUTH_PATH, "next\n")]);
        round_trip(&[File::new(APF_PATH, content)]);
    }
}

#[test]
fn what_a_block_cannot_hold_is_refused_and_named() {
    for (content, line) in [
        ("a\r\nb", 1),
        ("a\nb\u{0}", 2),
        ("\u{7f}", 1),
        ("a\n\n\u{85}", 3),
        ("\u{2028}", 1),
        ("\u{2029}", 1),
        ("\u{feff}x", 1),
        ("\u{1b}[0m", 1),
        ("\u{ffff}", 1),
        ("\u{9f}", 1),
    ] {
        match of(APF_PATH, content).render() {
            Err(RenderError::Character { line: at, ref path, .. }) => {
                assert_eq!((at, path.as_str()), (line, APF_PATH), "{content:?}");
            }
            other => panic!("{content:?} gave {other:?}"),
        }
    }
    let error = of(APF_PATH, "a\rb").render().unwrap_err();
    assert!(error.to_string().contains("U+000D"), "{error}");
}

#[test]
fn unfit_paths_are_refused() {
    for bad in ["", "run/x", "/run/x y", "/run/x:", "/run/../etc", "/run/é", "/run/x\n", "/run/", "/#x"] {
        assert!(matches!(of(bad, "x").render(), Err(RenderError::Path { .. })), "{bad:?}");
    }
    let twice = CloudConfig::new(vec![File::new(APF_PATH, "1"), File::new(APF_PATH, "2")]);
    assert!(matches!(twice.render(), Err(RenderError::Twice { .. })));
}

#[test]
fn any_other_key_at_any_level_is_an_error_as_in_the_stock_guest() {
    for bad in [
        "runcmd: [reboot]\n",
        "write_files:\n  - path: /run/peerpod/apf.json\n    owner: root\n",
        "write_files:\n  - path: /run/peerpod/apf.json\n    permissions: '0644'\n    content: x\n",
        "write_files:\n  - path: /run/peerpod/apf.json\n    encoding: b64\n    content: eA==\n",
        "write_files:\n  - path: /run/peerpod/apf.json\n    path: /run/peerpod/apf.json\n",
        "write_files:\n  - content: x\n",
        "write_files:\n  path: x\n",
        "write_files: []\nwrite_files: []\n",
        "write_files:\n  - path: [x]\n",
        "write_files:\n  - path: /run/peerpod/apf.json\n    content: {a: b}\n",
        "write_files:\n  - &a\n    path: /run/peerpod/apf.json\n    content: x\n",
        "write_files:\n  - <<: {path: /run/peerpod/apf.json}\n",
        "write_files: []\n---\nwrite_files: []\n",
        "write_files:\n  - path: /run/peerpod/apf.json\n  - path: /run/peerpod/apf.json\n    content: x\n",
        "- x\n",
        "H4sIAAAAAAAA",
        "{",
    ] {
        assert!(CloudConfig::parse(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn a_document_that_writes_nothing_is_accepted() {
    for nothing in ["#cloud-config\n\nwrite_files:\n", "write_files: []\n", "{}"] {
        assert_eq!(CloudConfig::parse(nothing), Ok(Parsed::default()), "{nothing:?}");
    }
    assert_eq!(CloudConfig::parse(&CloudConfig::default().render().unwrap()), Ok(Parsed::default()));
}

#[test]
fn other_paths_are_skipped_and_reported() {
    let text = CloudConfig::new(vec![
        File::new("/etc/passwd", "x"),
        File::new(APF_PATH, "{}"),
        File::new("/run/peerpod/apf.json.d", ""),
    ])
    .render()
    .unwrap();
    let parsed = CloudConfig::parse(&text).unwrap();
    assert_eq!(parsed.skipped, ["/etc/passwd", "/run/peerpod/apf.json.d"]);
    assert_eq!(
        (parsed.files.len(), parsed.content(APF_PATH), parsed.content("/etc/passwd")),
        (1, Some("{}"), None)
    );
    let sly = "write_files:\n  - path: /run/peerpod/../peerpod/apf.json\n    content: x\n";
    assert_eq!(CloudConfig::parse(sly).unwrap().files, []);
}

#[test]
fn a_document_larger_than_the_bound_is_not_parsed() {
    let text = format!("{GOLDEN}#{}", "x".repeat(MAX_DOCUMENT));
    assert_eq!(CloudConfig::parse(&text), Err(ParseError::TooLarge { len: text.len() }));
    let largest = of(APF_PATH, &format!("{}\n", "x".repeat(MAX_DOCUMENT - 200)));
    assert_eq!(CloudConfig::parse(&largest.render().unwrap()).unwrap().files, largest.files());
}

#[test]
fn neither_debug_nor_a_parse_error_shows_a_content() {
    assert!(!format!("{:?}", of(APF_PATH, "hunter2")).contains("hunter2"));
    let document = of(APF_PATH, "hunter2\n").render().unwrap();
    for broken in [
        document.clone() + "  bad",
        document.clone() + "  - pith: x\n",
        document.replace("content", "contents"),
    ] {
        let error = CloudConfig::parse(&broken).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn limits_count_the_document_before_encoding() {
    let raw = |provider| limit_of(provider).map(Limit::document);
    assert_eq!(raw("aws"), Some(16_384));
    assert_eq!(raw("azure"), Some(49_152));
    assert_eq!(raw("qemu"), Some(1_048_576));
    assert_eq!(raw("ibmcloud-powervs"), Some(48_384));
    assert_eq!(raw("byom"), None);
}

#[test]
fn what_does_not_fit_is_refused_with_the_size_of_each_part_and_advice() {
    let config = CloudConfig::new(vec![
        File::new(APF_PATH, "a".repeat(3_000)),
        File::new(AUTH_PATH, "b".repeat(5_000)),
        File::new(INITDATA_PATH, "c".repeat(9_000)),
    ]);
    let len = config.render().unwrap().len();
    assert_eq!(config.check_size(len, len), Ok(()));
    let error = config.check_size(len, 16_384).unwrap_err();
    let text = error.to_string();
    for part in [
        &len.to_string(),
        "at most 16384",
        "/run/peerpod/initdata 90",
        "/run/peerpod/auth.json 50",
        "apf.json 30",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(text.contains("Shorten the initdata annotation"), "{text}");
    let header = CloudConfig::default().render().unwrap().len();
    assert_eq!(error.parts.iter().map(|(_, bytes)| bytes).sum::<usize>() + header, len);
    let pulls = CloudConfig::new(vec![File::new(APF_PATH, "a".repeat(30)), File::new(AUTH_PATH, "b")]);
    assert!(pulls.check_size(2, 1).unwrap_err().to_string().contains("fewer image pull secrets"));
    assert!(of(APF_PATH, "a").check_size(2, 1).unwrap_err().to_string().contains("routes"));
}

/// Lines of all that is tricky in YAML, and of any text at all.
fn any_content() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        12 => "[ \t]{0,3}[-#:|>&*!%@'\"{}\\[\\],a-z0-9]{0,4}[ \t]{0,3}",
        1 => any_text(),
        4 => "\\PC{0,12}",
        4 => prop::sample::select(vec!["---", "...", "null", "~", "  - path: /x", "    content: |", "#cloud-config"])
            .prop_map(str::to_owned),
    ];
    (prop::collection::vec(line, 0..8), "\n{0,3}", "\n{0,3}")
        .prop_map(|(lines, head, tail)| head + &lines.join("\n") + &tail)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn every_content_comes_back_unchanged_or_is_refused(contents in prop::collection::vec(any_content(), 1..4)) {
        let files: Vec<File> = ALLOWED_PATHS.iter().zip(contents).map(|(path, content)| File::new(*path, content)).collect();
        match CloudConfig::new(files.clone()).render() {
            Ok(_) => round_trip(&files),
            Err(RenderError::Character { character, .. }) => {
                prop_assert!(files.iter().any(|file| file.content.contains(character)));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any_text(), content in any_content(), at in 0_usize..400, junk in "[-#:|>&*!%'\"{}\\[\\], \n\ta-z]{0,6}") {
        let _ = CloudConfig::parse(&text);
        let _ = CloudConfig::parse(&content);
        let at = (0..=at.min(GOLDEN.len())).rev().find(|i| GOLDEN.is_char_boundary(*i)).unwrap_or(0);
        let (before, after) = GOLDEN.split_at(at);
        let _ = CloudConfig::parse(&format!("{before}{junk}{after}"));
    }
}
