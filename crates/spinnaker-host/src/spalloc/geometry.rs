//! Where a job's boards are: places, sizes and addresses.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spinnaker_wire::ChipAddress;

/// Chips along a side of a SpiNN-5 board.
const BOARD_CHIPS: u16 = 8;
/// Chips along a side of a triad of boards.
const TRIAD_CHIPS: u16 = 12;
/// Chips by which the boards at an edge that does not wrap stand out.
const OVERHANG_CHIPS: u16 = 4;

/// A board by its logical place: column and row of its triad, and number in the triad (0 to 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct BoardPlace {
    /// Column of the triad.
    pub x: u32,
    /// Row of the triad.
    pub y: u32,
    /// Number in the triad.
    pub z: u32,
}

impl From<(u32, u32, u32)> for BoardPlace {
    fn from((x, y, z): (u32, u32, u32)) -> Self {
        Self { x, y, z }
    }
}

impl From<BoardPlace> for (u32, u32, u32) {
    fn from(place: BoardPlace) -> Self {
        (place.x, place.y, place.z)
    }
}

impl fmt::Display for BoardPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.x, self.y, self.z)
    }
}

/// A board by where it is screwed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct PhysicalPlace {
    /// Number of the cabinet.
    pub cabinet: u32,
    /// Frame in the cabinet.
    pub frame: u32,
    /// Board in the frame.
    pub board: u32,
}

impl From<(u32, u32, u32)> for PhysicalPlace {
    fn from((cabinet, frame, board): (u32, u32, u32)) -> Self {
        Self { cabinet, frame, board }
    }
}

impl From<PhysicalPlace> for (u32, u32, u32) {
    fn from(place: PhysicalPlace) -> Self {
        (place.cabinet, place.frame, place.board)
    }
}

/// The way to a board of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardConnection {
    /// Its Ethernet chip, counted from the job's own corner.
    pub chip: ChipAddress,
    /// Name or address of that chip in the server's network.
    pub host: String,
}

/// The machine that a job has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineInfo {
    /// The machine's name at the server.
    pub name: String,
    /// Width of the job's part, in chips.
    pub width_chips: u16,
    /// Height of the job's part, in chips.
    pub height_chips: u16,
    /// Whether its left and right edges are connected.
    pub wraps_x: bool,
    /// Whether its lower and upper edges are connected.
    pub wraps_y: bool,
    /// The boards, in order of their chips. The one to boot through is at chip 0,0.
    pub boards: Vec<BoardConnection>,
    /// The same boards by their places in the whole machine, in the server's order.
    pub places: Vec<BoardPlace>,
}

/// A server's answer about a job's machine, in either protocol. Nothing in it is trusted.
#[derive(Debug, Deserialize)]
pub(super) struct MachineAnswer {
    width: Option<u32>,
    height: Option<u32>,
    /// 1 or 3 boards to a unit of width and height: the newer service counts so, the classic server counts chips and has no depth.
    #[serde(default)]
    depth: Option<u32>,
    connections: Option<Vec<((u32, u32), String)>>,
    #[serde(alias = "machine-name")]
    machine_name: Option<String>,
    #[serde(default)]
    boards: Option<Value>,
}

impl MachineAnswer {
    /// The name, if there is a machine.
    pub(super) fn name(&self) -> Option<&str> {
        self.machine_name.as_deref()
    }

