//! The module's memory: it is wiped when it is freed, and the stack after work with secrets.
//!
//! Secrets are in buffers of libraries, of the SDK and of the host's calls, too, which know nothing of [`zeroize`]. An
//! allocator that wipes covers them all, and vectors that grow.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use zeroize::Zeroize;

/// The system's allocator, which wipes what it frees.
struct Wiping;

#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

/// Words of the stack that are wiped: 16 KiB. A signature by a certificate leaves the most, in the first 4 KiB.
const STACK_WORDS: usize = 2048;

// `realloc` is the default one: it allocates, copies and frees, so that the old place is wiped.
// SAFETY: the system's allocator does everything else, with the arguments of the caller.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the memory is the caller's, and `size` bytes long.
        unsafe {
            wipe(pointer, layout.size());
            System.dealloc(pointer, layout);
        }
    }
}

/// Volatile, because a compiler leaves out what is written before memory is freed. By words, because a body's chunks have 64 KiB.
/// Not inlined, because memory is freed in thousands of places.
#[inline(never)]
unsafe fn wipe(pointer: *mut u8, size: usize) {
    let bytes = pointer.align_offset(align_of::<u64>()).min(size);
    let words = (size - bytes) / size_of::<u64>();
    let rest = bytes + words * size_of::<u64>();
    // SAFETY: all of it is inside of the `size` bytes, and the words are aligned.
    unsafe {
        for at in (0..bytes).chain(rest..size) {
            pointer.add(at).write_volatile(0);
        }
        let first = pointer.add(bytes).cast::<u64>();
        for word in 0..words {
            first.add(word).write_volatile(0);
        }
    }
}

/// Does work with secrets, and wipes the stack that the work has used.
pub(crate) fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    wipe_stack();
    done
}

/// A frame of its own, so that nothing of the work is in the caller's.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_stack() {
    let mut words = [0_u64; STACK_WORDS];
    words.zeroize();
    std::hint::black_box(&words);
}
