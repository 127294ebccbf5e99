//! The cost of the boundary for the memory backend, which does so little that the boundary is most of it. Run it by
//! `bench/boundary`.
//!
//! This program and the next name one plugin each: two in one program would export the same symbol.

mod boundary;

fn main() {
    let plan = boundary::Plan { rounds: 25, changes: [8192, 16_384, 16_384] };
    boundary::run::<registry_memory::Memory>("memory", &plan, |_| serde_json::json!({}));
}
