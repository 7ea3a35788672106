//! Three conductors of one cluster over a real etcd, without a kernel: elections, drains, poison, a store that goes.

mod world;

use std::time::Duration;

use super::*;
use crate::admin::{Protocol, Tuple};
use crate::store::{Key, Sealer};
use crate::values;
use world::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_found_a_table_drain_undrain_and_remove() {
    let cluster = Cluster::start(3).await;
    cluster.is_settled(&[1, 2, 3]).await;
    let status = cluster.status(1).await;
    assert!(status.is_announced && status.is_store_up, "{status:?}");
    assert_eq!(status.members.len(), 3);
    let leader = status.leader.expect("somebody leads");
    let follower = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();

    // What is asked of any node is done by the leader.
    let asked = cluster.ask(follower, Request::Drain(2)).await;
    assert!(matches!(asked, Response::Done(_)), "{asked:?}");
    cluster
        .until("node 2 has nothing new", async |cluster| {
            cluster.shares(1).await[&2] == 0.0
        })
        .await;
    let text = cluster.status(leader).await.to_string();
    assert!(text.contains("drain"), "{text}");
    // It has no connection, so there is no reason for routers to send anything there.
    cluster
        .until("node 2 is not announced", async |cluster| {
            !cluster.status(2).await.is_announced
        })
        .await;
    cluster.ask(follower, Request::Undrain(2)).await;
    cluster.is_settled(&[1, 2, 3]).await;

    // What a removal ends is told by who knows it.
    let remove = |yes| Request::Remove {
        node: follower,
        yes,
    };
    let refused = cluster.ask(follower, remove(false)).await;
    assert!(
        matches!(&refused, Response::Refused(why) if why.contains("leads")),
        "{refused:?}"
    );
    let told = cluster.ask(leader, remove(false)).await;
    assert!(
        matches!(&told, Response::Text(words) if words.contains("no connection")),
        "{told:?}"
    );
    cluster.ask(follower, remove(true)).await;
    cluster
        .until("it is gone", async |cluster| {
            cluster
                .status(leader)
                .await
                .members
                .iter()
                .all(|member| member.node != follower || member.state == "joining")
                && cluster.status(follower).await.is_isolated
        })
        .await;
    assert!(!cluster.status(follower).await.is_announced);
    cluster.ask(leader, Request::Undrain(follower)).await;
    cluster
        .until("it is back", async |cluster| {
            !cluster.status(follower).await.is_isolated
        })
        .await;
    let stranger = cluster.ask(leader, Request::Drain(77)).await;
    assert!(matches!(stranger, Response::Refused(_)));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_when_the_leader_dies_and_at_once_when_it_ends() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_settled(&[1, 2, 3]).await;
    let leader = cluster.leader().await;
    let left: Vec<u16> = [1, 2, 3]
        .into_iter()
        .filter(|node| *node != leader)
        .collect();
    let generation = cluster.status(leader).await.generation;
    cluster.kill(leader);
    cluster.is_settled(&left).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    assert!(cluster.status(next).await.generation > generation);
    // The dead one is a stand-in at most.
    assert_eq!(cluster.shares(next).await[&leader], 0.0);

    // It comes back, as the same boot of the same machine.
    cluster.launch(leader).await;
    cluster.is_settled(&[1, 2, 3]).await;
    let began = Instant::now();
    cluster.stop(next).await;
    cluster
        .until("somebody else leads", async |cluster| {
            let status = cluster.status(leader).await;
            status.leader.is_some_and(|node| node != next)
        })
        .await;
    // Nobody had to wait for the end of a lease.
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_strangers_and_old_ones_are_refused_and_change_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.is_settled(&[1, 2, 3]).await;
    let before = cluster.status(1).await;
    let key = |name: &str| Key::new(name).unwrap();
    let own = cluster.etcd(Sealer::new(&world::secret()));
    let old = own
        .read(&key("heartbeats/2"))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let table = own.read(&key("table")).await.unwrap().unwrap().unwrap();

    // Somebody without the secret.
    let stranger = cluster.etcd(Sealer::new(&crate::Secret::new(&[99; 32])));
    for name in [
        "table",
        "leader",
        "members/2",
        "heartbeats/2",
        "intents/2",
        "flows/2",
        "members/9",
    ] {
        let value = if name == "table" {
            table.value.as_slice()
        } else {
            b"\"drain\""
        };
        stranger.put(&key(name), value, None).await.unwrap();
    }
    // Somebody with it, and with what was true once or never.
    let foreign = postern_steering::Place {
        v4: Some([192, 0, 2, 9].into()),
        v6: None,
        ethernet: [0; 6],
    };
    let weight = postern_steering::Weight::new(1).unwrap();
    let foreign = values::Registration::new(foreign, weight, Boot(9));
    own.put(&key("members/9"), &values::encode(&foreign), None)
        .await
        .unwrap();
    own.put(&key("intents/3"), b"\"dance\"", None)
        .await
        .unwrap();
    own.put(&key("flows/3"), b"", None).await.unwrap();
    let member = own.read(&key("members/3")).await.unwrap().unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    own.put(&key("heartbeats/2"), &old.value, member.lease)
        .await
        .unwrap();

    cluster
        .until("all of it is counted", async |cluster| {
            let text = cluster.metrics(1).await;
            let has =
                |reason: &str| text.contains(&format!("refused_total{{reason=\"{reason}\"}}"));
            ["seal", "address", "malformed", "sequence"]
                .into_iter()
                .all(has)
        })
        .await;
    // The table is the leader's to write again, and everybody goes on.
    cluster.is_settled(&[1, 2, 3]).await;
    let after = cluster.status(1).await;
    assert!(after.generation >= before.generation);
    assert!(
        after.members.iter().all(|member| member.node != 9),
        "{after}"
    );
    assert_eq!(after.members.len(), 3);
    // The cluster still decides.
    cluster.ask(1, Request::Drain(3)).await;
    cluster
        .until("node 3 is drained", async |cluster| {
            cluster.shares(1).await[&3] == 0.0
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_a_cluster_goes_on_by_the_last_table() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_settled(&[1, 2, 3]).await;
    let generation = cluster.status(1).await.generation;
    cluster.server.stop();
    cluster
        .until("the store is missed", async |cluster| {
            !cluster.status(1).await.is_store_up
        })
        .await;
    let alone = cluster.status(1).await;
    assert_eq!(alone.generation, generation);
    assert!(alone.is_announced && !alone.is_isolated, "{alone}");
    assert!(
        cluster
            .metrics(1)
            .await
            .contains("\npostern_steer_store_up 0\n")
    );

    // A node that starts now has what was in force.
    cluster.kill(2);
    cluster.launch(2).await;
    cluster
        .until("node 2 steers by the table that it kept", async |cluster| {
            cluster.status(2).await.generation == generation
        })
        .await;

    // The others went on without node 1, as their packets say.
    cluster.see_newer(1, generation + 1);
    cluster
        .until("node 1 keeps to itself", async |cluster| {
            cluster.status(1).await.is_isolated && cluster.is_isolated_in_kernel(1)
        })
        .await;
    assert!(!cluster.status(1).await.is_announced);

    cluster.server.restart().unwrap();
    cluster
        .until("everybody is back", async |cluster| {
            let mut all = true;
            for node in [1, 2, 3] {
                let status = cluster.status(node).await;
                all &= status.is_store_up && !status.is_isolated && status.is_announced;
            }
            all && !cluster.is_isolated_in_kernel(1)
        })
        .await;
    cluster.is_settled(&[1, 2, 3]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_store_falls_silent_stops_deciding_and_nobody_is_cut_off() {
    let mut cluster = Cluster::start(2).await;
    cluster.is_settled(&[1, 2]).await;
    let leads = "\npostern_steer_leader 1\n";
    let leader = cluster.leader().await;
    assert!(cluster.metrics(leader).await.contains(leads));
    let generation = cluster.status(leader).await.generation;
    let began = Instant::now();
    cluster.server.pause();
    cluster
        .until("nobody decides", async |cluster| {
            !cluster.metrics(leader).await.contains(leads)
        })
        .await;
    // Before anybody else could have the seat.
    assert!(
        began.elapsed() < crate::membership::LEASE,
        "{:?}",
        began.elapsed()
    );
    // What is asked of it meanwhile is not done, and says so.
    let asked = cluster.ask(leader, Request::Drain(1)).await;
    assert!(matches!(asked, Response::Refused(_)), "{asked:?}");
    for node in [1, 2] {
        let status = cluster.status(node).await;
        assert!(
            status.is_announced && status.generation == generation,
            "{status}"
        );
    }
    cluster.server.resume();
    cluster
        .until("somebody decides again", async |cluster| {
            let one = cluster.metrics(1).await.contains(leads);
            one != cluster.metrics(2).await.contains(leads)
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forgot_everything_gets_the_table_back_from_its_nodes() {
    let mut cluster = Cluster::start(2).await;
    cluster.is_settled(&[1, 2]).await;
    let generation = cluster.status(1).await.generation;
    cluster.server.restart_empty().unwrap();
    cluster
        .until("a newer table than before is in force", async |cluster| {
            let mut all = true;
            for node in [1, 2] {
                all &= cluster.status(node).await.generation > generation;
            }
            all
        })
        .await;
    cluster.is_settled(&[1, 2]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_taken_by_another_machine_is_refused_and_does_not_serve() {
    let mut cluster = Cluster::start(2).await;
    cluster.is_settled(&[1, 2]).await;
    // Another state folder: another machine.
    cluster.launch_as(3, 2).await;
    cluster
        .until("the second says why", async |cluster| {
            let status = cluster.status(3).await;
            status.announcement.contains("another machine") && !status.is_announced
        })
        .await;
    assert!(cluster.status(2).await.is_announced);
    // The first one ends, and its number is free.
    cluster.stop(2).await;
    cluster
        .until("the second serves", async |cluster| {
            cluster.status(3).await.is_announced
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_explains_a_connection_and_the_leader_knows_most() {
    let cluster = Cluster::start(2).await;
    cluster.is_settled(&[1, 2]).await;
    let leader = cluster.leader().await;
    let explain = Request::Explain(Tuple {
        source: "198.51.100.7:50000".parse().unwrap(),
        destination: cluster.vip(),
        protocol: Protocol::Tcp,
    });
    for node in [1, 2] {
        let Response::Text(words) = cluster.ask(node, explain.clone()).await else {
            panic!("it explains");
        };
        for part in ["bucket 0x", "new connections: node", "is at 127.0."] {
            assert!(words.contains(part), "{part}: {words}");
        }
        let part = if node == leader {
            "(up, weight"
        } else {
            "leads and knows why"
        };
        assert!(words.contains(part), "{part}: {words}");
    }
    let elsewhere = Request::Explain(Tuple {
        source: "198.51.100.7:50000".parse().unwrap(),
        destination: "192.0.2.1:443".parse().unwrap(),
        protocol: Protocol::Tcp,
    });
    let Response::Text(words) = cluster.ask(1, elsewhere).await else {
        panic!("it explains");
    };
    assert!(words.contains("no service"), "{words}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_settings_are_taken_while_it_runs() {
    let mut cluster = Cluster::start(2).await;
    cluster.is_settled(&[1, 2]).await;
    cluster
        .resettle(2, |settings| {
            settings.weight = postern_steering::Weight::new(300).unwrap()
        })
        .await;
    cluster
        .until("shares are 1 to 3", async |cluster| {
            let shares = cluster.shares(1).await;
            (shares[&1] - 25.0).abs() < 0.01 && (shares[&2] - 75.0).abs() < 0.01
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_nodes_is_the_table_and_takes_no_orders() {
    let cluster = Cluster::of_file(2).await;
    cluster
        .until("both steer", async |cluster| {
            cluster.status(1).await.generation == 1 && cluster.status(2).await.generation == 1
        })
        .await;
    let expected: Vec<f64> = vec![50.0, 50.0];
    let found: Vec<f64> = cluster.shares(1).await.into_values().collect();
    assert_eq!(found, expected);
    let refused = cluster.ask(1, Request::Drain(2)).await;
    assert!(matches!(&refused, Response::Refused(why) if why.contains("needs etcd")));
    assert!(cluster.status(1).await.is_announced);
    cluster.write_file(2, &[1, 2], "3");
    cluster
        .until("the new file is in force", async |cluster| {
            cluster.status(1).await.generation == 2
        })
        .await;
    // Nobody takes a step back, or a file without itself.
    cluster.write_file(1, &[1, 2], "1");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.status(1).await.generation, 2);
    cluster.write_file(3, &[2], "1");
    cluster
        .until("node 2 takes it", async |cluster| {
            cluster.status(2).await.generation == 3
        })
        .await;
    assert_eq!(cluster.status(1).await.generation, 2);
    cluster.end().await;
}
