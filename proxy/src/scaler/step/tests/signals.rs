//! Targets that the servers themselves tell.

use super::*;
use crate::scaler::{Inside, Told};

/// Five requests that wait inside per replica, and nothing else.
fn by_queue() -> Policy {
    Policy {
        in_flight: None,
        queue: Some(5.0),
        ..policy()
    }
}

impl World {
    fn told(&mut self, queue: Told) {
        self.sample.inside.queue = queue;
    }
}

/// A cluster with one ready replica and 30 requests there.
fn one_busy_replica(policy: Policy) -> World {
    let mut world = World::new(policy, 1.0);
    world.sample.ready = 1;
    world.load(30);
    world.told(Told::Known(0.0));
    world.run(10.0);
    world
}

#[test]
fn requests_that_wait_inside_bring_replicas() {
    let mut world = one_busy_replica(by_queue());
    assert_eq!(world.sample.ready, 1, "thirty in flight, and none waits");
    world.told(Told::Known(12.0));
    assert_eq!(world.run(20.0).desired, 3);
    world.told(Told::Known(0.0));
    assert_eq!(world.run(200.0).desired, 1);
}

#[test]
fn so_do_those_that_wait_in_front() {
    let mut world = World::new(by_queue(), 30.0);
    world.step();
    world.sample.waiting = 11;
    world.sample.arrivals = 11;
    assert_eq!(world.step().desired, 3);
}

#[test]
fn the_largest_answer_wins() {
    let both = Policy {
        in_flight: Some(10.0),
        kv_cache: Some(0.8),
        ..by_queue()
    };
    let mut world = World::new(both, 1.0);
    world.sample.ready = 1;
    world.load(40);
    world.sample.inside = Inside {
        queue: Told::Known(1.0),
        kv_cache: Told::Known(0.5),
    };
    assert_eq!(world.run(70.0).desired, 4, "in flight");
    world.sample.inside.kv_cache = Told::Known(3.9); // of four
    assert_eq!(world.run(70.0).desired, 5, "the cache");
    world.told(Told::Known(29.0));
    assert_eq!(world.run(70.0).desired, 6, "the queue");
}

#[test]
fn while_a_signal_is_stale_its_own_counts_go_on() {
    let mut world = one_busy_replica(by_queue());
    world.run(70.0);
    world.told(Told::Stale);
    assert_eq!(world.run(20.0).desired, 1, "it carried thirty well");
    world.load(90);
    assert_eq!(world.run(70.0).desired, 3);
    world.told(Told::Known(0.0));
    assert_eq!(world.run(200.0).desired, 1);

    let mut world = one_busy_replica(Policy {
        concurrency: Some(16.0),
        ..by_queue()
    });
    world.told(Told::Stale);
    assert_eq!(world.run(20.0).desired, 2, "as many as it may have");

    let mut world = one_busy_replica(Policy {
        in_flight: Some(10.0),
        ..by_queue()
    });
    world.told(Told::Stale);
    assert_eq!(world.run(20.0).desired, 3, "a target of its own");
}

#[test]
fn what_was_told_before_it_became_stale_is_forgotten() {
    let mut world = one_busy_replica(Policy {
        concurrency: Some(100.0),
        ..by_queue()
    });
    world.told(Told::Known(40.0));
    world.run(4.0);
    world.told(Told::Stale);
    world.run(200.0);
    assert_eq!(world.sample.ready, 1);
    world.told(Told::Known(2.0));
    assert_eq!(world.run(2.0).desired, 1);
}

#[test]
fn a_target_that_servers_tell_replaces_the_default() {
    let file = forebay_config::load::SourceFile {
        name: "a.yaml".into(),
        directory: "/".into(),
        text: "clusters: [{name: a, server: vllm, endpoints: ['127.0.0.1:1'], concurrency: 64, \
               scale: {max: 4, observe: {}, target: {queue: 5, kv_cache: 80%}}}]"
            .to_owned(),
    };
    let config = forebay_config::load::load(&[file], &|_| None)
        .unwrap()
        .config;
    let cluster = &config.clusters[0];
    let policy = Policy::new(cluster.scale.as_ref().unwrap(), cluster.concurrency);
    assert_eq!((policy.in_flight, policy.rate), (None, None));
    assert_eq!((policy.queue, policy.kv_cache), (Some(5.0), Some(0.8)));
    assert_eq!(policy.concurrency, Some(64.0));
}
