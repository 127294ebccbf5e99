//! The services as they will be when the group that is being put together has been stored.
//!
//! The changes of a group are made in order, so each is judged against what those before it leave behind. Only what
//! differs from the services as they are stands here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::registry::service::Service;
use crate::registry::services::Services;
use crate::security::origin::Holder;
use crate::security::principal::Principal;
use crate::security::quota::Class;

/// A service as a change of the group leaves it.
#[derive(Clone)]
pub(super) struct Projected {
    owner: Principal,
    generation: u64,
    types: Arc<[Arc<str>]>,
    holder: Holder,
}

/// By how much the members of a type differ from what they are.
#[derive(Clone, Copy, Default)]
struct Shift {
    passing: isize,
    critical: isize,
}

/// What a group changes.
#[derive(Default)]
pub(super) struct Projection {
    /// `None` stands for a service that is gone.
    ids: HashMap<Arc<str>, Option<Projected>>,
    /// The ids that will belong to nobody or to somebody else if the store says no to a change of the group.
    contested: HashSet<Arc<str>>,
    types: HashMap<Arc<str>, Shift>,
    /// By how much the numbers of clients' services differ from what they are.
    places: HashMap<(Class, Holder), isize>,
    /// The ids that will be drained, or not, if the store says no to a change of the group.
    drains: HashSet<Arc<str>>,
}

impl Projection {
    /// Whether the group changes the service with this id.
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    /// Whether it depends on the group to whom the id belongs, if to anybody.
    pub(super) fn is_contested(&self, id: &str) -> bool {
        self.contested.contains(id)
    }

    /// The group drains this service, or ends that.
    pub(super) fn drain(&mut self, id: Arc<str>) {
        self.drains.insert(id);
    }

    /// Whether it depends on the group if the service with this id is drained.
    pub(super) fn drains(&self, id: &str) -> bool {
        self.drains.contains(id)
    }

    /// Whether the group changes a service of this type.
    pub(super) fn has_type(&self, service_type: &str) -> bool {
        self.types.contains_key(service_type)
    }

    /// Whose the service with this id will be, and of which generation, if there will be one.
    pub(super) fn standing(&self, services: &Services, id: &str) -> Option<(Principal, u64)> {
        match self.ids.get(id) {
            Some(projected) => projected.as_ref().map(|service| (service.owner, service.generation)),
            None => services.get(id).map(|service| (service.owner(), service.generation())),
        }
    }

    /// How many members of a type there will be besides the service with this id: passing, and critical.
    pub(super) fn others(&self, services: &Services, service_type: &str, id: &str) -> (usize, usize) {
        let members = services.members(service_type);
        // One that is drained is there all the same.
        let (passing, critical) = (members.passing + members.drained, members.critical);
        let shift = self.types.get(service_type).copied().unwrap_or_default();
        let is_member = |types: &[Arc<str>]| types.iter().any(|name| **name == *service_type);
        let own = match self.ids.get(id) {
            Some(projected) => (projected.as_ref().is_some_and(|service| is_member(&service.types)), false),
            None => {
                let is_member = services.get(id).is_some_and(|service| is_member(service.types()));
                let is_critical = services.is_critical(id);
                (is_member && !is_critical, is_member && is_critical)
            }
        };
        let less =
            |count: usize, shift: isize, own: bool| count.saturating_add_signed(shift).saturating_sub(usize::from(own));
        (less(passing, shift.passing, own.0), less(critical, shift.critical, own.1))
    }

    /// How many services of a class a client will have.
    pub(super) fn places(&self, services: &Services, class: Class, holder: &Holder) -> usize {
        let shift = self.places.get(&(class, *holder)).copied().unwrap_or_default();
        services.usage.of(class, holder).saturating_add_signed(shift)
    }

    /// Whether the group changes how many that are, or whether the service with this id is among them.
    pub(super) fn has_place(&self, class: Class, holder: &Holder, id: &str) -> bool {
        self.places.contains_key(&(class, *holder)) || self.has_id(id)
    }

    /// Whether the service with this id will be there and have a place of this client's. One of which it is not known
    /// whose it is has one: a client that is back after a start needs no second one.
    pub(super) fn keeps_place(&self, services: &Services, class: Class, holder: &Holder, id: &str) -> bool {
        let is_counted = |types: &[Arc<str>]| {
            let mut classes = services.usage.quotas().classes(types.iter().map(|name| &**name));
            classes.any(|counted| counted == class)
        };
        match self.ids.get(id) {
            Some(projected) => projected.as_ref().is_some_and(|of| of.holder == *holder && is_counted(&of.types)),
            None => services.get(id).is_some_and(|service| match service.holder() {
                Holder::Unknown => true,
                other => other == *holder && is_counted(service.types()),
            }),
        }
    }

    /// The group puts this service.
    pub(super) fn put(&mut self, services: &Services, service: &Service) {
        self.leave(services, service.id());
        if services.get(service.id()).is_none_or(|before| before.owner() != service.owner()) {
            self.contested.insert(service.id().clone());
        }
        for name in service.types().iter() {
            self.types.entry(name.clone()).or_default().passing += 1;
        }
        let (owner, generation, holder) = (service.owner(), service.generation(), service.holder());
        for class in services.usage.quotas().classes(service.type_names()) {
            *self.places.entry((class, holder)).or_default() += 1;
        }
        let projected = Projected { owner, generation, types: service.types().clone(), holder };
        self.ids.insert(service.id().clone(), Some(projected));
    }

    /// The group removes this service.
    pub(super) fn remove(&mut self, services: &Services, id: &Arc<str>) {
        self.leave(services, id);
        self.contested.insert(id.clone());
        self.ids.insert(id.clone(), None);
    }

    fn leave(&mut self, services: &Services, id: &str) {
        let (left, is_critical) = match self.ids.get(id) {
            Some(projected) => (projected.as_ref().map(|service| (service.types.clone(), service.holder)), false),
            None => {
                let left = services.get(id).map(|service| (service.types().clone(), service.holder()));
                (left, services.is_critical(id))
            }
        };
        let Some((types, holder)) = left else { return };
        for class in services.usage.quotas().classes(types.iter().map(|name| &**name)) {
            *self.places.entry((class, holder)).or_default() -= 1;
        }
        for name in types.iter() {
            let shift = self.types.entry(name.clone()).or_default();
            if is_critical { shift.critical -= 1 } else { shift.passing -= 1 }
        }
    }
}
