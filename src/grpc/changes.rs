//! Changes of the store by clients: permission, submission to the writer, and the line of the audit log.
//!
//! **Invariants**: a change reaches the writer only if its client may make it. A batch is checked as a whole: if one of
//! its ticks is of a source that the client may not send, no tick is stored. The line of a change is written before the
//! response, and also if the client disconnects before the response.

use tonic::Status;

use crate::access::{Access, Principal, Refusal};
use crate::api::ServiceError;
use crate::audit::{Audit, BatchOutline, Change};
use crate::domain::{Source, Timestamp};
use crate::ingest::{
    ArchiveReport, ArchiveRequest, Batch, ConflictPolicy, DecisionReport, DecisionRequest, Ingest, IngestReport,
};

/// Submits the changes of clients. Cheap to clone.
#[derive(Clone)]
pub struct Changes {
    ingest: Ingest,
    access: Access,
    audit: Option<Audit>,
}

impl Changes {
    /// Creates the gate to the writer `ingest`. Changes are recorded in `audit`, if there is an audit log.
    pub fn new(ingest: Ingest, access: Access, audit: Option<Audit>) -> Self {
        Self { ingest, access, audit }
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

    /// Stores a batch, which [`Changes::check`] has accepted. After the first poll, the batch is in the queue of the
    /// writer, or it was refused.
    pub(super) async fn submit(
        &self,
        principal: &Principal,
        call: &'static str,
        batch: Batch,
    ) -> Result<IngestReport, Status> {
        let batch = Batch { caller: principal.caller(), ..batch };
        // Without an audit log, an outline is not needed.
        let outline = self.audit.as_ref().and_then(|_| BatchOutline::of(&batch));
        let ingest = self.ingest.clone();
        let submit = async move { Ok(ingest.submit(batch).await?) };
        self.run(principal, call, submit, move |report| {
            (outline.and_then(|outline| outline.change(report)), (report.sequence, report.recorded_time))
        })
        .await
    }

    /// Decides about held ticks.
    pub(super) async fn decide(
        &self,
        principal: &Principal,
        call: &'static str,
        request: DecisionRequest,
    ) -> Result<DecisionReport, Status> {
        let (ingest, decided) = (self.ingest.clone(), request.clone());
        let decide = async move { Ok(ingest.decide(decided).await?) };
        self.run(principal, call, decide, move |report| {
            (Change::of_decision(&request, report), (report.sequence, report.recorded_time))
        })
        .await
    }

    /// Archives or unarchives a source.
    pub(super) async fn archive(
        &self,
        principal: &Principal,
        call: &'static str,
        request: ArchiveRequest,
    ) -> Result<ArchiveReport, Status> {
        let (ingest, archived) = (self.ingest.clone(), request.clone());
        let archive = async move { Ok(ingest.archive(archived).await.map_err(ServiceError::from)?) };
        self.run(principal, call, archive, move |report| {
            (Change::of_archive(&request, report), (report.sequence, report.recorded_time))
        })
        .await
    }

    /// Makes a change, if the credentials have not ended since the call began, and writes its line. `line` returns what
    /// changed, if anything, and the commit.
    async fn run<R: Send + 'static>(
        &self,
        principal: &Principal,
        call: &'static str,
        change: impl Future<Output = Result<R, Status>> + Send + 'static,
        line: impl FnOnce(&R) -> (Option<Change>, (u64, Timestamp)) + Send + 'static,
    ) -> Result<R, Status> {
        principal.check_ended().map_err(|refusal| self.access.count(refusal))?;
        let Some(audit) = &self.audit else { return change.await };
        audit.run(Some(principal), call, change, line).await
    }
}
