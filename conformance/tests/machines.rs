//! The golden dialogues straight against the machines: session, broker and queues without a socket, in virtual time.
//!
//! What takes a client ten seconds to see takes none here, and a dialogue that fails can be stepped through.

use conformance::conversation::{Login, run};
use conformance::dialogue::{Dialogue, Target};
use conformance::suite;
use conformance::transport::{Dialer, Heard, Transport};
use prontomq::Settings;
use prontomq::internals::server::{SimulatedConnection, Simulation};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Dialogues that are left to real sockets, and why.
const LEFT_TO_SOCKETS: [(&str, &str); 2] = [
    (
        "15-transactions: a method during a commit is an error of the connection",
        "its second method has to overtake the store, which takes no time here",
    ),
    (
        "03-frames: a message at the size limit is accepted and one byte more is refused",
        "it sends 256 MiB, which is most of the time of all the others together",
    ),
];

/// A broker in memory, and its clock.
struct World(Rc<RefCell<Simulation>>);

struct End {
    simulation: Rc<RefCell<Simulation>>,
    connection: SimulatedConnection,
}

impl Dialer for World {
    type Link = End;

    fn dial(&self) -> io::Result<End> {
        let connection = self.0.borrow_mut().connect();
        Ok(End { simulation: Rc::clone(&self.0), connection })
    }

    fn now(&self) -> Duration {
        self.0.borrow().elapsed()
    }

    fn pause(&self, time: Duration) {
        self.0.borrow_mut().advance(time);
    }
}

impl Transport for End {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.simulation.borrow_mut().send(self.connection, bytes);
        Ok(())
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Heard> {
        let mut simulation = self.simulation.borrow_mut();
        let until = simulation.elapsed() + limit;
        loop {
            let heard = simulation.take_output(self.connection);
            if !heard.is_empty() {
                return Ok(Heard::Bytes(heard));
            }
            if simulation.is_closed(self.connection) {
                return Ok(Heard::Closed);
            }
            let now = simulation.elapsed();
            if now >= until {
                return Ok(Heard::Nothing);
            }
            let next = simulation.next_event().filter(|next| *next <= until).unwrap_or(until);
            // Something that is due now and does not go away must not hold the clock.
            simulation.advance((next - now).max(Duration::from_micros(1)));
        }
    }

    fn drop_now(&mut self) {
        self.simulation.borrow_mut().leave(self.connection);
    }
}

fn dialogues() -> Vec<Dialogue> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues");
    suite::read(&folder, Target::Prontomq).expect("the chapters are well formed")
}

/// The failure of a dialogue on a broker of its own.
fn failure(dialogue: &Dialogue) -> Option<String> {
    let simulation = Simulation::start(Settings::default(), 1).expect("a broker in memory starts");
    let world = World(Rc::new(RefCell::new(simulation)));
    let login = Login { user: "guest".into(), password: "guest".into(), vhost: "/".into() };
    let outcome = run(&world, &login, dialogue, "-m");
    outcome.failure.map(|failure| format!("{}: {failure}", dialogue.name))
}

#[test]
fn every_dialogue_holds_without_sockets() {
    let sockets: BTreeSet<_> = LEFT_TO_SOCKETS.iter().map(|(name, _)| *name).collect();
    let mut dialogues = dialogues();
    let all = dialogues.len();
    dialogues.retain(|dialogue| !sockets.contains(dialogue.name.as_str()));
    assert_eq!(dialogues.len(), all - sockets.len(), "LEFT_TO_SOCKETS names dialogues that are there");
    let failures: Vec<_> = dialogues.iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), dialogues.len(), failures.join("\n"));
}
