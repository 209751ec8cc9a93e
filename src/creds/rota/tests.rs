use std::collections::HashSet;

use super::*;
use crate::sys::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const BACKDATING: Duration = Duration::from_secs(120);

/// A rota with time of its own.
struct World {
    rota: Rota,
    now: Now,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = Clock::system();
        let now = Now { monotonic: clock.monotonic(), wall: clock.wall() };
        Self { rota: Rota::new(fastrand::Rng::with_seed(seed)), now }
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    fn want(&mut self, identity: &Identity, priority: Priority) {
        self.rota.want(identity, priority, self.now);
    }

    fn due(&mut self) -> Vec<Fetch> {
        self.rota.due(self.now)
    }

    /// The one fetch that is due.
    fn one(&mut self) -> Ticket {
        let due = self.due();
        assert_eq!(due.len(), 1, "{due:?}");
        due[0].ticket
    }

    fn succeed(&mut self, ticket: Ticket, ttl: Duration) -> Option<Identity> {
        let Now { wall, .. } = self.now;
        let validity = Validity { not_before: wall - BACKDATING, not_after: wall + ttl };
        self.rota.succeeded(ticket, validity, self.now)
    }

    fn fail(&mut self, ticket: Ticket) -> Duration {
        self.rota.failed(ticket, false, self.now).unwrap().1
    }

    /// Waits until something is due.
    fn wait(&mut self) -> Duration {
        let idle = self.rota.idle(self.now).unwrap();
        self.pass(idle);
        idle
    }
}

fn id(n: u64) -> Identity {
    Identity::new("td", "ns", format!("sa{n}"))
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[test]
fn renewals_are_spread_over_a_part_of_the_life() {
    let mut parts = Vec::new();
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.want(&id(0), Priority::Warmup);
        let ticket = world.one();
        assert_eq!(world.succeed(ticket, DAY), Some(id(0)));
        assert_eq!(world.due(), []);
        let life = DAY + BACKDATING;
        parts.push(seconds(BACKDATING + world.wait()) / seconds(life));
        world.one();
    }
    parts.sort_by(f64::total_cmp);
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    assert!((0.45..0.47).contains(&first), "{first}");
    assert!((0.63..=0.65).contains(&last), "{last}");
}

#[test]
fn certificates_that_hardly_live_do_not_spin() {
    let check = |ttl: Duration, at_least: usize, at_most: usize| {
        let mut world = World::new(1);
        world.want(&id(0), Priority::Background);
        let mut fetches = 0;
        let end = world.now.monotonic + 100 * SECOND;
        while world.now.monotonic < end && fetches <= 200 {
            let ticket = world.one();
            fetches += 1;
            world.succeed(ticket, ttl);
            world.wait();
        }
        assert!((at_least..=at_most).contains(&fetches), "{ttl:?}: {fetches} fetches in 100 s");
    };
    check(Duration::ZERO, 99, 101);
    check(SECOND, 99, 101);
    check(10 * SECOND, 15, 23);
    check(180 * SECOND, 1, 7);
}

#[test]
fn failures_back_off() {
    let mut world = World::new(2);
    world.want(&id(0), Priority::Background);
    for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 150.0, 150.0, 150.0] {
        let ticket = world.one();
        let pause = seconds(world.fail(ticket));
        assert!((0.8..=1.2).contains(&(pause / expected)), "{pause} for {expected}");
        assert_eq!(seconds(world.wait()), pause);
    }
    // A success makes all good again.
    let ticket = world.one();
    world.succeed(ticket, DAY);
    world.wait();
    let ticket = world.one();
    assert!(seconds(world.fail(ticket)) <= 1.2);
}

#[test]
fn the_last_try_is_before_expiry() {
    let mut world = World::new(3);
    world.want(&id(0), Priority::Background);
    let ticket = world.one();
    world.succeed(ticket, 1000 * SECOND);
    let expires = world.now.wall + 1000 * SECOND;
    world.wait();
    for _ in 0..100 {
        if world.now.wall >= expires {
            break;
        }
        let ticket = world.one();
        let pause = world.fail(ticket);
        let left = expires.duration_since(world.now.wall).unwrap();
        assert!(pause <= left.max(SECOND), "a pause of {pause:?} with {left:?} left");
        world.pass(pause);
    }
    let late = world.now.wall.duration_since(expires).unwrap();
    assert!(late <= SECOND, "{late:?}");
}

