//! Who is to be discovered, for backends that choose.

/// A `discover` request: see [`Backend::discover`](crate::Backend::discover).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// The service type that is asked for.
    pub service_type: String,
    /// The ids of the healthy services of that type: one of them is to be chosen. At least two.
    pub candidates: Vec<String>,
}

impl Query {
    /// A request for one of `candidates`.
    pub fn new(service_type: impl Into<String>, candidates: Vec<String>) -> Self {
        Query { service_type: service_type.into(), candidates }
    }
}
