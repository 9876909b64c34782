//! The calls about held ticks over gRPC: list, release, discard.
//!
//! **Invariant**: a decision in a response is durable.

use std::sync::Arc;

use tonic::{Response, Status};

use super::changes::Changes;
use super::ingest_convert::{BadField, IngestOptions};
use super::rate_service::run_read;
use crate::access::Principal;
use crate::api::{Rates, decision_messages, decision_request};
use crate::domain::Verdict;
use crate::ingest::{ConflictPolicy, DecisionReport};
use crate::proto::convert::timestamp;
use crate::proto::v1;

/// The calls about held ticks. Cheap to clone.
#[derive(Clone)]
pub(super) struct QuarantineCalls {
    pub(super) changes: Changes,
    pub(super) rates: Arc<Rates>,
}

impl QuarantineCalls {
    pub(super) async fn list(
        &self,
        request: v1::ListQuarantineRequest,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        run_read(&self.rates, self.rates.list_quarantine(request)).await
    }

    pub(super) async fn release(
        &self,
        principal: &Principal,
        request: v1::ReleaseQuarantineRequest,
    ) -> Result<v1::ReleaseQuarantineResponse, Status> {
        let options = IngestOptions::parse(request.conflict_policy, false).map_err(BadField::into_status)?;
        let (report, decisions) =
            self.decide(principal, request.ids, &request.note, Verdict::Released, options.conflict_policy).await?;
        let recorded_time = Some(timestamp(report.recorded_time));
        Ok(v1::ReleaseQuarantineResponse { sequence: report.sequence, recorded_time, decisions })
    }

    pub(super) async fn discard(
        &self,
        principal: &Principal,
        request: v1::DiscardQuarantineRequest,
    ) -> Result<v1::DiscardQuarantineResponse, Status> {
        let (report, decisions) =
            self.decide(principal, request.ids, &request.note, Verdict::Discarded, ConflictPolicy::Refuse).await?;
        let recorded_time = Some(timestamp(report.recorded_time));
        Ok(v1::DiscardQuarantineResponse { sequence: report.sequence, recorded_time, decisions })
    }

    async fn decide(
        &self,
        principal: &Principal,
        ids: Vec<u64>,
        note: &str,
        verdict: Verdict,
        conflict_policy: ConflictPolicy,
    ) -> Result<(DecisionReport, Vec<v1::QuarantineDecision>), Status> {
        let request = decision_request(ids, note, verdict, conflict_policy)?;
        let ids = request.ids.clone();
        let call = match verdict {
            Verdict::Released => "ReleaseQuarantine",
            Verdict::Discarded => "DiscardQuarantine",
        };
        let report = self.changes.decide(principal, call, request).await?;
        let decisions = decision_messages(&ids, &report);
        Ok((report, decisions))
    }
}
