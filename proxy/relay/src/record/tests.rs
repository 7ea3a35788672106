//! What the record layer promises, with rustls for an oracle.

mod exchange;
mod limits;
mod oracle;
mod refusals;

#[path = "../../tests/peers/mod.rs"]
mod peers;

use rustls::CipherSuite;

use super::cipher::Algorithm;
use super::handshake::Assembler;
use super::protection::{Protection, Version};
use super::{Opened, Patience, Receiving, RecordError, Records, Schedule};
use crate::memory::{Pool, Queue};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 8).unwrap() % bound
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }

    /// Cuts `bytes` in pieces of at most `longest`.
    fn pieces<'a>(&mut self, mut bytes: &'a [u8], longest: usize) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at((1 + self.below(longest)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

/// A server and a client of ours that have shaken hands; the server's tickets have arrived.
fn pair(suite: CipherSuite) -> (Records, Records) {
    let (server, client) = peers::both(suite);
    let mut tickets = client.leftover;
    let server = Records::server(server.secrets, server.connection).unwrap();
    let mut client = Records::client(client.secrets, client.connection).unwrap();
    let (data, end) = open_all(&mut client, &mut tickets);
    assert_eq!((data, end), (Vec::new(), Ok(())));
    (server, client)
}

/// A server that opens what the second half seals, under a fixed key: nothing was negotiated.
fn fixed(version: Version, algorithm: usize) -> (Records, Protection) {
    let algorithm = Algorithm::ALL[algorithm];
    let protection = || Protection::fixed(version, algorithm);
    let records = Records {
        schedule: Schedule::None,
        version,
        rx: protection(),
        tx: protection(),
        limit: 1 << 24,
        assembler: Assembler::server(version),
        patience: Patience::default(),
        receiving: Receiving::Open,
        has_ended: false,
        owes_key_update: false,
        owes_no_renegotiation: false,
    };
    (records, protection())
}

/// Opens what can be opened of `wire` and takes it away; the application's data, and how it ended.
fn open_all(records: &mut Records, wire: &mut Vec<u8>) -> (Vec<u8>, Result<(), RecordError>) {
    let mut data = Vec::new();
    loop {
        match records.open(wire) {
            Ok(Opened::Incomplete { needed }) => {
                assert!(needed > wire.len());
                return (data, Ok(()));
            }
            Ok(Opened::Data { payload, consumed }) => {
                assert!(!payload.is_empty() && payload.end <= consumed);
                data.extend_from_slice(&wire[payload]);
                wire.drain(..consumed);
            }
            Ok(Opened::Quiet { consumed } | Opened::CloseNotify { consumed }) => {
                assert!(consumed > 0 || wire.is_empty());
                wire.drain(..consumed);
                if records.is_closed() {
                    return (data, Ok(()));
                }
            }
            Err(error) => return (data, Err(error)),
        }
    }
}

/// The wire bytes of `data`, sealed in writers of at most 64 KiB.
fn seal(records: &mut Records, data: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut wire = Vec::new();
    for piece in data.chunks(1 << 16) {
        wire.extend(taken(|queue, pool| {
            let mut writer = records.writer(queue, pool)?;
            writer.push(piece)?;
            writer.finish()
        })?);
    }
    Ok(wire)
}

/// What `write` puts in an empty queue.
fn taken(
    write: impl FnOnce(&mut Queue, &mut Pool) -> Result<(), RecordError>,
) -> Result<Vec<u8>, RecordError> {
    let (mut queue, mut pool) = (Queue::default(), Pool::new());
    write(&mut queue, &mut pool)?;
    Ok(queue.filled().to_vec())
}
