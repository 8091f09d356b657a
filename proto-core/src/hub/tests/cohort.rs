//! Who is in step is given what it would be given alone, and its numbers are the same. Each subscriber that falls in and out here
//! has a twin that never does.
use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Frame(FrameKind, usize),
    /// Sound comes from a hundred milliseconds before.
    Late,
    Config(u8),
    Sound(bool),
    TakeOver,
    Leave(usize),
    Join(bool),
    FallIn(usize),
    FallOut(usize),
    /// All take what there is.
    Pull,
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let kind = prop_oneof![1 => Just(FrameKind::Key), 6 => Just(FrameKind::Delta), 6 => Just(FrameKind::Audio), 1 => Just(FrameKind::Data)];
    let op = prop_oneof![
        20 => (kind, 16..900usize).prop_map(|(kind, bytes)| Op::Frame(kind, bytes)),
        1 => Just(Op::Late),
        1 => (0..3u8).prop_map(Op::Config),
        1 => any::<bool>().prop_map(Op::Sound),
        1 => Just(Op::TakeOver),
        1 => (0..4usize).prop_map(Op::Leave),
        1 => any::<bool>().prop_map(Op::Join),
        6 => (0..4usize).prop_map(Op::FallIn),
        2 => (0..4usize).prop_map(Op::FallOut),
        12 => Just(Op::Pull),
        4 => prop_oneof![4 => 1..60u64, 1 => 60..3_000u64].prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 1..300)
}

/// One that is in step at times, the set that it takes, its twin.
type Pair = (SubscriberId, CodecSet, SubscriberId);

struct Steps {
    w: World,
    epoch: u64,
    pairs: Vec<Pair>,
    leads: Vec<(SubscriberId, CodecSet, Vec<SubscriberId>)>,
    /// How often somebody was given what its lead was.
    led: usize,
}

impl Steps {
    fn new() -> Steps {
        let limits = Limits {
            ring_frames: 60,
            ring_bytes: 20_000,
            frame_bytes: 1_000,
            viewer_queue_bytes: 4_000,
            viewer_queue_ms: 1_500,
            viewer_newcomer_ms: 300,
            ..Limits::default()
        };
        let mut w = World::video(&limits);
        w.put(config(TrackId::AUDIO, aac()));
        Steps { w, epoch: 1, pairs: Vec::new(), leads: Vec::new(), led: 0 }
    }

    fn pull(&mut self) {
        let leads = self.leads.clone();
        let led: Vec<_> =
            leads.iter().map(|(lead, _, them)| (them, self.w.take(*lead, usize::MAX))).collect();
        for (one, _, twin) in self.pairs.clone() {
            let alone = self.w.take(twin, usize::MAX);
            let lead = led.iter().find(|(them, _)| them.contains(&one));
            let given = lead.map_or_else(|| self.w.take(one, usize::MAX), |(_, items)| items.clone());
            self.led += usize::from(lead.is_some() && !alone.is_empty());
            assert_eq!(given, alone);
        }
    }

    fn fall_out(&mut self, one: SubscriberId) {
        self.leads.retain_mut(|(_, _, them)| {
            them.retain(|id| *id != one);
            !them.is_empty()
        });
    }