#[test]
fn a_waiting_connection_shortens_the_pause_but_not_to_nothing() {
    let mut world = World::new(4);
    world.want(&id(0), Priority::Background);
    for _ in 0..10 {
        let ticket = world.one();
        world.fail(ticket);
        world.wait();
    }
    let ticket = world.one();
    assert!(world.fail(ticket) > 100 * SECOND);
    world.pass(SECOND);
    for _ in 0..100 {
        world.want(&id(0), Priority::RealTime);
    }
    assert_eq!(world.due(), []);
    assert_eq!(world.wait(), 4 * SECOND);
    world.one();
}

#[test]
fn eight_at_a_time_and_who_waits_first() {
    let mut world = World::new(5);
    for n in 0..20 {
        world.want(&id(n), Priority::Background);
    }
    world.want(&id(20), Priority::Warmup);
    world.want(&id(21), Priority::RealTime);
    world.want(&id(13), Priority::RealTime);
    let due = world.due();
    assert_eq!(due.len(), FETCHES_MAX);
    let first: HashSet<_> = due[..2].iter().map(|fetch| fetch.identity.clone()).collect();
    assert_eq!(first, HashSet::from([id(13), id(21)]));
    assert_eq!(due[2].identity, id(20));
    assert_eq!(world.due(), []);
    assert_eq!(world.rota.idle(world.now), None);
    world.fail(due[0].ticket);
    assert_eq!(world.due().len(), 1);
    // A forgotten fetch keeps its place until it has ended.
    let ticket = world.rota.forget(&due[1].identity).unwrap();
    assert_eq!(world.due(), []);
    assert_eq!(world.succeed(ticket, DAY), None);
    assert_eq!(world.due().len(), 1);
}

#[test]
fn what_expires_first_is_renewed_first() {
    let mut world = World::new(6);
    for n in 0..20 {
        world.want(&id(n), Priority::Background);
    }
    for _ in 0..3 {
        for fetch in world.due() {
            let n: u32 = fetch.identity.service_account()[2..].parse().unwrap();
            world.succeed(fetch.ticket, DAY + (20 - n) * SECOND);
        }
    }
    world.pass(DAY);
    let due: Vec<_> = world.due().into_iter().map(|fetch| fetch.identity).collect();
    assert_eq!(due, (12..20).rev().map(id).collect::<Vec<_>>());
}

#[test]
fn results_for_the_forgotten_are_of_no_use() {
    let mut world = World::new(7);
    world.want(&id(0), Priority::RealTime);
    let old = world.one();
    assert_eq!(world.rota.forget(&id(0)), Some(old));
    assert_eq!(world.rota.forget(&id(0)), None);
    world.want(&id(0), Priority::Warmup);
    let new = world.one();
    assert_eq!(world.succeed(old, DAY), None);
    assert_eq!(world.rota.failed(old, false, world.now), None);
    assert_eq!(world.succeed(new, DAY), Some(id(0)));
    assert_eq!(world.rota.forget(&id(0)), None);
    assert_eq!(world.rota.idle(world.now), None);
}

#[test]
fn a_wall_clock_that_jumps_is_followed() {
    let hour = 3600 * SECOND;
    for (jump, forward) in [(DAY, true), (3650 * DAY, true), (hour, false), (3650 * DAY, false)] {
        let mut world = World::new(8);
        world.want(&id(0), Priority::Background);
        let ticket = world.one();
        world.succeed(ticket, DAY);
        world.pass(10 * SECOND);
        let wall = world.now.wall;
        world.now.wall = if forward { wall + jump } else { wall - jump };
        let ticket = world.one();
        world.succeed(ticket, DAY);
        // And back.
        world.pass(10 * SECOND);
        world.now.wall = wall;
        let due = world.due().len();
        // Gone back by an hour and returned: the new certificate is good for the old time, too.
        assert_eq!(due, usize::from(forward || jump > DAY), "{jump:?} {forward}");
    }
}

#[test]
fn a_clock_set_back_and_a_failing_issuer_do_not_spin() {
    let mut world = World::new(9);
    world.want(&id(0), Priority::Background);
    let ticket = world.one();
    world.succeed(ticket, DAY);
    world.now.wall -= 3650 * DAY;
    let mut fetches = 0;
    for _ in 0..1000 {
        world.pass(SECOND);
        for fetch in world.due() {
            world.fail(fetch.ticket);
            fetches += 1;
        }
    }
    assert!(fetches < 20, "{fetches}");
}

