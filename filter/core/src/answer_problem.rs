//! Why an answer of Bedrock's cannot be edited.

use crate::json_object::ObjectProblem;

/// The longest body that is held, in bytes. A list has some 100 KB. Envoy's buffer limit for a call has to be higher.
pub(crate) const MAX_HELD: usize = 8 << 20;

/// Why a response cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerProblem {
    /// It is longer than [`MAX_HELD`].
    #[error("it is longer than {MAX_HELD} bytes")]
    TooLong,
    /// It is compressed, which nobody has asked for.
    #[error("it has a content-encoding")]
    Encoded,
    /// Its JSON is not as Bedrock documents it.
    #[error(transparent)]
    Object(#[from] ObjectProblem),
}
