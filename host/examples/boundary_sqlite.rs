//! The cost of the boundary for the SQLite backend, beside what a durable store does anyway. Run it by
//! `bench/boundary`.

mod boundary;

fn main() {
    let plan = boundary::Plan { rounds: 9, changes: [256, 2048, 8192] };
    boundary::run::<registry_sqlite::Sqlite>(
        "sqlite",
        &plan,
        |directory| serde_json::json!({ "path": directory.join("store.db") }),
    );
}
