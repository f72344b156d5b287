//! Lines that a target acknowledged and may still lose: they stay in the lane until they have settled, go out again when the
//! target was started anew, and are reported and counted once.
#![allow(clippy::unwrap_used, missing_docs)]

use graylogic_durable::{
    Disk, DurableBy, LaneOptions, Level, MemoryDisk, Outbox, Queue, QueueOptions, SimDisk, Spool, Taken,
    Want, WhenFull, Work,
};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RUN: u64 = 1_795_960_097;
const SOON: Duration = Duration::from_secs(20);

fn queue(disk: Arc<dyn Disk>, options: QueueOptions, lane: LaneOptions) -> Queue {
    let open = move || Spool::open(disk.clone(), Path::new("/s"))?.lane("energy", lane.clone());
    Queue::start("test", options, open, |_| {}).unwrap()
}

fn plain(disk: &SimDisk) -> Queue {
    queue(Arc::new(disk.clone()), QueueOptions::default(), LaneOptions::default().keep_free(0))
}

fn line(i: u64) -> Vec<u8> {
    format!("power,device=d{} value={}.5 {i}\n", i % 50, i % 1000).into_bytes()
}

fn accept(queue: &Queue, numbers: std::ops::Range<u64>) {
    for i in numbers {
        let put = |out: &mut Vec<u8>| {
            out.extend_from_slice(&line(i));
            Ok::<(), Infallible>(())
        };
        queue.accept(put).unwrap();
    }
}

fn want() -> Want {
    Want { lines_max: 100, bytes_max: 1 << 20, interval: Duration::from_millis(1) }
}

fn take(queue: &Queue, outbox: &mut Outbox) -> Taken {
    match queue.next(outbox, &want()) {
        Work::Batch(taken) => taken,
        other => panic!("{other:?}"),
    }
}

/// Acknowledges lines until there have been so many; returns them.
fn acknowledge(queue: &Queue, outbox: &mut Outbox, lines: usize) -> Vec<Vec<u8>> {
    let mut taken_lines = Vec::new();
    while taken_lines.len() < lines {
        let taken = take(queue, outbox);
        taken_lines.extend((0..taken.batch.len()).map(|i| taken.batch.line(i).to_vec()));
        queue.acknowledged(outbox, &taken, &[]).unwrap();
    }
    taken_lines
}

fn lines(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(line).collect()
}

fn check_sum(queue: &Queue) {
    let s = queue.stats();
    let there = s.delivered + s.rejected + s.dropped + s.damaged + s.waiting;
    assert_eq!(s.accepted + s.recovered, there, "{s:?}");
    assert!(s.settling <= s.waiting, "{s:?}");
}

#[test]
fn acknowledged_lines_are_delivered_when_they_have_settled_and_not_before() {
    let disk = SimDisk::new();
    let queue = plain(&disk);
    let mut outbox = Outbox::default();
    accept(&queue, 0..250);
    assert_eq!(acknowledge(&queue, &mut outbox, 250), lines(0..250));
    let stats = queue.stats();
    assert_eq!((stats.delivered, stats.settling, stats.waiting), (0, 250, 250));
    assert!(outbox.is_settling());
    let lane = queue.lane().unwrap();
    assert_eq!(lane.acknowledged(), 1);
    assert_eq!(queue.wait_for(Level::Acknowledged, 250, Instant::now()), 0);
    assert_eq!(queue.wait_for(Level::Delivered, 250, Instant::now()), 250);
    check_sum(&queue);

    queue.settle_until(&mut outbox, Instant::now());
    let stats = queue.stats();
    assert_eq!((stats.delivered, stats.settling, stats.waiting), (250, 0, 0));
    assert_eq!((lane.acknowledged(), queue.wait(Level::Delivered, Instant::now())), (251, 0));
    check_sum(&queue);
    queue.abandon();
    queue.sender_ended();
}

