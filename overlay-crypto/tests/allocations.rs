//! Sealing and opening allocate nothing.

#![expect(unsafe_code, reason = "a counting allocator has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use overlay_crypto::{Cipher, Numbers, Opener, Openers, SaKey, Sealer, Sealers, Spi, WindowSize};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all is left to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn sealing_and_opening_allocate_nothing() {
    for cipher in Cipher::ALL {
        let key = || SaKey::new(cipher, &[7; 36][..cipher.material_len()]).unwrap();
        let spi = Spi::new(0x1001).unwrap();
        let mut sealers = Sealers::new(vec![Sealer::new(spi, &key(), Numbers::Extended).unwrap()]).unwrap();
        let mut openers = Openers::new();
        openers.insert(Opener::new(spi, &key(), Numbers::Extended, WindowSize::MAX).unwrap()).unwrap();
        let mut buffer = [0; 9100];
        let seen = allocations(|| {
            for length in (0..9000).step_by(500) {
                let packet = sealers.seal(&mut buffer, 16..16 + length).unwrap();
                let mut again = buffer;
                let (_, opened) = openers.open(&mut buffer[packet.clone()]).unwrap();
                assert_eq!(opened.payload.len(), length);
                assert!(openers.open(&mut again[packet]).is_err());
            }
        });
        assert_eq!(seen, 0, "{cipher}");
    }
    assert_ne!(allocations(|| drop(std::hint::black_box(vec![0_u8; 100]))), 0, "the count counts");
}
