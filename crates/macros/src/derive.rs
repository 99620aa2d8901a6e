//! `derive(State)` and `derive(Input)`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Path, parse_quote};

/// The path that `crate = path` in the attribute `name` gives, or `::unisono`.
fn crate_path(attributes: &[Attribute], name: &str) -> Result<Path, Error> {
    let mut path = parse_quote!(::unisono);
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("expected `crate = path`"));
            }
            path = meta.value()?.parse()?;
            Ok(())
        })?;
    }
    Ok(path)
}

pub(crate) fn state(input: &DeriveInput) -> Result<TokenStream, Error> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "`State` is derived for structs: an object is never an alternative",
        ));
    };
    let support = crate_path(&input.attrs, "state")?;
    let support = quote!(#support::macro_support);
    let fields = data.fields.members().zip(&data.fields).map(|(member, field)| {
        let (kind, name) = (&field.ty, quote!(#member).to_string());
        quote! {
            #member: <#kind as #support::State>::create(objects, &#support::Objects::path(name, #name))
        }
    });
    let (implement, arguments, bounds) = input.generics.split_for_impl();
    let ident = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #implement #support::State for #ident #arguments #bounds {
            fn create(objects: &mut #support::Objects, name: &str) -> Self {
                Self { #(#fields),* }
            }
        }
    })
}

pub(crate) fn input(input: &DeriveInput) -> Result<TokenStream, Error> {
    let support = crate_path(&input.attrs, "input")?;
    let support = quote!(#support::macro_support);
    // Each variant by its path, with its fields; a struct has one.
    let variants: Vec<(TokenStream, &Fields)> = match &input.data {
        Data::Struct(data) => vec![(quote!(Self), &data.fields)],
        Data::Enum(data) => {
            let variants = data.variants.iter();
            variants.map(|syn::Variant { ident, fields, .. }| (quote!(Self::#ident), fields)).collect()
        }
        Data::Union(_) => return Err(Error::new_spanned(&input.ident, "a union is no plain data")),
    };
    let arms = variants.iter().map(|(path, fields)| show_times(&support, path, fields));
    let times = if variants.is_empty() { quote!(match *self {}) } else { quote!(match self { #(#arms)* }) };
    let fields: Vec<&Fields> = variants.iter().map(|(_, fields)| *fields).collect();
    let kinds: Vec<_> = fields.into_iter().flatten().map(|field| &field.ty).collect();
    let mut generics = input.generics.clone();
    for parameter in input.generics.type_params() {
        let ident = &parameter.ident;
        generics.make_where_clause().predicates.push(parse_quote!(#ident: #support::Input));
    }
    let (implement, arguments, bounds) = generics.split_for_impl();
    let ident = &input.ident;
    // A recursive type would make its own bound a condition of itself; a function that asks for each field does not.
    Ok(quote! {
        #[automatically_derived]
        impl #implement #support::Input for #ident #arguments #bounds {
            #[allow(unused_variables)]
            fn times(&self, see: &mut dyn ::core::ops::FnMut(#support::Timestamp)) {
                #times
            }
        }
        const _: () = {
            #[allow(dead_code, clippy::extra_unused_lifetimes, clippy::extra_unused_type_parameters)]
            fn every_field_is_plain_data #implement () #bounds {
                fn plain<T: #support::Input + ?Sized>() {}
                #(plain::<#kinds>();)*
            }
        };
    })
}

/// The arm that shows the times in each field of a variant.
fn show_times(support: &TokenStream, path: &TokenStream, fields: &Fields) -> TokenStream {
    let members: Vec<_> = fields.members().collect();
    let names: Vec<_> = (0..members.len()).map(|at| quote::format_ident!("field_{at}")).collect();
    quote! {
        #path { #(#members: #names),* } => { #(#support::Input::times(#names, see);)* }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_derived_for_structs_with_each_field_under_its_name() {
        let written = state(&parse_quote!(
            struct Bank {
                accounts: A,
                books: B,
            }
        ))
        .unwrap()
        .to_string();
        assert!(written.contains("path (name , \"accounts\")") && written.contains("path (name , \"books\")"));
        let tuple = state(&parse_quote!(
            struct Pair(A, B);
        ))
        .unwrap()
        .to_string();
        assert!(tuple.contains("path (name , \"1\")"));
        let error = state(&parse_quote!(
            enum Either {
                A(X),
                B(Y),
            }
        ))
        .unwrap_err()
        .to_string();
        assert!(error.contains("derived for structs"), "{error}");
    }

    #[test]
    fn input_asks_for_every_field_of_every_variant() {
        let written = input(&parse_quote!(
            enum Command {
                Get(Key),
                Set { key: Key, value: Data },
                Ping,
            }
        ))
        .unwrap();
        let written = written.to_string();
        assert_eq!((written.matches("plain :: < Key >").count(), written.matches("plain :: < Data >").count()), (2, 1));
        let generic = input(&parse_quote!(
            struct Pair<'a, T>(&'a [u8], T);
        ))
        .unwrap()
        .to_string();
        assert!(generic.contains("T : :: unisono :: macro_support :: Input"));
    }

    #[test]
    fn the_crate_path_is_read_from_the_attribute_of_the_same_name() {
        let written = state(&parse_quote!(
            #[state(crate = elsewhere)]
            #[input(crate = nowhere)]
            struct S {
                a: A,
            }
        ));
        let written = written.unwrap().to_string();
        assert!(written.contains("elsewhere :: macro_support") && !written.contains("nowhere"));
        assert!(
            state(&parse_quote!(
                #[state(skip)]
                struct S {
                    a: A,
                }
            ))
            .is_err()
        );
    }
}
