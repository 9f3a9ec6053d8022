//! Whatever is wrong with an archive is named, and nothing of it is published.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serviceradar_log::{LogStore, MemoryLog, NewEvent, Publisher};
use serviceradar_replay::{
    archive::{ArchiveError, Fault},
    restore::{RestoreError, Wanted},
};
use serviceradar_schemas::topics::Stream;
use serviceradar_tests::stand::TENANT;

use super::{
    archive_all, archive_in_small_files, assert_restored, folder, into_empty, nasty, nasty::Knows, new_log,
    old_log, restore_all, restore_with,
};

/// A log of plain events, and its archive in several files.
async fn archived(dir: &Path) -> (Arc<dyn LogStore>, Vec<PathBuf>) {
    let (old, clock) = old_log();
    nasty::make_topics(&old, TENANT).await;
    let observations = Publisher::new(old.clone(), Stream::Observations.topic(TENANT));
    for round in 0..2 {
        for key in 0..20 {
            let key = bytes::Bytes::from(format!("{round} {key}"));
            let event = NewEvent { key: Some(key.clone()), value: Some(key), headers: Vec::new() };
            observations.publish(vec![event]).await.unwrap();
        }
        clock.set(super::THEN + round);
        archive_in_small_files(&old, &Knows::before(), &folder(dir)).await.unwrap();
    }
    let files = files(dir).into_iter().filter(|path| path.extension().is_some_and(|end| end == "avro"));
    let files: Vec<_> = files.collect();
    assert!(files.len() >= 4, "{files:?}");
    (old, files)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn name(dir: &Path, file: &Path) -> String {
    file.strip_prefix(dir).unwrap().to_str().unwrap().to_owned()
}

/// Restoring is refused, with the names of what is wrong, and nothing is written.
async fn assert_refused(dir: &Path, wrong: &[String], what: &str) -> Vec<Fault> {
    let new = new_log();
    let refused = restore_all(&new, &folder(dir)).await.expect_err(what);
    let RestoreError::Archive(ArchiveError::Faulty { faults, .. }) = refused else {
        panic!("{what}: {refused}");
    };
    let named: Vec<_> = faults.iter().map(|fault| fault.path.clone()).collect();
    assert_eq!(named, wrong, "{what}");
    assert!(new.topics(None).await.unwrap().is_empty(), "{what}: something was written");
    faults
}

#[tokio::test]
async fn a_file_damaged_at_any_byte_is_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, files) = archived(dir.path()).await;
    for file in &files {
        let sound = fs::read(file).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(file, &damaged).unwrap();
            let what = format!("byte {at} of {}", file.display());
            assert_refused(dir.path(), &[name(dir.path(), file)], &what).await;
        }
        fs::write(file, &sound).unwrap();
    }
    restore_all(&new_log(), &folder(dir.path())).await.unwrap();
}

#[tokio::test]
async fn files_that_are_cut_missing_or_swapped_are_named_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (old, files) = archived(dir.path()).await;
    let sound: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let names: Vec<_> = files.iter().map(|file| name(dir.path(), file)).collect();

    fs::write(&files[0], &sound[0][..sound[0].len() - 1]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    fs::write(&files[2], [&sound[2][..], b"x"].concat()).unwrap();
    let faults = assert_refused(dir.path(), &names[..3], "cut, missing, longer").await;
    assert!(faults[0].why.contains("bytes, and must have"), "{faults:?}");
    assert!(faults[1].why.contains("missing"), "{faults:?}");

    for (file, sound) in files.iter().zip(&sound) {
        fs::write(file, sound).unwrap();
    }
    fs::write(&files[0], &sound[1]).unwrap();
    fs::write(&files[1], &sound[0]).unwrap();
    assert_refused(dir.path(), &names[..2], "swapped").await;

    for (file, sound) in files.iter().zip(&sound) {
        fs::write(file, sound).unwrap();
    }
    let new = new_log();
    restore_all(&new, &folder(dir.path())).await.unwrap();
    let archived = archive_all(&old, &folder(dir.path())).await.unwrap();
    assert_restored(&old, &new, &archived.manifest).await;
}

