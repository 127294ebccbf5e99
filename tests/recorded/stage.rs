//! What happens to a host, at random: it is killed, stopped, suspended, its store fails and its clock is set.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rustix::process::Signal;

use crate::clients::{Around, Door, one_of};
use crate::damage;
use crate::database::{self, NAME, Stored};
use crate::history::{How, What};
use crate::host::{Host, Launch, has_panicked, set_wall};
use crate::reached::Reached;
use crate::recorder::{HOST, Recorder};
use crate::run::{Broken, Place};
use crate::subscribers;

/// How long everything gets to settle in the end.
const SETTLE: Duration = Duration::from_millis(1000);

/// What happens to a host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Kill,
    KillAfterAnswer,
    Stop,
    Suspend,
    Store,
    Damage,
    Wall,
}

/// How often each comes in a deck.
const DECK: [(Fault, usize); 7] = [
    (Fault::Kill, 3),
    (Fault::KillAfterAnswer, 3),
    (Fault::Stop, 1),
    (Fault::Suspend, 2),
    (Fault::Store, 3),
    (Fault::Damage, 1),
    (Fault::Wall, 1),
];

/// What the faults happen to.
pub(crate) struct Stage<'a> {
    pub(crate) launch: Launch,
    pub(crate) data: PathBuf,
    pub(crate) control: PathBuf,
    pub(crate) place: Place,
    pub(crate) around: &'a Around,
    pub(crate) rng: StdRng,
    pub(crate) reached: Reached,
    pub(crate) host: Option<(Host, Arc<()>)>,
    pub(crate) life: usize,
    pub(crate) wall_seconds: i64,
    pub(crate) deck: Vec<Fault>,
}

