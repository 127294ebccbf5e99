//! Clients that speak HTTP, and what they may think of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::host::Host;
use crate::requests::register_many;
use crate::web::{Served, Web, WebWitness, get, head_of_put, put};
use crate::witness::Witness;
use crate::{Attack, Report, Result};

const DURATION: Duration = Duration::from_secs(6);
/// The longest that another client over HTTP may wait, in all its tries.
const LONGEST_MS: f64 = 500.0;
/// As long as a body may be, less a little.
const BODY_BYTES: usize = 1_000_000;
/// What those have room for who do not read.
const ROOM_BYTES: usize = 4_096;
const SERVICES: usize = 100_000;
/// Services that make a list of 4 MB.
const FEWER: usize = 4_000;
const SERVICE_BYTES: usize = 900;
const STACK_BYTES: usize = 1 << 18;
/// What a token is taken for, so that there is one.
const TOKEN: &str = r#"[{name = "t", allow = ["read"], hash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}]"#;

type Settings = &'static [(&'static str, &'static str)];

pub(crate) fn attacks() -> Vec<Attack> {
    let attack = |name, about, growth_max_mb, settings: Settings, run| Attack {
        name,
        about,
        plugins: &["memory"],
        settings,
        growth_max_mb: Some(growth_max_mb),
        run,
    };
    vec![
        attack("http-idle", "no attack at all, but another client over HTTP", 16.0, &[], |host| {
            attacked(host, 0, |_, _| Ok(()))
        }),
        attack("http-slow-heads", "600 connections that send their heads byte by byte", 48.0, &[], |host| {
            attacked(host, 600, |host, turn| {
                let mut web = Web::open(host.http, None)?;
                for byte in get("/v1/info").iter().cycle() {
                    web.write(&[*byte])?;
                    turn.pause(Duration::from_millis(300))?;
                }
                Ok(())
            })
        }),
        attack("http-silent", "600 connections that say nothing at all", 48.0, &[], |host| {
            attacked(host, 600, |host, turn| {
                let mut web = Web::open(host.http, None)?;
                while web.read_some(1)? > 0 && turn.goes_on() {}
                Ok(())
            })
        }),
        attack(
            "http-slow-bodies",
            "100 connections that keep the last byte of 1 MB to themselves",
            110.0,
            &[],
            |host| {
                attacked(host, 100, |host, turn| {
                    let mut web = Web::open(host.http, None)?;
                    web.write(&head_of_put("/v1/services/slow", BODY_BYTES))?;
                    web.write(&vec![b' '; BODY_BYTES - 1])?;
                    turn.status(web.status()?);
                    Ok(())
                })
            },
        ),
        attack("http-crowd", "connections that come and go as fast as they can", 48.0, &[], |host| {
            attacked(host, 8, |host, _turn| {
                let mut web = Web::open(host.http, None)?;
                web.write(b"GET / HTTP/1.1\r\n")?;
                Ok(())
            })
        }),
        attack("http-pipelined", "8 connections that pipeline 1,000 requests and read late", 48.0, &[], |host| {
            attacked(host, 8, |host, turn| {
                let mut web = Web::open(host.http, Some(ROOM_BYTES))?;
                let requests = get("/v1/discover/witness").repeat(1000);
                let mut sender = web.stream.try_clone()?;
                std::thread::scope(|scope| {
                    scope.spawn(move || std::io::Write::write_all(&mut sender, &requests));
                    sleep(Duration::from_millis(300));
                    (0..1000).try_for_each(|_| web.status().map(|status| turn.status(status)))
                })
            })
        }),
        attack("http-heads", "heads of 31 kB, of 2,000 headers, and of 20,000 parameters", 48.0, &[], |host| {
            let long = format!("/v1/services?service_type={}", "%41".repeat(10_000));
            let headers = format!("GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", "a: b\r\n".repeat(2000));
            let parameters = format!("/v1/services?{}", "tags=a&".repeat(4_400));
            let tags = format!("/v1/watch?{}", "tags=a&".repeat(200));
            let all = [get(&long), headers.into_bytes(), get(&parameters), get(&tags)];
            attacked(host, 16, |host, turn| over_and_over(host, turn, &all))
        }),
        attack("http-bodies", "16 connections that send 1 MB of all shapes", 250.0, &[], |host| {
            let bodies = bodies();
            attacked(host, 16, |host, turn| over_and_over(host, turn, &bodies))
        }),
        attack("http-chunks", "8 connections that send 1 MB in chunks of one byte", 48.0, &[], |host| {
            let head = "PUT /v1/services/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            let request = format!("{head}{}0\r\n\r\n", "1\r\n \r\n".repeat(BODY_BYTES)).into_bytes();
            attacked(host, 8, |host, turn| over_and_over(host, turn, std::slice::from_ref(&request)))
        }),
        attack("http-tokens", "32 connections that try tokens, and bad hosts and origins", 48.0, &[], |host| {
            attacked(host, 32, tokens)
        }),
        attack("http-tokens-asked", "the same where there are tokens", 48.0, &[("http.tokens", TOKEN)], |host| {
            attacked_by(host, 32, false, tokens)
        }),
        attack("http-unread-lists", "200 connections that trickle lists of 4 MB, each its own", 150.0, &[], |host| {
            fill(host, FEWER)?;
            attacked(host, 200, |host, turn| {
                let mut web = Web::open(host.http, Some(ROOM_BYTES))?;
                // Each list is another one, so nothing of them is shared.
                web.write(&get(&format!("/v1/services?fields=pad,id&tags=t&service_type={}", turn.own_type())))?;
                while web.read_some(64)? > 0 {
                    turn.pause(Duration::from_millis(500))?;
                }
                Ok(())
            })
        }),
        attack("http-lists", "64 connections that ask for all 100,000 services, each in its way", 250.0, &[], |host| {
            fill_short(host)?;
            attacked(host, 64, |host, turn| {
                let mut web = Web::open(host.http, None)?;
                let fields = ["id", "name", "host", "port", "type", "health", "ttl"];
                let chosen: Vec<&str> =
                    (0..7).filter(|bit| turn.number & (1 << bit) != 0).map(|bit| fields[bit]).collect();
                turn.status(web.ask(&get(&format!("/v1/services?fields={}", chosen.join(","))))?);
                Ok(())
            })
        }),
        attack(
            "http-scrapes",
            "16 connections that scrape /metrics and /sd/prometheus, 100,000 services",
            250.0,
            &[],
            |host| {
                fill_short(host)?;
                attacked(host, 16, |host, turn| over_and_over(host, turn, &[get("/metrics"), get("/sd/prometheus")]))
            },
        ),
        attack(
            "http-scraped-metadata",
            "8 connections that scrape services with 1 MB of tiny metadata each",
            250.0,
            &[],
            |host| {
                let mut web = Web::open(host.http, None)?;
                for number in 0..20 {
                    web.ask(&put(&format!("/v1/services/big-{number}"), &tiny_metadata()))?;
                }
                attacked(host, 8, |host, turn| over_and_over(host, turn, &[get("/sd/prometheus")]))
            },
        ),
        attack("http-polls", "450 long polls that come back, while much changes", 64.0, &[], |host| {
            attacked(host, 450, |host, turn| {
                let mut web = Web::open(host.http, None)?;
                while turn.goes_on() {
                    turn.status(web.ask(&get("/v1/watch?wait=5"))?);
                }
                Ok(())
            })
        }),
        attack("http-polls-left", "long polls that are left at once, as fast as they can", 64.0, &[], |host| {
            attacked(host, 16, |host, _turn| {
                let mut web = Web::open(host.http, None)?;
                web.write(&get("/v1/watch?wait=50"))?;
                sleep(Duration::from_millis(1));
                Ok(())
            })
        }),
        attack("http-streams", "450 streams that read nothing of events of 0.1 MB", 110.0, &[], |host| {
            attacked(host, 450, |host, turn| {
                if turn.number == 0 {
                    let mut web = Web::open(host.http, None)?;
                    let service =
                        json!({"name": "n", "host": "h", "port": 1, "metadata": {"pad": "x".repeat(100_000)}});
                    turn.status(web.ask(&put("/v1/services/large", service.to_string().as_bytes()))?);
                    return turn.pause(Duration::from_millis(20));
                }
                let mut web = Web::open(host.http, Some(ROOM_BYTES))?;
                web.write(b"GET /v1/watch HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")?;
                turn.pause(DURATION)
            })
        }),
    ]
}

