//! A hash map of the crate's own numbers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

/// No user chooses the keys, so the hasher needs no random seed. The code of a `BTreeMap` is three
/// times as large, for each type of key and value.
pub(crate) type IdMap<K, V> = HashMap<K, V, IdHasher>;

pub(crate) type IdHasher = BuildHasherDefault<DefaultHasher>;
