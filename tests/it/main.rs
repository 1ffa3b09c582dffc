//! Features, end to end.
