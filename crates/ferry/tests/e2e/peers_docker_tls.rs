//! `docker login` and `docker pull` at a mirror that speaks HTTPS and wants tokens, with a Docker that checks its
//! certificate.

use ferry_testkit::peers::{Engine, Squid};

use crate::access::{PASSWORD, USER};
use crate::mirror_clients::config_of;
use crate::peers_tls::{HOST, Secured};

#[tokio::test(flavor = "multi_thread")]
async fn docker_logs_in_and_pulls_over_https() {
    let secured = Secured::new().await;
    // What is on this machine Docker does not check, so it only learns the name, and from a proxy.
    let proxy = Squid::start(&[HOST]).await.unwrap();
    let (name, at) = (secured.name(HOST), format!("{HOST}:{}", secured.address.port()));
    let home = secured.ferry.path("docker").display().to_string();
    let docker = async |engine: &Engine, script: &str| {
        let output = engine.shell(&format!("export DOCKER_CONFIG={home}\n{script}")).await.unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        if output.status.success() { Ok(out) } else { Err(format!("{out}\n{err}")) }
    };
    let login = |password| format!("echo {password} | docker login -u {USER} --password-stdin {at}");
    let strange = Engine::dockerd_behind(proxy.addr(), "{}", None).await.unwrap();
    let refused = docker(&strange, &login(PASSWORD)).await.unwrap_err();
    assert!(refused.contains("x509"), "{refused}");
    drop(strange);

    let authority = secured.ferry.path("certs/ca.crt");
    let engine = Engine::dockerd_behind(proxy.addr(), "{}", Some(&authority)).await.unwrap();
    let stranger = docker(&engine, &format!("docker pull {name}")).await.unwrap_err();
    assert!(stranger.contains("unauthorized") || stranger.contains("denied"), "{stranger}");
    docker(&engine, &login("wrong")).await.unwrap_err();
    docker(&engine, &login(PASSWORD)).await.unwrap();
    docker(&engine, &format!("docker pull {name}")).await.unwrap();
    let id = docker(&engine, &format!("docker inspect --format '{{{{.Id}}}}' {name}")).await.unwrap();
    assert_eq!(id.trim(), config_of(&secured.image.root).to_string());
}
