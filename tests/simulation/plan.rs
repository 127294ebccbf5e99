//! The plan of a simulation: everything that is going to happen but for what the host makes of it. A plan is made
//! from a seed before anything is done, so that parts of it can be cut out.

mod left_behind;
mod moving;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::follower::Follow;
use crate::history::{Ask, Claim, Registration};
use crate::host::Wish;

/// What stays the same for a whole simulation.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) hosts: usize,
    pub(crate) has_keys: bool,
    /// The number of the key that may do everything.
    pub(crate) admin: Option<u8>,
    pub(crate) enforce_unique: bool,
    pub(crate) reply_timeout_ms: u64,
    pub(crate) sweep_ms: u64,
    pub(crate) call_timeout_ms: u64,
    pub(crate) pending_changes_max: usize,
    /// How long the store takes for a group when all is well.
    pub(crate) store_ms: u64,
    /// The store keeps what was told of changes.
    pub(crate) keeps_history: bool,
    /// How many changes can be followed.
    pub(crate) history_changes: usize,
    pub(crate) mass_expiry_share: f64,
    pub(crate) mass_expiry_hold_ms: u64,
}

/// What becomes of a group that the store has been sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Done,
    /// The changes at these places (bits) are refused, the others done.
    Refuse(u32),
    /// Done, but the host is told otherwise.
    LostReply,
    /// A first part is done, of 255, and the host is told that it failed.
    Part(u8),
    /// Nothing is done.
    Nothing,
    /// Done, but the number of outcomes is wrong.
    Miscount,
}

/// Something that goes wrong with the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// With the next group, or with the next that has more than heartbeats in it.
    Next { any: bool, delay_ms: u64, fate: Fate },
    /// It cannot be reached for a while.
    Away { ms: u64 },
    /// It takes no records for a while.
    Full { ms: u64 },
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// A client asks for something, `times` times at once.
    Ask {
        client: usize,
        host: usize,
        ask: Ask,
        times: usize,
    },
    /// A client registers a service and renews it from time to time; when it is told that there is no such service, it
    /// registers it again, but when it is told that it was deregistered or replaced, it is no longer kept alive.
    Keep {
        client: usize,
        host: usize,
        registration: Registration,
        every_ms: u64,
        beats: u32,
    },
    /// A client follows the changes.
    Follow(Follow),
    Store(Fault),
    /// The same with the store that is not in charge.
    Other(Fault),
    /// An operator asks for a move to the other store.
    Swap {
        host: usize,
        wish: Wish,
    },
    /// The store loses a record by itself.
    Lose {
        id: String,
    },
    /// The hosts are killed, and what is stored is replaced by what was stored at the restoration before.
    Restore {
        down_ms: u64,
    },
    HoldUp {
        host: usize,
        ms: u64,
    },
    /// A host is stopped in good order, and started again after a while.
    Stop {
        host: usize,
        down_ms: u64,
    },
    /// A host dies once it has done so many steps more; of the group under way a first part lands (of 255).
    Kill {
        host: usize,
        steps: u32,
        part: u8,
        down_ms: u64,
    },
    WallJump {
        by_ms: i64,
    },
    /// Clients that keep services alive do not reach the host for so long: those at these places (bits).
    CutOff {
        clients: u32,
        ms: u64,
    },
    /// An operator ends a mass expiry, if there is one.
    EndMassExpiry {
        keep: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Action {
    /// How long after the action before.
    pub(crate) after_ms: u64,
    pub(crate) does: Does,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) actions: Vec<Action>,
}

/// How many clients there are. Each has a key of its own, with its number and one more.
const CLIENTS: usize = 4;
const TYPES: [&str; 3] = ["web", "mail", "cam"];

pub(crate) fn key_of(client: usize) -> u8 {
    client as u8 + 1
}

