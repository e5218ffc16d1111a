//! A flag that somebody outside sets, to end what is under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Error;

/// Time between looks at a flag.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Waits until a flag is set; without end if there is none.
pub(crate) async fn set(flag: Option<&AtomicBool>) {
    let Some(flag) = flag else { return std::future::pending().await };
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Runs an operation to its end, or until a flag is set.
///
/// # Errors
/// [`Error::Interrupted`], and those of the operation.
pub(crate) async fn until<T>(
    flag: Option<&AtomicBool>,
    operation: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = set(flag) => Err(Error::Interrupted),
        result = operation => result,
    }
}
