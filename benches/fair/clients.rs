//! Clients that misbehave, and what that costs another one: each flood goes on while the witness asks. They are a process of
//! their own, which takes processors as any other would: what that costs is shown by one that only computes.

use super::{Daemon, Plain, Queue, hello, row, time};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Records of the list that is asked for, of some kilobytes each.
const RECORDS: usize = 1000;
const PINGS: usize = 5000;
const RUNS: usize = 1000;

/// What is done, by how many at a time.
const FLOODS: [(&str, usize, Option<Begin>); 9] = [
    ("nobody else", 0, None),
    ("1 thread that computes, and asks nothing", 1, Some(|_| Box::pin(compute()))),
    ("2 threads that compute, and ask nothing", 2, Some(|_| Box::pin(compute()))),
    ("10,000 that connect and stay", 10, Some(|a| Box::pin(stay(a)))),
    ("300 that write a byte at a time", 300, Some(|a| Box::pin(write_slowly(a)))),
    ("20 that ask for 4 MiB of list, read slowly", 20, Some(|a| Box::pin(read_slowly(a)))),
    ("20 that ask for lists and read nothing", 20, Some(|a| Box::pin(read_nothing(a)))),
    ("1 that sends pings ahead, without end", 1, Some(|a| Box::pin(ask_ahead(a)))),
    ("4 that ask and reset", 4, Some(|a| Box::pin(reset(a)))),
];

/// This program once more, as the flood with that number.
struct Flooding(Child);

impl Flooding {
    fn start(number: usize, address: SocketAddr) -> Flooding {
        let this = std::env::current_exe().expect("this program has a path");
        let child = Command::new(this).args(["flood", &number.to_string(), &address.to_string()]).spawn();
        Flooding(child.expect("it starts"))
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Floods until it is killed.
pub(super) async fn flood(number: usize, address: SocketAddr) {
    // Ten thousand connections are as many descriptors here too.
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("the soft limit may be as high as the hard one");
    }
    let (_, many, begin) = FLOODS[number];
    let mut all = JoinSet::new();
    for _ in 0..many {
        all.spawn(begin.expect("a flood")(address));
    }
    all.join_next().await.expect("there is one").expect("they go on");
    panic!("one of them has ended");
}

pub(super) async fn clients() {
    println!("\n{:44} {:>6} {:>9} {:>9} {:>9}", "ms, another client of the daemon", "n", "p50", "p99", "worst");
    for (number, (name, _, flood)) in FLOODS.into_iter().enumerate() {
        let daemon = Daemon::start(Queue::Fair);
        let mut client = daemon.client().await;
        let padding = "x".repeat(3500);
        for i in 0..RECORDS {
            client.run(&["--name", &format!("r{i}"), "exit_7", &padding]).await.expect("accepted");
        }
        hello(&mut client).await;
        let stream = TcpStream::connect(daemon.address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let mut plain = Plain(BufReader::new(stream));
        let mut flooding = flood.map(|_| Flooding::start(number, daemon.address));
        if flooding.is_some() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let mut times = vec![];
        for _ in 0..PINGS {
            time(&mut times, async { assert_eq!(plain.ask("ping").await, "pong\n") }).await;
        }
        row(&format!("ping: {name}"), times, None);
        let mut times = vec![];
        for _ in 0..RUNS {
            time(&mut times, hello(&mut client)).await;
        }
        row(&format!("run hello, wait: {name}"), times, None);
        let ended = flooding.as_mut().and_then(|Flooding(child)| child.try_wait().expect("a child"));
        assert!(ended.is_none(), "it floods to the end");
    }
}

type Begin = fn(SocketAddr) -> Flood;
type Flood = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn connect(address: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            // Every port of ours is in use by connections that were just closed.
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(e) => panic!("no connection: {e}"),
        }
    }
}

/// A thousand connections each time: who has a place stays, who has none is told and comes again.
async fn stay(address: SocketAddr) {
    let mut held = Vec::with_capacity(1000);
    for _ in 0..1000 {
        held.push(connect(address).await);
    }
    loop {
        for stream in &mut held {
            let closed = !matches!(stream.try_read(&mut [0; 256]), Err(e) if e.kind() == ErrorKind::WouldBlock);
            if closed {
                *stream = connect(address).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn compute() {
    loop {
        std::hint::black_box((0..100_000u64).sum::<u64>());
        tokio::task::yield_now().await;
    }
}

async fn write_slowly(address: SocketAddr) {
    let mut stream = connect(address).await;
    loop {
        for byte in b"ping\n" {
            stream.write_all(&[*byte]).await.expect("it is in time");
            // Shorter than the silence that completes a request.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stream.read_exact(&mut [0; 5]).await.expect("pong");
    }
}

/// One with small buffers of its own.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a size");
    socket.connect(address).await.expect("a connection")
}

async fn read_slowly(address: SocketAddr) {
    let mut stream = narrow(address).await;
    stream.write_all(b"format json\n").await.expect("sent");
    loop {
        stream.write_all(b"list\n").await.expect("sent");
        for _ in 0..100 {
            let n = stream.read(&mut [0; 4096]).await.expect("a piece");
            assert!(n > 0, "it is in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn read_nothing(address: SocketAddr) {
    let requests = "format json\n".to_owned() + &"list\n".repeat(1000);
    loop {
        let mut stream = narrow(address).await;
        // Until it is given up.
        while stream.write_all(requests.as_bytes()).await.is_ok() {}
    }
}

async fn ask_ahead(address: SocketAddr) {
    let (mut read, mut write) = connect(address).await.into_split();
    let requests = "ping\n".repeat(10_000);
    let asking = async {
        loop {
            write.write_all(requests.as_bytes()).await.expect("sent");
        }
    };
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            assert!(read.read(&mut buffer).await.expect("answers") > 0, "it stays");
        }
    };
    tokio::join!(asking, reading);
}

async fn reset(address: SocketAddr) {
    loop {
        let mut stream = connect(address).await;
        stream.set_zero_linger().expect("a socket");
        stream.write_all(b"list\ninspect r1\nlist\n").await.expect("sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
