//! The same commands to a real `redis-server` 7.0 and to this service, reply by reply, byte by byte.
//!
//! Needs the program `redis-server`; without it the tests say so and pass, but for `UNISONO_TOOLS=required`. What stays
//! different is listed in `DIFFERENCES` and, with reasons, in docs/guide/redis.md.

#[path = "../common/mod.rs"]
mod common;
mod families;
mod random;

use common::{Cluster, Schedule, array};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// What is known to differ, and is left out of the scripts: docs/guide/redis.md names each of these.
const DIFFERENCES: &[&str] = &[
    "order of hashes and sets",
    "one database",
    "arguments above 1 MiB in number",
    "size of values",
    "what the gateway tells of itself",
    "CLIENT SETINFO",
    "hexadecimal floats",
    "negative zero in large sorted sets",
    "WATCH of a missing key",
    "unknown options in invalid UTF-8",
];

/// How long a reply of the real server may take, and its start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A redis-server of this test's own.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server, or nothing where the program is not installed.
fn server() -> Option<Server> {
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.current_dir(std::env::temp_dir()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            assert!(std::env::var("UNISONO_TOOLS").as_deref() != Ok("required"), "redis-server is not installed");
            println!("skipped: needs redis-server");
            return None;
        };
        let mut server = Server { child, port };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match TcpStream::connect(("127.0.0.1", port)).ok().and_then(process_id) {
                Some(id) if id == server.child.id() => return Some(server),
                Some(_) => break, // another test's server was quicker to take the port
                None => {}
            }
            if server.child.try_wait().unwrap().is_some() {
                break; // somebody else took the port
            }
            std::thread::yield_now();
        }
    }
    panic!("redis-server does not start");
}

/// Which process answers there.
fn process_id(mut stream: TcpStream) -> Option<u32> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"INFO server\r\n").ok()?;
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4_096];
        let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        text.extend_from_slice(&piece[..length]);
        let so_far = String::from_utf8_lossy(&text);
        let rest = so_far.split_once("process_id:").map(|(_, rest)| rest.to_owned());
        if let Some((number, _)) = rest.as_deref().and_then(|rest| rest.split_once("\r\n")) {
            return number.parse().ok();
        }
    }
}

/// A connection to the real server.
struct Real {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Real {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next whole reply; what there was when the connection ended.
    fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = reply_length(&self.buffer) {
                return self.buffer.drain(..length).collect();
            }
            let mut piece = [0; 65_536];
            match self.stream.read(&mut piece).unwrap() {
                0 => return std::mem::take(&mut self.buffer),
                length => self.buffer.extend_from_slice(&piece[..length]),
            }
        }
    }
}

/// How long the first reply in `bytes` is, if it is whole.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    let parts = match bytes[0] {
        b'$' | b'=' => {
            let whole = line + usize::try_from(number()?).map_or(0, |length| length + 2);
            return (bytes.len() >= whole).then_some(whole);
        }
        b'*' | b'~' => number()?.max(0),
        b'%' => 2 * number()?,
        _ => return Some(line),
    };
    let mut whole = line;
    for _ in 0..parts {
        whole += reply_length(&bytes[whole..])?;
    }
    Some(whole)
}