/// How a plan is written: what is likely in it differs from plan to plan, so that rare things meet.
struct Writer {
    rng: StdRng,
    ids: usize,
    types: usize,
    /// The longest pause between two actions.
    pause_ms: u64,
    /// How many of 100 actions are faults.
    faults: u32,
    has_keys: bool,
    ttls: &'static [u64],
    /// How many of 100 registrations are singletons, and how many do not mind others.
    singletons: u32,
    careless: u32,
    /// How many bytes services say of themselves: with enough of them lists are long.
    bulk: usize,
}

impl Plan {
    pub(crate) fn from_seed(seed: u64) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed);
        let has_keys = rng.random_bool(0.5);
        let settings = Settings {
            seed,
            hosts: 1,
            has_keys,
            admin: has_keys.then(|| key_of(0)),
            enforce_unique: rng.random_bool(0.3),
            reply_timeout_ms: 400,
            sweep_ms: one_of(&mut rng, &[1000, 5000, 10_000]),
            call_timeout_ms: one_of(&mut rng, &[1000, 5000]),
            pending_changes_max: one_of(&mut rng, &[6, 40, 20_000]),
            store_ms: one_of(&mut rng, &[1, 4, 30, 90]),
            keeps_history: rng.random_bool(0.5),
            history_changes: 100_000,
            mass_expiry_share: 0.2,
            mass_expiry_hold_ms: 5000,
        };
        if rng.random_bool(0.15) {
            let sweep_ms = one_of(&mut rng, &[2000, 5000]);
            let mass_expiry_hold_ms = one_of(&mut rng, &[5000, 12_000]);
            return Plan::of_fleet(Settings { enforce_unique: false, sweep_ms, mass_expiry_hold_ms, ..settings }, rng);
        }
        let mut writer = Writer {
            ids: rng.random_range(1..9),
            types: rng.random_range(1..=TYPES.len()),
            pause_ms: one_of(&mut rng, &[20, 200, 2000, 20_000]),
            faults: one_of(&mut rng, &[0, 5, 15, 40]),
            has_keys,
            ttls: one_of(&mut rng, &[&[200, 1000, 30_000][..], &[1000, 3000], &[30_000], &[500, 10_000]]),
            singletons: one_of(&mut rng, &[5, 30, 80]),
            careless: one_of(&mut rng, &[0, 30]),
            bulk: if rng.random_bool(0.04) { 60_000 } else { 0 },
            rng,
        };
        let count = writer.rng.random_range(20..300);
        let mut actions: Vec<Action> = (0..count).map(|_| writer.action()).collect();
        // By chance of their own, so that who follows changes nothing else.
        writer.rng = StdRng::seed_from_u64(!seed);
        let history_changes = one_of(&mut writer.rng, &[5, 100_000, 100_000]);
        for _ in 0..writer.rng.random_range(0..5) {
            let at = if writer.rng.random_bool(0.5) { 0 } else { writer.rng.random_range(0..actions.len()) };
            actions.insert(at, Action { after_ms: 0, does: Does::Follow(writer.follow()) });
        }
        let settings = Settings { history_changes, ..settings };
        for _ in 0..one_of(&mut writer.rng, &[0, 0, 0, 1, 4]) {
            let at = writer.rng.random_range(0..=actions.len());
            let more = writer.left_behind(&settings);
            actions.splice(at..at, more);
        }
        for _ in 0..one_of(&mut writer.rng, &[0, 0, 1, 2, 5]) {
            let at = writer.rng.random_range(0..=actions.len());
            let more = writer.moving(&settings);
            actions.splice(at..at, more);
        }
        Plan { settings, actions }
    }
}

