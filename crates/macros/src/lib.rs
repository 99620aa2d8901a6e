//! `#[derive(State)]`, `#[derive(Input)]` and `#[service]`: thin, everything works without them.
//!
//! ```text
//!   #[derive(State)]  struct Bank {..}  ->  impl State: every field created under its own name
//!   #[derive(Input)]  struct Key(..)    ->  impl Input, if every field is Input
//!   #[service]        impl Bank {..}    ->  the same impl, impl Service (decode, call, encode),
//!                                           BankOperation (calls as bytes), BankClient<I> (calls over an Invoke)
//! ```
//! The code written here names `::unisono::macro_support`; `crate = path` in `#[service(..)]`, `#[state(..)]` or
//! `#[input(..)]` names another crate that has it. It knows nothing of how a service is run.

mod client;
mod derive;
mod service;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemImpl, parse_macro_input};

/// Makes a struct whose fields are all shared objects (or again such structs) a `State`.
///
/// Each field is created under its own name: `accounts`, `shards[17]`, `ledger.entries`.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive::state(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a type that consists of plain data an `Input` of closures on shared state.
#[proc_macro_derive(Input, attributes(input))]
pub fn derive_input(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive::input(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes the methods of an `impl` the handlers of a service.
///
/// Every method is `async fn name(&self, cx: &Context, arguments..) -> Result`. Arguments are owned and have canonical
/// bytes, or are `&[u8]` and `&str`, which borrow the request. An `fn sample_operation(seed: u64) -> Vec<u8>` without
/// `self` becomes the service's sample. Methods are numbered in their order: a new one goes to the end.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as ItemImpl);
    service::expand(arguments.into(), &item).unwrap_or_else(syn::Error::into_compile_error).into()
}
