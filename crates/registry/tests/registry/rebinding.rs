//! Names that a registry refers to, and that lead elsewhere when they are looked up again: what was checked is what is
//! connected to.

/// The tests call themselves where there is a network of their own, with a name server, and where every address is
/// this machine.
mod own_networks {
    use std::process::Command;
    use std::sync::{Arc, Mutex};

    use ferry_oci::{Digest, Manifest, Registry, media_type};
    use ferry_registry::{Anonymous, Client, ClientOptions, Proxies, Site};
    use ferry_store::{BlobBody, ByteRange, Kind, Mount, Result, Scope};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
    use tokio::net::{TcpListener, TcpStream};

    use crate::fake::{Fake, Reply, Seen};
    use crate::names::NameServer;
    use crate::support::*;

    const WITHIN: &str = "FERRY_TEST_OWN_NETWORK";
    const PORT: u16 = 8080;
    const PUBLIC: &str = "198.51.100.7";
    /// Nobody listens here.
    const DEAD: &str = "198.51.100.8";
    const BODY: &[u8] = b"content of a blob";

    const INSIDE_V4: &str = "10.0.0.1 169.254.169.254";
    const INSIDE_V6: &str = "64:ff9b::7f00:1 2002:7f00:1:: fd00:ec2::254";

    /// What must not be visited. Somebody listens at each.
    const INSIDE: [&str; 9] = [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "10.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fd00:ec2::254",
    ];

