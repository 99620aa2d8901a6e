//! Stories about a client among replicas that answer, lose, lag and lie.

mod cluster;
mod stories;
