//! `#[service]`: the impl as it was written, and the `Service` that decodes, calls and encodes.

use crate::client;
use crate::declare::{self, Declaration};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, Pat, Path, ReturnType, Type, parse_quote};

/// How many handlers one byte can number.
const HANDLERS_MAX: usize = 256;

/// One handler.
pub(crate) struct Method {
    pub(crate) name: Ident,
    pub(crate) docs: Vec<Attribute>,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) output: Type,
    declaration: Option<Declaration>,
    /// It has a `DeclaredContext`.
    declared: bool,
}

pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) kind: Type,
    access: Access,
}

/// How an argument is read from the operation.
enum Access {
    Value,
    Bytes,
    Text,
}

pub(crate) fn expand(attribute: TokenStream, item: &ItemImpl) -> Result<TokenStream, Error> {
    let mut path: Path = parse_quote!(::unisono);
    syn::meta::parser(|meta| {
        if !meta.path.is_ident("crate") {
            return Err(meta.error("expected `crate = path`"));
        }
        path = meta.value()?.parse()?;
        Ok(())
    })
    .parse2(attribute)?;
    let support = quote!(#path::macro_support);

    let service = service_name(item)?;
    let (methods, sample) = handlers(item)?;
    let implementation = implementation(&item.self_ty, &support, &methods, sample);
    let client = client::expand(service, &support, &methods);
    let item = declare::stripped(item);
    Ok(quote! { #item #implementation #client })
}

/// The service's name, of which those of its client and of its operations are made.
fn service_name(item: &ItemImpl) -> Result<&Ident, Error> {
    if let Some((_, path, _)) = &item.trait_ {
        return Err(Error::new_spanned(path, "`#[service]` stands on a plain `impl`: it writes the trait's itself"));
    }
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &item.generics,
            "a service has no generic parameters: its operations need names",
        ));
    }
    match &*item.self_ty {
        Type::Path(path) if path.qself.is_none() => {
            let last = path.path.segments.last().filter(|segment| segment.arguments.is_empty());
            last.map(|segment| &segment.ident).ok_or_else(|| Error::new_spanned(path, "a service is a plain struct"))
        }
        other => Err(Error::new_spanned(other, "a service is a plain struct")),
    }
}

/// The handlers, and whether there is a sample. All mistakes are reported at once.
fn handlers(item: &ItemImpl) -> Result<(Vec<Method>, bool), Error> {
    let (mut methods, mut sample, mut errors) = (Vec::new(), false, None::<Error>);
    for item in &item.items {
        match item {
            ImplItem::Fn(function) if function.sig.ident == "sample_operation" && function.sig.receiver().is_none() => {
                sample = true;
            }
            ImplItem::Fn(function) => match method(function) {
                Ok(method) => methods.push(method),
                Err(error) => match &mut errors {
                    Some(errors) => errors.combine(error),
                    None => errors = Some(error),
                },
            },
            _ => {}
        }
    }
    match errors {
        Some(errors) => Err(errors),
        None if methods.len() > HANDLERS_MAX => Err(Error::new(item.span(), "a service has at most 256 handlers")),
        None => Ok((methods, sample)),
    }
}

fn method(function: &ImplItemFn) -> Result<Method, Error> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        let message = "a handler is an `async fn`; other functions belong into an `impl` without `#[service]`";
        return Err(Error::new_spanned(signature.fn_token, message));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(&signature.generics, "a handler has no generic parameters"));
    }
    let mut inputs = signature.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() && receiver.mutability.is_none() => {}
        other => {
            let span = other.map_or_else(|| signature.ident.span(), Spanned::span);
            return Err(Error::new(span, "the first parameter of a handler is `&self`: it is shared by all requests"));
        }
    }
    let declared = match inputs.next() {
        Some(FnArg::Typed(context)) if is_context(&context.ty, "Context") => false,
        Some(FnArg::Typed(context)) if is_context(&context.ty, "DeclaredContext") => true,
        other => {
            let span = other.map_or_else(|| signature.ident.span(), Spanned::span);
            let message = "the second parameter of a handler is `cx: &Context`, or `cx: &DeclaredContext<'_>`";
            return Err(Error::new(span, message));
        }
    };
    let declaration = Declaration::of(&function.attrs)?;
    if declared && !declaration.as_ref().is_some_and(Declaration::has_locks) {
        let message =
            "a handler with a `DeclaredContext` says what it locks: `#[locks(self.accounts[from], self.total)]`";
        return Err(Error::new(signature.ident.span(), message));
    }
    let arguments = inputs.map(argument).collect::<Result<_, _>>()?;
    let output = match &signature.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, output) => match &**output {
            Type::Reference(reference) => {
                return Err(Error::new_spanned(
                    reference,
                    "a handler returns an owned value: it is sent to the client",
                ));
            }
            output => output.clone(),
        },
    };
    let docs = function.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned().collect();
    Ok(Method { name: signature.ident.clone(), docs, arguments, output, declaration, declared })
}

