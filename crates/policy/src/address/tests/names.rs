//! What images are called at the mirror.

use ferry_oci::ImageReference;

use super::*;

fn written(addressing: &Addressing, image: &str) -> Vec<String> {
    let image: ImageReference = image.parse().unwrap();
    [Form::Prefix, Form::AliasHost, Form::Namespace, Form::Transparent]
        .into_iter()
        .map(|form| match addressing.mirrored(&image, form) {
            Ok(image) => image.to_string(),
            Err(error) => error.to_string(),
        })
        .collect()
}

#[test]
fn names_of_images_at_the_mirror() {
    let mirror = mirror();
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(
        written(&mirror, "k8s.gcr.io/coredns/coredns:v1.8.6"),
        [
            "cr.example.cn/k8s.gcr.io/coredns/coredns:v1.8.6",
            "k8s-gcr.cr.example.cn/coredns/coredns:v1.8.6",
            "k8s.gcr.io/coredns/coredns:v1.8.6",
            "k8s.gcr.io/coredns/coredns:v1.8.6",
        ]
    );
    assert_eq!(
        written(&mirror, &format!("mysql:5.7@{digest}")),
        [
            format!("cr.example.cn/docker.io/library/mysql:5.7@{digest}"),
            format!("docker.cr.example.cn/library/mysql:5.7@{digest}"),
            format!("docker.io/library/mysql:5.7@{digest}"),
            format!("docker.io/library/mysql:5.7@{digest}"),
        ]
    );
    assert_eq!(
        written(&mirror, "registry.corp:5000/a")[..2],
        ["cr.example.cn/registry.corp-5000/a", "corp.cr.example.cn/a"]
    );
    let nothing = "no host of this mirror stands for other.example.cn";
    assert_eq!(
        written(&mirror, "other.example.cn/a"),
        ["cr.example.cn/other.example.cn/a", nothing, "other.example.cn/a", nothing]
    );
    assert!(written(&mirror, "evil.example/a").iter().all(|error| error.contains("names no registry")));
    // The mirror would take the first part for the one that clients repeat.
    assert!(written(&mirror, "quay.io/quay.io/a")[2].contains("for something else"));
    assert_eq!(written(&mirror, "quay.io/quay.io/a")[0], "cr.example.cn/quay.io/quay.io/a");
    let long = format!("quay.io/{}", "a".repeat(250));
    assert!(written(&mirror, &long)[0].contains("255"));
}

#[test]
fn names_at_a_mirror_without_a_domain() {
    let front = Front {
        default: Some(Registry::docker_hub()),
        hosted: vec!["team/*".parse().unwrap()],
        ..Front::default()
    };
    let bare = Addressing::new(Upstreams::built_in(), front.clone()).unwrap();
    let no_domain = Unmirrored::NoDomain.to_string();
    let no_host = |registry: &str| format!("no host of this mirror stands for {registry}");
    assert_eq!(
        written(&bare, "alpine"),
        [
            no_domain.clone(),
            no_host("docker.io"),
            "docker.io/library/alpine".into(),
            "docker.io/library/alpine".into()
        ]
    );
    assert_eq!(written(&bare, "quay.io/a")[3], no_host("quay.io"));
    assert!(written(&bare, "team/app")[3].contains("takes docker.io/team/app for something else"));
    assert_eq!(bare.host_for(&Registry::docker_hub()), None);

    let word = Front { domain: Some("mirror".parse().unwrap()), ..front.clone() };
    let word = Addressing::new(Upstreams::built_in(), word).unwrap();
    assert_eq!(written(&word, "quay.io/a")[..2], [no_domain, "quay.mirror/a".to_owned()]);
    let address = Front { domain: Some("10.0.0.5:5000".parse().unwrap()), ..front };
    let address = Addressing::new(Upstreams::built_in(), address).unwrap();
    assert_eq!(
        written(&address, "quay.io/a")[..2],
        ["10.0.0.5:5000/quay.io/a".to_owned(), no_host("quay.io")]
    );
    assert_eq!(address.host_for(&Registry::docker_hub()).unwrap().to_string(), "10.0.0.5:5000");
    assert_eq!(mirror().host_for(&Registry::docker_hub()).unwrap().to_string(), "docker.cr.example.cn");
}

/// What a client asks that uses the mirror in this form for `image`, told what to call it.
fn request(
    addressing: &Addressing,
    image: &ImageReference,
    called: &ImageReference,
    form: Form,
) -> [Option<String>; 2] {
    match form {
        Form::Prefix | Form::AliasHost => [Some(called.registry.to_string()), None],
        Form::Namespace => [Some("10.0.0.5".to_owned()), Some(image.registry.to_string())],
        Form::Transparent => [addressing.host_for(&image.registry).map(|host| host.to_string()), None],
    }
}

proptest! {
    #[test]
    fn every_name_leads_back(
        at in 0usize..14,
        path in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}((\\.|_|__)[a-z0-9]{1,3}){0,2}){0,3}",
        tag in "(:[a-z0-9]{1,5})?",
    ) {
        let mirror = mirror();
        let registry = &mirror.upstreams().iter().nth(at).unwrap().registry;
        let image: ImageReference = format!("{registry}/{path}{tag}").parse().unwrap();
        for form in [Form::Prefix, Form::AliasHost, Form::Namespace, Form::Transparent] {
            let Ok(called) = mirror.mirrored(&image, form) else {
                // Nothing in such short names is too long or ambiguous; only the host may be wanting.
                prop_assert!(registry.as_str() == "other.example.cn" && !matches!(form, Form::Prefix | Form::Namespace));
                continue;
            };
            let called: ImageReference = called.to_string().parse().unwrap();
            let [host, ns] = request(&mirror, &image, &called, form);
            let asked = Asked { host: host.as_deref(), ns: ns.as_deref(), base: None, name: called.repository.as_str() };
            let Ok(Addressed::Upstream { upstream, name, .. }) = mirror.address(&asked) else {
                return Err(TestCaseError::fail(format!("{called} leads nowhere")));
            };
            prop_assert_eq!((&upstream.registry, &name), (&image.registry, &image.repository));
            prop_assert_eq!(called.reference(), image.reference());
        }
    }
}
