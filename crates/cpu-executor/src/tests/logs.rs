//! What is said through tracing, and the spans that go with the jobs.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::{config, op, start};

/// What was said so far, by all tests of this process: each looks for its own.
static SAID: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

fn said() -> MutexGuard<'static, Vec<(Level, String)>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to listen. Worker threads know only the subscriber of the whole process.
pub(super) fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Listener);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else sets one");
    });
}

/// Everything that was said at this level with all these words.
pub(super) fn heard(level: Level, words: &[&str]) -> Vec<String> {
    let all = said();
    let matching = all.iter().filter(|(at, text)| *at == level && words.iter().all(|word| text.contains(word)));
    matching.map(|(_, text)| text.clone()).collect()
}

struct Listener;

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        said().push((*event.metadata().level(), text.0));
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

#[test]
fn a_job_brings_the_span_of_its_submitter() {
    listen();
    let (executor, _workers) = start(config(1));
    let span = tracing::info_span!("a caller");
    let id = span.id();
    assert!(id.is_some(), "the span is enabled");
    let same = move |id| op(move |_, job| job.responder.send(u32::from(job.span.id() == id)));
    let inside = id.clone();
    assert_eq!(span.in_scope(|| executor.submit_wait(0, same(inside), None)), Ok(1));
    assert_eq!(executor.submit_wait(0, same(None), None), Ok(1), "there is none outside");
}