#[test]
fn a_target_that_started_anew_gets_its_lines_again_and_refused_ones_are_reported_once() {
    let disk = SimDisk::new();
    let queue = plain(&disk);
    let mut outbox = Outbox::default();
    accept(&queue, 0..150);
    let bad = |i: usize| (i, "no such field".to_owned());
    for round in 0..3 {
        let mut sent = 0;
        while sent < 150 {
            let taken = take(&queue, &mut outbox);
            let mut refused: Vec<_> =
                (0..taken.batch.len()).filter(|i| (sent + i) % 10 == 3).map(bad).collect();
            let all = refused.clone();
            outbox.forget_reported(&taken, &mut refused);
            assert_eq!(refused.len(), if round == 0 { all.len() } else { 0 });
            queue.acknowledged(&mut outbox, &taken, &all).unwrap();
            sent += taken.batch.len();
        }
        check_sum(&queue);
        if round < 2 {
            assert_eq!(queue.send_again(&mut outbox), 150);
            assert_eq!(queue.stats().settling, 0);
        }
    }
    queue.settle_until(&mut outbox, Instant::now());
    let stats = queue.stats();
    assert_eq!((stats.delivered, stats.rejected, stats.waiting), (135, 15, 0));
    let lane = queue.lane().unwrap();
    assert_eq!((lane.dead().unwrap().len(), lane.stats().dead), (15, 15));
    check_sum(&queue);
    queue.abandon();
    queue.sender_ended();
}

#[test]
fn a_sender_that_settles_directly_does_not_overtake_what_was_acknowledged() {
    let disk = SimDisk::new();
    let queue = plain(&disk);
    let mut outbox = Outbox::default();
    accept(&queue, 0..100);
    acknowledge(&queue, &mut outbox, 100);
    accept(&queue, 100..150);
    // The target became another one, which keeps what it acknowledges.
    let mut left = 50;
    while left > 0 {
        let taken = take(&queue, &mut outbox);
        left -= taken.batch.len();
        queue.settle(&mut outbox, &taken, &[]).unwrap();
    }
    assert_eq!((queue.stats().delivered, queue.lane().unwrap().acknowledged()), (0, 1));
    assert_eq!(queue.send_again(&mut outbox), 150);
    let mut again = Vec::new();
    while again.len() < 150 {
        let taken = take(&queue, &mut outbox);
        again.extend((0..taken.batch.len()).map(|i| taken.batch.line(i).to_vec()));
        queue.settle(&mut outbox, &taken, &[]).unwrap();
    }
    assert_eq!(again, lines(0..150));
    assert_eq!((queue.stats().delivered, queue.stats().waiting), (150, 0));
    check_sum(&queue);
    queue.abandon();
    queue.sender_ended();
}

/// A client that acknowledged lines and was closed, and the next one of the spool.
fn next_run(by_before: Option<u64>, by_now: u64, expected: std::ops::Range<u64>) {
    let disk = SimDisk::new();
    let queue = plain(&disk);
    let mut outbox = Outbox::default();
    outbox.seen(by_before);
    accept(&queue, 0..100);
    acknowledge(&queue, &mut outbox, 100);
    // The cursor says nothing of lines that a power cut may take.
    assert_eq!(queue.wait(Level::Durable, Instant::now() + SOON), 0);
    queue.settle_until(&mut outbox, Instant::now() - Duration::from_secs(600));
    queue.close();
    assert!(matches!(queue.next(&mut outbox, &want()), Work::End));
    queue.sender_ended();
    assert!(queue.wait_ended(Instant::now() + SOON));
    drop(queue);

    let queue = plain(&disk);
    let mut outbox = Outbox::default();
    assert_eq!(queue.stats().recovered, 100);
    accept(&queue, 100..120);
    assert_eq!(queue.go_on(&mut outbox, by_now), expected.start);
    let count = (expected.end - expected.start) as usize;
    assert_eq!(acknowledge(&queue, &mut outbox, count), lines(expected));
    check_sum(&queue);
    queue.settle_until(&mut outbox, Instant::now());
    assert_eq!((queue.stats().delivered, queue.stats().waiting), (120, 0));
    check_sum(&queue);
    queue.abandon();
    queue.sender_ended();
}

