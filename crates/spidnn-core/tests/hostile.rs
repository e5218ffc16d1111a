//! Command lists that nobody wrote: whatever the words are, a core ends ready or with an error that has a name, and neither
//! leaves its memories nor panics. (The core of these tests checks every transfer and every kernel.)

mod single;

use proptest::prelude::*;
use single::{IMAGE, config, run};
use spidnn_core::Failure;
use spidnn_core::command::{Command, Dma, EXCHANGE_SCRATCH_BYTES, Exchange, Item, Loop, Patch, Step, When, loops, reg};
use spidnn_core::program::{CONFIG_WORDS, CoreImage, HEADER_WORDS, RunBlock};
use spidnn_kernels::call::{Fill, Gemm, Map2};

/// Commands that a run may execute here.
const COMMANDS_MAX: u64 = 3_000;

/// An image with every kind of command.
fn sound_image() -> Vec<u32> {
    let step = |command| Item::Do(Step { command, when: When::Always, patches: vec![] });
    let dma = Dma {
        out: 0,
        sdram: IMAGE + 0x10_0000,
        dtcm: 0,
        row_bytes: 64,
        first: -1,
        rows: 4,
        limit: 9,
        sdram_stride: 64,
        dtcm_stride: 64,
        tag: 1,
    };
    let exchange = Exchange {
        sdram: IMAGE + 0x20_0000,
        words: 300,
        scratch: 0x4000,
        scratch_bytes: EXCHANGE_SCRATCH_BYTES,
        spacing_cycles: 9,
    };
    let patch = Patch { word: 1, register: reg::loop_sample(0), scale: 64 };
    let body = vec![
        Item::Do(Step { command: Command::Dma(dma), when: When::Next, patches: vec![patch] }),
        step(Command::Wait { tag: 1 }),
        Item::Loop(
            Loop { depth: 1, start: 0, step: 1, total: 3, total_divisor: 1, divisor: 2, end: Loop::NO_END },
            vec![],
            vec![step(Command::Kernel(
                Gemm {
                    b: 256,
                    c: 512,
                    m: 2,
                    k: 2,
                    n: 2,
                    a_stride: 2,
                    b_stride: 2,
                    c_stride: 2,
                    a_exps: 1024,
                    b_exps: 1032,
                    ..Gemm::default()
                }
                .into(),
            ))],
        ),
        step(Command::Kernel(Map2 { op: 0, a: 0, b: 64, out: 128, count: 16 }.into())),
    ];
    let l = Loop { depth: 0, start: 0, step: 1, total: 0, total_divisor: 1, divisor: 3, end: Loop::NO_END };
    let total = Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: 3 };
    let segment = vec![
        step(Command::Kernel(Fill { dst: 0, count: 100, value_bits: 0 }.into())),
        Item::Loop(l, vec![total], body),
        step(Command::Barrier),
        step(Command::ReduceUp(exchange)),
        step(Command::BroadcastDown(exchange)),
    ];
    let programs = vec![vec![segment.clone(), segment.clone()], vec![segment], vec![]];
    CoreImage { config: config(), programs }.encode().expect("can be encoded")
}

/// Runs words as an image; the outcome is checked by what runs them.
fn endure(words: &[u32]) {
    let block = RunBlock { samples: 4, ..RunBlock::default() };
    let end = run(words, &block, 2, COMMANDS_MAX);
    if let Some((code, detail)) = end.failed {
        assert!(Failure::from_words(code, detail).is_some(), "error {code} has no name");
    }
    // Reading it on the host is no less safe.
    if let Ok(image) = CoreImage::decode(words) {
        image.disassemble();
    }
}

#[test]
fn the_sound_image_runs() {
    let words = sound_image();
    let end = run(&words, &RunBlock { samples: 4, ..RunBlock::default() }, 2, COMMANDS_MAX);
    assert_eq!(end.failed, None);
    assert!(end.cycles > 0 && end.scalars == [0; 16]);
    assert!(end.deeds.len() > 200, "{}", end.deeds.len());
    let image = CoreImage::decode(&words).expect("an image");
    assert_eq!(image.encode().as_ref(), Ok(&words));
}

#[test]
fn every_word_replaced_by_every_odd_number() {
    let words = sound_image();
    let odd = [
        0,
        1,
        2,
        3,
        5,
        16,
        0xFF,
        0x101,
        0xFFFF,
        0x0100_0000,
        0x6000_0000,
        0x67FF_FFFC,
        0x7FFF_FFFF,
        0x8000_0000,
        u32::MAX,
    ];
    for place in 0..words.len() {
        for value in odd {
            let mut words = words.clone();
            words[place] = value;
            endure(&words);
        }
    }
}

#[test]
fn a_truncated_image_is_refused_on_the_host() {
    let words = sound_image();
    for length in 0..words.len() {
        assert!(CoreImage::decode(&words[..length]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits(flips in prop::collection::vec((any::<prop::sample::Index>(), 0u32..32), 1..6)) {
        let mut words = sound_image();
        for (place, bit) in flips {
            *place.get_mut(&mut words) ^= 1 << bit;
        }
        endure(&words);
    }

    #[test]
    fn random_segments(body in prop::collection::vec(prop_oneof![any::<u32>(), 0u32..64, command_head()], 1..200)) {
        let mut words = sound_image();
        words.truncate(HEADER_WORDS);
        words[4 + CONFIG_WORDS] = HEADER_WORDS as u32;
        words[4 + CONFIG_WORDS + 1] = body.len() as u32;
        words[2] = (HEADER_WORDS + body.len()) as u32;
        words.extend(body);
        words[HEADER_WORDS] = 0;
        endure(&words);
    }

    #[test]
    fn random_words(words in prop::collection::vec(any::<u32>(), 0..100)) {
        endure(&words);
        // The same behind a beginning that is believed.
        let mut image = sound_image();
        image.truncate(4);
        image.extend(words);
        endure(&image);
    }
}

/// The first word of something like a command.
fn command_head() -> impl Strategy<Value = u32> {
    (0u32..64, 0u32..32, 0u32..3, 0u32..5)
        .prop_map(|(code, count, patches, when)| code | count << 8 | patches << 16 | when << 24)
}
