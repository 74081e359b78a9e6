//! Who is started again waits as long as who was not.

use std::sync::Mutex;

use super::*;
use crate::{Proof, Validity};

/// A server that nobody shows a certificate to.
struct Unseen;

impl Site for Unseen {
    fn show(&self, _: &Proof) -> Result<()> {
        Ok(())
    }

    fn hide(&self, _: &Proof) {}

    fn install(&self, name: &str, _: &Pem) -> Result<Validity> {
        Err(Error::new(Kind::Invalid, "read", name, "there is none"))
    }
}

/// An authority that hangs up, what was kept, and a clock.
struct Scene {
    authority: std::net::TcpListener,
    directory: tempfile::TempDir,
    now: Arc<Mutex<SystemTime>>,
}

impl Scene {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        authority.set_nonblocking(true).unwrap();
        let now = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)));
        Self { authority, directory: tempfile::tempdir().unwrap(), now }
    }

    /// A process that has just begun.
    fn begin(&self, names: &[&str]) -> Manager {
        let now = Arc::clone(&self.now);
        let authority = Authority {
            directory: format!("https://{}/dir", self.authority.local_addr().unwrap()),
            roots: Vec::new(),
            contact: Vec::new(),
            external: None,
        };
        let options = Options {
            authority,
            way: Way::Tls,
            wanted: vec![names.iter().map(|name| (*name).to_owned()).collect()],
            directory: self.directory.path().to_owned(),
            now: Arc::new(move || *now.lock().unwrap()),
        };
        Manager::open(options, Arc::new(Unseen)).unwrap()
    }

    /// Lets it do what is to be done now; how often the authority was asked for that.
    async fn asked(&self, manager: &mut Manager) -> usize {
        let mut entry = manager.all.remove(0);
        let mut asked = 0;
        {
            let mut work = std::pin::pin!(manager.look_after(&mut entry));
            let mut over = false;
            while !over {
                over = tokio::select! {
                    () = &mut work => true,
                    () = tokio::time::sleep(Duration::from_millis(2)) => false,
                };
                while self.authority.accept().is_ok() {
                    asked += 1;
                }
            }
        }
        manager.all.push(entry);
        asked
    }

    fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }
}

#[tokio::test]
async fn who_is_started_again_and_again_asks_no_more_often() {
    let scene = Scene::new();
    let names = ["a.test", "b.test"];
    assert!(scene.asked(&mut scene.begin(&names)).await > 0);
    let mut waits = Vec::new();
    for _ in 0..3 {
        // Ten starts, of which none asks.
        for _ in 0..10 {
            assert_eq!(scene.asked(&mut scene.begin(&names)).await, 0);
        }
        let mut next = scene.begin(&names);
        let wait = next.all[0].due.duration_since(scene.begin(&names).now()).unwrap();
        waits.push(wait);
        scene.pass(wait + Duration::from_secs(1));
        assert!(scene.asked(&mut next).await > 0, "its time has come");
    }
    assert!(waits.is_sorted_by(|one, next| *next > *one * 2), "they grow as in one process: {waits:?}");
    // Who asks for something else has changed the configuration.
    assert!(scene.asked(&mut scene.begin(&["a.test"])).await > 0);
}

#[tokio::test]
async fn who_is_killed_while_asking_has_asked() {
    let scene = Scene::new();
    let mut killed = scene.begin(&["a.test"]);
    let mut entry = killed.all.remove(0);
    // The authority takes the connection and says nothing.
    let silent = tokio::time::timeout(Duration::from_millis(100), killed.look_after(&mut entry)).await;
    assert!(silent.is_err(), "it is still asking");
    drop(killed);
    while scene.authority.accept().is_ok() {}
    assert_eq!(scene.asked(&mut scene.begin(&["a.test"])).await, 0);
}
