//! `#[locks(..)]` and `#[class(..)]` on a handler: what is known of a request before it runs.
//!
//! ```text
//!   #[locks(self.total, self.accounts[from], read self.rates[pair], self.log; 2, in self.many(&keys))]
//!           whole       row                  shared                 used twice   any iterator of DeclaredLock
//! ```

use crate::service::own;
use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, ImplItem, ItemImpl, LitInt, Token};

/// What the attributes of a handler say.
pub(crate) struct Declaration {
    class: Option<LitInt>,
    locks: Option<Punctuated<Lock, Token![,]>>,
}

impl Declaration {
    /// `None`: nothing.
    pub(crate) fn of(attributes: &[Attribute]) -> Result<Option<Self>, Error> {
        let (mut class, mut locks) = (None, None);
        for attribute in attributes {
            if is(attribute, "class") {
                let number: LitInt = attribute.parse_args()?;
                number.base10_parse::<u16>()?;
                once(attribute, class.replace(number).is_some())?;
            } else if is(attribute, "locks") {
                let parsed = attribute.parse_args_with(Punctuated::parse_terminated)?;
                once(attribute, locks.replace(parsed).is_some())?;
            }
        }
        Ok((class.is_some() || locks.is_some()).then_some(Self { class, locks }))
    }

    pub(crate) const fn has_locks(&self) -> bool {
        self.locks.is_some()
    }

    /// The expression that makes it, where the handler's arguments have their names.
    pub(crate) fn expand(&self, support: &TokenStream, declared: bool) -> TokenStream {
        let class = self.class.as_ref().map_or_else(|| quote!(0), |class| quote!(#class));
        let lane = if declared { quote!(Declared) } else { quote!(Undeclared) };
        let all = own("locks");
        let locks = self.locks.iter().flatten().map(|lock| lock.expand(support));
        quote! {
            #support::Declaration {
                class: #class,
                lane: #support::Lane::#lane,
                locks: {
                    let mut #all = ::std::vec::Vec::new();
                    #(#all.extend(#locks);)*
                    #all
                },
            }
        }
    }
}

fn is(attribute: &Attribute, name: &str) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == name)
}

fn once(attribute: &Attribute, again: bool) -> Result<(), Error> {
    if again { Err(Error::new_spanned(attribute, "a handler says this once")) } else { Ok(()) }
}

/// The impl without the attributes that are read here.
pub(crate) fn stripped(item: &ItemImpl) -> ItemImpl {
    let mut item = item.clone();
    for item in &mut item.items {
        if let ImplItem::Fn(function) = item {
            function.attrs.retain(|attribute| !is(attribute, "locks") && !is(attribute, "class"));
        }
    }
    item
}

/// One element of `#[locks(..)]`.
enum Lock {
    /// `in` an iterator.
    Many(Expr),
    One {
        read: bool,
        place: Expr,
        uses: Option<Expr>,
    },
}

mod keyword {
    syn::custom_keyword!(read);
}

impl Parse for Lock {
    fn parse(input: ParseStream<'_>) -> Result<Self, Error> {
        if input.parse::<Option<Token![in]>>()?.is_some() {
            return Ok(Self::Many(input.parse()?));
        }
        // `read.x` or `read[x]` would be a place called `read`.
        let read = input.peek(keyword::read) && input.peek2(Token![self]);
        if read {
            input.parse::<keyword::read>()?;
        }
        let place = input.parse()?;
        let uses = input.parse::<Option<Token![;]>>()?.map(|_| input.parse()).transpose()?;
        Ok(Self::One { read, place, uses })
    }
}

impl Lock {
    /// An iterator over its locks.
    fn expand(&self, support: &TokenStream) -> TokenStream {
        let Self::One { read, place, uses } = self else {
            let Self::Many(many) = self else { unreachable!("one or many") };
            return quote!(::core::iter::IntoIterator::into_iter(#many));
        };
        let mode = if *read { quote!(Reads) } else { quote!(Writes) };
        let lock = match place {
            Expr::Index(place) => {
                let (rows, key) = (&place.expr, &place.index);
                quote!(#support::Row::<_, #support::#mode>::declared(&#rows, &(#key)))
            }
            place => quote!(::core::option::Option::Some(#support::Whole::<#support::#mode>::declared(&#place))),
        };
        match uses {
            None => lock,
            Some(uses) => quote!(#lock.map(|lock| #support::DeclaredLock { uses: #uses, ..lock })),
        }
    }
}