/// The elements of an aggregate reply of strings, sorted in groups of `group`.
fn sorted(reply: &[u8], group: usize) -> Vec<Vec<u8>> {
    let Some(line) = reply.windows(2).position(|pair| pair == b"\r\n") else { return vec![reply.to_vec()] };
    let mut rest = &reply[line + 2..];
    let mut elements = Vec::new();
    while let Some(length) = reply_length(rest).filter(|length| *length > 0) {
        elements.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    let mut groups: Vec<Vec<u8>> = elements.chunks(group).map(<[_]>::concat).collect();
    groups.sort();
    groups.insert(0, reply[..line].to_vec());
    groups
}

/// Are these replies to `command` the same, in what Redis specifies?
fn same(command: &[&str], real: &[u8], ours: &[u8]) -> bool {
    match command[0].to_ascii_uppercase().as_str() {
        "SMEMBERS" => sorted(real, 1) == sorted(ours, 1),
        "HGETALL" => sorted(real, 2) == sorted(ours, 2),
        // the clocks are not the same
        "PTTL" => close(real, ours, 5_000),
        "TTL" => close(real, ours, 5),
        _ => real == ours,
    }
}

fn close(real: &[u8], ours: &[u8], tolerance: u64) -> bool {
    let number = |reply: &[u8]| std::str::from_utf8(reply).ok()?.strip_prefix(':')?.trim_end().parse::<i64>().ok();
    match (number(real), number(ours)) {
        (Some(real @ 0..), Some(ours @ 0..)) => real.abs_diff(ours) <= tolerance,
        _ => real == ours,
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

/// Both sides with the same connections.
struct Both {
    real: Vec<Real>,
    ours: Vec<usize>,
    cluster: Cluster,
    control: Real,
}

impl Both {
    fn new(server: &Server, connections: usize) -> Self {
        let mut cluster = Cluster::new(Schedule::Uds(1));
        let mut control = Real::connect(server);
        control.send(b"FLUSHALL\r\n");
        control.reply();
        let real = (0..connections).map(|_| Real::connect(server)).collect();
        let ours = (0..connections).map(|_| cluster.connect()).collect();
        Self { real, ours, cluster, control }
    }

    fn send(&mut self, who: usize, bytes: &[u8]) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        self.cluster.time_is(u64::try_from(now.as_micros()).unwrap());
        self.real[who].send(bytes);
        self.cluster.arrive(self.ours[who], bytes);
        self.cluster.settle();
    }

    /// Compares as many replies as there were commands.
    fn compare(&mut self, who: usize, commands: &[Vec<&str>]) {
        let mut ours = Vec::new();
        for command in commands {
            let real = self.real[who].reply();
            for _ in 0..10 {
                ours.extend(self.cluster.take(self.ours[who]));
                if reply_length(&ours).is_some() {
                    break;
                }
                self.cluster.pass(10); // a blocked pop gives up
            }
            let length = reply_length(&ours).unwrap_or(ours.len());
            let reply: Vec<u8> = ours.drain(..length).collect();
            assert!(same(command, &real, &reply), "{command:?}\n real: {}\n ours: {}", shown(&real), shown(&reply));
        }
        assert!(ours.is_empty(), "a reply too many: {}", shown(&ours));
    }

    /// Waits until so many connections of the real server are blocked.
    fn blocked(&mut self, count: usize) {
        let start = Instant::now();
        let expected = format!("blocked_clients:{count}\r\n");
        while start.elapsed() < PATIENCE {
            self.control.send(b"INFO clients\r\n");
            if String::from_utf8_lossy(&self.control.reply()).contains(&expected) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{expected} never came");
    }
}

/// Plays a script on both sides. `a: command` sends on connection a and compares the reply, `a! command` sends what
/// blocks, `a?` compares its reply. Without a name it is connection a. In `"..."` a word may have blanks.
fn play(name: &str, version: u8, script: &str) {
    let Some(server) = server() else { return };
    let mut both = Both::new(&server, 4);
    for who in 0..4 {
        let hello = format!("HELLO {version}\r\n");
        both.send(who, hello.as_bytes());
        both.real[who].reply();
        both.cluster.take(both.ours[who]);
    }
    let mut blocked: Vec<usize> = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        println!("{name}: {line}");
        let (who, mark, command) = match line.as_bytes() {
            [who @ b'a'..=b'd', mark @ (b':' | b'!' | b'?'), ..] => (usize::from(who - b'a'), *mark, line[2..].trim()),
            _ => (0, b':', line),
        };
        let words = words(command);
        match mark {
            b':' => {
                both.send(who, &array(&words));
                both.compare(who, &[words]);
            }
            b'!' => {
                both.send(who, &array(&words));
                blocked.push(who);
                both.blocked(blocked.len());
            }
            _ => {
                both.compare(who, &[vec!["a blocked pop"]]);
                blocked.retain(|other| *other != who);
            }
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word);
        rest = behind.trim_start();
    }
    words
}

/// What is no request, byte by byte.
#[test]
fn what_is_no_request() {
    let Some(server) = server() else { return };
    let cases: &[&[u8]] = &[
        b"*x\r\n",
        b"*01\r\n",
        b"*2147483648\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$600000000\r\n",
        b"PING \"a\r\n",
        b"PING 'a\r\n",
        b"PING \"a\"b\r\n",
        b"*-1\r\nQUIT\r\n",
        b"*0\r\nQUIT\r\n",
        b"\r\n\r\nQUIT\r\n",
        b"ECHO \"a\\x41\\n\\\"b\"\r\nQUIT\r\n",
        b"ECHO 'it\\'s'\r\nQUIT\r\n",
        b"PING\nQUIT\n",
        b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nQUIT\r\n",
        b"*1\r\n$0\r\n\r\nQUIT\r\n",
        b"QUIT\r\nPING\r\n",
        b"  PING  \r\nQUIT\r\n",
    ];
    for case in cases {
        let mut both = Both::new(&server, 1);
        both.send(0, case);
        let ours = both.cluster.take(both.ours[0]);
        assert!(both.cluster.closed(both.ours[0]), "{}", shown(case));
        let mut real = Vec::new();
        both.real[0].stream.read_to_end(&mut real).unwrap();
        assert_eq!(shown(&real), shown(&ours), "{}", shown(case));
    }
}

/// The guide names what this test leaves out, and nothing else.
#[test]
fn the_guide_lists_the_differences() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/redis.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let listed: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| **"))
        .filter_map(|line| line.split_once("**").map(|(name, _)| name))
        .collect();
    assert_eq!(listed, DIFFERENCES);
}
