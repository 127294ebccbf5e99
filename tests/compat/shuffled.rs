//! Prints where the fields of a struct are, which is for the compiler to choose. `scripts/compat` sees by it that its
//! flags do shuffle.

use std::mem::offset_of;

#[allow(dead_code)] // nobody reads them
struct Shuffled {
    a: u32,
    b: u32,
    c: u32,
    d: u32,
    e: u32,
    f: u32,
}

fn main() {
    print!("{},{},{},", offset_of!(Shuffled, a), offset_of!(Shuffled, b), offset_of!(Shuffled, c));
    println!("{},{},{}", offset_of!(Shuffled, d), offset_of!(Shuffled, e), offset_of!(Shuffled, f));
}
