//! The types that travel instead of those that are written: `Bytes` instead of `Vec<u8>`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericArgument, Path, PathArguments, Type, TypePath};

/// How a type travels.
pub(crate) struct Wire {
    /// The type that is encoded.
    pub(crate) ty: TokenStream,
    conversion: Conversion,
}

enum Conversion {
    /// The type travels as it is.
    None,
    /// It is a `Vec<u8>`.
    Bytes,
    /// It is an `Option` or a `Result`, and this is for what `map` gets.
    Map(Box<Conversion>),
    /// It is an `Option` whose `Some` would be encoded as `None` is.
    Slot(Box<Conversion>),
    /// It is a `Vec`.
    Each(Box<Conversion>),
    Tuple(Vec<Conversion>),
}

impl Wire {
    /// Returns how `ty` travels. `krate` is the path of the crate.
    pub(crate) fn of(ty: &Type, krate: &Path) -> Self {
        if let Type::Tuple(tuple) = ty {
            let elements: Vec<_> = tuple.elems.iter().map(|ty| Self::of(ty, krate)).collect();
            if elements.iter().all(Self::is_plain) {
                return Self::plain(ty);
            }
            let types = elements.iter().map(|element| &element.ty);
            return Self {
                ty: quote_spanned!(ty.span()=> (#(#types,)*)),
                conversion: Conversion::Tuple(
                    elements
                        .into_iter()
                        .map(|element| element.conversion)
                        .collect(),
                ),
            };
        }
        match Container::of(ty) {
            Some(container) => container.wire(krate),
            None => Self::plain(ty),
        }
    }

    fn plain(ty: &Type) -> Self {
        Self {
            ty: quote!(#ty),
            conversion: Conversion::None,
        }
    }

    /// Returns whether the type travels as it is.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.conversion, Conversion::None)
    }

    /// Returns an expression for what travels.
    pub(crate) fn wire_of(&self, value: TokenStream, krate: &Path) -> TokenStream {
        self.conversion.apply(value, Direction::Encode, krate)
    }

    /// Returns an expression for the value of which `value` has travelled.
    pub(crate) fn unwire(&self, value: TokenStream, krate: &Path) -> TokenStream {
        self.conversion.apply(value, Direction::Decode, krate)
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Encode,
    Decode,
}

impl Conversion {
    fn apply(&self, value: TokenStream, direction: Direction, krate: &Path) -> TokenStream {
        match self {
            Self::None => value,
            Self::Bytes => match direction {
                Direction::Encode => quote!(#krate::Bytes::from(#value)),
                Direction::Decode => quote!(#krate::Bytes::into_vec(#value)),
            },
            Self::Map(inner) => {
                let inner = inner.apply(quote!(value), direction, krate);
                quote!((#value).map(|value| #inner))
            }
            Self::Slot(inner) => {
                let mapped = inner.apply(quote!(value), direction, krate);
                match direction {
                    Direction::Encode => {
                        quote!(#krate::__private::Slot((#value).map(|value| #mapped)))
                    }
                    Direction::Decode => quote!((#value).0.map(|value| #mapped)),
                }
            }
            Self::Each(inner) => {
                let inner = inner.apply(quote!(value), direction, krate);
                quote!((#value).into_iter().map(|value| #inner).collect())
            }
            Self::Tuple(elements) => {
                let elements = elements.iter().enumerate().map(|(index, element)| {
                    let index = syn::Index::from(index);
                    element.apply(quote!(value.#index), direction, krate)
                });
                quote!({
                    let value = #value;
                    (#(#elements,)*)
                })
            }
        }
    }
}

/// A type that holds others, as it is written.
struct Container<'a> {
    path: &'a TypePath,
    kind: Kind,
    /// The type in it. For a `Result` that of `Ok`.
    content: &'a Type,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Vec,
    Option,
    Result,
}

impl<'a> Container<'a> {
    fn of(ty: &'a Type) -> Option<Self> {
        match ty {
            Type::Group(group) => return Self::of(&group.elem),
            Type::Paren(paren) => return Self::of(&paren.elem),
            _ => {}
        }
        let Type::Path(path) = ty else { return None };
        if path.qself.is_some() {
            return None;
        }
        let last = path.path.segments.last()?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else {
            return None;
        };
        let (kind, most) = match &*last.ident.to_string() {
            "Vec" => (Kind::Vec, 1),
            "Option" => (Kind::Option, 1),
            "Result" => (Kind::Result, 2),
            _ => return None,
        };
        match arguments.args.first()? {
            GenericArgument::Type(content) if arguments.args.len() <= most => Some(Self {
                path,
                kind,
                content,
            }),
            _ => None,
        }
    }

    fn wire(self, krate: &Path) -> Wire {
        if self.kind == Kind::Vec && is_u8(self.content) {
            let span = self.path.span();
            return Wire {
                ty: quote_spanned!(span=> #krate::Bytes),
                conversion: Conversion::Bytes,
            };
        }
        let content = Wire::of(self.content, krate);
        if self.kind == Kind::Option && is_encoded_as_none(self.content) {
            let (span, inner) = (self.path.span(), &content.ty);
            return Wire {
                ty: quote_spanned!(span=> #krate::__private::Slot<#inner>),
                conversion: Conversion::Slot(Box::new(content.conversion)),
            };
        }
        if content.is_plain() {
            let path = self.path;
            return Wire {
                ty: quote!(#path),
                conversion: Conversion::None,
            };
        }
        // The path stays as it is, because it may be an alias.
        let mut path = self.path.clone();
        if let Some(last) = path.path.segments.last_mut() {
            if let PathArguments::AngleBracketed(arguments) = &mut last.arguments {
                if let Some(first) = arguments.args.first_mut() {
                    *first = GenericArgument::Type(Type::Verbatim(content.ty));
                }
            }
        }
        let inner = Box::new(content.conversion);
        Wire {
            ty: quote!(#path),
            conversion: match self.kind {
                Kind::Vec => Conversion::Each(inner),
                Kind::Option | Kind::Result => Conversion::Map(inner),
            },
        }
    }
}

fn is_u8(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident("u8"))
}

/// Returns whether a value of the type may be encoded as `None` is.
fn is_encoded_as_none(ty: &Type) -> bool {
    match ty {
        Type::Tuple(tuple) => tuple.elems.is_empty(),
        ty => Container::of(ty).is_some_and(|container| container.kind == Kind::Option),
    }
}