/// Who attacks, and until when.
struct Turn<'a> {
    number: usize,
    end: Instant,
    statuses: &'a Mutex<BTreeMap<u16, usize>>,
    is_over: &'a AtomicBool,
}

impl Turn<'_> {
    fn goes_on(&self) -> bool {
        Instant::now() < self.end && !self.is_over.load(Ordering::Relaxed)
    }

    /// Waits, and fails at the end.
    fn pause(&self, time: Duration) -> Result<()> {
        sleep(time.min(self.end.saturating_duration_since(Instant::now())));
        if self.goes_on() { Ok(()) } else { Err("it is over".into()) }
    }

    fn status(&self, status: u16) {
        if let Ok(mut statuses) = self.statuses.lock() {
            *statuses.entry(status).or_default() += 1;
        }
    }

    /// A type that many services have, one of several.
    fn own_type(&self) -> String {
        format!("t&version=%3E%3D0.0.{}", self.number)
    }
}

fn attacked(host: &Host, attackers: usize, attack: impl Fn(&Host, &Turn<'_>) -> Result<()> + Sync) -> Result<Report> {
    attacked_by(host, attackers, true, attack)
}

/// Has so many attack, each over and over, while others want to be served. To be cut off is as good as an answer.
fn attacked_by(
    host: &Host,
    attackers: usize,
    may_others_ask: bool,
    attack: impl Fn(&Host, &Turn<'_>) -> Result<()> + Sync,
) -> Result<Report> {
    let (witness, web) = (Witness::begin(host)?, may_others_ask.then(|| WebWitness::begin(host.http)).transpose()?);
    let (statuses, is_over) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let end = Instant::now() + DURATION;
    let served = std::thread::scope(|scope| -> Result<_> {
        for number in 0..attackers {
            let turn = Turn { number, end, statuses: &statuses, is_over: &is_over };
            let attack = &attack;
            let work = move || {
                while turn.goes_on() {
                    if attack(host, &turn).is_err() {
                        sleep(Duration::from_millis(1));
                    }
                }
            };
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        }
        sleep(end.saturating_duration_since(Instant::now()));
        is_over.store(true, Ordering::Relaxed);
        web.map(WebWitness::end).transpose()
    });
    let mut note = String::new();
    let seen = witness.end()?;
    let statuses = statuses.into_inner().map_err(|_| "an attacker has panicked")?;
    for (status, count) in &statuses {
        write!(note, "{count} x {status}, ")?;
    }
    match served {
        Ok(Some(served)) => {
            let Served { p99_ms, longest_ms, asked, refused, cut_off } = served;
            let figures = format!("p99 {p99_ms:.1} ms, longest {longest_ms:.0} ms");
            write!(note, "others over HTTP: {asked} served, {figures}, {refused} refused, {cut_off} cut off")?;
            let report = Report::new(seen, note);
            let is_soon = longest_ms <= LONGEST_MS;
            Ok(report.goal(refused == 0, "others refused").goal(is_soon, "others over HTTP wait"))
        }
        Ok(None) => Ok(Report::new(seen, note)),
        Err(error) => {
            write!(note, "others over HTTP: {error}")?;
            Ok(Report::new(seen, note).goal(false, "others over HTTP are not served"))
        }
    }
}

/// Asks one thing after the other over one connection.
fn over_and_over(host: &Host, turn: &Turn<'_>, requests: &[Vec<u8>]) -> Result<()> {
    // One that is refused ends the connection, and the others come over the next.
    for request in requests.iter().cycle().skip(turn.number) {
        let mut web = Web::open(host.http, None)?;
        for _ in 0..3 {
            if !turn.goes_on() {
                return Ok(());
            }
            match web.ask(request) {
                Ok(status) => turn.status(status),
                Err(_) => break,
            }
        }
    }
    Ok(())
}

fn tokens(host: &Host, turn: &Turn<'_>) -> Result<()> {
    let with = |headers: &str| format!("GET /v1/types HTTP/1.1\r\n{headers}\r\n\r\n").into_bytes();
    let mut requests: Vec<Vec<u8>> = (0..200)
        .map(|number| with(&format!("Host: 127.0.0.1\r\nAuthorization: Bearer {:064x}", number * 1000 + turn.number)))
        .collect();
    let hosts = ["evil.example", "127.0.0.1.evil", "[::1", "localhost:99999", "a b", &"x".repeat(20_000)]
        .map(|host| with(&format!("Host: {host}")));
    requests.extend(hosts);
    let origins = ["null", "http://evil.example", "http://127.0.0.1@evil", "file://"];
    requests.extend(origins.map(|origin| with(&format!("Host: 127.0.0.1\r\nOrigin: {origin}"))));
    over_and_over(host, turn, &requests)
}

fn tiny_metadata() -> Vec<u8> {
    let fields: Vec<String> = (0..80_000).map(|number| format!("\"{number:05}\":1")).collect();
    format!(r#"{{"name":"n","host":"h","port":1,"type":"t","ttl":600,"metadata":{{{}}}}}"#, fields.join(","))
        .into_bytes()
}

fn bodies() -> Vec<Vec<u8>> {
    let service = |rest: &str| format!(r#"{{"name":"n","host":"h","port":1,"ttl":2,{rest}}}"#);
    let list = |item: &str, count: usize| vec![item; count].join(",");
    let bodies = [
        service(&format!(r#""metadata":{{"text":"{}"}}"#, "x".repeat(BODY_BYTES - 200))),
        service(&format!(r#""metadata":{{"text":"{}"}}"#, "\\u00e9".repeat(BODY_BYTES / 6 - 200))),
        service(&format!(r#""metadata":{{"a":[{}]}}"#, list("1", BODY_BYTES / 2 - 200))),
        service(&format!(r#""tags":[{}]"#, list("\"t\"", BODY_BYTES / 4 - 200))),
        "[".repeat(BODY_BYTES),
        service(&list("\"a\":1", BODY_BYTES / 6 - 200)),
        format!(r#"{{"name":"{}"}}"#, "x".repeat(BODY_BYTES - 100)),
        "9".repeat(BODY_BYTES),
        " ".repeat(BODY_BYTES),
        service(r#""metadata":1e999999"#),
    ];
    let mut requests: Vec<Vec<u8>> = bodies.iter().map(|body| put("/v1/services/shape", body.as_bytes())).collect();
    requests.push(put("/v1/services/shape", &tiny_metadata()));
    requests.push(put("/v1/services/shape", &vec![0xff; BODY_BYTES]));
    requests
}

fn fill(host: &Host, services: usize) -> Result<()> {
    let pad = json!({"pad": "x".repeat(SERVICE_BYTES), "version": "1.0.0"});
    all_taken(register_many(host.requests, services, 3600.0, &pad)?, services)
}

fn fill_short(host: &Host) -> Result<()> {
    all_taken(register_many(host.requests, SERVICES, 3600.0, &json!({"metadata": {"room": 4}}))?, SERVICES)
}

fn all_taken((taken, refused): (usize, Option<String>), services: usize) -> Result<()> {
    if taken < services {
        return Err(format!("only {taken} services were taken: {}", refused.unwrap_or_default()).into());
    }
    Ok(())
}