    /// Whether there is a network of our own. If not, `test` is run where there is one.
    fn within(test: &str) -> bool {
        if std::env::var_os(WITHIN).is_some() {
            return true;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("resolv.conf"),
            "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("nsswitch.conf"), "hosts: dns\n").unwrap();
        let script = format!(
            "for file in resolv.conf nsswitch.conf; do mount --bind \"${WITHIN}/$file\" /etc/$file; done\n\
             ip link set lo up\n\
             for ip in {PUBLIC} {DEAD} {INSIDE_V4}; do ip address add $ip dev lo; done\n\
             for ip in {INSIDE_V6}; do ip address add $ip dev lo nodad; done\n\
             exec \"$0\" --exact rebinding::own_networks::{test}"
        );
        let output = Command::new("unshare")
            .args(["--mount", "--net", "--map-root-user", "sh", "-ec", &script])
            .arg(std::env::current_exe().unwrap())
            .env(WITHIN, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:#?}");
        false
    }

    /// What is in the network: names, a public host, and hosts that a registry must not lead to.
    struct World {
        names: NameServer,
        public: Fake,
        inside: Vec<Fake>,
        home: Fake,
    }

    /// Whoever is asked gives everything, over a new connection each time.
    fn host(seen: &Seen) -> Reply {
        let reply = match seen.method.as_str() {
            "PUT" => Reply::new(201),
            _ if seen.target.contains("token") => Reply::new(200).body(r#"{"token":"the-token"}"#),
            _ => Reply::new(200).body(BODY),
        };
        reply.header("connection", "close")
    }

    fn manifest() -> Manifest {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
        Manifest::parse(None, text.into()).unwrap()
    }

    /// A registry that sends away who asks for the repository `X/…`, to the host `X.rebound.test`.
    fn home(seen: &Seen) -> Reply {
        let (first, _) = seen.target.strip_prefix("/v2/").unwrap().split_once('/').unwrap();
        let elsewhere = format!("http://{first}.rebound.test:{PORT}");
        match seen.method.as_str() {
            "POST" => Reply::new(202).header("location", format!("{elsewhere}/upload")),
            _ if seen.target.contains("/blobs/") => {
                Reply::new(307).header("location", format!("{elsewhere}/blob?signature=x"))
            }
            _ if seen.header("authorization").is_some() => {
                Reply::new(200).header("content-type", media_type::OCI_INDEX).body(manifest().bytes().clone())
            }
            _ => Reply::new(401).header("www-authenticate", format!("Bearer realm=\"{elsewhere}/token\"")),
        }
    }

    impl World {
        async fn new() -> Self {
            let mut inside = Vec::new();
            // All others of the list lead to 127.0.0.1.
            let addresses = INSIDE_V4.split(' ').chain(INSIDE_V6.split(' '));
            for address in ["127.0.0.1", "::1"].into_iter().chain(addresses) {
                let address = std::net::SocketAddr::new(address.parse().unwrap(), PORT);
                inside.push(Fake::start_on(&address.to_string(), host).await);
            }
            Self {
                names: NameServer::start("127.0.0.1:53").await,
                public: Fake::start_on(&format!("{PUBLIC}:{PORT}"), host).await,
                inside,
                home: Fake::start(home).await,
            }
        }

        fn registry(&self) -> Registry {
            format!("registry.test:{}", self.home.address.port()).parse().unwrap()
        }

        fn client(&self, proxies: Proxies) -> Arc<Client> {
            let usual = Site { plain_http: Some(true), proxies, ..Site::default() };
            let resolve = vec![("registry.test".to_owned(), self.home.address)];
            client(ClientOptions { resolve, usual, ..quick() }, Anonymous)
        }

        fn assert_nobody_was_visited(&self) {
            for host in &self.inside {
                assert!(host.seen().is_empty(), "{}: {:?}", host.address, host.lines());
            }
        }
    }

    /// How a registry can send us to a host of its choice.
    #[derive(Debug, Clone, Copy)]
    enum Way {
        Redirect,
        Link,
        Realm,
        Location,
    }

    const WAYS: [Way; 4] = [Way::Redirect, Way::Link, Way::Realm, Way::Location];

    impl Way {
        async fn go(self, client: &Client, registry: &Registry, place: &str) -> Result<()> {
            let store = client.registry(registry)?;
            let (place, digest) = (name(place), Digest::sha256(BODY));
            let reader = store.repository(&Scope::Hosted, &place);
            match self {
                Self::Redirect => {
                    let blob = reader.blob(&digest, ByteRange::ALL).await?;
                    assert_eq!(blob.into_bytes().await?, BODY);
                }
                Self::Link => {
                    let blob = client.links(registry)?.link(&place, &digest).await?.unwrap();
                    assert!(matches!(blob.body, BlobBody::Link(_)));
                }
                Self::Realm => assert_eq!(reader.manifest(&tag("t")).await?.bytes(), manifest().bytes()),
                Self::Location => {
                    let writer = store.writable(&Scope::Hosted, &place).unwrap();
                    let bytes = BODY.into();
                    let mut upload = opened(writer.begin(promised(&bytes, Mount::No)).await?);
                    upload.write(bytes).await?;
                    upload.commit(&digest).await?;
                }
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_name_that_moves_inside_is_not_followed() {
        if !within("a_name_that_moves_inside_is_not_followed") {
            return;
        }
        let world = World::new().await;
        let registry = world.registry();
        for (number, inside) in INSIDE.into_iter().enumerate() {
            for way in WAYS {
                let host = format!("{way:?}{number}").to_lowercase();
                let whole = format!("{host}.rebound.test");
                world.names.say(&whole, &[&[PUBLIC], &[inside]]);
                let before = world.public.seen().len();
                // Another would remember where tokens were got.
                let client = world.client(Proxies::default());
                way.go(&client, &registry, &format!("{host}/once")).await.unwrap();
                assert_eq!(world.public.seen().len(), before + 1, "{way:?} led to {PUBLIC}");
                assert_eq!(world.names.asked(&whole), 1, "{way:?}: looked up to check it, and not again");
                let again = way.go(&client, &registry, &format!("{host}/again")).await;
                assert_eq!(kind(again), Kind::Misdirected, "{way:?} to {inside}");
                assert_eq!(world.names.asked(&whole), 2, "{way:?} to {inside}");
            }
        }
        world.assert_nobody_was_visited();
    }

    #[tokio::test]
    async fn trying_again_looks_at_the_new_address() {
        if !within("trying_again_looks_at_the_new_address") {
            return;
        }
        let world = World::new().await;
        let registry = world.registry();
        for way in WAYS {
            let client = world.client(Proxies::default());
            let host = format!("{way:?}").to_lowercase();
            let whole = format!("{host}.rebound.test");
            world.names.say(&whole, &[&[DEAD], &["127.0.0.1"]]);
            let place = format!("{host}/app");
            let mut gone = way.go(&client, &registry, &place).await;
            // What is uploaded cannot be sent again without whoever has it.
            if matches!(way, Way::Location) {
                assert_eq!(kind(gone), Kind::Unavailable);
                gone = way.go(&client, &registry, &place).await;
            }
            assert_eq!(kind(gone), Kind::Misdirected, "{way:?}");
            assert_eq!(world.names.asked(&whole), 2, "{way:?}");
        }
        world.assert_nobody_was_visited();
    }

    /// A client that tries one address after the other must not come to the one that leads inside.
    #[tokio::test]
    async fn of_many_addresses_none_inside_is_tried() {
        if !within("of_many_addresses_none_inside_is_tried") {
            return;
        }
        let world = World::new().await;
        let registry = world.registry();
        let with = |address| [&INSIDE[..], &[address]].concat();
        for way in WAYS {
            for (host, address) in [("dead", DEAD), ("alive", PUBLIC)] {
                let host = format!("{way:?}-{host}").to_lowercase();
                world.names.say(&format!("{host}.rebound.test"), &[&with(address)]);
                let client = world.client(Proxies::default());
                let gone = way.go(&client, &registry, &format!("{host}/app")).await;
                match address {
                    DEAD => assert_eq!(kind(gone), Kind::Unavailable, "{way:?}"),
                    _ => gone.unwrap(),
                }
            }
        }
        world.assert_nobody_was_visited();
    }

    fn through(proxy: &str) -> Proxies {
        let proxy = Some(proxy.parse().unwrap());
        Proxies { http: proxy.clone(), https: proxy, except: "registry.test".to_owned() }
    }

    /// It is the proxy that has to look then.
    #[tokio::test]
    async fn what_a_proxy_looks_up_is_not_looked_up_here() {
        if !within("what_a_proxy_looks_up_is_not_looked_up_here") {
            return;
        }
        let world = World::new().await;
        world.names.say("app.rebound.test", &[&["127.0.0.1"]]);
        let proxy = Fake::start_on("10.0.0.1:3128", host).await;
        let client = world.client(through("http://10.0.0.1:3128"));
        Way::Redirect.go(&client, &world.registry(), "app/a").await.unwrap();
        assert_eq!(proxy.lines(), [format!("GET http://app.rebound.test:{PORT}/blob?signature=x")]);
        assert_eq!(world.names.asked("app.rebound.test"), 0);
        world.assert_nobody_was_visited();
    }

    /// A SOCKS proxy (RFC 1928) for one address after the other; remembers what it was asked to connect to.
    async fn socks(listener: TcpListener, asked: Arc<Mutex<Vec<Vec<u8>>>>) {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut greeting = [0; 3];
            client.read_exact(&mut greeting).await.unwrap();
            client.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 10];
            client.read_exact(&mut request).await.unwrap();
            asked.lock().unwrap().push(request.to_vec());
            let mut server = TcpStream::connect((PUBLIC, PORT)).await.unwrap();
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    }

    #[tokio::test]
    async fn a_proxy_that_looks_up_nothing_is_given_the_address_that_was_checked() {
        if !within("a_proxy_that_looks_up_nothing_is_given_the_address_that_was_checked") {
            return;
        }
        let world = World::new().await;
        world.names.say("app.rebound.test", &[&[PUBLIC], &["127.0.0.1"]]);
        let asked = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let listener = TcpListener::bind("10.0.0.1:1080").await.unwrap();
        let proxy = tokio::spawn(socks(listener, Arc::clone(&asked)));
        let client = world.client(through("socks5://10.0.0.1:1080"));
        Way::Redirect.go(&client, &world.registry(), "app/a").await.unwrap();
        let again = Way::Redirect.go(&client, &world.registry(), "app/b").await;
        assert_eq!(kind(again), Kind::Misdirected);
        let port = PORT.to_be_bytes();
        assert_eq!(*asked.lock().unwrap(), [vec![5, 1, 0, 1, 198, 51, 100, 7, port[0], port[1]]]);
        world.assert_nobody_was_visited();
        proxy.abort();
    }
}
