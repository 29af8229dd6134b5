//! A JetStream server.
