//! The client of management processors against the virtual one.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use spinnaker_host::{Bmp, Channel, HostError, Link, Options};
use spinnaker_sim::face;

/// A management processor that answers at once.
struct Desk {
    bmp: face::Bmp,
    replies: VecDeque<Vec<u8>>,
    now: Duration,
    switched: Vec<Vec<Option<bool>>>,
    answers: bool,
}

impl Link for Desk {
    fn board(&self) -> String {
        "10.2.225.0".to_string()
    }

    fn now(&self) -> Duration {
        self.now
    }

    async fn send(&mut self, _: Channel, datagram: &[u8]) -> io::Result<()> {
        if self.answers {
            let answer = self.bmp.answer(datagram);
            self.replies.extend(answer.reply);
            self.switched.extend(answer.power);
        }
        Ok(())
    }

    async fn receive(&mut self, _: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        let Some(reply) = self.replies.pop_front() else {
            self.now = deadline;
            return Ok(None);
        };
        buffer[..reply.len()].copy_from_slice(&reply);
        Ok(Some(reply.len()))
    }
}

fn bmp(answers: bool) -> Bmp<Desk> {
    let (replies, switched) = (VecDeque::new(), Vec::new());
    let desk = Desk { bmp: face::Bmp::new(3), replies, now: Duration::ZERO, switched, answers };
    Bmp::over(desk, Options::default())
}

#[tokio::test]
async fn boards_are_switched_asked_and_cut_off() {
    let mut bmp = bmp(true);
    let kernel = bmp.version(2).await.expect("answers");
    assert_eq!((kernel.name.as_str(), kernel.version), ("BC&MP", (2, 1, 2)));
    assert_eq!(bmp.status(0).await.expect("answers").rails_mv()[0], 1199);
    bmp.power(false, &[0, 2]).await.expect("switches");
    assert_eq!(bmp.status(2).await.expect("answers").rails_mv()[0], 0);
    bmp.power(true, &[0, 1, 2]).await.expect("switches");
    bmp.reset(&[1]).await.expect("resets");
    bmp.leds(1, &[0]).await.expect("switches");
    let switched = &bmp.link().switched;
    let expected = [vec![Some(false), None, Some(false)], vec![Some(true); 3], vec![None, Some(true), None]];
    assert_eq!(switched[..], expected);
    // The register that stops the links in the south.
    bmp.set_fpga_registers(1, 0, 0x1_005C, &[1, 0x1234]).await.expect("writes");
    assert_eq!(bmp.fpga_registers(1, 0, 0x1_005C, 2).await.expect("reads"), [1, 0x1234]);
    assert_eq!(bmp.fpga_registers(0, 0, 0x1_005C, 2).await.expect("reads"), [0, 0], "of another board");
}

#[tokio::test]
async fn what_no_frame_has_is_told() {
    let mut bmp = bmp(true);
    for error in [
        bmp.power(true, &[24]).await.expect_err("no such board"),
        bmp.fpga_registers(0, 3, 0, 1).await.map(drop).expect_err("no such FPGA"),
        bmp.fpga_registers(0, 0, 2, 1).await.map(drop).expect_err("no whole word"),
        bmp.set_fpga_registers(0, 0, 0, &[0; 65]).await.expect_err("too many"),
    ] {
        assert!(matches!(error, HostError::Argument(_)), "{error}");
    }
    let error = bmp.version(3).await.expect_err("the frame has three");
    assert!(matches!(error, HostError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_processor_that_is_gone_is_told_by_address() {
    let mut bmp = bmp(false);
    let error = bmp.version(0).await.expect_err("nobody is there");
    assert!(error.to_string().starts_with("10.2.225.0 does not answer"), "{error}");
    assert!(bmp.link().now <= Duration::from_secs(5));
}
