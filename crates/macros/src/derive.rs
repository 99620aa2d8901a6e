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
        return Err(Error::new_spanned(&input.ident, "`State` is derived for structs: an object is never an alternative"));
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
    let fields: Vec<&Fields> = match &input.data {
        Data::Struct(data) => vec![&data.fields],
        Data::Enum(data) => data.variants.iter().map(|variant| &variant.fields).collect(),
        Data::Union(_) => return Err(Error::new_spanned(&input.ident, "a union is no plain data")),
    };
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
        impl #implement #support::Input for #ident #arguments #bounds {}
        const _: () = {
            #[allow(dead_code, clippy::extra_unused_lifetimes, clippy::extra_unused_type_parameters)]
            fn every_field_is_plain_data #implement () #bounds {
                fn plain<T: #support::Input + ?Sized>() {}
                #(plain::<#kinds>();)*
            }
        };
    })
}
