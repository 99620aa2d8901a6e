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
mod declare;
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
///
/// A handler whose second parameter is `cx: &DeclaredContext<'_>` runs in the declared lane and says what it locks:
/// `#[locks(self.total, self.accounts[from], read self.rates[pair], self.log; 2, in many)]`. An element is a whole object,
/// a row of a table or a place of an array, an `RwLock` or a row with `read` to share it, with `; n` to use it n times; or
/// `in` an iterator of `DeclaredLock`. The handler's arguments can be used. On a handler with a `&Context` the locks are
/// foreknowledge of a schedule by future locks. `#[class(n)]` says of which class its requests are.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as ItemImpl);
    service::expand(arguments.into(), &item).unwrap_or_else(syn::Error::into_compile_error).into()
}
