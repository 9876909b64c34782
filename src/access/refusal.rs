//! Why a call is refused, in words for the client and as a label of the metric.

use std::time::Duration;

use thiserror::Error;

use super::Role;

/// Why a call is refused. The message says what is needed, and never contains a secret.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The client sent no credentials.
    #[error(
        "this call needs the role '{role}': send a token in the header 'authorization: Bearer TOKEN', or a client \
         certificate; the command takes the token from --token-file or SILKRATE_TOKEN"
    )]
    Missing {
        /// The role that the call needs.
        role: Role,
    },
    /// The header `authorization` is not a bearer token.
    #[error("the header authorization is not a token of this server; send 'authorization: Bearer TOKEN'")]
    Malformed,
    /// The token is not in the list of the server.
    #[error("the token is unknown or was revoked; ask the operator for a new one ('silkrate token create')")]
    UnknownToken,
    /// The token has expired.
    #[error("the token '{name}' has expired; ask the operator for a new one ('silkrate token create')")]
    Expired {
        /// The name of the token.
        name: String,
    },
    /// The subject of the client certificate has no role.
    #[error("the certificate '{subject}' has no role; the operator gives it one in [certificates.\"{subject}\"]")]
    UnknownSubject {
        /// The subject, in the form of RFC 4514.
        subject: String,
    },
    /// The client has a weaker role than the call needs.
    #[error("this call needs the role '{role}', and {who} has {}", has.map_or("no role".to_owned(), |has| format!("'{has}'")))]
    Role {
        /// The client.
        who: String,
        /// The role of the client.
        has: Option<Role>,
        /// The role that the call needs.
        role: Role,
    },
    /// The client may not send ticks of a source.
    #[error(
        "{who} may send ticks of {allowed}, and not of {refused}; use a token for {refused} ('silkrate token create --sources')"
    )]
    Source {
        /// The client.
        who: String,
        /// The source that is refused.
        refused: String,
        /// The sources that the client may send.
        allowed: String,
    },
    /// The client may not replace stored rates.
    #[error("{who} may not replace stored rates; use a token that may ('silkrate token create --revise')")]
    Revise {
        /// The client.
        who: String,
    },
    /// The token ended during the call.
    #[error("the token of this call was revoked or changed, or has expired; use another token")]
    Ended,
    /// No entry of [`super::needs`] lists the call.
    #[error(
        "this call has no entry in the table of roles, so nobody may make it; report this as a mistake of silkrate"
    )]
    Unlisted,
    /// The client made too many calls.
    #[error("{who} made more than {calls_max} calls in a second; wait, or ask the operator to raise --client-calls")]
    TooManyCalls {
        /// The client.
        who: String,
        /// The limit.
        calls_max: u32,
        /// How long to wait.
        retry_after: Duration,
    },
    /// Too many attempts with invalid credentials came from this address.
    #[error("too many calls with invalid credentials came from this address; correct the token, and try again later")]
    TooManyFailures {
        /// How long to wait.
        retry_after: Duration,
    },
}

impl Refusal {
    /// Returns the reason, a label of the metric of refusals.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Malformed => "malformed",
            Self::UnknownToken => "unknown_token",
            Self::Expired { .. } => "expired",
            Self::UnknownSubject { .. } => "unknown_subject",
            Self::Role { .. } => "role",
            Self::Source { .. } => "source",
            Self::Revise { .. } => "revise",
            Self::Ended => "ended",
            Self::Unlisted => "unlisted",
            Self::TooManyCalls { .. } => "too_many_calls",
            Self::TooManyFailures { .. } => "rate_limited",
        }
    }

    /// Returns true if other credentials are needed, false if the credentials are valid and do not suffice.
    pub const fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Malformed | Self::UnknownToken | Self::Expired { .. } | Self::Ended)
    }

    /// Returns true if the client sent credentials that are not valid. Such refusals are limited per address.
    pub(super) const fn is_failed_attempt(&self) -> bool {
        matches!(self, Self::Malformed | Self::UnknownToken | Self::Expired { .. })
    }
}
