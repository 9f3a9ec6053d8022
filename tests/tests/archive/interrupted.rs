//! Whoever is killed goes on: an archive and a restored log come to what they would have come to.

use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
};

use serviceradar_log::{LogError, LogStore, Publisher};
use serviceradar_replay::{
    archive::{ArchiveError, read_manifest},
    operations::Operations,
    restore::{Plan, RestoreError, Wanted},
};
use serviceradar_schemas::{operation::Phase, topics::Stream};
use serviceradar_tests::stand::{Between, TENANT};

use super::{
    archive_in_small_files, assert_restored, folder, into_empty, nasty, nasty::Knows, new_log, old_log,
    restore_all, restore_with,
};

/// Polls a future so often and drops it, as if its process had been killed; whether it had ended.
async fn killed_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if future.as_mut().poll(&mut context).is_ready() {
            return true;
        }
        // What it waits for is done by other threads.
        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
    }
    false
}

/// The log with all that is readable by this program alone.
async fn plain_log() -> Arc<dyn LogStore> {
    let (old, clock) = old_log();
    nasty::make_topics(&old, TENANT).await;
    nasty::publish(&old, TENANT, &clock, super::THEN, 0..3).await;
    old
}

fn bytes_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(bytes_of(&path));
        } else {
            found.push((path.to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_killed_anywhere_goes_on_and_is_as_if_it_had_not_been() {
    let old = plain_log().await;
    let whole = tempfile::tempdir().unwrap();
    let expected = archive_in_small_files(&old, &Knows::before(), &folder(whole.path())).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for polls in 1.. {
        let place = folder(dir.path());
        if killed_after(polls, archive_in_small_files(&old, &Knows::before(), &place)).await {
            break;
        }
        kills += 1;
        // It is whole, or there is none; never a part of one.
        match read_manifest(&place).await {
            Ok(manifest) => assert_eq!(manifest.files, expected.manifest.files),
            Err(ArchiveError::NoArchive(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(kills > 5, "it was killed {kills} times");
    assert_eq!(read_manifest(&folder(dir.path())).await.unwrap(), expected.manifest);
    let names = |(path, bytes): (String, Vec<u8>), of: &Path| {
        (path.strip_prefix(of.to_str().unwrap()).unwrap().to_owned(), bytes)
    };
    let left: Vec<_> = bytes_of(dir.path()).into_iter().map(|file| names(file, dir.path())).collect();
    let expected: Vec<_> = bytes_of(whole.path()).into_iter().map(|file| names(file, whole.path())).collect();
    assert!(left == expected, "what is left of kills is not what one run leaves");
}

/// A log that dies at an append: before it, or after it and before anybody was told.
fn dying(log: &Arc<dyn LogStore>, appends: usize, after: bool) -> Arc<dyn LogStore> {
    let count = AtomicUsize::new(0);
    Between::before_append(log.clone(), move |_| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        if nth >= appends + usize::from(after) { Err(LogError::Corrupt("killed".to_owned())) } else { Ok(()) }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_killed_at_any_append_goes_on_without_loss_or_doubling() {
    let old = plain_log().await;
    let dir = tempfile::tempdir().unwrap();
    let place = folder(dir.path());
    // No registry: the strange events stay as they are, and can be compared.
    let archived =
        archive_in_small_files(&old, &serviceradar_schemas::codec::NoRegistry, &place).await.unwrap();
    let new = new_log();
    let mut kills = 0;
    loop {
        // One append further each time: what was restored is not restored again.
        match restore_all(&dying(&new, 1, false), &place).await {
            Ok(_) => break,
            Err(RestoreError::Log(LogError::Corrupt(_))) => kills += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(kills > 3, "it was killed {kills} times");
    assert_restored(&old, &new, &archived.manifest).await;
    let operations = Operations::read(&*new).await.unwrap();
    let phases: Vec<_> = operations.all().iter().map(|operation| operation.phase).collect();
    assert_eq!(phases, [Phase::Intent, Phase::Done], "one restore, however often it was killed");
    let filled: i64 = operations.all()[0].ranges.iter().map(|range| range.to - range.from).sum();
    assert_eq!(filled, i64::try_from(archived.records).unwrap());
}

/// Whoever was killed when all was done, and before anybody was told, asks again.
#[tokio::test]
async fn what_is_restored_already_is_known_to_be() {
    let old = plain_log().await;
    let dir = tempfile::tempdir().unwrap();
    let place = folder(dir.path());
    let archived =
        archive_in_small_files(&old, &serviceradar_schemas::codec::NoRegistry, &place).await.unwrap();
    let new = new_log();
    assert!(!Plan::make(&*new, &place, &into_empty()).await.unwrap().is_done());
    restore_all(&new, &place).await.unwrap();
    assert!(Plan::make(&*new, &place, &into_empty()).await.unwrap().is_done());
    assert_restored(&old, &new, &archived.manifest).await;
    // One topic that was made anew since is filled again, and the other is left.
    let decisions = Stream::Decisions.topic(TENANT);
    new.delete_topic(&decisions).await.unwrap();
    let plan = Plan::make(&*new, &place, &into_empty()).await.unwrap();
    assert!(!plan.is_done());
    assert_eq!(plan.missing.keys().collect::<Vec<_>>(), [&decisions]);
    restore_all(&new, &place).await.unwrap();
    assert_restored(&old, &new, &archived.manifest).await;
    // Behind it there may be anything: that it is no longer what was archived, is said.
    let publisher = Publisher::new(new.clone(), decisions);
    publisher.publish(vec![serviceradar_log::NewEvent::default()]).await.unwrap();
    let refused = restore_all(&new, &place).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");

    // One topic after the other comes to the same; what lost its begin does not.
    let new = new_log();
    let observations = Stream::Observations.topic(TENANT);
    for topic in [Stream::Decisions.topic(TENANT), observations.clone()] {
        let wanted = Wanted { topics: vec![topic], ..into_empty() };
        restore_with(&new, &place, wanted, &Default::default()).await.unwrap();
    }
    let topics = vec![Stream::Decisions.topic(TENANT), observations.clone()];
    let both = Wanted { topics, ..into_empty() };
    assert!(Plan::make(&*new, &place, &both).await.unwrap().is_done());
    new.delete_before(&observations, 0, 1).await.unwrap();
    let refused = Plan::make(&*new, &place, &both).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_dropped_anywhere_goes_on_without_loss_or_doubling() {
    let old = plain_log().await;
    let dir = tempfile::tempdir().unwrap();
    let place = folder(dir.path());
    let archived =
        archive_in_small_files(&old, &serviceradar_schemas::codec::NoRegistry, &place).await.unwrap();
    let new = new_log();
    let mut polls = 1;
    while !killed_after(polls, restore_all(&new, &place)).await {
        polls += 3;
    }
    assert_restored(&old, &new, &archived.manifest).await;
}

/// Whatever others append in between is no part of the archive, and would be taken for it.
#[tokio::test]
async fn others_that_publish_during_a_restore_are_noticed() {
    let old = plain_log().await;
    let dir = tempfile::tempdir().unwrap();
    let place = folder(dir.path());
    archive_in_small_files(&old, &serviceradar_schemas::codec::NoRegistry, &place).await.unwrap();
    let new = new_log();
    restore_all(&dying(&new, 2, false), &place).await.unwrap_err();
    for topic in [Stream::Observations, Stream::Decisions] {
        let publisher = Publisher::new(new.clone(), topic.topic(TENANT));
        for _ in 0..nasty::LOG_PARTITIONS {
            publisher.publish(vec![serviceradar_log::NewEvent::default()]).await.unwrap();
        }
    }
    let refused = restore_all(&new, &place).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Disturbed { .. }), "{refused}");
    let anew = Wanted { begin_anew: true, ..into_empty() };
    let refused = restore_with(&new, &place, anew, &Default::default()).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty { .. }), "{refused}");
}

/// Two that write the same files would leave those of neither.
#[tokio::test]
async fn two_processes_do_not_archive_to_one_folder_at_once() {
    let old = plain_log().await;
    let dir = tempfile::tempdir().unwrap();
    let lock = std::fs::File::create(dir.path().join("archive.lock")).unwrap();
    lock.lock().unwrap();
    let refused = archive_in_small_files(&old, &Knows::before(), &folder(dir.path())).await.unwrap_err();
    assert!(matches!(refused, ArchiveError::Held(_)), "{refused}");
    drop(lock);
    archive_in_small_files(&old, &Knows::before(), &folder(dir.path())).await.unwrap();
}
