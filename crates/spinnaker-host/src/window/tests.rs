use spinnaker_wire::Unit;

use super::*;

const CHIP: ChipAddress = ChipAddress::new(1, 0);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn read(address: u32) -> Command<'static> {
    Command::Read { address, length_bytes: 4, unit: Unit::Word }
}

fn reply_to(request: &[u8], code: ReturnCode, payload: &[u8]) -> Vec<u8> {
    let packet = sdp::Packet::from_udp(request).unwrap();
    let seq = scp::Packet::new_checked(packet.body).unwrap().seq();
    let mut buffer = [0; sdp::UDP_BYTES_MAX];
    let length = scp::emit_udp_reply(&packet.repr().reply(), code, seq, payload, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn sent(window: &mut Window, now: Duration) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(datagram) = window.poll_transmit(now) {
        all.push(datagram.to_vec());
    }
    all
}

#[test]
fn replies_end_requests_in_any_order_and_once() {
    let mut window = Window::new(WindowConfig { requests_max: 8, ..WindowConfig::default() }, 0xFFFF);
    for token in 0..8 {
        assert!(window.has_room());
        window.submit(ms(0), Endpoint::core(CHIP, 0), &read(token as u32 * 4), token).unwrap();
    }
    assert!(!window.has_room());
    let requests = sent(&mut window, ms(0));
    assert_eq!(requests.len(), 8);
    for token in [3, 0, 7, 1, 2, 4, 6, 5] {
        let reply = reply_to(&requests[token], ReturnCode::Ok, &[token as u8]);
        let event = window.on_datagram(ms(1), &reply);
        assert_eq!(event, Some(Event::Reply { token: token as u64, code: ReturnCode::Ok, payload: vec![token as u8] }));
        assert_eq!(window.on_datagram(ms(1), &reply), None, "doubled");
    }
    assert!(window.is_empty());
    assert_eq!(window.deadline(), None);
    assert_eq!(window.counts(), WindowCounts { sent: 8, repeated: 0, answered: 8, dropped: 8 });
}

#[test]
fn strangers_are_counted_and_dropped() {
    let mut window = Window::new(WindowConfig::default(), 7);
    window.submit(ms(0), Endpoint::core(CHIP, 0), &Command::Version, 1).unwrap();
    let request = sent(&mut window, ms(0)).remove(0);
    let mut spoofed = reply_to(&request, ReturnCode::Ok, &[]);
    spoofed[8] = 3;
    let mut other_seq = reply_to(&request, ReturnCode::Ok, &[]);
    other_seq[12] ^= 1;
    let mut other_core = reply_to(&request, ReturnCode::Ok, &[]);
    other_core[5] = 4;
    for datagram in [&spoofed[..], &other_seq, &other_core, &[], &[0; 5], &request[..10]] {
        assert_eq!(window.on_datagram(ms(1), datagram), None);
    }
    assert_eq!(window.counts().dropped, 6);
    assert!(window.on_datagram(ms(2), &reply_to(&request, ReturnCode::Ok, &[])).is_some());
}

#[test]
fn silence_is_repeated_with_longer_waits_and_then_ends() {
    let mut window = Window::new(WindowConfig::default(), 0);
    window.submit(ms(0), Endpoint::core(CHIP, 0), &Command::Info, 9).unwrap();
    let first = sent(&mut window, ms(0));
    let mut times = Vec::new();
    let end = loop {
        let now = window.deadline().unwrap();
        if let Some(event) = window.on_time(now) {
            break (now, event);
        }
        assert_eq!(sent(&mut window, now), first, "the same bytes");
        times.push(now);
    };
    assert_eq!(times, [ms(500), ms(1500), ms(2500), ms(3500)]);
    let destination = Endpoint::core(CHIP, 0);
    let silent = Event::Silent { token: 9, command: CommandCode::Info, destination, tries: 5, waited: ms(4500) };
    assert_eq!(end, (ms(4500), silent));
}

/// Until the request to the chip ends: the time, and what it was. `root_answers`: the board itself does.
fn end_of_a_silent_chip(root_answers: bool) -> (Duration, Event) {
    let mut window = Window::new(WindowConfig::default(), 0);
    window.submit(ms(0), Endpoint::core(CHIP, 0), &read(0), 9).unwrap();
    let mut now = ms(0);
    loop {
        window.probe(now).unwrap();
        for request in sent(&mut window, now) {
            // By its destination: the chip that a frame reached.
            if request[6..8] == ChipAddress::ROOT.0.to_le_bytes() && root_answers {
                let reply = reply_to(&request, ReturnCode::Ok, &[]);
                assert!(matches!(window.on_datagram(now, &reply), Some(Event::Reply { .. })));
            }
        }
        now = window.deadline().unwrap();
        match window.on_time(now) {
            Some(event @ Event::Silent { token: 9, .. }) => return (now, event),
            Some(Event::Silent { .. }) | None => {}
            Some(event) => panic!("{event:?}"),
        }
    }
}

#[test]
fn a_chip_may_be_slow_for_as_long_as_its_board_answers() {
    let (dead, _) = end_of_a_silent_chip(false);
    assert!(dead <= ms(5000), "{dead:?}");
    let (slow, Event::Silent { destination, .. }) = end_of_a_silent_chip(true) else { panic!("an answer") };
    assert_eq!(destination, Endpoint::core(CHIP, 0));
    assert!((ms(20_000)..ms(21_500)).contains(&slow), "{slow:?}");
}

#[test]
fn the_wait_follows_the_replies() {
    let mut window = Window::new(WindowConfig::default(), 0);
    let mut now = ms(0);
    for token in 0..40 {
        window.submit(now, Endpoint::core(CHIP, 0), &Command::Info, token).unwrap();
        let request = sent(&mut window, now).remove(0);
        now += ms(10);
        window.on_datagram(now, &reply_to(&request, ReturnCode::Ok, &[])).unwrap();
    }
    window.submit(now, Endpoint::core(CHIP, 0), &Command::Info, 99).unwrap();
    sent(&mut window, now);
    assert_eq!(window.deadline(), Some(now + ms(20)), "no less than the least");
}

#[test]
fn a_code_that_may_pass_is_tried_again() {
    let mut window = Window::new(WindowConfig::default(), 0);
    window.submit(ms(0), Endpoint::core(CHIP, 0), &read(0), 1).unwrap();
    let request = sent(&mut window, ms(0)).remove(0);
    assert_eq!(window.on_datagram(ms(5), &reply_to(&request, ReturnCode::P2pBusy, &[])), None);
    assert!(sent(&mut window, ms(5)).is_empty());
    assert_eq!(window.deadline(), Some(ms(105)));
    assert_eq!(window.on_time(ms(105)), None);
    assert_eq!(sent(&mut window, ms(105)).len(), 1);
    let event = window.on_datagram(ms(106), &reply_to(&request, ReturnCode::Ok, &[1, 2, 3, 4]));
    assert!(matches!(event, Some(Event::Reply { code: ReturnCode::Ok, .. })));
    // One that does not pass ends the request.
    window.submit(ms(200), Endpoint::core(CHIP, 0), &read(0), 2).unwrap();
    let request = sent(&mut window, ms(200)).remove(0);
    let event = window.on_datagram(ms(201), &reply_to(&request, ReturnCode::NoRoute, &[]));
    assert!(matches!(event, Some(Event::Reply { token: 2, code: ReturnCode::NoRoute, .. })));
    // And one that never passes ends with its code.
    window.submit(ms(300), Endpoint::core(CHIP, 0), &read(0), 3).unwrap();
    let mut now = ms(300);
    let event = loop {
        for request in sent(&mut window, now) {
            assert_eq!(window.on_datagram(now, &reply_to(&request, ReturnCode::P2pBusy, &[])), None);
        }
        now = window.deadline().unwrap();
        if let Some(event) = window.on_time(now) {
            break event;
        }
    };
    assert_eq!(event, Event::Reply { token: 3, code: ReturnCode::P2pBusy, payload: Vec::new() });
}

#[test]
fn starts_are_sent_once() {
    let mut window = Window::new(WindowConfig::default(), 0);
    let start = spinnaker_wire::scp::StartWord::parse(0x1E00_0002);
    window.submit(ms(0), Endpoint::core(CHIP, 0), &Command::ApplicationRun(start), 1).unwrap();
    assert_eq!(sent(&mut window, ms(0)).len(), 1);
    let now = window.deadline().unwrap();
    assert!(matches!(window.on_time(now), Some(Event::Silent { tries: 1, .. })));
}

#[test]
fn what_late_copies_may_spoil_waits_for_them() {
    let mut window = Window::new(WindowConfig::default(), 0);
    let core = Endpoint::core(CHIP, 0);
    let write = |address| Command::Write { address, unit: Unit::Word, data: &[1, 2, 3, 4] };
    window.submit(ms(0), core, &write(0x6000_0000), 1).unwrap();
    sent(&mut window, ms(0));
    // Once sent and once answered: nothing is left on the way.
    window.submit(ms(0), core, &write(0x6000_0100), 2).unwrap();
    let second = sent(&mut window, ms(0)).remove(0);
    assert!(window.on_datagram(ms(1), &reply_to(&second, ReturnCode::Ok, &[])).is_some());
    assert_eq!(window.held_until(ms(1), core, &write(0x6000_0100)), None);
    // Sent twice, answered once.
    let due = window.deadline().unwrap();
    assert_eq!(window.on_time(due), None);
    let again = sent(&mut window, due).remove(0);
    assert!(window.on_datagram(due + ms(1), &reply_to(&again, ReturnCode::Ok, &[])).is_some());
    let until = due + WindowConfig::default().datagram_life;
    let held = |window: &mut Window, now, command: &Command<'_>| window.held_until(now, core, command);
    assert_eq!(held(&mut window, due + ms(2), &write(0x6000_0000)), Some(until));
    assert_eq!(held(&mut window, due + ms(2), &write(0x6000_0004)), None, "other memory");
    assert_eq!(held(&mut window, due + ms(2), &read(0x6000_0000)), None, "changes nothing");
    assert_eq!(held(&mut window, until, &write(0x6000_0000)), None, "too old to come");
    // Dropped while under way, with no reply at all.
    window.submit(until, core, &write(0x6000_0200), 3).unwrap();
    sent(&mut window, until);
    window.abandon();
    assert!(held(&mut window, until + ms(1), &write(0x6000_0200)).is_some());
}
