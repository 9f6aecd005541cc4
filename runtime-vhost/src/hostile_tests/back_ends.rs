//! Back ends that stop keeping to the protocol, at any point of it.

use std::io::Read;

use vhost::vhost_user::message::FrontendReq;

use super::*;

/// Of a message's flags: this is version 1, this is an answer, an answer is wanted.
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

/// What a back end does once it has answered as many requests as it was told to.
#[derive(Debug, Clone, Copy)]
enum Then {
    HangUp,
    SayNothing,
    AnswerSomethingElse,
    AnswerHalf,
    AnswerTooMuch,
}

/// Answers so many requests as a back end with all features would, then does something else for as long as the front
/// end stays. Returns how many it has answered.
fn serve(stream: &mut UnixStream, most: usize, then: Then) -> usize {
    let mut answered = 0;
    let mut header = [0; 12];
    while stream.read_exact(&mut header).is_ok() {
        let [request, flags, bytes] = [0, 4, 8]
            .map(|at| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        let mut body = vec![0; bytes as usize];
        if stream.read_exact(&mut body).is_err() {
            break;
        }
        let value = match request {
            _ if request == FrontendReq::GET_FEATURES as u32 => u64::MAX,
            _ if request == FrontendReq::GET_PROTOCOL_FEATURES as u32 => (VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
                .bits(),
            _ if request == FrontendReq::GET_MAX_MEM_SLOTS as u32 => u64::MAX,
            _ if flags & NEED_REPLY != 0 => 0,
            _ => continue,
        };
        let answer = |request: u32, bytes: u32| {
            let words = [request, VERSION | REPLY, bytes].map(u32::to_ne_bytes);
            [words.as_flattened(), &value.to_ne_bytes()].concat()
        };
        let good = answer(request, 8);
        let message = match (answered < most, then) {
            (true, _) => &good[..],
            (false, Then::HangUp) => break,
            (false, Then::SayNothing) => continue,
            (false, Then::AnswerSomethingElse) => &answer(request + 1, 8),
            (false, Then::AnswerHalf) => &good[..15],
            (false, Then::AnswerTooMuch) => &answer(request, u32::MAX),
        };
        if stream.write_all(message).is_err() {
            break;
        }
        answered += 1;
    }
    answered
}

/// A front end that meets such a back end: whether its link came up, and how many requests were answered.
fn front_against(most: usize, then: Then) -> (Result<(), SetupError>, usize) {
    let patience = Duration::from_millis(100);
    let config = VhostConfig {
        server: true,
        wait_for_peer: match then {
            Then::SayNothing | Then::AnswerHalf => patience,
            Then::HangUp | Then::AnswerSomethingElse | Then::AnswerTooMuch => PATIENCE,
        },
        ..config(VhostRole::Front, RingKind::Packed)
    };
    let back = thread::spawn({
        let config = config.clone();
        move || serve(&mut connect(&config), most, then)
    });
    let arena = Arena::with_region(Region::map_shared(8 << 20).unwrap()).unwrap();
    let opened = Vhost::open(&config, &arena).map(drop);
    (opened, back.join().unwrap())
}

#[test]
fn a_back_end_that_stops_anywhere_in_the_protocol_is_an_error_and_holds_up_nobody() {
    let (opened, all) = front_against(usize::MAX, Then::HangUp);
    opened.unwrap();
    // The last ones are asked for as the link ends.
    let before_it_is_up = all - 2;
    let ways =
        [Then::HangUp, Then::SayNothing, Then::AnswerSomethingElse, Then::AnswerHalf, Then::AnswerTooMuch];
    let cases = ways.into_iter().flat_map(|then| (0..before_it_is_up).map(move |most| (then, most)));
    // Who leaves before it has said anything is taken for somebody else.
    let cases = cases.filter(|(then, most)| *most > 0 || !matches!(then, Then::HangUp));
    thread::scope(|scope| {
        for (then, most) in cases {
            scope.spawn(move || {
                let begun = WallInstant::now();
                let (opened, _) = front_against(most, then);
                assert!(opened.is_err(), "{then:?} after {most} answers of {all}");
                assert!(begun.elapsed() < PATIENCE, "{then:?} after {most} answers");
            });
        }
    });
}
