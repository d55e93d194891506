//! The module's memory: it is wiped when it is freed, and the stack after work with secrets.
//!
//! Secrets are in buffers of libraries, of the SDK and of the host's calls, too, which know nothing of [`zeroize`]. An
//! allocator that wipes covers them all, and vectors that grow.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;

/// The system's allocator, which wipes what it frees.
struct Wiping;

#[global_allocator]
static ALLOCATOR: Wiping = Wiping;

/// Bytes of the stack that are wiped. A signature by a certificate leaves the most, in the first 4 KiB.
const STACK: usize = 16 << 10;

/// From this size on, one instruction wipes.
const LONG: usize = 128;

/// Blocks of up to [`MOST`] bytes that were freed, by size: lists through their first words. The system's
/// allocator joins and splits blocks each time; to keep them as they are takes less of a call's time (docs/performance.md).
struct Free(UnsafeCell<[*mut Block; MOST / STEP]>);

struct Block {
    next: *mut Block,
}

/// Sizes are rounded up to it, and so is the alignment.
const STEP: usize = 16;
const MOST: usize = 512;

// SAFETY: a Wasm VM has one thread.
unsafe impl Sync for Free {}

static FREE: Free = Free(UnsafeCell::new([std::ptr::null_mut(); MOST / STEP]));

/// The list of a layout's blocks, and their size.
fn list(layout: Layout) -> Option<(*mut *mut Block, Layout)> {
    let number = layout.size().wrapping_sub(1) / STEP;
    if number >= MOST / STEP || layout.align() > STEP {
        return None;
    }
    let block = Layout::from_size_align((number + 1) * STEP, STEP).ok()?;
    // SAFETY: `number` is inside of the array, of which no reference exists.
    Some((unsafe { FREE.0.get().cast::<*mut Block>().add(number) }, block))
}

// SAFETY: a block is in the list of its size or with its owner. The system's allocator does everything else.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe {
            let Some((list, block)) = list(layout) else { return System.alloc(layout) };
            let first = *list;
            if first.is_null() {
                return System.alloc(block);
            }
            *list = (*first).next;
            first.cast()
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the memory is the caller's, and `size` bytes long; its block is not shorter.
        unsafe {
            let Some((list, block)) = list(layout) else {
                wipe(pointer, layout.size());
                return System.dealloc(pointer, layout);
            };
            wipe(pointer, block.size());
            let first = pointer.cast::<Block>();
            (*first).next = *list;
            *list = first;
        }
    }

    /// A block that is long enough is kept. Else the default one: it allocates, copies and frees, so that the old place is wiped.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            if let (Some((old, _)), Some((list, _))) = (list(layout), list(new))
                && old == list
            {
                return pointer;
            }
            let moved = self.alloc(new);
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(pointer, moved, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
            moved
        }
    }
}

/// Volatile, because a compiler leaves out what is written before memory is freed. By words, and what is long by the
/// instruction that fills memory: a body's chunks have 64 KiB. Not inlined, because memory is freed in thousands of
/// places.
#[inline(never)]
unsafe fn wipe(pointer: *mut u8, size: usize) {
    // SAFETY: all of it is inside of the `size` bytes, and the words are aligned.
    unsafe {
        if size > LONG {
            pointer.write_bytes(0, size);
            std::hint::black_box(pointer);
            return;
        }
        let bytes = pointer.align_offset(align_of::<u64>()).min(size);
        let words = (size - bytes) / size_of::<u64>();
        let rest = bytes + words * size_of::<u64>();
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
    let mut bytes = [0_u8; STACK];
    std::hint::black_box(&mut bytes);
}
