//! An error in one line.

use std::error::Error;

/// An error with all its causes, each after a colon: for people, and for what is passed on as text. A cause that the text ends with already
/// is left out, since many errors say what caused them.
///
/// ```
/// let error = std::io::Error::other("no such device");
/// assert_eq!(overlay_core::told(&error), "no such device");
/// ```
pub fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Self>>);

    fn of(texts: &[&'static str]) -> Link {
        let (first, rest) = texts.split_first().unwrap();
        Link(first, (!rest.is_empty()).then(|| Box::new(of(rest))))
    }

    #[test]
    fn each_cause_is_told_once() {
        assert_eq!(told(&of(&["no port"])), "no port");
        assert_eq!(told(&of(&["no port", "no link", "EPERM"])), "no port: no link: EPERM");
        assert_eq!(told(&of(&["no port: EPERM", "EPERM", "as nobody"])), "no port: EPERM: as nobody");
    }
}
