//! Children of a request: threads of their own, born by [`Context::spawn`], whose values their parent joins.
//!
//! ```text
//!   parent  ── spawn ──> JoinHandle ────── join ──────> what the child returned
//!                 └────> child: its own Context, eligible from the next round on
//! ```
//! A child outlives its parent: the request's reply is sent when its own handler finishes, children run on and whatever
//! they return then is dropped. A child's fault reaches whoever joins it, and nobody else.
//!
//! Invariant: a child is given its Context and whatever its closure owns, nothing borrowed: a parent's guards and handles
//! borrow the parent's Context and cannot be moved into it.

use crate::context::{Context, FaultKind};
use crate::executor::HandlerFuture;
use crate::latch::Latch;
use std::future::Future;
use std::sync::Arc;
use unisono_scheduler::{Operation, OperationResult, ThreadIndex};
use unisono_types::Fault;

/// One thread cannot have more children in its life than 65 535, and no request more than eight generations of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a thread can have 65535 children, a request eight generations of them")]
pub struct TooManyChildren;

/// A child that was born. Dropping it lets the child run on alone.
#[must_use = "a child that nobody joins runs on alone"]
pub struct JoinHandle<'cx, R> {
    cx: &'cx Context,
    /// Which of its parent's children.
    child: u16,
    value: Arc<Latch<Option<R>>>,
    end: End,
}

/// Where a child that faults leaves its fault.
pub(crate) type End = Arc<Latch<Option<FaultKind>>>;

/// A child that is to be born.
pub(crate) struct Birth {
    begin: Box<dyn FnOnce(Context) -> HandlerFuture + Send>,
    pub(crate) end: End,
    /// Which of its parent's children it becomes.
    pub(crate) number: u16,
}

impl Birth {
    pub(crate) fn begin(self, cx: Context) -> HandlerFuture {
        (self.begin)(cx)
    }
}

impl Context {
    /// Bears a child: a thread of the same request, with a Context and a time of its own. It is an operation like all
    /// others, and the child may already run when it returns. Shared objects are handles: clone what the child needs.
    ///
    /// # Errors
    /// [`TooManyChildren`]; nothing has happened then.
    ///
    /// ```
    /// # use unisono_execution::{Context, Mutex, TooManyChildren};
    /// async fn both(left: &Mutex<u64>, right: &Mutex<u64>, cx: &Context) -> Result<u64, TooManyChildren> {
    ///     let right = right.clone();
    ///     let child = cx.spawn(move |cx| async move { right.lock(&cx).await.with((), |value, ()| *value) }).await?;
    ///     let mine = left.lock(cx).await.with((), |value, ()| *value);
    ///     Ok(mine + child.join().await)
    /// }
    /// ```
    pub async fn spawn<'cx, F, H, R>(&'cx self, child: F) -> Result<JoinHandle<'cx, R>, TooManyChildren>
    where
        F: FnOnce(Context) -> H + Send + 'static,
        H: Future<Output = R> + Send + 'static,
        R: Send + 'static,
    {
        let value = Arc::new(Latch::new(None));
        let returned = Arc::clone(&value);
        let begin = move |cx: Context| -> HandlerFuture {
            Box::pin(async move {
                let value = child(cx).await;
                *returned.lock() = Some(value);
                Ok(Vec::new())
            })
        };
        let end = End::default();
        let number = self.next_child();
        self.give_birth(Birth { begin: Box::new(begin), end: Arc::clone(&end), number });
        // The executor puts the index of the child's place into the operation.
        match self.operation(Operation::Spawn { thread: ThreadIndex(u32::MAX) }).await {
            OperationResult::Granted => {
                self.born();
                Ok(JoinHandle { cx: self, child: number, value, end })
            }
            _ => Err(TooManyChildren),
        }
    }
}

impl<R> JoinHandle<'_, R> {
    /// Waits until the child has finished. A child's fault ends this handler, too.
    pub async fn join(self) -> R {
        let cx = self.cx;
        match self.wait().await {
            Ok(value) => value,
            Err(fault) => cx.end(fault).await,
        }
    }

    /// Waits until the child has finished.
    ///
    /// # Errors
    /// The child's fault.
    pub async fn join_or(self) -> Result<R, Fault> {
        let cx = self.cx;
        self.wait().await.map_err(|fault| cx.fault_of(fault))
    }

    async fn wait(self) -> Result<R, FaultKind> {
        // It cannot fail: only this handle, which ends here, names the child, and only in the thread that bore it.
        let _ = self.cx.operation(Operation::Join { child: self.child }).await;
        let value = self.value.lock().take();
        let fault = *self.end.lock();
        value.filter(|_| fault.is_none()).ok_or(fault.unwrap_or(FaultKind::Panicked))
    }
}

impl<R> std::fmt::Debug for JoinHandle<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinHandle({:?}, child {})", self.cx.position(), self.child)
    }
}
