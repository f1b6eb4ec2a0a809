//! The same generation of the files with other weights: nothing is read, compiled or connected again.

use std::sync::Arc;
use std::time::SystemTime;

use forebay_config::Action;
use forebay_config::split::Split;

use super::{HeldRoutes, ListenerView, RouteView, Snapshot};

impl Snapshot {
    /// The next snapshot, with other weights on some routes and all else shared with this one.
    ///
    /// * `changed`: by name; their members are those that serve now, in the same order, and may end earlier
    pub fn reweighted(&self, changed: &HeldRoutes) -> Self {
        let routes: Vec<Arc<RouteView>> = self.routes.iter().map(|r| again(r, changed)).collect();
        let listeners = self.listeners.iter().map(|listener| {
            let view = |route: &Arc<RouteView>| again(route, changed);
            Arc::new(ListenerView {
                routes: listener.routes.iter().map(view).collect(),
                fresh: None,
                ..ListenerView::clone(listener)
            })
        });
        Self {
            generation: self.generation + 1,
            applied_at: SystemTime::now(),
            listeners: listeners.collect(),
            routes,
            ..self.clone()
        }
    }
}

fn again(route: &Arc<RouteView>, changed: &HeldRoutes) -> Arc<RouteView> {
    let (Some(config), Some(split)) = (changed.get(&route.config.name), &route.split) else {
        return Arc::clone(route);
    };
    let Action::Forward(members) = &config.action else {
        return Arc::clone(route);
    };
    let views = split.members().zip(members);
    let views = views.map(|((view, _), member)| (view.clone(), member.weight));
    let split = Split::new(views).expect("whoever chose the weights left one above 0");
    Arc::new(RouteView {
        config: Arc::clone(config),
        split: Some(split),
        ..RouteView::clone(route)
    })
}
