//! `coracle top` in a terminal: it draws, does what keys ask for, and gives the terminal back however it ends.

use crate::support::{Cli, Foreground, Harness, PATIENCE, cannot_try, guests};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const COLUMNS: usize = 100;
const ROWS: usize = 30;

/// What a terminal shows of what it is sent: enough of ECMA-48 for this one program.
#[derive(Default)]
struct Grid {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Everything that it was sent.
    raw: String,
    /// Of which this is not shown yet.
    rest: String,
}

impl Grid {
    fn take(&mut self, bytes: &str) {
        self.cells.resize(ROWS, vec![' '; COLUMNS]);
        self.raw.push_str(bytes);
        self.rest.push_str(bytes);
        let text = std::mem::take(&mut self.rest);
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\x1b' => {
                    let Some(end) = text[at + 2..].find(|c: char| c.is_ascii_alphabetic()).map(|end| at + 2 + end)
                    else {
                        // It is not whole yet.
                        self.rest = text[at..].to_owned();
                        return;
                    };
                    self.sequence(&text[at + 1..=end]);
                    while chars.next().is_some_and(|(at, _)| at < end) {}
                }
                '\r' => self.column = 0,
                '\n' => self.row = (self.row + 1).min(ROWS - 1),
                c => {
                    if let Some(cell) = self.cells[self.row].get_mut(self.column) {
                        *cell = c;
                    }
                    self.column += 1;
                }
            }
        }
    }

    fn sequence(&mut self, sequence: &str) {
        if let Some(place) = sequence.strip_prefix('[').and_then(|s| s.strip_suffix('H')) {
            let mut numbers = place.split(';').map(|n| n.parse::<usize>().unwrap_or(1));
            self.row = (numbers.next().unwrap_or(1) - 1).min(ROWS - 1);
            self.column = numbers.next().unwrap_or(1) - 1;
        } else if sequence == "[2J" || sequence == "[?1049h" {
            self.cells = vec![vec![' '; COLUMNS]; ROWS];
        }
    }

    fn text(&self) -> String {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }
}

struct Top {
    child: Child,
    keys: ChildStdin,
    grid: Arc<Mutex<Grid>>,
    reader: std::thread::JoinHandle<()>,
    pid: Pid,
}

impl Top {
    /// On a terminal that script(1) gives. `None`: there is no script(1).
    fn start(cli: &Cli) -> Option<Top> {
        let program = env!("CARGO_BIN_EXE_coracle");
        let command = format!("stty cols {COLUMNS} rows {ROWS}; echo pid $$; exec {program} top");
        let child = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("CORACLE_HOST", cli.address.to_string())
            .env("CORACLE_STATE_DIR", cli.directory.path().join("state"))
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            cannot_try("script(1), a terminal for the command line");
            return None;
        };
        let (keys, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let grid = Arc::new(Mutex::new(Grid::default()));
        let reader = {
            let grid = Arc::clone(&grid);
            std::thread::spawn(move || {
                let (mut buffer, mut pending) = ([0; 4096], vec![]);
                while let Ok(n) = out.read(&mut buffer)
                    && n > 0
                {
                    pending.extend_from_slice(&buffer[..n]);
                    let valid = match std::str::from_utf8(&pending) {
                        Ok(text) => text.len(),
                        Err(e) => e.valid_up_to(),
                    };
                    let whole: Vec<u8> = pending.drain(..valid).collect();
                    grid.lock().unwrap().take(std::str::from_utf8(&whole).unwrap());
                }
            })
        };
        let mut top = Top { child, keys, grid, reader, pid: Pid::INIT };
        top.wait_for("its number", |grid| grid.raw.contains("pid ") && grid.raw.contains('\n'));
        let raw = top.grid.lock().unwrap().raw.clone();
        let pid = raw.split("pid ").nth(1).unwrap().split_whitespace().next().unwrap();
        top.pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        Some(top)
    }