impl Plan {
    /// Many services that are kept alive, by clients that are cut off now and then.
    fn of_fleet(settings: Settings, rng: StdRng) -> Plan {
        let has_keys = settings.has_keys;
        let mut writer = Writer {
            ids: 12,
            types: TYPES.len(),
            pause_ms: 4000,
            faults: 15,
            has_keys,
            ttls: &[3000, 10_000],
            singletons: 0,
            careless: 0,
            bulk: 0,
            rng,
        };
        writer.ids = writer.rng.random_range(12..48);
        writer.faults = one_of(&mut writer.rng, &[0, 5, 15]);
        let mut actions = Vec::new();
        for number in 0..writer.ids {
            let client = number % CLIENTS;
            let registration = Registration { id: Some(format!("s{number}")), ..writer.registration(client) };
            let (every_ms, beats) = (registration.ttl_ms / 3, writer.rng.random_range(20..400));
            let after_ms = writer.rng.random_range(0..60);
            actions.push(Action { after_ms, does: Does::Keep { client, host: 0, registration, every_ms, beats } });
        }
        for _ in 0..writer.rng.random_range(10..60) {
            let does = match writer.rng.random_range(0..10) {
                0..3 => {
                    let ms = one_of(&mut writer.rng, &[4000, 6000, 12_000, 13_000, 17_000, 100_000]);
                    Does::CutOff { clients: one_of(&mut writer.rng, &[0b1, 0b11, 0b111, 0b1110, 0b1111]), ms }
                }
                3 | 4 => Does::EndMassExpiry { keep: writer.rng.random_bool(0.5) },
                _ => {
                    actions.push(writer.action());
                    continue;
                }
            };
            actions.push(Action { after_ms: writer.rng.random_range(0..writer.pause_ms), does });
        }
        Plan { settings, actions }
    }
}

impl Writer {
    fn action(&mut self) -> Action {
        // Much at once, then a pause: what depends on order needs both.
        let after_ms = match self.rng.random_range(0..10) {
            0..4 => 0,
            4..7 => self.rng.random_range(0..10),
            _ => self.rng.random_range(0..self.pause_ms),
        };
        let does = if self.rng.random_range(0..100) < self.faults { self.fault() } else { self.request() };
        Action { after_ms, does }
    }

    fn fault(&mut self) -> Does {
        let host = 0;
        match self.rng.random_range(0..20) {
            0..10 => Does::Store(self.store_fault()),
            10 => Does::Lose { id: self.id() },
            11..14 => {
                let ms = one_of(&mut self.rng, &[300, 900, 1100, 3000, 12_000, 100_000]);
                Does::HoldUp { host, ms: self.rng.random_range(ms / 2..ms) }
            }
            14 if self.rng.random_bool(0.3) => Does::Restore { down_ms: self.down_ms() },
            14 => Does::Stop { host, down_ms: self.down_ms() },
            15..18 => {
                let steps = one_of(&mut self.rng, &[0, 1, 2, 3, 5, 8, 13, 30]);
                let part = one_of(&mut self.rng, &[0, 80, 128, 200, 255]);
                Does::Kill { host, steps, part, down_ms: self.down_ms() }
            }
            _ => Does::WallJump { by_ms: one_of(&mut self.rng, &[-3_600_000, -2000, 2000, 86_400_000]) },
        }
    }

    fn down_ms(&mut self) -> u64 {
        one_of(&mut self.rng, &[1, 200, 5000])
    }

    fn store_fault(&mut self) -> Fault {
        match self.rng.random_range(0..10) {
            0 => Fault::Away { ms: one_of(&mut self.rng, &[100, 1000, 8000]) },
            1 => Fault::Full { ms: one_of(&mut self.rng, &[100, 2000, 8000]) },
            _ => {
                let delay_ms = one_of(&mut self.rng, &[0, 0, 50, 250, 390, 400, 450, 900, 4000, 6000]);
                let fate = match self.rng.random_range(0..8) {
                    0 | 1 => Fate::Done,
                    2 => Fate::Refuse(self.rng.random()),
                    3 => Fate::LostReply,
                    4 | 5 => Fate::Part(one_of(&mut self.rng, &[60, 128, 200])),
                    6 => Fate::Nothing,
                    _ => Fate::Miscount,
                };
                Fault::Next { any: self.rng.random_bool(0.3), delay_ms, fate }
            }
        }
    }

