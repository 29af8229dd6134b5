//! A number that changes when the parameters or the output of a task change.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Type;
use syn::ext::IdentExt;

use crate::check::Parameter;

/// Returns the hash of the names and types of the parameters, and of the output's type, as written.
///
/// Never 0, which means that there is no signature.
pub(crate) fn signature(parameters: &[Parameter], output: &Type) -> u64 {
    let mut text = String::new();
    for parameter in parameters {
        text.push_str(&parameter.name.unraw().to_string());
        text.push(':');
        write(&mut text, parameter.ty.to_token_stream());
        text.push(',');
    }
    text.push_str("->");
    write(&mut text, output.to_token_stream());
    fnv1a(text.as_bytes()).max(1)
}

/// Writes tokens with one space behind each, so that neither the spaces of the source nor those of the
/// compiler's printer matter.
fn write(text: &mut String, tokens: TokenStream) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("( ", ") "),
                    Delimiter::Brace => ("{ ", "} "),
                    Delimiter::Bracket => ("[ ", "] "),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                write(text, group.stream());
                text.push_str(close);
            }
            token => {
                text.push_str(&token.to_string());
                text.push(' ');
            }
        }
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
