//! A process that does a known amount of work in a cgroup.
//!
//! It is this test binary started again for the ignored test below, with the
//! work named in its environment. It waits for a line before it begins, so that
//! it can be put into its cgroup first, and says so when it is done.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::group::Group;

const WORK: &str = "NODEGAUGE_LIVE_WORK";
const DONE: &str = "work done";

pub struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// A worker in `group` that has not begun.
    pub fn start(group: &Group, work: &str) -> Worker {
        let worker = Worker::start_outside(work, &[]);
        group.add(worker.pid());
        worker
    }

    /// `wrapper`: a program and arguments to start it with, such as `unshare -n`.
    pub fn start_outside(work: &str, wrapper: &[&str]) -> Worker {
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        let words = [wrapper, &[own, "worker::works", "--exact", "--ignored", "--nocapture"]].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env(WORK, work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Worker { child, stdin, stdout }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin and waits until its work is done; it stays alive then.
    pub fn work(&mut self) {
        self.begin();
        self.wait();
    }

    pub fn begin(&mut self) {
        writeln!(self.stdin, "begin").unwrap();
    }

    pub fn wait(&mut self) {
        let mut line = String::new();
        while !line.contains(DONE) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the worker ended early");
        }
    }
}

impl Worker {
    /// Waits until it was killed.
    pub fn ended(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "nobody killed the worker");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

fn amount<T: std::str::FromStr>(word: Option<&str>) -> T {
    word.and_then(|w| w.parse().ok()).expect("an amount of work")
}

#[test]
#[ignore = "the body of the worker process; does nothing unless started as one"]
fn works() {
    let Ok(work) = std::env::var(WORK) else { return };
    let mut stdin = std::io::stdin().lock();
    stdin.read_line(&mut String::new()).unwrap();
    let mut words = work.split_whitespace();
    let mut memory: Vec<u8> = Vec::new();
    let mut sockets: Vec<UdpSocket> = Vec::new();
    let mut pair = None;
    match words.next() {
        Some("burn") => {
            let target = cpu_time() + Duration::from_secs_f64(amount(words.next()));
            let mut x = 1u64;
            while cpu_time() < target {
                for _ in 0..10_000 {
                    x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            }
        }
        Some("memory") => {
            let bytes: usize = amount(words.next());
            memory = vec![1; bytes];
            for byte in memory.iter_mut().step_by(4096) {
                *byte = std::hint::black_box(2);
            }
        }
        Some("write") => {
            let path = words.next().expect("a path");
            let bytes: usize = amount(words.next());
            // Past the page cache, since v1 charges what is written back to the root.
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
            let buffer = vec![7u8; bytes + 4096];
            let aligned = buffer.as_ptr().align_offset(4096);
            file.write_all(&buffer[aligned..aligned + bytes]).unwrap();
            file.sync_all().unwrap();
        }
        Some("sockets") => {
            let count: usize = amount(words.next());
            sockets = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        }
        Some("talk") => {
            // Over the loopback device of its own namespace.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut receiver, _) = listener.accept().unwrap();
            sender.write_all(b"hello").unwrap();
            receiver.read_exact(&mut [0; 5]).unwrap();
            pair = Some((sender, receiver));
        }
        Some("threads") => {
            for _ in 0..amount::<usize>(words.next()) {
                std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
            }
        }
        Some("wait") => {}
        other => panic!("unknown work {other:?}"),
    }
    println!("{DONE}");
    std::io::stdout().flush().unwrap();
    // Until the parent is gone, but not for ever.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(120) && stdin.read_line(&mut String::new()).unwrap() > 0 {}
    drop((memory, sockets, pair));
}
