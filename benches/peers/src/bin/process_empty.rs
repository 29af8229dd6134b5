//! A program that does nothing: the floor of a start.

fn main() {}
