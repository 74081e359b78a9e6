//! `ferry rewrite`: files name what `ferry copy` has copied.

use crate::harness::Ferry;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web}   # comments stay
spec:
  containers:
    - name: web
      image: nginx:1.25 # and so do these
    - name: dns
      image: 'registry.k8s.io/coredns/coredns:v1.8.6'
    - {name: pinned, image: \"quay.io/a/b:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}
    - {name: mine, image: localhost:5000/team/own:v1}
";

const COMPOSE: &str = "\
services:
  db: {image: postgres}
  own: {build: ., image: own}
  later: {image: \"${REGISTRY}/later:1\"}";

#[tokio::test(flavor = "multi_thread")]
async fn names_change_and_nothing_else() {
    let ferry = Ferry::new();
    std::fs::write(ferry.path("pod.yaml"), POD).unwrap();
    std::fs::write(ferry.path("compose.yaml"), COMPOSE).unwrap();
    let ran = ferry.run(&["rewrite", "--to", "localhost:5000/team", "pod.yaml", "compose.yaml"]).await.ok();
    let expected = POD
        .replace("nginx:1.25", concat!("localhost:5000/team/", "library/nginx:1.25"))
        .replace("registry.k8s.io/", "localhost:5000/team/")
        .replace("quay.io/", "localhost:5000/team/");
    let compose = COMPOSE.replace("postgres", concat!("localhost:5000/team/", "library/postgres:latest"));
    assert_eq!(ran.out, format!("{expected}---\n{compose}\n"));
    assert!(ran.err.contains("compose.yaml:4:18: ${REGISTRY}/later:1 has variables"), "{}", ran.err);

    std::fs::write(
        ferry.path("list"),
        "registry.k8s.io/coredns/coredns:v1.8.6$dns\nnginx:1.25 quay.io/me/web:x\n",
    )
    .unwrap();
    let by_list = ferry
        .run(&[
            "rewrite",
            "--to",
            "localhost:5000/team",
            "--naming",
            "dots",
            "--from-file",
            "list",
            "pod.yaml",
        ])
        .await;
    let expected = POD
        .replace("nginx:1.25", "quay.io/me/web:x")
        .replace("registry.k8s.io/coredns/coredns:v1.8.6", "localhost:5000/team/dns:v1.8.6")
        .replace("quay.io/a/b", "localhost:5000/team/quay.io.a.b");
    assert_eq!(by_list.ok().out, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_for_ferry_copy() {
    let ferry = Ferry::new();
    std::fs::write(ferry.path("pod.yaml"), POD).unwrap();
    let ran = ferry.run(&["rewrite", "--list", "pod.yaml", "pod.yaml"]).await.ok();
    let images: Vec<&str> = ran.out.lines().collect();
    assert_eq!(images[..2], ["nginx:1.25", "registry.k8s.io/coredns/coredns:v1.8.6"]);
    assert_eq!(images.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_print_nothing() {
    let ferry = Ferry::new();
    for (text, says) in [
        ("image: {{ .Values.image }}:x: [", "file.yaml:1:"),
        ("image: a\nb: 1\n---\nimage: Not/an image\n", "file.yaml:4:8: "),
    ] {
        std::fs::write(ferry.path("good.yaml"), POD).unwrap();
        std::fs::write(ferry.path("file.yaml"), text).unwrap();
        let ran = ferry.run(&["rewrite", "--to", "localhost:5000", "good.yaml", "file.yaml"]).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
        assert!(ran.err.contains(says), "{}", ran.err);
    }
    for arguments in [
        &["rewrite", "good.yaml"][..],
        &["rewrite", "--to", "oci:dir", "good.yaml"],
        &["rewrite", "--to", "localhost:5000", "absent.yaml"],
        &["rewrite", "--to", "localhost:5000", "--naming", "{basename}-{platform}", "good.yaml"],
    ] {
        let ran = ferry.run(arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_images_do_not_become_one() {
    let ferry = Ferry::new();
    let basename = ["rewrite", "--to", "localhost:5000", "--naming", "basename"];
    std::fs::write(ferry.path("one.yaml"), "image: quay.io/a/app\n---\nimage: quay.io/a/app:latest\n")
        .unwrap();
    std::fs::write(ferry.path("other.yaml"), "image: quay.io/b/app\n").unwrap();
    ferry.run(&[&basename[..], &["one.yaml"]].concat()).await.ok();
    let ran = ferry.run(&[&basename[..], &["one.yaml", "other.yaml"]].concat()).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{ran:?}");
    let says = "other.yaml:1:8: quay.io/a/app:latest and quay.io/b/app:latest would both become";
    assert!(ran.err.contains(says), "{}", ran.err);
}