#[test]
fn the_next_run_sends_again_what_another_run_of_the_target_acknowledged_and_nothing_else() {
    next_run(Some(RUN), RUN, 100..120);
    next_run(Some(RUN), RUN + 1, 0..120);
    next_run(None, RUN, 0..120);
    next_run(None, 0, 0..120);
}

#[test]
fn a_full_lane_in_memory_lets_go_of_what_was_acknowledged_and_takes_new_lines() {
    let options = QueueOptions::default()
        .durable_by(DurableBy::Target)
        .memory_bytes_max(1 << 20)
        .retry(Duration::from_millis(5))
        .keep_dead(false);
    let lane = LaneOptions::default()
        .segment_bytes(64 << 10)
        .compression(false)
        .bytes_max(1 << 20)
        .keep_free(0)
        .when_full(WhenFull::DropNewest);
    let queue = queue(Arc::new(MemoryDisk::new(4 << 20)), options, lane);
    let mut outbox = Outbox::default();
    let (mut sent, mut accepted) = (0, 0);
    // Three times what the lane holds; none of it ever settles by its time.
    let lines_max = (3 << 20) / line(1).len() as u64;
    while accepted < lines_max {
        accept(&queue, accepted..accepted + 500);
        accepted += 500;
        while sent < accepted {
            sent += acknowledge(&queue, &mut outbox, 1).len() as u64;
        }
    }
    let stats = queue.stats();
    assert_eq!((stats.dropped, stats.refused_full), (0, 0));
    assert!(stats.settling > 0 && stats.delivered > 0, "{stats:?}");
    check_sum(&queue);
    // What has not settled at the end was acknowledged, and nobody can send it again.
    queue.stop_sending();
    assert!(matches!(queue.next(&mut outbox, &want()), Work::End));
    assert_eq!((queue.stats().delivered, queue.stats().waiting), (accepted, 0));
    queue.sender_ended();
}

#[test]
fn lines_that_went_first_settle_and_go_again_in_their_place() {
    let disk = SimDisk::new();
    let options = QueueOptions::default().backlog_age(Duration::ZERO);
    let queue = queue(Arc::new(disk), options, LaneOptions::default().keep_free(0));
    let mut outbox = Outbox::default();
    accept(&queue, 0..1_000);
    assert_eq!(queue.wait(Level::Spooled, Instant::now() + SOON), 0);
    acknowledge(&queue, &mut outbox, 100);
    queue.live_first(&mut outbox, &want());
    accept(&queue, 1_000..1_100);
    assert_eq!(queue.wait(Level::Spooled, Instant::now() + SOON), 0);
    let all = acknowledge(&queue, &mut outbox, 1_000);
    assert_eq!(all.len(), 1_000);
    // Settled: nothing yet. The two places meet only when the backlog has settled.
    assert_eq!((queue.stats().delivered, queue.lane().unwrap().acknowledged()), (0, 1));
    check_sum(&queue);
    assert_eq!(queue.send_again(&mut outbox), 1_100);
    let mut again = acknowledge(&queue, &mut outbox, 1_100);
    again.sort();
    let mut expected = lines(0..1_100);
    expected.sort();
    assert_eq!(again, expected);
    queue.settle_until(&mut outbox, Instant::now());
    assert_eq!((queue.stats().delivered, queue.stats().waiting), (1_100, 0));
    assert_eq!(queue.lane().unwrap().acknowledged(), 1_101);
    check_sum(&queue);
    queue.abandon();
    queue.sender_ended();
}

#[test]
fn a_look_comes_when_it_is_due_though_no_line_does() {
    let queue = plain(&SimDisk::new());
    let mut outbox = Outbox::default();
    outbox.look_in(Duration::from_millis(5));
    outbox.look_in(Duration::from_secs(3_600));
    assert!(matches!(queue.next(&mut outbox, &want()), Work::Look));
    // Once.
    accept(&queue, 0..1);
    assert_eq!(take(&queue, &mut outbox).batch.len(), 1);
    queue.abandon();
    queue.sender_ended();
}
