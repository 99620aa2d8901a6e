//! What `#[service]` writes for the other side: calls as bytes, and a typed client.

use crate::service::Method;
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::Ident;

pub(crate) fn expand(service: &Ident, support: &TokenStream, methods: &[Method]) -> TokenStream {
    let (operation, client) = (format_ident!("{service}Operation"), format_ident!("{service}Client"));
    // A handler's argument may be called what we would call our own local.
    let bytes = Ident::new("bytes", Span::mixed_site());

    let operations = methods.iter().zip(0u8..=u8::MAX).map(|(method, index)| {
        let (name, docs) = (&method.name, docs(method));
        let (names, kinds) = names_and_kinds(method);
        quote! {
            #docs
            #[must_use]
            pub fn #name(#(#names: #kinds),*) -> ::std::vec::Vec<u8> {
                #[allow(unused_mut)]
                let mut #bytes = ::std::vec![#index];
                #(#bytes.extend_from_slice(&#support::encode(&#names));)*
                #bytes
            }
        }
    });
    let calls = methods.iter().map(|method| {
        let (name, docs, output) = (&method.name, docs(method), &method.output);
        let (names, kinds) = names_and_kinds(method);
        quote! {
            #docs
            ///
            /// # Errors
            /// When the call fails, or the reply does not have the expected type.
            pub async fn #name(
                &self,
                #(#names: #kinds),*
            ) -> ::core::result::Result<#output, #support::InvokeError<I::Error>> {
                let #bytes = self.invoke.invoke(#operation::#name(#(#names),*)).await?;
                #support::decode(&#bytes, #bytes.len()).map_err(|_| #support::InvokeError::Malformed)
            }
        }
    });
    let about_operation = format!("Calls of [`{service}`] as the bytes of operations.");
    let about_client = format!("A typed client of [`{service}`].");
    quote! {
        #[doc = #about_operation]
        #[allow(dead_code)]
        #[derive(Clone, Copy, Debug)]
        pub struct #operation;

        #[automatically_derived]
        #[allow(dead_code, private_interfaces)]
        impl #operation {
            #(#operations)*
        }

        #[doc = #about_client]
        #[allow(dead_code)]
        #[derive(Clone, Debug)]
        pub struct #client<I> {
            invoke: I,
        }

        #[automatically_derived]
        #[allow(dead_code, private_interfaces)]
        impl<I: #support::Invoke> #client<I> {
            /// A client whose calls go through `invoke`.
            pub fn new(invoke: I) -> Self {
                Self { invoke }
            }

            #(#calls)*
        }
    }
}

/// What the handler's author wrote, or its name.
fn docs(method: &Method) -> TokenStream {
    if method.docs.is_empty() {
        let about = format!("Calls `{}`.", method.name);
        return quote!(#[doc = #about]);
    }
    let docs = &method.docs;
    quote!(#(#docs)*)
}

fn names_and_kinds(method: &Method) -> (Vec<&Ident>, Vec<&syn::Type>) {
    method.arguments.iter().map(|argument| (&argument.name, &argument.kind)).unzip()
}
