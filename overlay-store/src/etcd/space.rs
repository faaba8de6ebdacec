//! Which of etcd's keys are ours, and what they are called here.

use overlay_core::{Key, Prefix};

/// The keys under the configured prefix.
#[derive(Debug, Clone)]
pub(super) struct Space(Prefix);

impl Space {
    pub(super) const fn new(prefix: Prefix) -> Self {
        Self(prefix)
    }

    /// etcd's name of a key.
    pub(super) fn key(&self, key: &Key) -> Vec<u8> {
        [self.0.as_bytes(), key.as_bytes()].concat()
    }

    /// etcd's range of a prefix: the first key, and the first after the last; a zero byte stands for "no end".
    pub(super) fn range(&self, prefix: &Prefix) -> (Vec<u8>, Vec<u8>) {
        let first = [self.0.as_bytes(), prefix.as_bytes()].concat();
        let mut end = first.clone();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        match first.is_empty() {
            true => (vec![0], end), // etcd has no empty key
            false => (first, end),
        }
    }

    /// Our name of a key; `None` for what no store of ours wrote.
    pub(super) fn ours(&self, key: &[u8]) -> Option<Key> {
        Key::new(key.strip_prefix(self.0.as_bytes())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_all_of_its_prefix_and_nothing_else() {
        let prefix = |bytes: &[u8]| Prefix::new(bytes).unwrap();
        let range = |space: &[u8], of: &[u8]| Space::new(prefix(space)).range(&prefix(of));
        assert_eq!(range(b"c/", b""), (b"c/".to_vec(), b"c0".to_vec()));
        assert_eq!(range(b"c/", b"a\xff"), (b"c/a\xff".to_vec(), b"c/b".to_vec()));
        assert_eq!(range(b"c/", b"\xff\xff"), (b"c/\xff\xff".to_vec(), b"c0".to_vec()));
        assert_eq!(range(b"", b"\xff"), (b"\xff".to_vec(), b"\0".to_vec()));
        assert_eq!(range(b"", b""), (b"\0".to_vec(), b"\0".to_vec()));
        let space = Space::new(prefix(b"c/"));
        assert_eq!(space.ours(b"c/key"), Key::new("key").ok());
        assert_eq!(space.ours(b"c/"), None);
        assert_eq!(space.ours(b"d/key"), None);
    }
}
