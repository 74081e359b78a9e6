use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::media_type as t;

fn parse(value: &Value) -> Manifest {
    Manifest::parse(None, Bytes::from(value.to_string())).unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

fn describe(media_type: &str, text: &str) -> Value {
    json!({"mediaType": media_type, "digest": digest(text), "size": text.len()})
}

fn image(config: &str, layers: &[&str]) -> Value {
    let layers: Vec<Value> =
        layers.iter().enumerate().map(|(i, l)| describe(l, &format!("layer {i}"))).collect();
    json!({"schemaVersion": 2, "mediaType": t::OCI_MANIFEST, "config": describe(config, "config"), "layers": layers})
}

fn entry(media_type: &str, text: &str) -> Value {
    let mut entry = describe(media_type, text);
    entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    entry
}

fn attestation(of: &str) -> Value {
    let mut entry = entry(t::OCI_MANIFEST, &format!("attestation of {of}"));
    entry["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    entry["annotations"] = json!({REFERENCE_TYPE: ATTESTATION, "vnd.docker.reference.digest": digest(of)});
    entry
}

fn index(entries: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": t::OCI_INDEX, "manifests": entries, "org.example": {"kept": [1, null]}})
}

fn value(manifest: &Manifest) -> Value {
    serde_json::from_slice(manifest.bytes()).unwrap()
}

#[test]
fn attestations_go_and_nothing_else() {
    let mut unknown = entry(t::OCI_MANIFEST, "unknown");
    unknown["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    let amd64 = entry(t::OCI_MANIFEST, "amd64");
    let whole = parse(&index(&[amd64.clone(), attestation("amd64"), unknown.clone()]));
    let stripped = strip_attestations(&whole).unwrap();
    assert_eq!(value(&stripped), index(&[amd64.clone(), unknown]), "an unknown platform alone says nothing");
    assert!(strip_attestations(&parse(&index(&[attestation("a")]))).is_err(), "nothing would be left");
    let empty = parse(&index(&[]));
    assert_eq!(strip_attestations(&empty).unwrap().bytes(), empty.bytes());
}

#[test]
fn entries_are_kept_by_their_place() {
    let entries = ["a", "b", "a"].map(|text| entry(t::OCI_MANIFEST, text));
    let whole = parse(&index(&entries));
    let kept = retain(&whole, &[false, true, true]).unwrap();
    assert_eq!(value(&kept), index(&entries[1..]), "of two equal ones the second");
    assert_eq!(retain(&whole, &[true, false]).unwrap().children().len(), 2, "what is beyond the end stays");
    for all in [&[true; 3][..], &[], &[true, true, true, false]] {
        assert_eq!(retain(&whole, all).unwrap().bytes(), whole.bytes());
    }
    let image = parse(&image(t::OCI_CONFIG, &[]));
    assert_eq!(retain(&image, &[false]).unwrap().bytes(), image.bytes());
}

#[test]
fn attestations_name_what_they_are_about() {
    let whole = parse(&index(&[attestation("amd64"), entry(t::OCI_MANIFEST, "amd64")]));
    assert_eq!(attested(&whole.children()[0]), Some(digest("amd64")));
    assert_eq!(attested(&whole.children()[1]), None);
    let mut odd = attestation("amd64");
    odd["annotations"][REFERENCE_DIGEST] = json!("amd64");
    assert_eq!(attested(&parse(&index(&[odd])).children()[0]), None);
}

#[test]
fn entries_follow_their_children() {
    let mut old = entry(t::OCI_MANIFEST, "old");
    old["data"] = json!("b2xk");
    old["urls"] = json!(["https://example.com/old"]);
    let whole = parse(&index(&[old, entry(t::OCI_MANIFEST, "other")]));
    let new = Descriptor::new(t::DOCKER_MANIFEST, digest("new"), 3);
    let changed = with_children(&whole, &Children::from([(digest("old"), new)])).unwrap();
    assert_eq!(value(&changed), index(&[entry(t::DOCKER_MANIFEST, "new"), entry(t::OCI_MANIFEST, "other")]));
    let same = Descriptor::new(t::OCI_MANIFEST, digest("other"), 5);
    let children = Children::from([(digest("other"), same)]);
    assert_eq!(with_children(&whole, &children).unwrap().bytes(), whole.bytes());
}

#[test]
fn images_become_schema_2() {
    let layers = [t::OCI_LAYER_GZIP, t::OCI_LAYER, t::OCI_FOREIGN_GZIP, t::OCI_FOREIGN, t::DOCKER_LAYER_GZIP];
    let mut oci = image(t::OCI_CONFIG, &layers);
    oci["annotations"] = json!({"a": "b"});
    oci["layers"][2]["urls"] = json!(["https://example.com/layer"]);
    oci["layers"][0]["annotations"] = json!({"a": "b"});
    let converted = to_docker_types(&parse(&oci)).unwrap();
    let expected = [
        t::DOCKER_LAYER_GZIP,
        t::DOCKER_LAYER,
        t::DOCKER_FOREIGN_GZIP,
        t::DOCKER_FOREIGN,
        t::DOCKER_LAYER_GZIP,
    ];
    let mut docker = image(t::DOCKER_CONFIG, &expected);
    docker["mediaType"] = json!(t::DOCKER_MANIFEST);
    docker["layers"][2]["urls"] = json!(["https://example.com/layer"]);
    assert_eq!(converted.bytes(), docker.to_string().as_bytes());
    assert_eq!(converted.media_type(), t::DOCKER_MANIFEST);
}

#[test]
fn an_index_becomes_a_manifest_list_of_schema_2() {
    let list = to_docker_types(&parse(&index(&[entry(t::DOCKER_MANIFEST, "a")]))).unwrap();
    let mut expected = index(&[entry(t::DOCKER_MANIFEST, "a")]);
    expected["mediaType"] = json!(t::DOCKER_LIST);
    assert_eq!(value(&list), expected, "what is unknown stays");
    let mut nowhere = entry(t::DOCKER_MANIFEST, "a");
    nowhere.as_object_mut().unwrap().remove("platform");
    for bad in [entry(t::OCI_MANIFEST, "a"), entry(t::DOCKER_LIST, "a"), entry(t::OCI_LAYER, "a"), nowhere] {
        assert!(to_docker_types(&parse(&index(&[bad]))).is_err());
    }
}

#[test]
fn a_type_that_was_only_a_label_is_written_down() {
    let mut bare = image(t::OCI_CONFIG, &[]);
    bare.as_object_mut().unwrap().shift_remove("mediaType");
    let converted = to_docker_types(&parse(&bare)).unwrap();
    let text = String::from_utf8(converted.bytes().to_vec()).unwrap();
    assert!(
        text.starts_with(&format!(r#"{{"schemaVersion":2,"mediaType":"{}""#, t::DOCKER_MANIFEST)),
        "{text}"
    );
}

#[test]
fn what_schema_2_has_no_words_for_is_named() {
    let artifact = |change: &dyn Fn(&mut Value)| {
        let mut manifest = image(t::OCI_CONFIG, &[t::OCI_LAYER_GZIP]);
        change(&mut manifest);
        to_docker_types(&parse(&manifest)).unwrap_err().to_string()
    };
    for (change, says) in [
        (
            &(|m: &mut Value| m["artifactType"] = json!("application/x")) as &dyn Fn(&mut Value),
            "artifact (application/x)",
        ),
        (&|m| m["subject"] = describe(t::OCI_MANIFEST, "s"), "no subject"),
        (&|m| m["config"]["mediaType"] = json!(t::OCI_EMPTY), "configurations of images only"),
        (&|m| m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+zstd"), "zstd"),
        (&|m| m["layers"][0]["mediaType"] = json!("application/vnd.in-toto+json"), "in-toto"),
    ] {
        let error = artifact(change);
        assert!(error.contains(says), "{error}");
    }
    assert!(artifact(&|m| m["layers"][0]["mediaType"] = json!("x")).contains(&digest("layer 0").to_string()));
}

#[test]
fn the_algorithm_stays() {
    let bytes = Bytes::from(image(t::OCI_CONFIG, &[]).to_string());
    let long = Manifest::parse_as(crate::Algorithm::Sha512, None, bytes).unwrap();
    assert_eq!(to_docker_types(&long).unwrap().digest().algorithm(), crate::Algorithm::Sha512);
}

/// Any JSON, small.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Fields that nobody knows, by names that no specification has.
fn unknown() -> impl Strategy<Value = Vec<(String, Value)>> {
    let fields = prop::collection::btree_map("x-[a-z]{1,6}", json_value(), 0..3);
    fields.prop_map(|map| map.into_iter().collect())
}

fn spread(object: &mut Value, fields: &[(String, Value)]) {
    object.as_object_mut().unwrap().extend(fields.iter().cloned());
}

fn has(object: &Value, fields: &[(String, Value)]) -> bool {
    fields.iter().all(|(key, value)| object.get(key) == Some(value))
}

proptest! {
    #[test]
    fn images_keep_what_nobody_knows(top in unknown(), inner in unknown(), layers in 0..4usize, pretty: bool) {
        let mut oci = image(t::OCI_CONFIG, &vec![t::OCI_LAYER_GZIP; layers]);
        spread(&mut oci, &top);
        spread(&mut oci["config"], &inner);
        for layer in oci["layers"].as_array_mut().unwrap() {
            spread(layer, &inner);
        }
        let text = if pretty { serde_json::to_string_pretty(&oci).unwrap() } else { oci.to_string() };
        let manifest = Manifest::parse(None, Bytes::from(text)).unwrap();
        let converted = to_docker_types(&manifest).unwrap();
        let twice = to_docker_types(&manifest).unwrap();
        prop_assert_eq!(converted.bytes(), twice.bytes());
        let document = value(&converted);
        prop_assert!(has(&document, &top) && has(&document["config"], &inner));
        prop_assert!(document["layers"].as_array().unwrap().iter().all(|layer| has(layer, &inner)));
        prop_assert_eq!(converted.blobs().len(), manifest.blobs().len());
        for (new, old) in converted.blobs().iter().zip(manifest.blobs()) {
            prop_assert_eq!((new.digest, new.size), (old.digest, old.size));
        }
        let again = to_docker_types(&converted).unwrap();
        prop_assert_eq!(again.bytes(), converted.bytes());
        let stripped = strip_attestations(&manifest).unwrap();
        prop_assert_eq!(stripped.bytes(), manifest.bytes());
    }

    #[test]
    fn indexes_keep_what_nobody_knows(top in unknown(), inner in unknown(), kinds in prop::collection::vec(any::<bool>(), 0..6)) {
        let entries: Vec<Value> = kinds.iter().enumerate().map(|(i, attests)| {
            let mut made = if *attests { attestation(&i.to_string()) } else { entry(t::OCI_MANIFEST, &i.to_string()) };
            spread(&mut made, &inner);
            made
        }).collect();
        let mut whole = index(&entries);
        spread(&mut whole, &top);
        let whole = parse(&whole);
        let kept = kinds.iter().filter(|attests| !**attests).count();
        let Ok(stripped) = strip_attestations(&whole) else {
            prop_assert!(kept == 0 && !kinds.is_empty());
            return Ok(());
        };
        prop_assert_eq!(stripped.bytes() == whole.bytes(), kept == kinds.len());
        prop_assert_eq!(stripped.children().len(), kept);
        let children: Children = stripped.children().iter()
            .map(|old| (old.digest, Descriptor::new(t::DOCKER_MANIFEST, digest(&old.digest.to_string()), 7)))
            .collect();
        let list = to_docker_types(&with_children(&stripped, &children).unwrap()).unwrap();
        prop_assert_eq!(list.media_type(), t::DOCKER_LIST);
        for (new, old) in list.children().iter().zip(stripped.children()) {
            prop_assert_eq!((new.digest, &new.platform), (children[&old.digest].digest, &old.platform));
        }
        let document = value(&list);
        prop_assert!(has(&document, &top));
        prop_assert!(document["manifests"].as_array().unwrap().iter().all(|entry| has(entry, &inner)));
    }
}
