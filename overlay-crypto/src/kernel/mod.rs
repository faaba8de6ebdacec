//! The same state in a Linux kernel (feature `kernel`): XFRM.

mod esp;
mod lower;
mod xfrm;

pub use self::esp::{Esp, Lack};
pub use self::xfrm::{Readings, Xfrm};
