//! How the program ends: one stable code per way.

use std::{io, path::PathBuf, process::ExitCode};

use serviceradar_ingest::{
    publish::PublishError,
    sync::armis::{CrawlError, FetchError},
};
use serviceradar_log::LogError;
use serviceradar_materializers::views::ViewsError;
use serviceradar_ops::{config::ConfigError, postgres::PostgresError};
use serviceradar_replay::operations::OperationsError;
use serviceradar_replay::{
    archive::ArchiveError, as_of::AsOfError, candidate::CandidateError, past::FillError,
    preview::PreviewError, removal::RemoveError, republish::RepublishError, restore::RestoreError,
    truncate::TruncateError, verify::VerifyError,
};
use serviceradar_schemas::codec::Unavailable;

use crate::verbs::query::Refused;

/// The codes, as `--help` tells them.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    failed
  2    the command line, the configuration or a query is wrong
  3    something needed cannot be reached: the log store, the database, the schema registry, a source
  4    looked, and found something wrong (doctor, status, schema check, dlq replay, reseed,
       explain count, replay plan, verify, rebuild, promote and import; a damaged archive)
  130  interrupted before it was done";

/// What a check found is not as it should be. The findings are on stdout.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Wanting(pub(crate) String);

/// The command line asks for what cannot be, which the parser does not see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Mistaken(pub(crate) String);

/// No pipeline answers for a data folder.
#[derive(Debug, thiserror::Error)]
#[error("no pipeline runs on {dir} ({why:#}): start one with `serviceradar run --dir {dir}`")]
pub(crate) struct NotRunning {
    pub(crate) dir: PathBuf,
    pub(crate) why: anyhow::Error,
}

/// Ctrl-C, or SIGTERM, before the work was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; nothing is lost: the same command goes on from here")]
pub(crate) struct Interrupted;

/// The same, of work that nobody can go on with.
#[derive(Debug, thiserror::Error)]
#[error("interrupted, and what was made is dropped: the same command begins anew")]
pub(crate) struct InterruptedForGood;

/// The code of an error, by what is in its chain.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        let refused: Option<&Refused> = cause.downcast_ref();
        let is_mistaken = cause.is::<Mistaken>() || refused.is_some_and(Refused::is_mistaken);
        let found = if cause.is::<ConfigError>() || is_mistaken {
            2
        } else if cause.is::<Wanting>() || is_damage(cause) {
            4
        } else if cause.is::<Interrupted>() || cause.is::<InterruptedForGood>() {
            130
        } else if is_unreachable(cause) {
            3
        } else {
            continue;
        };
        return ExitCode::from(found);
    }
    ExitCode::from(1)
}

/// Whether stdout is gone: whoever read it has seen enough.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref().is_some_and(broken)
}

/// Whether an archive is not what was written.
fn is_damage(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(ArchiveError::Faulty { .. }))
        || cause.downcast_ref().is_some_and(RestoreError::is_damage)
}

fn is_unreachable(cause: &(dyn std::error::Error + 'static)) -> bool {
    let database = cause.downcast_ref::<tokio_postgres::Error>();
    cause.downcast_ref().is_some_and(Refused::is_unavailable)
        || cause.downcast_ref().is_some_and(LogError::is_unavailable)
        || matches!(cause.downcast_ref(), Some(PublishError::Log(error)) if error.is_unavailable())
        || cause.downcast_ref().is_some_and(OperationsError::is_unavailable)
        || cause.downcast_ref().is_some_and(ViewsError::is_unavailable)
        || cause.is::<NotRunning>()
        || cause.is::<Unavailable>()
        || matches!(cause.downcast_ref(), Some(CrawlError::Fetch { .. }))
        || cause.is::<FetchError>()
        || matches!(cause.downcast_ref(), Some(PostgresError::NoBinaries(_)))
        || cause.downcast_ref().is_some_and(ArchiveError::is_unavailable)
        || cause.downcast_ref().is_some_and(RestoreError::is_unavailable)
        || cause.downcast_ref().is_some_and(TruncateError::is_unavailable)
        || cause.downcast_ref().is_some_and(RemoveError::is_unavailable)
        || cause.downcast_ref().is_some_and(VerifyError::is_unavailable)
        || cause.downcast_ref().is_some_and(AsOfError::is_unavailable)
        || cause.downcast_ref().is_some_and(FillError::is_unavailable)
        || cause.downcast_ref().is_some_and(PreviewError::is_unavailable)
        || cause.downcast_ref().is_some_and(CandidateError::is_unavailable)
        || cause.downcast_ref().is_some_and(RepublishError::is_unavailable)
        || database.is_some_and(|error| error.is_closed() || error.as_db_error().is_none())
}

#[cfg(test)]
mod tests {
    use serviceradar_replay::recompute::RecomputeError;

    use super::*;

    type Error = dyn std::error::Error + 'static;

    #[test]
    fn what_cannot_be_reached_is_so_however_deep_it_was_met() {
        let log = || LogError::Unavailable("gone".to_owned());
        let recompute = || RecomputeError::from(log());
        let views = || ViewsError::Unavailable("gone".to_owned());
        let unreachable: [&Error; 9] = [
            &log(),
            &VerifyError::from(recompute()),
            &VerifyError::from(views()),
            &AsOfError::from(recompute()),
            &FillError::from(views()),
            &PreviewError::from(recompute()),
            &CandidateError::from(OperationsError::from(log())),
            &TruncateError::from(recompute()),
            &RemoveError::from(views()),
        ];
        for error in unreachable {
            assert!(is_unreachable(error), "{error:?}");
        }
        let others: [&Error; 3] = [
            &VerifyError::Empty("t".to_owned()),
            &TruncateError::from(RecomputeError::Task("lost".to_owned())),
            &CandidateError::NoTopics("t".to_owned()),
        ];
        for error in others {
            assert!(!is_unreachable(error), "{error:?}");
        }
    }
}
