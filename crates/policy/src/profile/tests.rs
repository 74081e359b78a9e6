use super::*;

fn registry(text: &str) -> Registry {
    text.parse().unwrap()
}

#[test]
fn hosts_tell_profiles() {
    for (host, name) in [
        ("docker.io", "docker-hub"),
        ("index.docker.io", "docker-hub"),
        ("registry.cn-hangzhou.aliyuncs.com", "aliyun-personal"),
        ("registry-vpc.cn-hangzhou.aliyuncs.com", "aliyun-personal"),
        ("team-registry.cn-beijing.cr.aliyuncs.com", "aliyun-enterprise"),
        ("team-registry-vpc.cn-beijing.cr.aliyuncs.com", "aliyun-enterprise"),
        ("ccr.ccs.tencentyun.com", "tencent-ccr"),
        ("team.tencentcloudcr.com", "tencent-tcr"),
        ("swr.cn-north-4.myhuaweicloud.com", "huawei-swr"),
        ("SWR.cn-north-4.MyHuaweiCloud.com:443", "huawei-swr"),
        ("ghcr.io", "ghcr"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ecr"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "ecr"),
        ("public.ecr.aws", "ecr-public"),
        ("team.azurecr.io", "azure"),
        ("team.azurecr.cn", "azure"),
        ("europe-docker.pkg.dev", "artifact-registry"),
        ("gcr.io", "artifact-registry"),
        ("eu.gcr.io", "artifact-registry"),
        ("quay.io", "quay"),
        ("registry.gitlab.com", "gitlab"),
        ("registry.example.com", "generic"),
        ("localhost:5000", "generic"),
        ("ghcr.io.example.com", "generic"),
        ("notazurecr.io", "generic"),
        ("team.azurecr.io.example.com", "generic"),
    ] {
        assert_eq!(Profile::of(&registry(host)).name, name, "{host}");
    }
}

#[test]
fn profiles_have_names() {
    let names: Vec<&str> = Profile::all().map(|profile| profile.name).collect();
    let different: std::collections::HashSet<_> = names.iter().collect();
    assert_eq!((names.len(), different.len()), (18, 18));
    for profile in Profile::all() {
        assert_eq!(Profile::named(profile.name).unwrap(), profile);
        assert!(profile.depth.allows(profile.depth.min));
    }
    let error = Profile::named("acme").unwrap_err().to_string();
    assert!(error.contains("docker-hub, aliyun-personal") && error.ends_with("generic"), "{error}");
    let tested: Vec<_> =
        Profile::all().filter(|profile| profile.tested).map(|profile| profile.name).collect();
    assert_eq!(tested, ["distribution"], "nobody here has run the others");
}

#[test]
fn depths() {
    let check = |profile: &str, name: &str| {
        let checked = Profile::named(profile).unwrap().check_name(&name.parse().unwrap());
        checked.map_err(|error| error.to_string())
    };
    for (profile, good) in [
        ("docker-hub", "me/app"),
        ("tencent-ccr", "me/app"),
        ("huawei-swr", "org/a/b/c"),
        ("harbor", "project/a/b"),
        ("generic", "a"),
        ("generic", "a/b/c/d/e/f"),
    ] {
        assert_eq!(check(profile, good), Ok(()), "{profile} {good}");
    }
    for (profile, bad, says) in [
        (
            "tencent-ccr",
            "me/coredns/coredns",
            "Tencent CCR takes NAMESPACE/NAME, and me/coredns/coredns has 3 parts",
        ),
        ("docker-hub", "app", "Docker Hub takes NAMESPACE/NAME, and app has 1 part"),
        (
            "aliyun-personal",
            "a/b/c/d",
            "Aliyun ACR, personal edition takes NAMESPACE/NAME, and a/b/c/d has 4 parts",
        ),
        ("harbor", "app", "Harbor takes NAMESPACE/NAME or deeper names, and app has 1 part"),
    ] {
        assert_eq!(check(profile, bad), Err(says.to_owned()));
    }
    let error = Profile::named("docker-hub").unwrap().check_name(&"a/b/c".parse().unwrap()).unwrap_err();
    assert_eq!((error.allowed, error.found), (Depth::TWO, 3));
}

#[test]
fn a_name_that_fits_is_found() {
    let fitting = |profile: &str, source: &str, namespace: Option<&str>| {
        let profile = Profile::named(profile).unwrap();
        let found = profile.fitting(&source.parse().unwrap(), namespace);
        found.map(|(preset, name)| format!("{preset} {name}"))
    };
    let deep = "registry.k8s.io/coredns/coredns";
    for (profile, source, namespace, expected) in [
        ("tencent-ccr", deep, Some("me"), Some("dots me/registry.k8s.io.coredns.coredns")),
        ("tencent-ccr", deep, None, Some("keep coredns/coredns")),
        ("tencent-ccr", "registry.k8s.io/pause", Some("me"), Some("keep me/pause")),
        ("tencent-ccr", "alpine", Some("me"), Some(concat!("dots me/docker.io.", "library.alpine"))),
        ("huawei-swr", deep, Some("org"), Some("keep org/coredns/coredns")),
        ("generic", deep, Some("a/b"), Some("keep a/b/coredns/coredns")),
        ("tencent-ccr", deep, Some("a/b"), None),
        ("tencent-ccr", deep, Some("Not A Name"), None),
        ("docker-hub", "quay.io/pause", None, None),
    ] {
        assert_eq!(fitting(profile, source, namespace).as_deref(), expected, "{profile} {source}");
    }
    let long = format!("registry.example/{}/app", "a".repeat(245));
    assert_eq!(fitting("docker-hub", &long, Some("me")).as_deref(), Some("basename me/app"));
}

#[test]
fn only_what_refuses_oci_types_changes_images() {
    for profile in Profile::all() {
        assert_eq!(profile.degradations().is_empty(), profile.name != "huawei-swr", "{}", profile.name);
    }
    let swr = registry("swr.cn-north-4.myhuaweicloud.com");
    for (choice, changes) in [("auto", true), ("strict", false), ("generic", false), ("huawei-swr", true)] {
        let parsed: Choice = choice.parse().unwrap();
        assert_eq!(parsed.to_string(), choice);
        assert_eq!(!parsed.degradations(&swr).is_empty(), changes, "{choice}");
    }
    assert_eq!("strict".parse::<Choice>().unwrap().profile(&swr).name, "huawei-swr");
    assert!("?".parse::<Choice>().unwrap_err().reason.ends_with("generic, auto or strict"));
}
