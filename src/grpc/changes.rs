//! Changes of the store by clients: permission, and submission to the writer.
//!
//! **Invariant**: a change reaches the writer only if its client may make it. A batch is checked as a whole: if one of
//! its ticks is of a source that the client may not send, no tick is stored.

use tonic::Status;

use crate::access::{Access, Principal, Refusal};
use crate::api::ServiceError;
use crate::domain::Source;
use crate::ingest::{
    ArchiveReport, ArchiveRequest, Batch, ConflictPolicy, DecisionReport, DecisionRequest, Ingest, IngestReport,
};

/// Submits the changes of clients. Cheap to clone.
#[derive(Clone)]
pub struct Changes {
    ingest: Ingest,
    access: Access,
}

impl Changes {
    /// Creates the gate to the writer `ingest`.
    pub fn new(ingest: Ingest, access: Access) -> Self {
        Self { ingest, access }
    }

    /// Checks that `principal` may store `batch`.
    pub(super) fn check(&self, principal: &Principal, batch: &Batch) -> Result<(), Refusal> {
        let sources = batch.groups.iter().map(|group| &group.series.source);
        self.check_all(principal, sources, batch.conflict_policy)
    }

    /// Checks that `principal` may store ticks of `source` with `conflict_policy`.
    pub(super) fn check_source(
        &self,
        principal: &Principal,
        source: &Source,
        conflict_policy: ConflictPolicy,
    ) -> Result<(), Refusal> {
        self.check_all(principal, [source], conflict_policy)
    }

    fn check_all<'a>(
        &self,
        principal: &Principal,
        sources: impl IntoIterator<Item = &'a Source>,
        conflict_policy: ConflictPolicy,
    ) -> Result<(), Refusal> {
        let checked = principal.check_sources(sources).and_then(|()| match conflict_policy {
            ConflictPolicy::Refuse => Ok(()),
            ConflictPolicy::Revise => principal.check_revise(),
        });
        checked.map_err(|refusal| self.access.count(refusal))
    }

    /// Stores a batch, which [`Changes::check`] has accepted.
    pub(super) async fn submit(&self, batch: Batch) -> Result<IngestReport, Status> {
        Ok(self.ingest.submit(batch).await?)
    }

    /// Decides about held ticks.
    pub(super) async fn decide(&self, request: DecisionRequest) -> Result<DecisionReport, Status> {
        Ok(self.ingest.decide(request).await?)
    }

    /// Archives or unarchives a source.
    pub(super) async fn archive(&self, request: ArchiveRequest) -> Result<ArchiveReport, Status> {
        Ok(self.ingest.archive(request).await.map_err(ServiceError::from)?)
    }
}
