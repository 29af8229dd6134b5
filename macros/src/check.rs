//! What a function must be like to be a task. Each error points at the place, and says what to do.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ItemFn, Pat, Result, ReturnType, Safety, Type, parse_quote};

/// A parameter of a task.
pub(crate) struct Parameter {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
}

/// Returns the parameters and the output of the function.
///
/// # Errors
///
/// Returns all that is wrong with the function, not only the first.
pub(crate) fn check(function: &ItemFn) -> Result<(Vec<Parameter>, Type)> {
    let mut errors = Errors::default();
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        errors.add(
            token.span,
            "a task is no `async fn`: remove `async`, and wait for futures with \
             `futurepool::block_on` in the function",
        );
    }
    if let Safety::Unsafe(token) = &signature.safety {
        errors.add(
            token.span,
            "a task is a safe function: write one that checks its arguments and calls this one",
        );
    }
    if let Some(variadic) = &signature.variadic {
        errors.add(
            variadic.dots.span(),
            "a task has a fixed number of parameters",
        );
    }
    if !signature.generics.params.is_empty() {
        errors.add(
            signature.generics.params.span(),
            "a task is no generic function, because its name would stand for many. Write \
             `impl Task for …` by hand for a type with these parameters, and list it with \
             `tasks![…]`",
        );
    }
    let parameters = (signature.inputs.iter())
        .filter_map(|input| parameter(input, &mut errors))
        .collect();
    let output = match &signature.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, ty) => {
            check_type(ty, &OUTPUT, &mut errors);
            (**ty).clone()
        }
    };
    match errors.0 {
        None => Ok((parameters, output)),
        Some(error) => Err(error),
    }
}

fn parameter(input: &FnArg, errors: &mut Errors) -> Option<Parameter> {
    let typed = match input {
        FnArg::Receiver(receiver) => {
            errors.add(
                receiver.self_token.span,
                "a task has no `self`: move the function out of the `impl` block, and take the \
                 value as a parameter",
            );
            return None;
        }
        FnArg::Typed(typed) => typed,
    };
    for attribute in &typed.attrs {
        if attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr") {
            errors.add(
                attribute.span(),
                "all builds have the same parameters of a task: put the `cfg` on the function",
            );
        }
    }
    check_type(&typed.ty, &ARGUMENT, errors);
    match &*typed.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => {
            Some(Parameter {
                name: pattern.ident.clone(),
                ty: (*typed.ty).clone(),
            })
        }
        pattern => {
            errors.add(
                pattern.span(),
                "arguments travel by name: give this parameter a plain name, and take it apart in \
                 the function",
            );
            None
        }
    }
}

/// What a type is used for.
struct Use {
    borrowed: &'static str,
    opaque: &'static str,
}

const ARGUMENT: Use = Use {
    borrowed: "arguments travel to another process, so they cannot borrow",
    opaque: "arguments travel to another process, so their types have names: write the type that \
             callers pass",
};

const OUTPUT: Use = Use {
    borrowed: "the output travels to another process, so it cannot borrow",
    opaque: "the output travels to another process, so its type has a name: write the type that is \
             returned",
};

fn check_type(ty: &Type, use_of: &Use, errors: &mut Errors) {
    match ty {
        Type::Group(group) => check_type(&group.elem, use_of, errors),
        Type::Paren(paren) => check_type(&paren.elem, use_of, errors),
        Type::Reference(reference) => {
            let owned = owned(&reference.elem);
            let (problem, written) = (use_of.borrowed, text(ty));
            errors.add(
                ty.span(),
                format!("{problem}: write `{owned}` instead of `{written}`"),
            );
        }
        Type::ImplTrait(_) => errors.add(ty.span(), use_of.opaque),
        Type::Never(_) => errors.add(
            ty.span(),
            "a task returns: write an output, or no `->` at all",
        ),
        _ => {
            if let Some(span) = find_borrow(ty.to_token_stream()) {
                let problem = use_of.borrowed;
                errors.add(
                    span,
                    format!("{problem}: use types that own what they hold"),
                );
            }
        }
    }
}

/// Returns the type that owns what a reference to `ty` borrows.
fn owned(ty: &Type) -> String {
    match ty {
        Type::Slice(slice) => format!("Vec<{}>", text(&*slice.elem)),
        Type::Path(path) => match path.path.segments.last() {
            Some(last) if last.ident == "str" => "String".to_owned(),
            Some(last) if last.ident == "Path" => "PathBuf".to_owned(),
            Some(last) if last.ident == "OsStr" => "OsString".to_owned(),
            _ => text(ty),
        },
        _ => text(ty),
    }
}

fn text(ty: &impl ToTokens) -> String {
    let mut text = String::new();
    for token in ty.to_token_stream() {
        let token = token.to_string();
        let words = [text.chars().last(), token.chars().next()];
        if words
            .iter()
            .all(|c| c.is_some_and(|c| c.is_alphanumeric() || c == '_'))
        {
            text.push(' ');
        }
        text.push_str(&token);
    }
    text
}

/// Returns the first `&` in a type, or the first lifetime except `'static`.
fn find_borrow(tokens: TokenStream) -> Option<Span> {
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                if let Some(span) = find_borrow(group.stream()) {
                    return Some(span);
                }
            }
            // The parameters of a function pointer borrow nothing.
            TokenTree::Ident(ident) if ident == "fn" || ident == "Fn" => return None,
            TokenTree::Punct(punct) if punct.as_char() == '&' => return Some(punct.span()),
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                let name = tokens.next();
                let is_static = matches!(&name, Some(TokenTree::Ident(name)) if name == "static");
                if !is_static {
                    return Some(name.map_or(punct.span(), |name| name.span()));
                }
            }
            _ => {}
        }
    }
    None
}

#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn add(&mut self, span: Span, text: impl std::fmt::Display) {
        let error = Error::new(span, text);
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }
}
