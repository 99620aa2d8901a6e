//! Why a command is refused, in Redis's very words.

/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of the result of one operation: what the host of services allows.
pub const RESULT_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);
/// Bytes of the reply to one command: a value and its frame, with room in the result for short replies before it.
pub const REPLY_BYTES_MAX: usize = VALUE_BYTES_MAX + (16 << 10);

/// A command is refused; the text is what the application gets.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The key holds something else.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Options that make no sense.
    #[error("ERR syntax error")]
    Syntax,
    /// No integer of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// No float.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A negative count.
    #[error("ERR value is out of range, must be positive")]
    NotPositive,
    /// A hash's value is no integer.
    #[error("ERR hash value is not an integer")]
    HashNotInteger,
    /// INCR beyond 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// DECRBY by the smallest integer.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// INCRBYFLOAT beyond the range.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// ZINCRBY of infinities.
    #[error("ERR resulting score is not a number (NaN)")]
    ScoreNotNumber,
    /// A time to live that is not positive or beyond 64 bits.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// Pairs that do not pair.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// EXPIRE's options.
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    /// EXPIRE's options.
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    ExpireNotCompatible,
    /// EXPIRE's options.
    #[error("ERR GT and LT options at the same time are not compatible")]
    ExpireGreaterAndLess,
    /// ZADD's options.
    #[error("ERR XX and NX options at the same time are not compatible")]
    AddNotCompatible,
    /// ZADD's options.
    #[error("ERR GT, LT, and/or NX options at the same time are not compatible")]
    AddGreaterLessNotCompatible,
    /// ZADD INCR of several.
    #[error("ERR INCR option supports a single increment-element pair")]
    IncrementSingle,
    /// ZRANGE's LIMIT.
    #[error("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")]
    LimitAlone,
    /// ZRANGE's WITHSCORES.
    #[error("ERR syntax error, WITHSCORES not supported in combination with BYLEX")]
    ScoresByLex,
    /// A bound of scores.
    #[error("ERR min or max is not a float")]
    BoundNotFloat,
    /// A bound of members.
    #[error("ERR min or max not valid string range item")]
    BoundNotString,
    /// A time-out of a blocking pop.
    #[error("ERR timeout is not a float or out of range")]
    TimeoutNotFloat,
    /// A time-out of a blocking pop.
    #[error("ERR timeout is negative")]
    TimeoutNegative,
    /// A string above [`VALUE_BYTES_MAX`].
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// A reply above [`REPLY_BYTES_MAX`].
    #[error("ERR the reply would exceed the cluster's limit of {REPLY_BYTES_MAX} bytes, ask for less at a time")]
    ReplyTooLong,
    /// A token is in use.
    #[error("ERR another client waits under the same name")]
    TokenInUse,
}
