//! What an error tells a person beyond its own sentence.
//!
//! Every library error enum implements [`Advice`]; `cli::report` walks an error chain and prints `error:`, `detail:` and `hint:`.

/// Detail and hint of an error, in the manner of Postgres's own `DETAIL` and `HINT`.
pub trait Advice: std::error::Error {
    /// Facts beyond the error's own sentence: both values where two disagree. Lower case, no full stop.
    fn detail(&self) -> Option<String> {
        None
    }

    /// What the reader could do about it. A sentence; may be a question.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        // A wrapper that shows its cause's sentence as its own adds nothing.
        if !text.ends_with(&sentence) {
            text += &format!(": {sentence}");
        }
        cause = error.source();
    }
    text
}
