//! Files that were damaged while no process had them: a log that is gone, cut or scratched, and pages of the file that
//! are nothing but zeroes.

use crate::disk::{Disk, Files};
use crate::model::Model;
use crate::vfs::Mount;
use crate::{BATCHES, DATABASE, Figures, REDO, base, consistent, histories, in_parallel, open};
use prontomq::internals::model::random::Random;
use prontomq::internals::store::{CommitOutcome, Store};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

const LOG: &str = "prontomq.sqlite3-wal";
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 16_384;

/// The files after some batches, the log never moved into the file unless the store was closed; the store after each
/// batch; and the last one before which it was closed.
fn filled(place: &Path, random: &mut Random) -> (Files, Vec<Model>, u64) {
    let disk = Disk::new(&base(place));
    let mount = Mount::new(place, &disk);
    let mut store = open(mount.path(), 1_000_000).unwrap();
    store.recover().unwrap();
    let mut models = vec![Model::default()];
    let mut closed = 0;
    for number in 1..=BATCHES {
        let (batch, next) = models.last().unwrap().batch(number, random);
        models.push(next);
        assert_eq!(store.commit(&batch), CommitOutcome::Committed);
        if random.next_u64().is_multiple_of(6) {
            Box::new(store).close().unwrap();
            store = open(mount.path(), 1_000_000).unwrap();
            store.recover().unwrap();
            closed = number;
        }
    }
    let state = disk.state();
    let files = state.names.iter().map(|(name, inode)| (name.clone(), state.files[*inode].bytes.clone())).collect();
    drop(state);
    (files, models, closed)
}

/// What became of damaged files.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The store opened, and is as it was after this batch.
    Batch(u64),
    /// Opening, reading or checking said what is wrong.
    Damage(String),
    /// As after the last batch, but for bytes of bodies.
    OtherBodies,
}

/// Opens damaged files. The violation: it opens, reads and checks well, and holds something else.
fn look(place: &Path, files: &Files, models: &[Model]) -> Result<Found, String> {
    let disk = Disk::new(files);
    let mount = Mount::new(place, &disk);
    let opened = open(mount.path(), 1_000).and_then(|mut store| {
        let recovered = store.recover().map_err(|error| error.to_string())?;
        Ok((recovered.batch_no.0, Model::of(&store, &recovered)?))
    });
    let (last, found) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Found::Damage(error)),
    };
    if let Err(error) = consistent(mount.path()) {
        return Ok(Found::Damage(error));
    }
    if models.get(last as usize) == Some(&found) {
        return Ok(Found::Batch(last));
    }
    if models.get(last as usize).is_some_and(|model| model.differs_in_bodies_alone(&found)) {
        return Ok(Found::OtherBodies);
    }
    Err(format!("after batch {last} there is {found:?} instead of {:?}", models.get(last as usize)))
}

#[test]
fn a_log_that_is_cut_or_scratched_ends_with_a_whole_batch() {
    let figures = Figures::default();
    in_parallel(histories(10), |place, seed| {
        let mut random = Random::new(seed);
        let (files, models, closed) = filled(place, &mut random);
        figures.begin();
        let len = files.get(LOG).map_or(0, super::content::Content::len);
        for _ in 0..40.min(len) {
            let mut files = files.clone();
            let log = files.get_mut(LOG).unwrap();
            let at = random.next_u64() as usize % len;
            match random.next_u64() % 3 {
                0 => log.resize(at),
                1 => log.write(at - at % SECTOR_BYTES, &[0; SECTOR_BYTES]),
                _ => {
                    let mut byte = [0];
                    log.read(at, &mut byte);
                    log.write(at, &[byte[0] ^ (1 << (random.next_u64() % 8))]);
                }
            }
            figures.check(
                seed,
                &format!("a log damaged at {at} of {len}"),
                match look(place, &files, &models) {
                    Ok(Found::Batch(last)) if (closed..=BATCHES).contains(&last) => Ok(()),
                    Ok(other) => Err(format!("{other:?}")),
                    Err(error) => Err(error),
                },
            );
        }
    });
    figures.tell("damaged logs");
}

#[test]
fn without_its_log_the_store_is_as_it_was_when_that_was_last_moved_or_as_the_redo_log_says() {
    let figures = Figures::default();
    in_parallel(histories(20), |place, seed| {
        let (mut files, models, closed) = filled(place, &mut Random::new(seed));
        figures.begin();
        files.remove(LOG);
        figures.check(
            seed,
            "a missing log",
            match look(place, &files, &models) {
                // Small batches that came at once are in the redo log.
                Ok(Found::Batch(last)) if last == closed || last > closed && files.contains_key(REDO) => Ok(()),
                Ok(other) => Err(format!("{other:?} instead of batch {closed}")),
                Err(error) => Err(error),
            },
        );
    });
    figures.tell("missing logs");
}

#[test]
fn zeroed_pages_are_found_or_were_not_needed_and_nothing_is_confirmed_falsely() {
    let [found, bodies, refused] = [const { AtomicUsize::new(0) }; 3];
    let figures = Figures::default();
    in_parallel(histories(6), |place, seed| {
        let mut random = Random::new(seed);
        let (files, models, _) = filled(place, &mut random);
        // All of it into the file.
        let disk = Disk::new(&files);
        let mount = Mount::new(place, &disk);
        Box::new(open(mount.path(), 1_000).unwrap()).close().unwrap();
        let files: Files = {
            let state = disk.state();
            state.names.iter().map(|(name, inode)| (name.clone(), state.files[*inode].bytes.clone())).collect()
        };
        figures.begin();
        let pages = files[DATABASE].len() / PAGE_BYTES;
        for page in 0..pages {
            let mut files = files.clone();
            files.get_mut(DATABASE).unwrap().write(page * PAGE_BYTES, &[0; PAGE_BYTES]);
            let what = format!("page {page} of {pages} zeroed");
            let looked = look(place, &files, &models);
            found.fetch_add(usize::from(matches!(looked, Ok(Found::Damage(_)))), Ordering::Relaxed);
            bodies.fetch_add(usize::from(looked == Ok(Found::OtherBodies)), Ordering::Relaxed);
            figures.check(seed, &what, looked.map(drop));
            let confirmed = confirms_truly(place, &files, models.last().unwrap(), &mut random);
            refused.fetch_add(usize::from(confirmed == Ok(false)), Ordering::Relaxed);
            figures.check(seed, &what, confirmed.map(drop));
        }
    });
    let [found, bodies, refused] = [found, bodies, refused].map(AtomicUsize::into_inner);
    println!(
        "damage was found {found} times, {bodies} times bodies had other bytes; {refused} times nothing was committed"
    );
    assert!(found > 0 && refused > 0);
    figures.tell("zeroed pages");
}

/// Commits one more batch to damaged files. What is said to be committed is there after a loss of power, whatever else is
/// wrong; whether it was.
fn confirms_truly(place: &Path, files: &Files, model: &Model, random: &mut Random) -> Result<bool, String> {
    let disk = Disk::new(files);
    let mount = Mount::new(place, &disk);
    let Ok(mut store) = open(mount.path(), 1_000) else { return Ok(false) };
    if store.recover().is_err() {
        return Ok(false);
    }
    let (batch, _) = model.batch(BATCHES + 1, random);
    if store.commit(&batch) != CommitOutcome::Committed {
        return Ok(false);
    }
    let mount = mount.kill(place, &disk);
    let mut store = open(mount.path(), 1_000)?;
    let last = store.recover().map_err(|error| error.to_string())?.batch_no.0;
    if last == BATCHES + 1 { Ok(true) } else { Err(format!("batch {last} is the last")) }
}
