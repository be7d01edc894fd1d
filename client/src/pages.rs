//! Listings, page by page.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::Error;

/// One page and the token of the next one, empty at the end.
pub(crate) type Page<T> = (Vec<T>, String);
type Fetch<T> = Box<dyn Fn(i32, String) -> Pin<Box<dyn Future<Output = Result<Page<T>, Error>> + Send>> + Send>;

/// A listing that is fetched page by page, so that neither side ever holds all of it.
///
/// What is there during the whole listing appears exactly once; what comes or goes meanwhile may appear or not.
#[must_use = "nothing is asked before the first page"]
pub struct Pages<T> {
    fetch: Fetch<T>,
    page_size: i32,
    /// None at the end.
    token: Option<String>,
}

impl<T> Pages<T> {
    pub(crate) fn new<F, A>(fetch: F) -> Self
    where
        F: Fn(i32, String) -> A + Send + 'static,
        A: Future<Output = Result<Page<T>, Error>> + Send + 'static,
    {
        let fetch = Box::new(move |page_size, token| Box::pin(fetch(page_size, token)) as _);
        Self { fetch, page_size: 0, token: Some(String::new()) }
    }

    /// The most entries in one page. 0, the default, leaves it to the server, which also has a maximum.
    pub fn page_size(mut self, entries: i32) -> Self {
        self.page_size = entries;
        self
    }

    /// The next page, None at the end. A page may be empty before the end.
    ///
    /// After an error the same page can be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(token) = self.token.clone() else { return Ok(None) };
        let (entries, next) = (self.fetch)(self.page_size, token).await?;
        self.token = (!next.is_empty()).then_some(next);
        Ok(Some(entries))
    }

    /// All that is left, in one vector.
    pub async fn all(mut self) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("page_size", &self.page_size).field("token", &self.token).finish_non_exhaustive()
    }
}