    fn follow(&mut self) -> Follow {
        let wait_ms = one_of(&mut self.rng, &[0, 100, 2000, 60_000]);
        Follow {
            client: self.rng.random_range(0..CLIENTS),
            host: 0,
            service_type: self.rng.random_bool(0.5).then(|| self.service_type()),
            limit: one_of(&mut self.rng, &[1, 3, 1000]),
            wait_ms,
            pause_ms: if wait_ms == 0 { 1000 } else { one_of(&mut self.rng, &[1, 1, 50, 5000]) },
            times: self.rng.random_range(20..200),
        }
    }

    fn request(&mut self) -> Does {
        let host = 0;
        let client = self.rng.random_range(0..CLIENTS);
        let ask = match self.rng.random_range(0..22) {
            0..5 => Ask::Register(self.registration(client)),
            5 | 6 => {
                let registration = self.registration(client);
                // Most clients beat every third of their ttl. Who is always late meets the sweep.
                let every_ms = match self.rng.random_bool(0.7) {
                    true => (registration.ttl_ms / 3).max(20),
                    false => registration.ttl_ms + self.rng.random_range(0..1500),
                };
                return Does::Keep { client, host, registration, every_ms, beats: self.rng.random_range(1..40) };
            }
            7..10 => Ask::Deregister { id: self.id_of(client), generation: self.generation() },
            10..12 => Ask::Renew { id: self.id_of(client), generation: self.generation() },
            12 | 13 => Ask::Update { id: self.id_of(client), generation: self.generation() },
            14 => Ask::Get { id: self.id() },
            15..18 => Ask::List { service_type: self.rng.random_bool(0.2).then(|| self.service_type()) },
            18 | 19 => self.drain(client),
            _ => Ask::Discover { service_type: self.service_type() },
        };
        let times = if self.rng.random_bool(0.1) { self.rng.random_range(2..12) } else { 1 };
        Does::Ask { client, host, ask, times }
    }

    /// Somebody takes a service out of discovery, its own or another's, or has it discovered again.
    fn drain(&mut self, client: usize) -> Ask {
        let (id, generation) = (self.id_of(client), self.generation());
        match self.rng.random_range(0..5) {
            0 | 1 => Ask::Undrain { id, generation },
            2 => Ask::Drain { id, generation, for_ms: None },
            _ => Ask::Drain { id, generation, for_ms: Some(one_of(&mut self.rng, &[1, 700, 1000, 2500, 12_000])) },
        }
    }

    /// Half of the clients name the generation that they know of; which that is, is seen then.
    fn generation(&mut self) -> Option<u64> {
        self.rng.random_bool(0.5).then_some(0)
    }

    fn registration(&mut self, client: usize) -> Registration {
        let claim = match self.rng.random_range(0..100) {
            roll if roll < self.singletons => Claim::Singleton,
            roll if roll < self.singletons + self.careless => Claim::AllowDuplicate,
            _ => Claim::Plain,
        };
        Registration {
            id: self.rng.random_bool(0.95).then(|| self.id_of(client)),
            service_type: self.service_type(),
            tag: self.rng.random_bool(0.15).then(|| self.service_type()),
            claim,
            ttl_ms: one_of(&mut self.rng, self.ttls),
            bulk: self.bulk,
        }
    }

    /// With keys, most clients keep to their own services.
    fn id_of(&mut self, client: usize) -> String {
        if self.has_keys && self.rng.random_bool(0.7) {
            let own = (client..self.ids).step_by(CLIENTS).count();
            if own > 0 {
                return format!("s{}", client + CLIENTS * self.rng.random_range(0..own));
            }
        }
        self.id()
    }

    fn id(&mut self) -> String {
        format!("s{}", self.rng.random_range(0..self.ids))
    }

    fn service_type(&mut self) -> String {
        TYPES[self.rng.random_range(0..self.types)].into()
    }
}

fn one_of<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}
