//! containerd, as Kubernetes uses it: archives that ferry wrote, and those that it exports.

use ferry_testkit::images::NamedImage;
use ferry_testkit::peers::Engine;

use crate::peers_archives::{Scene, commands};

#[tokio::test(flavor = "multi_thread")]
async fn containerd_imports_and_exports() {
    let scene = Scene::new().await;
    let inside = scene.ferry.serve(&scene.ferry.path("inside"), 0).await;
    for target in ["oci-archive:oci.tar", "docker-archive:docker.tar"] {
        let engine = Engine::containerd().await.unwrap();
        let ctr = async |script: &str| {
            let script = format!("cd {}\n{script}", scene.ferry.home.path().display());
            let output = engine.shell(&script).await.unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{script}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
            said
        };
        let ran = scene.write(target, &["--commands", "ctr"]).await;
        ctr(&commands(&ran.out)).await;
        let listed = ctr("ctr -n k8s.io images ls").await;
        for NamedImage { repository, tag, image } in &scene.images {
            let line = format!("quay.io/{repository}:{tag} ");
            let found = listed.lines().find(|found| found.starts_with(&line)).expect(&listed);
            assert!(found.contains(&image.root.digest().to_string()), "{target}: {listed}");
        }
        // Of what was imported for this platform alone the rest does not stay.
        let all = "quay.io/team/app:v1 quay.io/team/list:v2 quay.io/one:v3";
        let archive = target.split_once(':').unwrap().1;
        ctr(&format!(
            "ctr -n all images import --all-platforms --no-unpack {archive}\n\
             ctr -n all images export --all-platforms exported.tar {all}"
        ))
        .await;
        let to = format!("{}/{}", inside.host(), target.split(':').next().unwrap());
        let ran = scene.ferry.run(&["copy", "--to", &to, "oci-archive:exported.tar"]).await.ok();
        assert!(ran.out.contains("3 images: 3 copied"), "{}", ran.out);
        scene.arrived(&inside, &format!("{}/", target.split(':').next().unwrap())).await;
        std::fs::remove_file(scene.ferry.path("exported.tar")).unwrap();
    }
}
