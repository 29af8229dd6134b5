//! The options in the parentheses of `#[task(…)]`.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, LitInt, LitStr, Path, Result, Token};

/// The starts of an idempotent task in all, if there is no option.
const DEFAULT_ATTEMPTS: u32 = 3;

const KNOWN: &str = "`name = \"…\"`, `version = 2`, `idempotent`, `attempts = 3`, `type = Name` and \
                     `crate = path`";

#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    version: Option<u32>,
    idempotent: Option<Span>,
    attempts: Option<(u32, Span)>,
    pub(crate) type_name: Option<Ident>,
    pub(crate) krate: Option<Path>,
}

impl Options {
    pub(crate) fn parse(options: TokenStream) -> Result<Self> {
        Self::parse_all.parse2(options)
    }

    fn parse_all(input: ParseStream<'_>) -> Result<Self> {
        let mut this = Self::default();
        while !input.is_empty() {
            this.parse_one(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if let (Some((_, span)), None) = (this.attempts, this.idempotent) {
            return Err(Error::new(
                span,
                "only an idempotent task can start again: add `idempotent` if it does no harm that \
                 the function runs twice, or remove `attempts`",
            ));
        }
        Ok(this)
    }

    fn parse_one(&mut self, input: ParseStream<'_>) -> Result<()> {
        let Ok(key) = input.call(Ident::parse_any) else {
            return Err(input.error(format!("the options of `#[task]` are {KNOWN}")));
        };
        let name = key.to_string();
        match &*name {
            "name" => {
                let value = value_of::<LitStr>(input, &key, "a text: `name = \"images.scale\"`")?;
                if value.value().trim().is_empty() {
                    return Err(Error::new(
                        value.span(),
                        "the name of a task cannot be empty",
                    ));
                }
                set(&mut self.name, value, &key)
            }
            "version" => {
                let value = value_of::<LitInt>(input, &key, "a number: `version = 2`")?;
                set(&mut self.version, value.base10_parse()?, &key)
            }
            "idempotent" => {
                if input.peek(Token![=]) {
                    return Err(input.error("`idempotent` has no value: write it alone"));
                }
                set(&mut self.idempotent, key.span(), &key)
            }
            "attempts" => {
                let value = value_of::<LitInt>(input, &key, "a number: `attempts = 3`")?;
                let attempts = value.base10_parse()?;
                if attempts == 0 {
                    return Err(Error::new(
                        value.span(),
                        "a task starts at least once: `attempts` counts all starts, the first included",
                    ));
                }
                set(&mut self.attempts, (attempts, key.span()), &key)
            }
            "type" => {
                let value = value_of::<Ident>(input, &key, "a name: `type = Thumbnail`")?;
                set(&mut self.type_name, value, &key)
            }
            "crate" => {
                expect_equals(input, &key, "a path: `crate = my_crate::futurepool`")?;
                let value = input.call(Path::parse_mod_style)?;
                set(&mut self.krate, value, &key)
            }
            _ => Err(Error::new(
                key.span(),
                format!("`#[task]` has no option `{name}`. The options are {KNOWN}"),
            )),
        }
    }

    pub(crate) fn version(&self) -> u32 {
        self.version.unwrap_or(1)
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotent.is_some()
    }

    pub(crate) fn attempts(&self) -> u32 {
        match self.attempts {
            Some((attempts, _)) => attempts,
            None if self.is_idempotent() => DEFAULT_ATTEMPTS,
            None => 1,
        }
    }
}

fn expect_equals(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<()> {
    match input.parse::<Token![=]>() {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::new(key.span(), format!("`{key}` needs {example}"))),
    }
}

fn value_of<V: syn::parse::Parse>(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<V> {
    expect_equals(input, key, example)?;
    let span = input.span();
    input
        .parse()
        .map_err(|_| Error::new(span, format!("`{key}` needs {example}")))
}

fn set<V>(option: &mut Option<V>, value: V, key: &Ident) -> Result<()> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(key.span(), format!("`{key}` is given twice"))),
    }
}
