//! What each library shows to others, as a file that is committed: no item becomes public, or changes, unseen.
//!
//! It is read from the pages that rustdoc makes, which know what is reached by which path, and what a type implements.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::Package;

use crate::step::{Failure, Outcome, output};
use crate::workspace::root;

/// In each library's folder.
const LIST: &str = "public-api.txt";
const HEAD: &str =
    "# What others can use of this crate, with all its features. `cargo xtask docs --bless` writes it.\n";

/// Another compiler's pages may be written otherwise.
const BY: &str = "# As told by ";

/// What differs between what the pages in `docs` show and what is committed; or writes that anew.
pub(crate) fn compare(libraries: &[&Package], docs: &Path, bless: bool) -> Outcome<Vec<String>> {
    let mut complaints = Vec::new();
    let compiler = output(Command::new("rustdoc").arg("--version"))?;
    let head = format!("{HEAD}{BY}{compiler}");
    for library in libraries {
        let shown = head.clone() + &listing(&docs.join(library.name.replace('-', "_")))?;
        let file = root().join(library.name.as_str()).join(LIST);
        if bless {
            fs::write(&file, shown).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
            continue;
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        if let Some(by) = others(&committed, &compiler) {
            println!("SKIPPED {}: {LIST} is told by {by}, this is {}", library.name, compiler.trim());
            continue;
        }
        complaints.extend(difference(library.name.as_str(), &committed, &shown));
    }
    Ok(complaints)
}

/// The compiler by which a list was told, if it is another one.
fn others<'a>(committed: &'a str, compiler: &str) -> Option<&'a str> {
    let by = committed.lines().find_map(|line| line.strip_prefix(BY))?;
    (by != compiler.trim()).then_some(by)
}

fn difference(library: &str, committed: &str, shown: &str) -> Vec<String> {
    let [was, is] = [committed, shown].map(lines);
    let gone = was.difference(&is).map(|line| format!("{library}: - {line}"));
    let new = is.difference(&was).map(|line| format!("{library}: + {line}"));
    let mut lines: Vec<String> = gone.chain(new).collect();
    if !lines.is_empty() {
        lines.push("if that is as it should be: `cargo xtask docs --bless`, and commit the lists".to_owned());
    }
    lines
}

/// The lines of a list.
fn lines(text: &str) -> BTreeSet<Line<'_>> {
    let (mut item, mut counts) = ("", BTreeMap::new());
    let lines = text.lines().map(|line| {
        item = if line.starts_with(' ') { item } else { line };
        let count: &mut usize = counts.entry((item, line.trim())).or_default();
        *count += 1;
        Line { item, says: line.trim(), number: *count }
    });
    lines.collect()
}

/// What a list says of an item: others may say the same, as many types have a `new`, and one may twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line<'a> {
    item: &'a str,
    says: &'a str,
    number: usize,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.says == self.item {
            true => f.write_str(self.item),
            false => write!(f, "{}: {}", self.item, self.says),
        }
    }
}

/// All items of a crate's pages, by their paths.
fn listing(folder: &Path) -> Outcome<String> {
    let mut pages = Vec::new();
    walk(folder, &mut pages).map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    pages.sort();
    let mut text = String::new();
    for page in pages {
        let html = fs::read_to_string(&page).map_err(|error| Failure::new(format!("{}: {error}", page.display())))?;
        let path = page.strip_prefix(folder).unwrap_or(&page);
        text.push_str(&item(path, &html).unwrap_or_default());
    }
    Ok(text)
}

fn walk(folder: &Path, pages: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            pages.push(path);
        }
    }
    Ok(())
}

/// A page's item: its path and declaration, its own functions, and what it implements. Nothing, if it is a page that leads elsewhere.
fn item(path: &Path, html: &str) -> Option<String> {
    let (_, declaration) = html.split_once("<pre class=\"rust item-decl\">")?;
    let (declaration, _) = declaration.split_once("</pre>")?;
    let module: Vec<_> = path.parent()?.iter().map(|part| part.to_string_lossy()).collect();
    let name = path.file_stem()?.to_string_lossy();
    let name = name.split_once('.').map_or(&*name, |(_, name)| name);
    let mut text = format!("\n{}\n  {}\n", [&module[..], &[name.into()]].concat().join("::"), plain(declaration));
    for (id, class, heading) in sections(chapter(html, "implementations")) {
        if !id.starts_with("impl-") && !class.contains("trait-impl") {
            text.push_str(&format!("  {heading}\n"));
        }
    }
    for (id, _, heading) in sections(chapter(html, "trait-implementations")) {
        if id.starts_with("impl-") {
            text.push_str(&format!("  {heading}\n"));
        }
    }
    Some(text)
}