#[tokio::test]
async fn a_manifest_that_is_damaged_missing_or_of_another_version_is_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    archived(dir.path()).await;
    let manifest = dir.path().join("manifest.json");
    let sound = fs::read_to_string(&manifest).unwrap();
    let named = ["manifest.json".to_owned()];
    for (what, from, to) in [
        ("another count", "\"records\": ", "\"records\": 1"),
        ("another tenant", "\"tenant\": \"stand\"", "\"tenant\": \"other\""),
        ("a file less", "\"files\": [", "\"files\": [], \"more\": ["),
        ("no JSON", "{", "["),
    ] {
        let damaged = sound.replacen(from, to, 1);
        assert_ne!(damaged, sound, "{what}");
        fs::write(&manifest, damaged).unwrap();
        let faults = assert_refused(dir.path(), &named, what).await;
        assert!(faults[0].why.contains("damaged"), "{what}: {faults:?}");
    }
    fs::write(&manifest, sound.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
    let faults = assert_refused(dir.path(), &named, "another version").await;
    assert!(faults[0].why.contains("version 2"), "{faults:?}");

    fs::remove_file(&manifest).unwrap();
    let refused = restore_all(&new_log(), &folder(dir.path())).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Archive(ArchiveError::NoArchive(_))), "{refused}");
}

/// What is there would be doubled, or come into log partitions where its keys do not belong.
#[tokio::test]
async fn a_log_that_is_not_empty_or_has_other_log_partitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (old, _) = archived(dir.path()).await;
    let refused = restore_all(&old, &folder(dir.path())).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");

    let new = new_log();
    new.create_topic(&Stream::Observations.topic(TENANT), nasty::LOG_PARTITIONS + 1).await.unwrap();
    let refused = restore_all(&new, &folder(dir.path())).await.unwrap_err();
    assert!(matches!(refused, RestoreError::OtherLogPartitions { .. }), "{refused}");

    let other = Wanted { tenant: "other".to_owned(), ..into_empty() };
    let refused = restore_with(&new_log(), &folder(dir.path()), other, &Default::default()).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, RestoreError::Archive(ArchiveError::OtherTenant { .. })), "{refused}");

    let append = Wanted { append: true, ..into_empty() };
    let before = old.offsets(&Stream::Observations.topic(TENANT), 0).await.unwrap().end;
    restore_with(&old, &folder(dir.path()), append, &Default::default()).await.unwrap();
    assert_eq!(old.offsets(&Stream::Observations.topic(TENANT), 0).await.unwrap().end, 2 * before);
}

/// An archive of one log that goes on with another would be of neither.
#[tokio::test]
async fn an_archive_is_not_gone_on_with_from_another_log() {
    let dir = tempfile::tempdir().unwrap();
    archived(dir.path()).await;
    let clock = Arc::new(serviceradar_schemas::time::ManualClock::new(super::THEN));
    let other: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
    nasty::make_topics(&other, TENANT).await;
    let refused = archive_all(&other, &folder(dir.path())).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::OtherLog { .. }), "{refused}");
    nasty::publish(&other, TENANT, &clock, super::THEN, 0..1).await;
    let refused = archive_all(&other, &folder(dir.path())).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::OtherLog { .. }), "{refused}");
}

/// A file that is lost is told of before more is archived behind it.
#[tokio::test]
async fn an_archive_that_lost_a_file_is_not_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (old, files) = archived(dir.path()).await;
    fs::remove_file(&files[0]).unwrap();
    let refused = archive_all(&old, &folder(dir.path())).await.unwrap_err();
    let ArchiveError::Faulty { faults, .. } = refused else { panic!("{refused}") };
    assert_eq!(faults[0].path, name(dir.path(), &files[0]));
}
