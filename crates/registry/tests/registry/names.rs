//! A name server (RFC 1035) that gives other addresses when it is asked again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// IPv4 addresses.
const A: u16 = 1;
/// IPv6 addresses.
const AAAA: u16 = 28;

/// What is known of a name, and how often each kind of address was asked for.
#[derive(Default)]
struct Known {
    rounds: Vec<Vec<IpAddr>>,
    asked: HashMap<u16, usize>,
}

pub struct NameServer {
    known: Arc<Mutex<HashMap<String, Known>>>,
    server: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl NameServer {
    pub async fn start(at: &str) -> Self {
        let socket = UdpSocket::bind(at).await.unwrap();
        let known = Arc::<Mutex<HashMap<String, Known>>>::default();
        let names = Arc::clone(&known);
        let server = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = answer(&buffer[..length], &mut names.lock().unwrap());
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self { known, server }
    }

    /// Who asks for `name` gets the addresses of the first round, then those of the next; the last remains.
    pub fn say(&self, name: &str, rounds: &[&[&str]]) {
        let addresses = |round: &&[&str]| round.iter().map(|address| address.parse().unwrap()).collect();
        let known = Known { rounds: rounds.iter().map(addresses).collect(), asked: HashMap::new() };
        self.known.lock().unwrap().insert(name.to_owned(), known);
    }

    /// How often `name` was looked up.
    pub fn asked(&self, name: &str) -> usize {
        self.known.lock().unwrap()[name].asked.values().copied().max().unwrap_or(0)
    }
}

fn answer(query: &[u8], known: &mut HashMap<String, Known>) -> Vec<u8> {
    let (name, end) = name_at(query, 12);
    let kind = u16::from_be_bytes([query[end], query[end + 1]]);
    let found = known.get_mut(&name);
    let refusal = if found.is_some() { 0 } else { 3 };
    let records: Vec<Vec<u8>> = found.map(|known| known.next(kind)).unwrap_or_default();
    let count = u8::try_from(records.len()).unwrap();
    let head = [query[0], query[1], 0x81, 0x80 | refusal, 0, 1, 0, count, 0, 0, 0, 0];
    [&head[..], &query[12..end + 4], &records.concat()].concat()
}

impl Known {
    /// The records of this kind in the round that it is now.
    fn next(&mut self, kind: u16) -> Vec<Vec<u8>> {
        let asked = self.asked.entry(kind).or_default();
        let round = &self.rounds[(*asked).min(self.rounds.len() - 1)];
        *asked += 1;
        let data = round.iter().filter_map(|address| match address {
            IpAddr::V4(v4) if kind == A => Some(v4.octets().to_vec()),
            IpAddr::V6(v6) if kind == AAAA => Some(v6.octets().to_vec()),
            _ => None,
        });
        // The name of the question, in class IN, to be forgotten at once.
        let record = |data: Vec<u8>| {
            let fixed = [0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 0, 0, data.len() as u8];
            [&fixed[..], &data].concat()
        };
        data.map(record).collect()
    }
}

/// The name at `offset`, and where it ends.
fn name_at(query: &[u8], mut offset: usize) -> (String, usize) {
    let mut labels = Vec::new();
    while query[offset] != 0 {
        let end = offset + 1 + usize::from(query[offset]);
        labels.push(String::from_utf8(query[offset + 1..end].to_vec()).unwrap());
        offset = end;
    }
    (labels.join("."), offset + 1)
}