fn argument(input: &FnArg) -> Result<Argument, Error> {
    let FnArg::Typed(typed) = input else {
        return Err(Error::new_spanned(input, "`self` stands first"));
    };
    let Pat::Ident(name) = &*typed.pat else {
        return Err(Error::new_spanned(
            &typed.pat,
            "an argument of a handler has a plain name: the client uses it, too",
        ));
    };
    let access = match &*typed.ty {
        Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
            Type::Slice(slice) if is_named(&slice.elem, "u8") => Access::Bytes,
            Type::Path(_) if is_named(&reference.elem, "str") => Access::Text,
            _ => return Err(borrowed(&typed.ty)),
        },
        Type::Reference(_) => return Err(borrowed(&typed.ty)),
        Type::ImplTrait(_) => return Err(Error::new_spanned(&typed.ty, "an argument of a handler has a named type")),
        _ => Access::Value,
    };
    Ok(Argument { name: name.ident.clone(), kind: (*typed.ty).clone(), access })
}

impl Argument {
    /// Reads it from `arguments` into a local of this name.
    fn read(&self, local: &Ident) -> TokenStream {
        let (kind, arguments) = (&self.kind, own("arguments"));
        match self.access {
            Access::Value => quote!(let #local = #arguments.value::<#kind>()?;),
            Access::Bytes => quote!(let #local = #arguments.bytes()?;),
            Access::Text => quote!(let #local = #arguments.text()?;),
        }
    }
}

/// A local of the code written here, which no name of the service's author can mean.
pub(crate) fn own(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn borrowed(kind: &Type) -> Error {
    Error::new_spanned(kind, "an argument of a handler is owned, or it is `&[u8]` or `&str`, which borrow the request")
}

fn is_context(kind: &Type, name: &str) -> bool {
    matches!(kind, Type::Reference(reference) if reference.mutability.is_none() && is_named(&reference.elem, name))
}

fn is_named(kind: &Type, name: &str) -> bool {
    matches!(kind, Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == name))
}

fn implementation(service: &Type, support: &TokenStream, methods: &[Method], sample: bool) -> TokenStream {
    let all_arguments = own("arguments");
    let calls = methods.iter().zip(0u8..=u8::MAX).map(|(method, index)| {
        let name = &method.name;
        let locals: Vec<Ident> = (0..method.arguments.len()).map(|index| own(&format!("argument_{index}"))).collect();
        let reads = method.arguments.iter().zip(&locals).map(|(argument, local)| argument.read(local));
        let narrow = method.declared.then(|| quote!(let cx = &#support::DeclaredContext::new(cx);));
        quote! {
            #index => {
                #(#reads)*
                #all_arguments.end()?;
                #narrow
                let output = self.#name(cx, #(#locals),*).await;
                ::core::result::Result::Ok(#support::encode(&output))
            }
        }
    });
    let names = methods.iter().zip(0u8..=u8::MAX).map(|(method, index)| {
        let name = method.name.to_string();
        quote!(::core::option::Option::Some(#index) => #name,)
    });
    let declare = declarations(support, methods);
    let sample = sample.then(|| {
        quote! {
            fn sample_operation(seed: u64) -> ::std::vec::Vec<u8> {
                <#service>::sample_operation(seed)
            }
        }
    });
    quote! {
        #[automatically_derived]
        #[allow(clippy::manual_async_fn, clippy::let_unit_value, clippy::needless_borrow, clippy::vec_init_then_push, clippy::unit_arg, unreachable_patterns, unused_variables, unused_mut)]
        impl #support::Service for #service {
            fn execute<'a>(
                &'a self,
                cx: &'a #support::Context,
                operation: &'a [u8],
            ) -> impl ::core::future::Future<
                Output = ::core::result::Result<::std::vec::Vec<u8>, #support::UnknownOperation>,
            > + ::core::marker::Send + 'a {
                async move {
                    let ::core::option::Option::Some((&method, arguments)) = operation.split_first() else {
                        return ::core::result::Result::Err(#support::UnknownOperation);
                    };
                    let mut #all_arguments = #support::Arguments::new(arguments);
                    match method {
                        #(#calls)*
                        _ => ::core::result::Result::Err(#support::UnknownOperation),
                    }
                }
            }

            fn handler(operation: &[u8]) -> &'static str {
                match operation.first() {
                    #(#names)*
                    _ => "unknown",
                }
            }

            #declare

            #sample
        }
    }
}

/// `Service::declare`, if any handler has something to declare. Arguments that are none declare nothing: the handler
/// refuses them.
fn declarations(support: &TokenStream, methods: &[Method]) -> Option<TokenStream> {
    let all_arguments = own("arguments");
    let arms = methods.iter().zip(0u8..=u8::MAX).filter_map(|(method, index)| {
        let declaration = method.declaration.as_ref()?.expand(support, method.declared);
        let reads = method.arguments.iter().map(|argument| argument.read(&argument.name));
        Some(quote! {
            #index => {
                #(#reads)*
                #all_arguments.end()?;
                ::core::result::Result::Ok(#declaration)
            }
        })
    });
    let arms: Vec<TokenStream> = arms.collect();
    (!arms.is_empty()).then(|| {
        quote! {
            fn declare(&self, operation: &[u8]) -> #support::Declaration {
                let read = || -> ::core::result::Result<#support::Declaration, #support::UnknownOperation> {
                    let (&method, arguments) = operation.split_first().ok_or(#support::UnknownOperation)?;
                    let mut #all_arguments = #support::Arguments::new(arguments);
                    match method {
                        #(#arms)*
                        _ => ::core::result::Result::Err(#support::UnknownOperation),
                    }
                };
                read().unwrap_or_default()
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of `#[service]` on this impl.
    fn errors(item: ItemImpl) -> Vec<String> {
        match expand(TokenStream::new(), &item) {
            Ok(_) => Vec::new(),
            Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
        }
    }

    fn refused(item: ItemImpl, expected: &str) {
        let errors = errors(item);
        assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:?} instead of {expected:?}");
    }

    #[test]
    fn what_is_no_handler_is_refused_with_its_reason() {
        refused(parse_quote!(impl S { fn f(&self, cx: &Context) {} }), "a handler is an `async fn`");
        refused(parse_quote!(impl S { async fn f(cx: &Context) {} }), "the first parameter of a handler is `&self`");
        refused(parse_quote!(impl S { async fn f(self, cx: &Context) {} }), "the first parameter");
        refused(parse_quote!(impl S { async fn f(&mut self, cx: &Context) {} }), "shared by all requests");
        refused(parse_quote!(impl S { async fn f() {} }), "the first parameter");
        refused(parse_quote!(impl S { async fn f(&self) {} }), "the second parameter of a handler is `cx: &Context`");
        refused(parse_quote!(impl S { async fn f(&self, cx: Context) {} }), "the second parameter");
        refused(parse_quote!(impl S { async fn f(&self, cx: &mut Context) {} }), "the second parameter");
        refused(parse_quote!(impl S { async fn f(&self, number: u64) {} }), "the second parameter");
        refused(parse_quote!(impl S { async fn f<T>(&self, cx: &Context, t: T) {} }), "no generic parameters");
        refused(parse_quote!(impl S { async fn f(&self, cx: &DeclaredContext) {} }), "says what it locks");
        refused(parse_quote!(impl S { #[class(70000)] async fn f(&self, cx: &Context) {} }), "too large");
        refused(parse_quote!(impl S { #[locks(self.a b)] async fn f(&self, cx: &Context) {} }), "expected `,`");
        refused(parse_quote!(impl S { #[class(1)] #[class(1)] async fn f(&self, cx: &Context) {} }), "says this once");
        refused(parse_quote!(impl S { async fn f(&self, cx: &Context, key: &u64) {} }), "is owned, or it is `&[u8]`");
        refused(parse_quote!(impl S { async fn f(&self, cx: &Context, key: &mut [u8]) {} }), "is owned");
        refused(parse_quote!(impl S { async fn f(&self, cx: &Context, (a, b): (u8, u8)) {} }), "has a plain name");
        refused(parse_quote!(impl S { async fn f(&self, cx: &Context, t: impl Copy) {} }), "has a named type");
        refused(parse_quote!(impl S { async fn f(&self, cx: &Context) -> &[u8] { &[] } }), "returns an owned value");
        refused(
            parse_quote!(
                impl<T> S<T> {
                    async fn f(&self, cx: &Context) {}
                }
            ),
            "no generic parameters",
        );
        refused(parse_quote!(impl S<u8> { async fn f(&self, cx: &Context) {} }), "a plain struct");
        refused(parse_quote!(impl Trait for S { async fn f(&self, cx: &Context) {} }), "stands on a plain `impl`");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let item = parse_quote!(impl S { fn f(&self) {} async fn g(&self) {} async fn h(&self, cx: &Context) {} });
        assert_eq!(errors(item).len(), 2);
    }

    #[test]
    fn more_handlers_than_a_byte_numbers_are_refused() {
        let handlers = (0..=HANDLERS_MAX).map(|number| Ident::new(&format!("f{number}"), Span::call_site()));
        let item = parse_quote!(impl S { #(async fn #handlers(&self, cx: &Context) {})* });
        assert_eq!(errors(item), ["a service has at most 256 handlers"]);
    }

    #[test]
    fn the_crate_path_is_where_the_written_code_looks() {
        let item: ItemImpl = parse_quote!(impl S { async fn f(&self, cx: &Context) {} });
        let written = |attribute| expand(attribute, &item).unwrap().to_string();
        assert!(written(TokenStream::new()).contains(":: unisono :: macro_support :: Service"));
        let elsewhere = written(quote!(crate = my_execution));
        assert!(elsewhere.contains("my_execution :: macro_support") && !elsewhere.contains(":: unisono ::"));
        assert!(expand(quote!(size = 3), &item).unwrap_err().to_string().contains("expected `crate = path`"));
    }

    #[test]
    fn only_what_declares_something_is_declared_and_its_attributes_go() {
        let item: ItemImpl = parse_quote! {
            impl S {
                #[unisono::locks(self.a, read self.b[key], self.c[0][1]; 2, in self.many(&keys))]
                async fn f(&self, cx: &DeclaredContext<'_>, key: u64, keys: Vec<u64>) {}
                #[class(7)]
                async fn g(&self, cx: &Context) {}
                async fn h(&self, cx: &Context) {}
            }
        };
        let written = expand(TokenStream::new(), &item).unwrap().to_string();
        for part in [
            "Lane :: Declared",
            "Whole :: < :: unisono :: macro_support :: Writes > :: declared (& self . a)",
            "Row :: < _ , :: unisono :: macro_support :: Reads > :: declared (& self . b , & (key))",
            "declared (& self . c [0] , & (1)) . map (| lock |",
            "into_iter (self . many (& keys))",
            "class : 7 , lane : :: unisono :: macro_support :: Lane :: Undeclared",
        ] {
            assert!(written.contains(part), "{part} in {written}");
        }
        let declare = written.split("fn declare").nth(1).unwrap();
        assert_eq!(declare.matches("0u8 =>").count() + declare.matches("1u8 =>").count(), 2);
        assert!(!declare.contains("2u8 =>"), "h declares nothing");
        assert!(!written.contains("locks (") && !written.contains("# [class"));
        let plain: ItemImpl = parse_quote!(impl S { async fn h(&self, cx: &Context) {} });
        assert!(!expand(TokenStream::new(), &plain).unwrap().to_string().contains("fn declare"));
    }

    #[test]
    fn docs_of_a_handler_are_the_docs_of_its_client() {
        let item: ItemImpl = parse_quote! {
            impl S {
                /// Moves money.
                async fn f(&self, cx: &Context, amount: u64) -> bool { true }
                async fn g(&self, cx: &Context) {}
                fn sample_operation(seed: u64) -> Vec<u8> { Vec::new() }
            }
        };
        let written = expand(TokenStream::new(), &item).unwrap().to_string();
        assert_eq!(written.matches("Moves money.").count(), 3, "handler, operation, client");
        assert_eq!(written.matches("Calls `g`.").count(), 2);
        assert!(written.contains("< S > :: sample_operation (seed)"));
    }
}