    /// What it says, or what is wrong with it; `None` while the job has no boards. `whole` has the size of the whole machine in triads,
    /// where it is known: what spans it wraps.
    pub(super) fn info(self, whole: Option<(u32, u32)>) -> Result<Option<MachineInfo>, String> {
        let (Some(width), Some(height), Some(connections)) = (self.width, self.height, self.connections) else {
            return Ok(None);
        };
        let side = |size: u32, of_whole: Option<u32>| match self.depth {
            None => Some((size, size != 0 && size.is_multiple_of(u32::from(TRIAD_CHIPS)))),
            Some(1) => Some((u32::from(BOARD_CHIPS), false)),
            Some(_) => {
                let wraps = of_whole == Some(size);
                let overhang = if wraps { 0 } else { u32::from(OVERHANG_CHIPS) };
                Some((size.checked_mul(u32::from(TRIAD_CHIPS))?.checked_add(overhang)?, wraps))
            }
        };
        let sides = side(width, whole.map(|whole| whole.0)).zip(side(height, whole.map(|whole| whole.1)));
        let Some(((width, wraps_x), (height, wraps_y))) =
            sides.filter(|(w, h)| (8..=256).contains(&w.0) && (8..=256).contains(&h.0))
        else {
            return Err(format!("a machine of {width} x {height}"));
        };
        let mut boards = Vec::new();
        for ((x, y), host) in connections {
            let place = u8::try_from(x).ok().zip(u8::try_from(y).ok()).filter(|_| x < width && y < height);
            let Some((x, y)) = place else { return Err(format!("a board at chip {x},{y} of {width} x {height}")) };
            if host.is_empty() || host.len() > 255 || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(format!("a board at chip {x},{y} without an address"));
            }
            boards.push(BoardConnection { chip: ChipAddress::new(x, y), host });
        }
        boards.sort_by_key(|board| board.chip);
        if boards.windows(2).any(|pair| pair[0].chip == pair[1].chip) {
            return Err("two boards at one chip".to_owned());
        }
        if boards.first().map(|board| board.chip) != Some(ChipAddress::new(0, 0)) {
            return Err("no board at chip 0,0".to_owned());
        }
        let places = self.boards.as_ref().map(places).unwrap_or_default();
        Ok(Some(MachineInfo {
            name: self.machine_name.unwrap_or_default(),
            width_chips: width as u16,
            height_chips: height as u16,
            wraps_x,
            wraps_y,
            boards,
            places,
        }))
    }
}

/// The classic server lists triples, the newer service may list objects.
fn places(value: &Value) -> Vec<BoardPlace> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Place {
        Triple(u32, u32, u32),
        Named { x: u32, y: u32, z: u32 },
    }
    let place = |value: &Value| match Place::deserialize(value).ok()? {
        Place::Triple(x, y, z) | Place::Named { x, y, z } => Some(BoardPlace { x, y, z }),
    };
    value.as_array().into_iter().flatten().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str, whole: Option<(u32, u32)>) -> Result<Option<MachineInfo>, String> {
        serde_json::from_str::<MachineAnswer>(text).expect(text).info(whole)
    }

    #[test]
    fn classic_sizes_are_chips() {
        let answer = r#"{"width": 16, "height": 12, "machine_name": "m", "boards": [[0, 0, 0], [0, 0, 1]],
            "connections": [[[8, 4], "b1"], [[0, 0], "b0"]]}"#;
        let info = info(answer, None).expect("valid").expect("allocated");
        assert_eq!((info.width_chips, info.height_chips, info.wraps_x, info.wraps_y), (16, 12, false, true));
        assert_eq!(info.boards[1], BoardConnection { chip: ChipAddress::new(8, 4), host: "b1".to_owned() });
        assert_eq!(info.places[1], BoardPlace { x: 0, y: 0, z: 1 });
    }

    #[test]
    fn sizes_of_the_service_are_triads() {
        let answer = |depth: u32| {
            format!(
                r#"{{"width": 2, "height": 1, "depth": {depth}, "machine-name": "m", "connections": [[[0, 0], "b0"]]}}"#
            )
        };
        let size = |depth, whole| {
            let info = info(&answer(depth), whole).expect("valid").expect("allocated");
            (info.width_chips, info.height_chips, info.wraps_x, info.wraps_y)
        };
        assert_eq!(size(3, None), (28, 16, false, false));
        assert_eq!(size(3, Some((2, 4))), (24, 16, true, false));
        assert_eq!(size(1, Some((2, 1))), (8, 8, false, false));
    }

    #[test]
    fn a_queued_job_has_no_machine() {
        let answer = r#"{"width": null, "height": null, "connections": null, "machine_name": null, "boards": null}"#;
        assert_eq!(info(answer, None), Ok(None));
    }

    #[test]
    fn nonsense_is_named() {
        let check = |text: &str, part: &str| {
            let error = info(text, None).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        };
        check(r#"{"width": 0, "height": 8, "connections": []}"#, "0 x 8");
        check(r#"{"width": 4000000000, "height": 8, "connections": []}"#, "4000000000");
        check(r#"{"width": 4000000000, "height": 8, "depth": 3, "connections": []}"#, "4000000000");
        check(r#"{"width": 8, "height": 8, "connections": []}"#, "no board at chip 0,0");
        check(r#"{"width": 8, "height": 8, "connections": [[[8, 0], "h"]]}"#, "chip 8,0");
        check(r#"{"width": 8, "height": 8, "connections": [[[0, 0], ""]]}"#, "without an address");
        check(r#"{"width": 8, "height": 8, "connections": [[[0, 0], "a"], [[0, 0], "b"]]}"#, "two boards");
    }
}
