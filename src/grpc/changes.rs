//! Changes of the store by clients: permission, submission to the writer, and the line of the audit log.
//!
//! **Invariants**: a change reaches the writer only if its client may make it. A batch is checked as a whole: if one of
//! its ticks is of a source that the client may not send, no tick is stored. The line of a change is written before the
//! response, and also if the client disconnects before the response.

use tokio::task;
use tonic::Status;

use crate::access::{Access, Principal, Refusal};
use crate::api::ServiceError;
use crate::audit::{Audit, BatchOutline, Change, Completed};
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

    /// Checks that the credentials have not ended since the call began.
    fn check_ended(&self, principal: &Principal) -> Result<(), Refusal> {
        principal.check_ended().map_err(|refusal| self.access.count(refusal))
    }

    /// Stores a batch, which [`Changes::check`] has accepted. After the first poll, the batch is in the queue of the
    /// writer, or it was refused.
    pub(super) async fn submit(
        &self,
        principal: &Principal,
        call: &'static str,
        batch: Batch,
    ) -> Result<IngestReport, Status> {
        self.check_ended(principal)?;
        let (Some(audit), Some(outline)) = (&self.audit, BatchOutline::of(&batch)) else {
            return Ok(self.ingest.submit(batch).await?);
        };
        let (ingest, record) = (self.ingest.clone(), Record::new(audit, principal, call));
        Completed::new(async move {
            let report = ingest.submit(batch).await?;
            record.write(outline.change(&report), (report.sequence, report.recorded_time)).await;
            Ok(report)
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
        self.check_ended(principal)?;
        let Some(audit) = &self.audit else { return Ok(self.ingest.decide(request).await?) };
        let (ingest, record) = (self.ingest.clone(), Record::new(audit, principal, call));
        Completed::new(async move {
            let report = ingest.decide(request.clone()).await?;
            record.write(Change::of_decision(&request, &report), (report.sequence, report.recorded_time)).await;
            Ok(report)
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
        self.check_ended(principal)?;
        let archive = async |ingest: &Ingest, request| ingest.archive(request).await.map_err(ServiceError::from);
        let Some(audit) = &self.audit else { return Ok(archive(&self.ingest, request).await?) };
        let (ingest, record) = (self.ingest.clone(), Record::new(audit, principal, call));
        Completed::new(async move {
            let report = ingest.archive(request.clone()).await.map_err(ServiceError::from)?;
            record.write(Change::of_archive(&request, &report), (report.sequence, report.recorded_time)).await;
            Ok(report)
        })
        .await
    }
}

/// The line of a change before the change is committed.
struct Record {
    audit: Audit,
    principal: Principal,
    call: &'static str,
}

impl Record {
    fn new(audit: &Audit, principal: &Principal, call: &'static str) -> Self {
        Self { audit: audit.clone(), principal: principal.clone(), call }
    }

    async fn write(self, change: Option<Change>, commit: (u64, Timestamp)) {
        let Some(change) = change else { return };
        let write = move || self.audit.record(Some(&self.principal), self.call, &change, commit);
        // A panic has been logged. The change is committed, so the call succeeds.
        let _ = task::spawn_blocking(write).await;
    }
}