#[test]
fn when_the_issuer_is_back_all_are_renewed_within_a_minute() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let all = 250;
        for n in 0..all {
            world.want(&id(n), Priority::Background);
        }
        let step = SECOND / 10;
        for _ in 0..6000 {
            for fetch in world.due() {
                world.fail(fetch.ticket);
            }
            world.pass(step);
        }
        let mut renewed = 0;
        let mut steps = 0;
        while renewed < all && steps <= 600 {
            // Each fetch takes a tenth of a second.
            let due = world.due();
            world.pass(step);
            steps += 1;
            for fetch in due {
                world.succeed(fetch.ticket, DAY);
                renewed += 1;
            }
        }
        assert_eq!(renewed, all, "seed {seed}: after {steps} tenths of a second");
    }
}

#[test]
fn random_events_keep_the_rules() {
    for seed in 0..300 {
        let checked = std::panic::catch_unwind(|| random_events(seed));
        assert!(checked.is_ok(), "seed {seed}");
    }
}

fn random_events(seed: u64) {
    let mut world = World::new(seed);
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xad17);
    let mut known: HashMap<Identity, Option<Instant>> = HashMap::new();
    let mut flying: Vec<Fetch> = Vec::new();
    let mut dead: HashSet<Ticket> = HashSet::new();
    for _ in 0..500 {
        let identity = id(rng.u64(0..12));
        match rng.u8(0..100) {
            0..20 => {
                let priorities = [Priority::Background, Priority::Warmup, Priority::RealTime];
                world.want(&identity, priorities[rng.usize(0..3)]);
                known.entry(identity).or_insert(None);
            }
            20..26 => {
                let ticket = world.rota.forget(&identity);
                known.remove(&identity);
                dead.extend(ticket);
            }
            26..66 if !flying.is_empty() => {
                let fetch = flying.swap_remove(rng.usize(0..flying.len()));
                let Now { wall, monotonic } = world.now;
                let not_after = wall + Duration::from_secs(rng.u64(1..100_000));
                let validity = Validity { not_before: wall - BACKDATING, not_after };
                let whose = if rng.bool() {
                    world.rota.succeeded(fetch.ticket, validity, world.now)
                } else {
                    world.rota.failed(fetch.ticket, false, world.now).map(|(whose, _)| whose)
                };
                let expected = (!dead.contains(&fetch.ticket)).then(|| fetch.identity.clone());
                assert_eq!(whose, expected);
                if let Some(whose) = whose {
                    known.insert(whose, Some(monotonic));
                }
            }
            66..96 => world.pass(Duration::from_millis(rng.u64(0..60_000))),
            96..98 => world.now.wall += Duration::from_secs(rng.u64(0..1_000_000)),
            98.. => world.now.wall -= Duration::from_secs(rng.u64(0..1_000_000)),
            _ => {}
        }
        for fetch in world.due() {
            let ended = known.get(&fetch.identity).expect("only what is wanted");
            let pause = ended.map_or(DAY, |ended| world.now.monotonic - ended);
            assert!(pause >= BACKOFF_MIN.mul_f64(JITTER.0), "again after {pause:?}");
            let twice =
                |other: &Fetch| other.identity == fetch.identity && !dead.contains(&other.ticket);
            assert!(!flying.iter().any(twice), "twice at a time");
            flying.push(fetch);
        }
        assert!(flying.len() <= FETCHES_MAX);
        assert_ne!(world.rota.idle(world.now), Some(Duration::ZERO), "due and not started");
    }
    settle(&mut world, flying, &known);
}

/// From any state, an issuer that works leads to a certificate for everybody, and then to rest.
fn settle(world: &mut World, flying: Vec<Fetch>, known: &HashMap<Identity, Option<Instant>>) {
    for fetch in flying {
        world.succeed(fetch.ticket, 10 * DAY);
    }
    for _ in 0..BACKOFF_MAX.mul_f64(JITTER.1).as_secs() {
        for fetch in world.due() {
            world.succeed(fetch.ticket, 10 * DAY);
        }
        world.pass(SECOND);
    }
    assert_eq!(world.due(), []);
    for (identity, entry) in &world.rota.entries {
        assert!(known.contains_key(identity));
        let served = entry.served.expect("served");
        assert!(world.now.wall < served.validity.not_after, "{identity}");
    }
    assert_eq!(world.rota.entries.len(), known.len());
}
