//! Why a handler has no answer, and why a call of the kit was refused. A handler hands either on
//! with `?`: each error says how its job is then answered.

use std::fmt;

use crate::layout::*;

/// Codes from here on are the kit's; those below are the worker's.
pub const CODE_KIT: u16 = 65280;
/// The answer does not fit into the result region.
pub const CODE_ANSWER_TOO_LARGE: u16 = 65280;
/// The handler returned without an answer.
pub const CODE_NO_ANSWER: u16 = 65281;
/// A call of the kit was refused, and the handler handed the refusal on.
pub const CODE_REFUSED: u16 = 65282;
/// Longer messages are cut.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// What a handler returns for an answer when it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The job has failed, as the worker says: `{:error, {:job_failed, code, message}}`. Codes
    /// below [`CODE_KIT`] are the worker's.
    Failed { code: u16, message: String },
    /// Nobody wants the answer any more.
    Cancelled,
    /// An answer, part, report or packet of so many bytes never fits.
    TooLarge { bytes: usize, limit: usize },
    /// Parts were sent of a job whose caller wants one answer.
    Unwanted,
    /// The handler says nothing.
    Unanswered,
    /// The other side of the channel is gone, or there never was one.
    Closed,
    /// No reply within the time that a call has.
    Timeout,
    /// The handler of another worker has failed the request: with its code and message.
    PeerFailed { code: u16, message: String },
    /// Another worker gave the request up.
    PeerGaveUp,
    /// A link is over: the other worker has ended, or the link was revoked. Another may be opened.
    Disconnected,
    /// The other worker broke a rule of its link, which is over.
    Protocol,
    /// What is said to be a term is not a well-formed one.
    NotATerm,
    /// The bridge has refused a request of the channel: a code of docs/channel.md, and its reason
    /// as external term bytes without the leading 131.
    Refused { code: u64, reason: Vec<u8> },
}

impl Error {
    /// The job has failed, as the worker says.
    pub fn failed(code: u16, message: impl Into<String>) -> Error {
        Error::Failed { code, message: message.into() }
    }

    /// The code and message by which a job is answered that ends with this error; None: cancelled.
    pub(crate) fn answer(&self) -> Option<(u16, String)> {
        Some(match self {
            Error::Cancelled => return None,
            Error::Failed { code, message } => (*code, message.clone()),
            Error::TooLarge { .. } => (CODE_ANSWER_TOO_LARGE, self.to_string()),
            Error::Unanswered => (CODE_NO_ANSWER, self.to_string()),
            _ => (CODE_REFUSED, self.to_string()),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Failed { code, message } => write!(f, "failed with {code}: {message}"),
            Error::Cancelled => f.write_str("cancelled"),
            Error::TooLarge { bytes, limit } => {
                write!(f, "{bytes} bytes are more than the {limit} that fit")
            }
            Error::Unwanted => f.write_str("nobody wants parts of this job"),
            Error::Unanswered => f.write_str("the handler returned without an answer"),
            Error::Closed => f.write_str("the channel to the bridge is closed"),
            Error::Timeout => f.write_str("no reply in time"),
            Error::PeerFailed { code, message } => {
                write!(f, "the other worker failed with {code}: {message}")
            }
            Error::PeerGaveUp => f.write_str("the other worker gave the request up"),
            Error::Disconnected => f.write_str("the link to the other worker is over"),
            Error::Protocol => f.write_str("the other worker broke a rule of its link"),
            Error::NotATerm => f.write_str("these bytes are no well-formed term"),
            Error::Refused { code, .. } => {
                write!(f, "the bridge refused: {}", reason_of(*code))
            }
        }
    }
}

impl std::error::Error for Error {}

/// The name of a reason of the channel's (docs/channel.md, "Errors").
fn reason_of(code: u64) -> &'static str {
    match code {
        CHANNEL_ERROR_BAD_REQUEST => "bad_request",
        CHANNEL_ERROR_REFUSED => "refused",
        CHANNEL_ERROR_NO_PROCESS => "noproc",
        CHANNEL_ERROR_NO_CONNECTION => "noconnection",
        CHANNEL_ERROR_DOWN => "down",
        CHANNEL_ERROR_TIMEOUT => "timeout",
        CHANNEL_ERROR_TOO_LARGE => "too_large",
        CHANNEL_ERROR_BUSY => "busy",
        CHANNEL_ERROR_UNAVAILABLE => "unavailable",
        CHANNEL_ERROR_FULL_WANTED => "full_wanted",
        CHANNEL_ERROR_STORE_FAILED => "store_failed",
        _ => "for a reason that this kit does not know",
    }
}