    fn wait_for(&self, what: &str, is: impl Fn(&Grid) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let grid = self.grid.lock().unwrap();
            if is(&grid) {
                return;
            }
            assert!(Instant::now() < until, "{what} did not happen:\n{}\n{:?}", grid.text(), grid.raw);
            drop(grid);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn sees(&self, text: &str) {
        self.wait_for(&format!("{text:?}"), |grid| grid.text().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// The exit code, and that the screen is left, with the cursor back, and nothing behind that.
    fn ended(mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap();
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.grid.lock().unwrap().text());
            std::thread::park_timeout(Duration::from_millis(20));
        };
        self.reader.join().unwrap();
        let grid = self.grid.lock().unwrap();
        assert!(grid.raw.contains("\x1b[?1049h") && grid.raw.contains("\x1b[?25l"), "{:?}", grid.raw);
        let (_, behind) = grid.raw.rsplit_once("\x1b[?1049l").expect("the screen that was there before");
        assert!(behind.starts_with("\x1b[?25h") && behind.replace("\x1b[?25h", "").is_empty(), "{:?}", grid.raw);
        code
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_draws_and_q_leaves_the_terminal_as_it_was() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let mut client = daemon.client().await;
    client.run(&["--name", "loop", "spin"]).await.unwrap();
    client.run(&["--name", "web", "lines", "10"]).await.unwrap();
    daemon.wait_for_state("loop", "running").await;
    for leave in ["q", "\x03"] {
        let Some(mut top) = Top::start(&cli) else { return };
        blocking(move || {
            for text in ["coracle   alive 1/4096", "NAME", "loop", "running", "── log of loop ─", "q quit"] {
                top.sees(text);
            }
            top.wait_for("a share", |grid| {
                let row = grid.text().lines().find(|line| line.starts_with("loop ")).map(str::to_owned);
                row.is_some_and(|row| row.contains('%') && !row.contains(" 0.0%"))
            });
            assert!(!top.grid.lock().unwrap().text().contains("web"), "it has ended");
            top.press("en");
            top.sees("web ");
            top.press("G");
            top.sees("── log of web ─");
            top.press("?");
            top.sees("any key goes back");
            top.press(" ");
            top.press(leave);
            assert_eq!(top.ended(), 0, "{leave:?}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stop_restart_and_remove_after_a_yes() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    daemon.client().await.run(&["--name", "web", "sleep"]).await.unwrap();
    daemon.wait_for_state("web", "running").await;
    let Some(mut top) = Top::start(&cli) else { return };
    let mut top = blocking(move || {
        top.sees("web");
        top.press("e");
        top.press("r");
        top.sees("Restart 'web'?  y yes  n no");
        top.press("y");
        top.sees("'web' is restarted");
        top
    })
    .await;
    assert_eq!(daemon.supervisor.view(&"web".parse().unwrap()).unwrap().run, 2);
    let mut top = blocking(move || {
        top.press("s");
        top.sees("Stop 'web'?");
        top.press("n");
        top.wait_for("no question", |grid| !grid.text().contains("Stop 'web'?"));
        top.press("sy");
        top.sees("'web' is stopped");
        top
    })
    .await;
    daemon.wait_for_state("web", "stopped").await;
    blocking(move || {
        top.press("dy");
        top.sees("'web' is removed");
        top.press("q");
        assert_eq!(top.ended(), 0);
    })
    .await;
    assert_eq!(daemon.supervisor.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_leaves_the_terminal_as_it_was() {
    let daemon = Harness::start().await;
    let cli = Cli::of(&daemon);
    let Some(top) = Top::start(&cli) else { return };
    blocking(move || {
        top.sees("nothing is alive");
        kill_process(top.pid, Signal::TERM).unwrap();
        assert_eq!(top.ended(), 143);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_gone_is_told_and_the_next_one_found() {
    let cli = Cli::alone();
    let listen = cli.address.to_string();
    let words = ["--listen", &listen, "--modules", guests().to_str().unwrap()];
    let first = Foreground::start(&cli, &words);
    assert_eq!(cli.run(&["run", "-d", "--name", "before", "sleep"]).await.0, 0);
    let Some(top) = Top::start(&cli) else { return };
    let top = blocking(move || {
        top.sees("before");
        top
    })
    .await;
    drop(first);
    let top = blocking(move || {
        top.sees("(it is tried again)");
        top
    })
    .await;
    let _second = Foreground::start(&cli, &words);
    assert_eq!(cli.run(&["run", "-d", "--name", "behind", "sleep"]).await.0, 0);
    blocking(move || {
        let mut top = top;
        top.sees("behind");
        assert!(!top.grid.lock().unwrap().text().contains("it is tried again"));
        top.press("q");
        assert_eq!(top.ended(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_a_terminal() {
    let daemon = Harness::start().await;
    let (code, out, err) = Cli::of(&daemon).run(&["top"]).await;
    let told = "error: `coracle top` is for a terminal\nhint: `coracle stats` shows the same elsewhere\n";
    assert_eq!((code, out.as_str(), err.as_str()), (125, "", told));
}
