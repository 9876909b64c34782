//! Missing, cut, changed and swapped objects: verification and restore find each of them and name it.

use std::fs;
use std::path::Path;

use silkrate::backup::{At, restore, verify};

use super::{Fixture, directory, files, sequence};

/// What happens to an object.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Missing,
    Empty,
    Cut,
    Flipped(usize),
    /// Replaced by another object of the same folder.
    Swapped,
}

const FAULTS: [Fault; 8] = [
    Fault::Missing,
    Fault::Empty,
    Fault::Cut,
    Fault::Flipped(1),
    Fault::Flipped(3),
    Fault::Flipped(10),
    Fault::Flipped(15),
    Fault::Swapped,
];

fn apply(fault: Fault, path: &Path, other: &[u8]) {
    let bytes = fs::read(path).unwrap();
    match fault {
        Fault::Missing => fs::remove_file(path).unwrap(),
        Fault::Empty => fs::write(path, b"").unwrap(),
        Fault::Cut => fs::write(path, &bytes[..bytes.len() - bytes.len() / 3 - 1]).unwrap(),
        Fault::Flipped(sixteenth) => {
            let mut bytes = bytes;
            let at = bytes.len() * sixteenth / 16;
            bytes[at] ^= 4;
            fs::write(path, bytes).unwrap();
        }
        Fault::Swapped => fs::write(path, other).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_every_object_is_found_and_named() {
    let mut fixture = Fixture::start(30);
    let to = fixture.path("backup");
    let mut last = 0;
    for _ in 0..3 {
        fixture.steps(3, 300).await;
        last = sequence(&fixture.back_up(&to).await);
    }
    let from = directory(&to);
    let objects = files(&to);
    assert!(objects.len() >= 8, "{objects:?}");
    let (mut restored, mut refused) = (0, 0);
    for name in &objects {
        let path = to.join(name);
        let whole = fs::read(&path).unwrap();
        let folder = name.split('/').next().unwrap();
        let other = objects.iter().find(|other| other.starts_with(folder) && *other != name).unwrap();
        let other = fs::read(to.join(other)).unwrap();
        for fault in FAULTS {
            // A missing manifest is the absence of a backup.
            if folder == "manifests" && matches!(fault, Fault::Missing) {
                continue;
            }
            apply(fault, &path, &other);
            let verified = verify(&from, None, None, &mut |_, _| {}).await.unwrap();
            let problems: Vec<String> = verified.problems.iter().map(ToString::to_string).collect();
            assert!(
                problems.iter().any(|problem| problem.contains(name.as_str())),
                "{fault:?} of {name}: {problems:?}"
            );
            let db = fixture.path("restored");
            match restore(&from, At::Sequence(last), None, &db, &mut |_, _| {}).await {
                Ok(_) => {
                    restored += 1;
                    fixture.check_store(&db, last);
                }
                Err(error) => {
                    refused += 1;
                    let text = error.to_string();
                    // Without the manifest, the backup does not exist.
                    let is_named =
                        text.contains(name.as_str()) || (folder == "manifests" && text.contains("cannot be restored"));
                    assert!(is_named, "{fault:?} of {name}: {text}");
                    // An unfinished restore is not a store.
                    assert!(!db.exists() || silkrate::store::verify(&db).is_err(), "{fault:?} of {name}");
                }
            }
            let _ = fs::remove_dir_all(&db);
            fs::write(&path, &whole).unwrap();
        }
    }
    assert!(restored > 0 && refused > 0, "{restored} restored, {refused} refused");
    assert_eq!(verify(&from, None, None, &mut |_, _| {}).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn next_backup_replaces_damaged_objects_of_earlier_ones() {
    let mut fixture = Fixture::start(31);
    let to = fixture.path("backup");
    fixture.steps(3, 300).await;
    fixture.back_up(&to).await;
    // A missing pack is noticed by its absence, a cut one by its size.
    for object in files(&to).iter().filter(|name| name.starts_with("packs/")) {
        fs::remove_file(to.join(object)).unwrap();
    }
    fixture.steps(1, 300).await;
    let expected = sequence(&fixture.back_up(&to).await);
    fixture.check_restore(&directory(&to), At::Newest, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_into_a_directory_with_other_contents_is_refused() {
    let mut fixture = Fixture::start(32);
    let to = fixture.path("backup");
    fixture.steps(2, 100).await;
    let expected = sequence(&fixture.back_up(&to).await);
    fixture.close();
    let restore_into =
        async |name: &str| restore(&directory(&to), At::Newest, None, &fixture.path(name), &mut |_, _| {}).await;
    // A store with commits, and a directory with an unknown file.
    assert!(restore_into("db").await.unwrap_err().to_string().contains("is not empty"));
    fs::create_dir(fixture.path("other")).unwrap();
    fs::write(fixture.path("other/notes.txt"), "x").unwrap();
    assert!(restore_into("other").await.unwrap_err().to_string().contains("choose a new or empty directory"));
    assert_eq!(files(&fixture.path("other")), ["notes.txt"]);
    // An unfinished restore is begun again.
    fs::create_dir_all(fixture.path("again/sled")).unwrap();
    fs::write(fixture.path("again/UNFINISHED-IMPORT"), "").unwrap();
    assert!(silkrate::store::verify(&fixture.path("again")).unwrap_err().to_string().contains("silkrate restore"));
    restore_into("again").await.unwrap();
    fixture.check_store(&fixture.path("again"), expected);
}
