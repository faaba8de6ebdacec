//! Room for what there are many of: every node keeps something of every other.

use std::collections::VecDeque;

/// Adds to a list that grows by an eighth, not by as much again.
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) {
    make(list);
    list.push(item);
}

/// Makes room for one more, and for an eighth of what there is.
pub(crate) fn make<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 4);
    }
}

/// Takes the next of a queue; the room that many took goes with the last.
pub(crate) fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let next = queue.pop_front();
    if queue.is_empty() && queue.capacity() > KEPT {
        *queue = VecDeque::new();
    }
    next
}

/// How many a queue keeps room for.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_an_eighth_to_spare_at_most_and_an_emptied_queue_little() {
        let (mut list, mut queue) = (Vec::new(), VecDeque::new());
        for number in 0..10_000 {
            push(&mut list, number);
            queue.push_back(number);
            assert!(list.capacity() <= list.len() + list.len() / 8 + 4);
        }
        assert!((0..10_000).all(|number| pop(&mut queue) == Some(number)));
        assert!(pop(&mut queue).is_none() && queue.capacity() <= KEPT);
    }
}
