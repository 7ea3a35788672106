//! WebSocket unmasking in memory.

use std::hint::black_box;

use postern_wire::websocket::unmask;

use super::{Figure, cost_ns};

/// Payload lengths: a key press, a network packet, a long frame.
const LENGTHS: [(usize, &str); 3] = [(64, "64 B"), (1400, "1400 B"), (16 * 1024, "16 KiB")];

/// Seconds for 10⁹ bytes.
pub(super) fn run() -> Vec<Figure> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut figures: Vec<Figure> = LENGTHS
        .iter()
        .map(|(length, name)| {
            let mut payload = vec![0x55; *length];
            let seconds = per_byte(*length, || unmask(black_box(&mut payload), key, 0));
            Figure::new(name, seconds)
        })
        .collect();
    let length = LENGTHS[LENGTHS.len() - 1].0;
    let mut payload = vec![0x55; length];
    let seconds = per_byte(length, || narrow(black_box(&mut payload), key));
    figures.push(Figure::new("every processor's vectors, 16 KiB", seconds));
    let (from, mut to) = (vec![0x55_u8; length], vec![0; length]);
    let seconds = per_byte(length, || {
        black_box(&mut to).copy_from_slice(black_box(&from))
    });
    figures.push(Figure::reference("copying 16 KiB", seconds));
    figures
}

/// The same work by the vectors that every processor of the architecture has: what choosing wider ones gains.
#[inline(never)]
fn narrow(payload: &mut [u8], key: [u8; 4]) {
    let wide = u128::from_ne_bytes(std::array::from_fn(|at| key[at % 4]));
    for word in payload.as_chunks_mut::<16>().0 {
        *word = (u128::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
}

/// Nanoseconds a byte are seconds for 10⁹.
fn per_byte(bytes: usize, mut operation: impl FnMut()) -> f64 {
    let ns = cost_ns(|| {
        operation();
        Ok(())
    });
    ns.expect("memory does not fail") / bytes as f64
}