impl Stage<'_> {
    pub(crate) fn play(&mut self, time: Duration, broken: Broken) -> Result<(), String> {
        if let Broken::Store(word) = broken {
            std::fs::write(&self.control, word).expect("the directory can be written");
        }
        self.start()?;
        let until = Instant::now() + time;
        while Instant::now() < until {
            let pause = self.rng.random_range(50..700);
            self.rest(pause);
            if broken != Broken::No {
                self.kill_after_an_answer()?;
                continue;
            }
            match self.next_fault() {
                Fault::Kill => self.kill()?,
                Fault::KillAfterAnswer => self.kill_after_an_answer()?,
                Fault::Stop => self.stop_and_start()?,
                Fault::Suspend => self.suspend()?,
                Fault::Store if self.place == Place::Faulty => self.trouble()?,
                Fault::Store if self.place == Place::SmallDisk => self.fill_disk()?,
                Fault::Store => {}
                Fault::Damage => self.damage()?,
                Fault::Wall => self.set_wall(),
            }
        }
        self.around.end();
        std::thread::sleep(SETTLE);
        self.stop()?;
        self.around.recorder.turn(None, self.read()?);
        Ok(())
    }

    /// From a deck that is shuffled whenever it is empty, so that a short run has some of everything, too.
    fn next_fault(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = DECK.iter().flat_map(|(fault, times)| std::iter::repeat_n(*fault, *times)).collect();
            self.deck.shuffle(&mut self.rng);
        }
        self.deck.pop().unwrap_or(Fault::Kill)
    }

    fn rest(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn recorder(&self) -> &Arc<Recorder> {
        &self.around.recorder
    }

    /// What a host finds that starts now.
    fn read(&self) -> Result<What, String> {
        let stored = database::read(&self.data)?;
        if let Some(text) = stored.contradiction() {
            return Err(format!("what is told of changes does not add up to what is stored: {text}"));
        }
        let Stored { epoch, revision, contents, history, complete_after } = stored;
        Ok(What::Started { host: HOST, epoch, revision, contents, history: Some(history), complete_after })
    }

    /// Reads what is stored, starts a host on it, and lets clients in once every event is seen.
    fn start(&mut self) -> Result<(), String> {
        self.life += 1;
        self.recorder().turn(Some(self.life), self.read()?);
        let host = Host::start(&self.launch, Some((self.recorder(), self.life)))
            .map_err(|failed| format!("the host did not start, {}:\n{}", failed.status, failed.log))?;
        let token = Arc::new(());
        let door = Door { life: self.life, ports: host.ports, _token: token.clone() };
        subscribers::follow(self.recorder(), &door).map_err(|error| format!("no subscription: {error}"))?;
        self.around.set_door(Some(door));
        self.host = Some((host, token));
        Ok(())
    }

    /// Writes down that the host has ended, once everybody has read what it had sent.
    fn ended(&mut self, token: &Arc<()>, how: How, log: &str) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(2);
        while Arc::strong_count(token) > 1 && Instant::now() < deadline {
            self.rest(1);
        }
        self.recorder().turn(None, What::Ended { host: HOST, how });
        if has_panicked(log) { Err(format!("the host panicked:\n{log}")) } else { Ok(()) }
    }

    fn kill_only(&mut self) -> Result<(), String> {
        let (host, token) = self.host.take().expect("a host runs");
        drop(self.around.set_door(None));
        let log = host.kill();
        self.reached.note("host: killed");
        self.ended(&token, How::Killed, &log)
    }

    fn kill(&mut self) -> Result<(), String> {
        self.kill_only()?;
        self.stay_down();
        self.start()
    }

    fn stay_down(&mut self) {
        let down_ms = one_of(&mut self.rng, &[0, 20, 400]);
        self.rest(down_ms);
    }

    /// Kills it as soon as it has said yes.
    fn kill_after_an_answer(&mut self) -> Result<(), String> {
        let count = self.rng.random_range(1..10);
        self.recorder().wait_for_acknowledged(count, Duration::from_secs(2));
        self.reached.note("host: killed right after an answer");
        self.kill()
    }

    fn stop(&mut self) -> Result<(), String> {
        let (host, token) = self.host.take().expect("a host runs");
        drop(self.around.set_door(None));
        self.recorder().note(What::Stopping { host: HOST });
        let (status, log) = host.stop();
        self.reached.note("host: stopped");
        let how = if status.success() { How::Stopped } else { How::StoppedInTrouble };
        self.ended(&token, how, &log)
    }

    fn stop_and_start(&mut self) -> Result<(), String> {
        self.stop()?;
        self.stay_down();
        self.start()
    }

    /// Holds the host up for longer than some ttls, and lets it go on or kills it then.
    fn suspend(&mut self) -> Result<(), String> {
        let since_ms = self.recorder().now_ms();
        let host = &self.host.as_ref().expect("a host runs").0;
        host.signal(Signal::STOP);
        let ms = one_of(&mut self.rng, &[300, 1300, 2500, 4000]);
        self.rest(ms);
        self.reached.note(if ms < 1000 { "host: suspended for a moment" } else { "host: suspended" });
        if self.rng.random_bool(0.2) {
            self.reached.note("host: killed while suspended");
            let ms = self.recorder().now_ms() - since_ms;
            self.recorder().note(What::HeldUp { host: HOST, ms, left_out_ms: ms.saturating_sub(200) });
            return self.kill();
        }
        self.recorder().note(What::Note(format!("the host goes on after {ms} ms")));
        self.host.as_ref().expect("a host runs").0.signal(Signal::CONT);
        Ok(())
    }

    /// Lets the store fail for a while.
    fn trouble(&mut self) -> Result<(), String> {
        let (kind, words) = one_of(
            &mut self.rng,
            &[
                ("store: slow", &["slow 50", "slow 350", "slow 500", "slow 1200"][..]),
                ("store: late", &["late 50", "late 500", "late 1200"]),
                ("store: I/O error", &["error"]),
                ("store: full", &["full"]),
                ("store: lost an answer", &["lost"]),
            ],
        );
        let word = one_of(&mut self.rng, words);
        let since_ms = self.recorder().now_ms();
        let next = self.control.with_extension("next");
        std::fs::write(&next, word).expect("the directory can be written");
        std::fs::rename(&next, &self.control).expect("the directory can be written");
        let ms = one_of(&mut self.rng, &[100, 600, 1500]);
        self.rest(ms);
        let is_killed = self.rng.random_bool(0.4);
        if !is_killed {
            std::fs::remove_file(&self.control).expect("the directory can be written");
        }
        let text = word.to_string();
        self.recorder().note(What::Trouble { host: HOST, since_ms, text });
        self.reached.note(kind);
        self.reached.note("store: in trouble");
        if is_killed {
            self.reached.note("host: killed with the store in trouble");
            self.kill_only()?;
            std::fs::remove_file(&self.control).expect("the directory can be written");
            self.start()?;
        }
        Ok(())
    }

    /// Lets the disk be full for a while.
    fn fill_disk(&mut self) -> Result<(), String> {
        let since_ms = self.recorder().now_ms();
        let filler = self.data.join("filler");
        let chunk = [0; 4096];
        if let Ok(mut file) = std::fs::File::create(&filler) {
            while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        }
        let ms = one_of(&mut self.rng, &[300, 1500]);
        self.rest(ms);
        let is_killed = self.rng.random_bool(0.3);
        if !is_killed {
            std::fs::remove_file(&filler).expect("a file can be removed from a full disk");
        }
        self.recorder().note(What::Trouble { host: HOST, since_ms, text: "the disk is full".into() });
        self.reached.note("store: full disk");
        self.reached.note("store: in trouble");
        if is_killed {
            self.reached.note("host: killed with the disk full");
            self.kill_only()?;
            std::fs::remove_file(&filler).expect("a file can be removed from a full disk");
            self.start()?;
        }
        Ok(())
    }

    /// Kills the host, tries others on damaged copies of its database, and goes on with the sound one.
    fn damage(&mut self) -> Result<(), String> {
        match self.rng.random_bool(0.5) {
            true => self.kill_only()?,
            false => self.stop()?,
        }
        let copies = tempfile::tempdir().expect("there is room for a copy");
        let (directory, sound) = (copies.path().join("d"), copies.path().join("sound"));
        for path in [&directory, &sound] {
            std::fs::create_dir(path).expect("the directory can be written");
        }
        database::copy(&self.data, &sound);
        let launch = Launch { config: format!("[backend.options]\npath = {NAME:?}\n"), directory, wall: None };
        for _ in 0..2 {
            damage::try_once(&launch, &sound, &mut self.rng, &mut self.reached)?;
        }
        self.start()
    }

    fn set_wall(&mut self) {
        let Some((_, time)) = &self.launch.wall else { return };
        let seconds = one_of(&mut self.rng, &[-3600, 0, 3600, 90_000]);
        let by_ms = (seconds - self.wall_seconds) * 1000;
        self.wall_seconds = seconds;
        self.around.recorder.between(What::WallJumped { by_ms }, || set_wall(time, seconds));
        self.reached.note("wall clock: set");
    }
}
