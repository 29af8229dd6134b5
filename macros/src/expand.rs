//! The code that `#[task]` writes.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, ItemFn, Path, Result, parse_quote, parse2};

use crate::check::check;
use crate::options::Options;
use crate::signature::signature;
use crate::wire::Wire;

pub(crate) fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    let unchanged = function.clone();
    match try_task(options, function) {
        Ok(expanded) => expanded,
        Err(error) => {
            // With the function, so that there are no errors but these where it is called.
            let errors = error.into_compile_error();
            quote!(#unchanged #errors)
        }
    }
}

pub(crate) fn try_task(options: TokenStream, function: TokenStream) -> Result<TokenStream> {
    let span = function.clone();
    let function: ItemFn = parse2(function).map_err(|error| match is_function(&span) {
        true => error,
        false => Error::new_spanned(span, "`#[task]` belongs on a function with a body"),
    })?;
    let options = Options::parse(options);
    let checked = check(&function);
    let (options, (parameters, output)) = match (options, checked) {
        (Ok(options), Ok(checked)) => (options, checked),
        (Err(mut first), Err(second)) => {
            first.combine(second);
            return Err(first);
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };

    let krate: Path = options
        .krate
        .clone()
        .unwrap_or_else(|| parse_quote!(::futurepool));
    let private = quote!(#krate::__private);
    let name = &function.sig.ident;
    let ty = options.type_name.clone().unwrap_or_else(|| name.clone());
    let visibility = &function.vis;
    let cfgs: Vec<&Attribute> = attributes(&function, &["cfg"]);
    let documentation = match attributes(&function, &["doc"]) {
        docs if docs.is_empty() => {
            let text = format!(" The task [`{}`](fn@{}).", name.unraw(), name);
            quote!(#[doc = #text])
        }
        docs => quote!(#(#docs)*),
    };
    let serde_path = quote!(#private::serde).to_string().replace(' ', "");

    let task_name = match &options.name {
        Some(name) => quote!(#name),
        None => {
            let function = name.unraw().to_string();
            quote!(::core::concat!(::core::module_path!(), "::", #function))
        }
    };
    let is_named = options.name.is_some();
    let version = options.version();
    let signature = signature(&parameters, &output);
    let (idempotent, attempts) = (options.is_idempotent(), options.attempts());

    let names: Vec<_> = parameters.iter().map(|parameter| &parameter.name).collect();
    let types: Vec<_> = parameters.iter().map(|parameter| &parameter.ty).collect();
    let wires: Vec<_> = types.iter().map(|ty| Wire::of(ty, &krate)).collect();
    let wire_types: Vec<_> = wires.iter().map(|wire| &wire.ty).collect();
    let variables: Vec<_> = (0..names.len()).map(|n| format_ident!("__A{n}")).collect();
    let wire_of =
        (names.iter().zip(&wires)).map(|(name, wire)| wire.wire_of(quote!(#name), &krate));
    // A variable of the macro's own: the function may have this name.
    let all = Ident::new("args", Span::mixed_site());
    let unwire =
        (names.iter().zip(&wires)).map(|(name, wire)| wire.unwire(quote!(#all.#name), &krate));

    // A private type of the caller may be named like the parameter's type, so no name of it is `Args`.
    let args = format_ident!("__FuturepoolArgs");
    let assertions = (wire_types.iter().zip(&types))
        .map(|(wire, ty)| quote_spanned!(ty.span()=> #private::assert_argument::<#wire>()));
    let output_wire = Wire::of(&output, &krate);
    let output_type = &output_wire.ty;
    let output_span = output.span();
    let output_assertion = quote_spanned!(output_span=> #private::assert_output::<#output_type>());
    // So that a missing bound is an error of the parameters, not of the attribute.
    let inputs_span = function.sig.paren_token.span.join();
    let args_type = respan(quote!(#args), inputs_span);
    let args_type = quote_spanned!(inputs_span=> #args_type<#(#wire_types),*>);
    let output_codec = (!output_wire.is_plain()).then(|| {
        let wire_of = output_wire.wire_of(quote!(output), &krate);
        let unwire = output_wire.unwire(quote!(output), &krate);
        let encode = respan(quote!(#private::encode(&output)), output_span);
        let decode = respan(quote!(#private::decode(payload)?), output_span);
        quote! {
            fn encode_output(
                output: Self::Output,
            ) -> ::core::result::Result<#krate::Payload, #private::CodecError> {
                let output: #output_type = #wire_of;
                #encode
            }

            fn decode_output(
                payload: #krate::Payload,
            ) -> ::core::result::Result<Self::Output, #private::CodecError> {
                let output: #output_type = #decode;
                ::core::result::Result::Ok(#unwire)
            }
        }
    });
    let call_documentation = format!(
        " Returns a call of the task [`{}`](fn@{}) with these arguments, for an executor.",
        name.unraw(),
        name
    );

    Ok(quote! {
        #function

        #(#cfgs)*
        #documentation
        #[allow(non_camel_case_types)]
        #[derive(Debug)]
        #visibility enum #ty {}

        #(#cfgs)*
        const _: () = {
            #[derive(
                Clone,
                Debug,
                #private::serde::Serialize,
                #private::serde::Deserialize,
            )]
            #[serde(crate = #serde_path)]
            #[allow(non_snake_case)]
            pub struct #args<#(#variables),*> {
                #(#names: #variables,)*
            }

            #[automatically_derived]
            #[allow(deprecated, clippy::type_complexity)]
            impl #krate::Task for #ty {
                const NAME: &'static str = #task_name;
                const NAMED: bool = #is_named;
                const VERSION: u32 = #version;
                const SIGNATURE: u64 = #signature;
                const IDEMPOTENT: bool = #idempotent;
                const ATTEMPTS: u32 = #attempts;
                const LOCATION: &'static str =
                    ::core::concat!(::core::file!(), ":", ::core::line!());

                type Args = #args_type;
                type Output = #output;

                fn run(#all: Self::Args) -> Self::Output {
                    let _ = &#all;
                    #name(#(#unwire),*)
                }

                #output_codec
            }

            #[automatically_derived]
            #[allow(dead_code, clippy::self_named_constructors, clippy::too_many_arguments)]
            impl #ty {
                #[doc = #call_documentation]
                #visibility fn call(#(#names: #types),*) -> #krate::Call<#ty> {
                    #krate::Call::new(#args { #(#names: #wire_of),* })
                }
            }

            #private::inventory::submit! {
                #private::TaskEntry::of::<#ty>("")
            }

            const _: fn() = || {
                #(#assertions;)*
                #output_assertion;
            };
        };
    })
}

/// Moves tokens to another place, for errors.
fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    let at = |token: TokenTree| {
        let mut token = match token {
            TokenTree::Group(group) => {
                Group::new(group.delimiter(), respan(group.stream(), span)).into()
            }
            token => token,
        };
        token.set_span(span);
        token
    };
    tokens.into_iter().map(at).collect()
}

/// Returns the attributes of the function with one of these names.
fn attributes<'a>(function: &'a ItemFn, names: &[&str]) -> Vec<&'a Attribute> {
    let is_named =
        |attribute: &&Attribute| names.iter().any(|name| attribute.path().is_ident(name));
    function.attrs.iter().filter(is_named).collect()
}

/// Returns whether the tokens may be a function, which then has an error of its own.
fn is_function(tokens: &TokenStream) -> bool {
    let mut tokens = tokens.clone().into_iter();
    let is_fn = tokens.any(|token| matches!(&token, TokenTree::Ident(i) if i == "fn"));
    // A trait's function, or a foreign one, has no body.
    is_fn && !matches!(tokens.last(), Some(TokenTree::Punct(p)) if p.as_char() == ';')
}
