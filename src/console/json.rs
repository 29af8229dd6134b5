//! Just enough JSON to write a snapshot.
//!
//! Not `serde_json`: it implements `PartialEq<Value>` for numbers and texts. A crate that depends
//! on this one, with the feature on, would then have comparisons whose types can no longer be
//! inferred.

use std::fmt::Write as _;

/// What can be written as JSON.
pub(crate) trait Json {
    fn write(&self, out: &mut String);
}

/// Returns the text of a value.
pub(crate) fn to_string(value: &impl Json) -> String {
    let mut out = String::new();
    value.write(&mut out);
    out
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Json for $number {
            fn write(&self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}

numbers!(u8 u32 u64 usize bool);

impl Json for f64 {
    fn write(&self, out: &mut String) {
        let _ = match self.is_finite() {
            true => write!(out, "{self}"),
            false => write!(out, "null"),
        };
    }
}

impl Json for f32 {
    fn write(&self, out: &mut String) {
        // Two digits are enough for what has this type, and make short answers.
        ((f64::from(*self) * 100.0).round() / 100.0).write(out);
    }
}

impl Json for str {
    fn write(&self, out: &mut String) {
        out.push('"');
        for c in self.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                c if c < ' ' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

impl Json for String {
    fn write(&self, out: &mut String) {
        self.as_str().write(out);
    }
}

impl<T: Json + ?Sized> Json for &T {
    fn write(&self, out: &mut String) {
        (**self).write(out);
    }
}

impl<T: Json> Json for Option<T> {
    fn write(&self, out: &mut String) {
        match self {
            Some(value) => value.write(out),
            None => out.push_str("null"),
        }
    }
}

impl<T: Json> Json for Vec<T> {
    fn write(&self, out: &mut String) {
        out.push('[');
        for (place, value) in self.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            value.write(out);
        }
        out.push(']');
    }
}

/// Declares structs that are written as objects.
macro_rules! objects {
    ($($(#[$meta:meta])* pub(crate) struct $name:ident {
        $($(#[$field_meta:meta])* pub(crate) $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $type,)*
        }

        impl $crate::console::json::Json for $name {
            fn write(&self, out: &mut String) {
                let mut before = '{';
                $(
                    out.push(before);
                    before = ',';
                    out.push_str(concat!("\"", stringify!($field), "\":"));
                    self.$field.write(out);
                )*
                let _ = before;
                out.push('}');
            }
        }
    )*};
}

/// Declares structs that are written as arrays: they are shorter, for what there is much of.
macro_rules! arrays {
    ($($(#[$meta:meta])* pub(crate) struct $name:ident {
        $($(#[$field_meta:meta])* pub(crate) $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        pub(crate) struct $name {
            $($(#[$field_meta])* pub(crate) $field: $type,)*
        }

        impl $crate::console::json::Json for $name {
            fn write(&self, out: &mut String) {
                let mut before = '[';
                $(
                    out.push(before);
                    before = ',';
                    self.$field.write(out);
                )*
                let _ = before;
                out.push(']');
            }
        }
    )*};
}

pub(crate) use {arrays, objects};

#[cfg(test)]
mod tests {
    use super::*;

    objects! {
        #[derive(Debug)]
        pub(crate) struct Object {
            pub(crate) text: &'static str,
            pub(crate) list: Vec<Array>,
            pub(crate) none: Option<u64>,
        }
    }

    arrays! {
        #[derive(Debug)]
        pub(crate) struct Array {
            pub(crate) ratio: f64,
            pub(crate) fact: bool,
        }
    }

    #[test]
    fn objects_arrays_and_texts() {
        let ratio = |ratio| Array { ratio, fact: true };
        let object = Object {
            text: "a \"quote\"\\\n\u{1b}ü",
            list: vec![ratio(0.5), ratio(f64::NAN)],
            none: None,
        };
        let text =
            r#"{"text":"a \"quote\"\\\n\u001bü","list":[[0.5,true],[null,true]],"none":null}"#;
        assert_eq!(to_string(&object), text);
    }
}