/// What stands below a heading of the second order.
fn chapter<'a>(html: &'a str, id: &str) -> &'a str {
    let below = html.split_once(&format!("<h2 id=\"{id}\"")).map_or("", |(_, below)| below);
    below.split_once("<h2 id=").map_or(below, |(chapter, _)| chapter)
}

/// The sections with a line of code, each with its id and class.
fn sections(html: &str) -> impl Iterator<Item = (&str, &str, String)> {
    html.split("<section id=\"").skip(1).filter_map(|section| {
        let (id, rest) = section.split_once('"')?;
        let (class, rest) = rest.strip_prefix(" class=\"")?.split_once('"')?;
        let (_, code) = rest.split_once(" class=\"code-header\">")?;
        let end = ["</h3>", "</h4>"].iter().filter_map(|end| code.find(end)).min()?;
        Some((id, class, plain(&code[..end])))
    })
}

/// The words, without tags, and with one space between them.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut pieces = html.split('<');
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (tag, words) = piece.split_once('>').unwrap_or((piece, ""));
        if tag.starts_with("div class=\"where") || tag.starts_with("br") {
            text.push(' ');
        }
        text.push_str(words);
    }
    let text =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), (" ⓘ", ""), ("&amp;", "&")]
            .iter()
            .fold(text, |text, (from, to)| text.replace(from, to));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<pre class="rust item-decl"><code>pub struct Key(<span class="comment">/* private fields */</span>);</code></pre>
        <h2 id="implementations" class="section-header">Implementations</h2>
        <section id="impl-Key" class="impl"><h3 class="code-header">impl <a>Key</a></h3></section>
        <section id="method.new" class="method"><a class="src">Source</a><h4 class="code-header">pub fn <a>new</a>(bytes: &amp;[<a>u8</a>]) -&gt; Self</h4></section>
        <h2 id="trait-implementations" class="section-header">Trait Implementations</h2>
        <section id="impl-Clone-for-Key" class="impl"><h3 class="code-header">impl <a>Clone</a> for <a>Key</a></h3></section>
        <section id="method.clone" class="method trait-impl"><h4 class="code-header">fn clone(&amp;self) -&gt; Key</h4></section>
        <h2 id="synthetic-implementations" class="section-header">Auto</h2>
        <section id="impl-Send-for-Key" class="impl"><h3 class="code-header">impl Send for Key</h3></section>"#;

    #[test]
    fn an_item_is_its_declaration_its_functions_and_what_it_implements() {
        let listed = item(Path::new("secret/struct.Key.html"), PAGE).unwrap();
        let wanted = "\nsecret::Key\n  pub struct Key(/* private fields */);\n  pub fn new(bytes: &[u8]) -> Self\n  impl Clone for Key\n";
        assert_eq!(listed, wanted);
    }

    #[test]
    fn a_page_that_leads_elsewhere_is_no_item() {
        assert_eq!(item(Path::new("struct.Key.html"), "<p>Redirecting to <a>Key</a></p>"), None);
    }

    #[test]
    fn a_list_by_another_compiler_is_not_compared() {
        let committed = format!("{HEAD}{BY}rustdoc 1.0.0\n\nKey\n");
        assert_eq!(others(&committed, "rustdoc 1.0.0\n"), None);
        assert_eq!(others(&committed, "rustdoc 2.0.0\n"), Some("rustdoc 1.0.0"));
        assert_eq!(others("", "rustdoc 2.0.0\n"), None);
    }

    #[test]
    fn what_is_new_and_what_is_gone_are_told() {
        assert!(difference("a", "x\n", "x\n").is_empty());
        let told = difference("a", "\nx\n  pub fn f()\n", "\nx\n  pub fn g()\n");
        assert_eq!(told[..2], ["a: - x: pub fn f()", "a: + x: pub fn g()"]);
        assert!(told[2].contains("cargo xtask docs --bless"));
    }

    #[test]
    fn what_is_gone_from_one_item_is_told_though_another_has_the_same() {
        let both = "\nx\n  pub fn new() -> Self\n  impl From<Error> for x\n  impl From<Error> for x\n\ny\n  pub fn new() -> Self\n";
        assert!(difference("a", both, both).is_empty());
        let fewer = "\nx\n  impl From<Error> for x\n\ny\n  pub fn new() -> Self\n";
        let told = difference("a", both, fewer);
        assert_eq!(told[..2], ["a: - x: impl From<Error> for x", "a: - x: pub fn new() -> Self"]);
        assert_eq!(difference("a", fewer, both).len(), told.len());
    }
}
