//! Text for Prometheus: its exposition format 0.0.4.
//!
//! A snapshot becomes a page. Libraries for this (`prometheus-client`, `prometheus`) keep registries of counters of their own, which our counts would have to be copied
//! into; the format itself is this file.

use std::fmt::{self, Write as _};

/// The media type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends. Its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        })
    }
}

/// A page, family by family.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A family: its values, each with its labels. A family without values is left out.
    pub fn family<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        for (labels, value) in values {
            self.line(format_args!("{name}{} {value}", Labels(labels.as_ref())));
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{line}"); // a string takes all
    }
}

struct Labels<'l>(&'l [(&'l str, &'l str)]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            write!(f, "{}{name}=\"{value}\"", if at == 0 { "{" } else { "," })?;
        }
        f.write_str(if self.0.is_empty() { "" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_the_format_says_and_no_text_can_break_out_of_its_place() {
        let mut page = Page::default();
        page.family(Kind::Gauge, "overlay_places", "Places.", [([], 3.0)]);
        page.family(Kind::Counter, "overlay_x_total", "a\nb\\c", [([("a", "1\"2\\3\n4"), ("b", "")], 0.25)]);
        page.family(Kind::Gauge, "overlay_nothing", "Nothing.", Vec::<([(&str, &str); 0], f64)>::new());
        let wanted = "# HELP overlay_places Places.\n# TYPE overlay_places gauge\noverlay_places 3\n\
                      # HELP overlay_x_total a\\nb\\\\c\n# TYPE overlay_x_total counter\n\
                      overlay_x_total{a=\"1\\\"2\\\\3\\n4\",b=\"\"} 0.25\n";
        assert_eq!(page.finish(), wanted);
    }
}