    fn run(&mut self, op: Op) {
        let now = at(self.w.now);
        let ms = self.w.now as i64;
        match op {
            Op::Frame(kind, bytes) => self.w.put(frame(kind, ms, ms, bytes)),
            Op::Late => self.w.put(frame(FrameKind::Audio, ms - 100, ms - 100, 50)),
            Op::Config(version) => self.w.put(config(TrackId::VIDEO, h264(version))),
            Op::Sound(opus) => {
                let params = if opus { CodecParams::Opus { channels: 2 } } else { aac() };
                self.w.put(config(TrackId::AUDIO, params));
            }
            Op::TakeOver => {
                self.epoch += 1;
                self.w.source = SourceId(self.epoch);
                self.w.hub.publish(&key(), epoch(self.epoch), self.w.source, now).unwrap();
                self.w.put(config(TrackId::VIDEO, h264(1)));
                self.w.put(config(TrackId::AUDIO, aac()));
            }
            Op::Join(all) if self.pairs.len() < 4 => {
                let accepts = if all { ALL } else { ALL.without(Codec::Opus) };
                let pair = (self.w.join(accepts), accepts, self.w.join(accepts));
                self.pairs.push(pair);
            }
            Op::Join(_) => {}
            Op::Leave(n) if n < self.pairs.len() => {
                let (one, _, twin) = self.pairs.remove(n);
                let (a, b) = (self.w.hub.unsubscribe(one), self.w.hub.unsubscribe(twin));
                assert!(a.is_some() && a == b, "{a:?} {b:?}");
                self.fall_out(one);
            }
            Op::FallIn(n) => {
                let Some((one, accepts, _)) = self.pairs.get(n).copied() else { return };
                if self.leads.iter().any(|(_, _, them)| them.contains(&one)) {
                    return;
                }
                if !self.leads.iter().any(|(_, of, _)| *of == accepts) {
                    let Some(lead) = self.w.hub.lead_like(one) else { return };
                    self.leads.push((lead, accepts, Vec::new()));
                }
                let (lead, _, them) = self.leads.iter_mut().find(|(_, of, _)| *of == accepts).unwrap();
                if self.w.hub.fall_in(one, *lead) {
                    them.push(one);
                } else if them.is_empty() {
                    self.w.hub.drop_lead(*lead);
                    self.fall_out(one);
                }
            }
            Op::FallOut(n) => {
                let Some((one, ..)) = self.pairs.get(n).copied() else { return };
                self.w.hub.fall_out(one, now);
                self.fall_out(one);
            }
            Op::Leave(_) => {}
            Op::Pull => self.pull(),
            Op::Wait(ms) => {
                self.w.now += ms;
                self.w.hub.tick(at(self.w.now));
            }
        }
        for event in self.w.events() {
            assert!(!matches!(event, HubEvent::Evict(..)), "{event:?}");
        }
        self.w.hub.verify().unwrap();
        for (one, _, twin) in &self.pairs {
            assert_eq!(self.w.hub.subscriber_stats(*one), self.w.hub.subscriber_stats(*twin));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn in_step_or_alone_all_get_and_count_the_same(ops in ops()) {
        let mut steps = Steps::new();
        for op in ops {
            steps.run(op);
        }
        steps.pull();
        steps.w.hub.verify().unwrap();
    }
}

#[test]
fn one_cursor_serves_many_and_each_goes_on_where_it_stands() {
    let mut s = Steps::new();
    let now = |s: &mut Steps, ops: &[Op]| ops.iter().cloned().for_each(|op| s.run(op));
    let frame = Op::Frame(FrameKind::Delta, 500);
    now(&mut s, &[Op::Frame(FrameKind::Key, 500), Op::Join(true), Op::Join(true), Op::Join(false), Op::Pull]);
    // Newcomers, who were given cached pictures alone, do not fall in yet.
    now(&mut s, &[Op::FallIn(0)]);
    assert!(s.leads.is_empty());
    now(&mut s, &[Op::Wait(40), frame.clone(), Op::Pull]);
    now(&mut s, &[Op::FallIn(0), Op::FallIn(1), Op::FallIn(2), Op::Wait(40)]);
    let ready: Vec<HubEvent> = {
        s.w.put(super::frame(FrameKind::Delta, 80, 80, 500));
        s.w.events()
    };
    assert_eq!(s.leads.len(), 2, "those who take other codecs have a lead of their own");
    assert!(s.pairs.iter().all(|(one, ..)| !ready.contains(&HubEvent::Ready(*one))), "{ready:?}");
    now(&mut s, &[Op::Pull]);
    assert_eq!(s.led, 3);
    // One falls out while there is something to take.
    now(&mut s, &[Op::Wait(40), frame.clone(), Op::FallOut(1), Op::Pull, Op::Wait(40), frame, Op::Pull]);
    assert_eq!(s.led, 3 + 2 * 2);
    now(&mut s, &[Op::FallOut(0), Op::FallOut(2)]);
    assert!(s.leads.is_empty());
    assert_eq!(s.w.hub.leads(), 0, "a lead whom nobody follows is gone");
}
