use bytes::Bytes;
use ferry_oci::media_type::{OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// Written as reports write it.
fn platform(text: &str) -> Platform {
    let (text, os_version) = match text.split_once(':') {
        Some((text, version)) => (text, Some(version.to_owned())),
        None => (text, None),
    };
    let mut parts = text.split('/').map(str::to_owned);
    let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
    Platform { os, architecture, os_version, variant: parts.next() }
}

#[test]
fn patterns_are_read_as_people_write_them() {
    for (written, read) in [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("Linux/X86-64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64/v8"),
        ("linux/arm/7", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("i386", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("windows/amd64:10.0.17763.6293", "windows(10.0.17763.6293)/amd64"),
        ("wasip1/wasm", "wasip1/wasm"),
        ("zephyr/xtensa", "zephyr/xtensa"),
    ] {
        assert_eq!(pattern(written).to_string(), read, "{written}");
    }
}

#[test]
fn mistakes_are_told_with_the_remedy() {
    for (written, remedy) in [
        ("", "an architecture alone is one of"),
        ("linux", "such as linux/amd64"),
        ("amd46", "an architecture alone is one of 386, amd64"),
        ("amd64/linux", "write linux/amd64"),
        ("linux/", "a part of it is empty"),
        ("/amd64", "a part of it is empty"),
        ("linux/arm/v7/x", "write OS/ARCHITECTURE"),
        ("linux/*", "no wildcards"),
        ("linux/amd64,linux/arm64", "each platform is named on its own"),
        ("windows(10.0/amd64", "not closed"),
        ("windows()/amd64", "a part of it is empty"),
        ("windows(1)/amd64:2", "twice"),
    ] {
        let error = written.parse::<Pattern>().unwrap_err();
        assert!(error.reason.contains(remedy), "{written}: {error}");
    }
}

#[test]
fn what_matches_what() {
    for (asked, is, matches) in [
        ("linux/arm", "linux/arm/v5", true),
        ("linux/arm", "linux/arm/v7", true),
        ("linux/arm", "linux/arm64", false),
        ("linux/arm/v7", "linux/arm", true),
        ("linux/arm/v7", "linux/arm/v6", false),
        ("linux/arm/v7", "linux/armhf", true),
        ("arm64", "linux/arm64/v8", true),
        ("arm64", "linux/arm64/v9", true),
        ("linux/arm64/v8", "linux/arm64", true),
        ("linux/arm64/v8", "linux/aarch64", true),
        ("linux/arm64/v8", "linux/arm64/v9", false),
        ("linux/arm64/v9", "linux/arm64", false),
        ("linux/amd64", "linux/amd64/v3", true),
        ("linux/amd64/v1", "linux/amd64", true),
        ("linux/amd64/v3", "linux/amd64", false),
        ("linux/amd64", "windows/amd64:10.0.17763.1", false),
        ("windows/amd64", "windows/amd64:10.0.17763.1", true),
        ("windows(10.0.17763)/amd64", "windows/amd64:10.0.17763.6293", true),
        ("windows(10.0.17763)/amd64", "windows/amd64:10.0.17763", true),
        ("windows(10.0.1776)/amd64", "windows/amd64:10.0.17763.1", false),
        ("windows(10.0.17763)/amd64", "windows/amd64", false),
        ("linux/s390x", "linux/s390x", true),
        ("linux/riscv64/rva23", "linux/riscv64", false),
    ] {
        assert_eq!(pattern(asked).matches(&platform(is)), matches, "{asked} {is}");
    }
}

fn select(patterns: &[&str], mode: Mode) -> Selection {
    Selection::new(patterns.iter().map(|text| pattern(text)), mode).unwrap()
}

#[test]
fn a_selection_is_what_it_names() {
    let one = select(&["arm64", "linux/amd64", "aarch64"], Mode::Rewrite);
    assert_eq!(one, select(&["linux/amd64", "linux/arm64"], Mode::Rewrite));
    assert_eq!((one.to_string().as_str(), one.mode()), ("linux/amd64,linux/arm64", Mode::Rewrite));
    assert!(Selection::new([], Mode::Sparse).unwrap_err().reason.contains("at least one"));
    let two = [pattern("arm64"), pattern("amd64")];
    assert!(Selection::new(two, Mode::Single).unwrap_err().reason.contains("use rewrite"));
    for mode in Mode::ALL {
        assert_eq!(mode.as_str().parse::<Mode>(), Ok(mode));
    }
    assert!("all".parse::<Mode>().unwrap_err().reason.contains("rewrite, sparse, single"));
}

#[test]
fn one_stands_for_all() {
    for (asked, there, best) in [
        ("linux/arm", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"][..], "linux/arm/v7"),
        ("linux/arm", &["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm", &["linux/arm/v8", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/arm", &["linux/arm/v6", "linux/arm"], "linux/arm"),
        ("linux/amd64", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", &["linux/amd64/v3", "linux/amd64/v1"], "linux/amd64/v1"),
        ("linux/amd64", &["linux/amd64/v4", "linux/amd64/v2"], "linux/amd64/v2"),
        ("arm64", &["linux/arm64/v9", "linux/arm64/v8"], "linux/arm64/v8"),
        ("windows/amd64", &["windows/amd64:10.0.17763.1"], "windows/amd64:10.0.17763.1"),
    ] {
        let candidates: Vec<_> =
            there.iter().map(|text| (Digest::sha256(text.as_bytes()), platform(text))).collect();
        let place = select(&[asked], Mode::Single).best(&candidates).unwrap().unwrap();
        assert_eq!(there[place], best, "{asked}");
    }
    let single = select(&["windows/amd64"], Mode::Single);
    assert_eq!(single.best(&[]), Ok(None));
    let two = ["windows/amd64:10.0.17763.1", "windows/amd64:10.0.20348.1"];
    let differ = two.map(|text| (Digest::sha256(text.as_bytes()), platform(text)));
    let said = single.best(&differ).unwrap_err().to_string();
    assert!(two.iter().all(|one| said.contains(one)) && said.contains("windows(10.0.20348)/amd64"), "{said}");
    let equal = two.map(|text| (Digest::sha256(b""), platform(text)));
    assert_eq!(single.best(&equal), Ok(Some(0)), "they are one manifest");
}

#[test]
fn an_image_without_what_is_wanted_is_told_what_it_has() {
    let has = ["linux/amd64", "windows/amd64:10.0.17763.1"].map(platform).to_vec();
    let error = select(&["s390x", "linux/arm/v7"], Mode::Rewrite).nothing(has);
    let expected =
        "it has no linux/arm/v7 and no linux/s390x; it has linux/amd64, windows/amd64:10.0.17763.1";
    assert_eq!(error.to_string(), expected);
    let many = select(&["s390x"], Mode::Rewrite).nothing(vec![platform("linux/amd64"); LISTED + 2]);
    assert!(many.to_string().ends_with("and 2 more"));
}

#[test]
fn entries_are_judged_by_what_they_say() {
    let selection = select(&["linux/amd64"], Mode::Rewrite);
    let entry = |media_type: &str, is: Option<&str>| Descriptor {
        platform: is.map(platform),
        ..Descriptor::new(media_type, Digest::sha256(b""), 0)
    };
    for (media_type, is, verdict) in [
        (OCI_MANIFEST, Some("linux/amd64"), Verdict::Wanted),
        (OCI_MANIFEST, Some("linux/arm64"), Verdict::Other),
        (OCI_MANIFEST, Some("unknown/unknown"), Verdict::Look),
        (OCI_MANIFEST, Some("/"), Verdict::Look),
        (OCI_MANIFEST, None, Verdict::Look),
        (OCI_INDEX, Some("linux/amd64"), Verdict::Look),
        (OCI_INDEX, Some("linux/arm64"), Verdict::Other),
        (OCI_INDEX, None, Verdict::Look),
        (OCI_LAYER_GZIP, None, Verdict::Any),
    ] {
        assert_eq!(selection.verdict(&entry(media_type, is)), verdict, "{media_type} {is:?}");
    }
    let artifact = Descriptor { artifact_type: Some("x/y".to_owned()), ..entry(OCI_MANIFEST, None) };
    assert_eq!(selection.verdict(&artifact), Verdict::Any);
}

#[test]
fn one_manifest_under_two_platforms_is_kept_under_one() {
    let digest = Digest::sha256(b"shared");
    let entry = |architecture: &str| {
        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let index =
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry("amd64"), entry("arm64")]});
    let index = Manifest::parse(None, Bytes::from(index.to_string())).unwrap();
    let kept = select(&["arm64"], Mode::Rewrite).kept(&index, &HashSet::new());
    assert_eq!(kept, [false, true]);
}

proptest! {
    #[test]
    fn what_was_read_is_written_so_that_it_is_read_again(text in "[a-zA-Z0-9_.()/:-]{0,24}") {
        if let Ok(read) = text.parse::<Pattern>() {
            prop_assert_eq!(read.to_string().parse::<Pattern>(), Ok(read));
        }
    }

    #[test]
    fn a_platform_is_matched_by_its_own_name(
        os in "[a-z]{1,8}x",
        architecture in prop::sample::select(vec!["amd64", "arm", "arm64", "aarch64", "armhf", "mips"]),
        variant in prop::option::of("v[1-9]"),
        version in prop::option::of("[0-9]{1,2}\\.[0-9]{1,5}"),
    ) {
        let platform = Platform { os, architecture: architecture.to_owned(), os_version: version, variant };
        let own: Pattern = platform.to_string().parse().unwrap();
        prop_assert!(own.matches(&platform));
        let without = Platform { variant: None, os_version: None, ..platform.clone() };
        prop_assert!(pattern(&without.to_string()).matches(&platform));
        let other = Platform { os: "else".to_owned(), ..platform };
        prop_assert!(!own.matches(&other));
    }

    #[test]
    fn nothing_breaks_the_reader(text in "\\PC{0,40}") {
        let _ = text.parse::<Pattern>();
    }
}
