//! What lowering must keep, whatever the state.

use overlay_core::State as _;
use proptest::prelude::*;

use super::*;
use crate::testing::state;

proptest! {
    #[test]
    fn what_makes_sense_is_tables_that_make_sense(state in state()) {
        let native = tables(&state).unwrap();
        prop_assert_eq!(native.check(), Ok(()));
        prop_assert_eq!(native.tables.is_empty(), state == State::default() || native.tables.is_empty());
    }
}
